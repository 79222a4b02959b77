"""What is being taken away: exports and publications, as their own records say."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from daemon.config import Settings
from daemon.jobs.records import OPEN, Job, JobState, Shelf
from daemon.publish.underway import publications
from daemon.status import Status

MOST: Final = 20
"""Exports that are listed: those under way, then the newest that failed."""


def with_work(found: Status, settings: Settings) -> Status:
    """The same, with each export that is waited for or failed and why, and each publication."""
    jobs = Shelf(settings.exports_folder()).read()
    waited = [job for job in jobs if job.state in OPEN]
    failed = [job for job in reversed(jobs) if job.state is JobState.FAILED]
    found.exports = [_row(job) for job in (waited + failed)[:MOST]]
    if not found.export_jobs:
        found.export_jobs = dict(Counter(job.state.value for job in jobs))
    found.publications = publications(settings)
    return found


def _row(job: Job) -> dict[str, Any]:
    asked = job.request
    return {
        "id": job.id,
        "state": job.state.value,
        "product": asked.product.value,
        "territory": asked.territory or job.departement,
        "years": "-".join(map(str, asked.years)),
        "format": asked.format.value,
        "asked": job.created,
        "began": job.started,
        "error": job.error,
    }
