"""What is kept of export jobs: a folder with one JSON file for each, and beside it a folder with
the file that was asked for."""

from __future__ import annotations

import shutil
from enum import StrEnum, unique
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from daemon.files import write_durably
from schemas.export import ExportRequest

log = structlog.get_logger()

SUFFIX: Final = ".json"
HALF: Final = ".part"
"""What ends so was not finished."""


@unique
class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """It was done; its file is no longer kept."""


OPEN: Final = frozenset({JobState.QUEUED, JobState.RUNNING})
"""States that another follows by itself."""


class Job(BaseModel):
    """One job. ``key``: what was asked of which state of the map; ``attempts``: how often it was
    begun."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    request: ExportRequest
    departement: str
    key: str
    state: JobState = JobState.QUEUED
    progress: float = Field(default=0.0, ge=0, le=1)
    rows: int = 0
    created: AwareDatetime
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    error: str | None = None
    attempts: int = 0


class Shelf:
    """The folder of all jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, job: Job) -> Path:
        """The folder of a job's file."""
        return self.folder / job.id

    def file(self, job: Job) -> Path:
        """A finished job's file, there or not."""
        return self.place(job) / (job.file or "")

    def staging(self, job: Job) -> Path:
        """Where its file is written: another folder each time, for the process a killed service
        left may still be writing into the last."""
        made = self.folder / f".{job.id}.{uuid4().hex}{HALF}"
        made.mkdir(parents=True)
        return made

    def unstage(self, job: Job) -> None:
        """Remove what is written of it."""
        for left in self.folder.glob(f".{job.id}.*{HALF}"):
            shutil.rmtree(left, ignore_errors=True)

    def save(self, job: Job) -> None:
        """Keep what is known of a job, also over a power cut."""
        body = job.model_dump_json(indent=1).encode()
        write_durably(self.folder / f"{job.id}{SUFFIX}", body)

    def clear(self, job: Job) -> None:
        """Remove its file, and what was written of it."""
        shutil.rmtree(self.place(job), ignore_errors=True)
        self.unstage(job)

    def drop(self, job: Job) -> None:
        """Forget it."""
        (self.folder / f"{job.id}{SUFFIX}").unlink(missing_ok=True)
        self.clear(job)

    def read(self) -> list[Job]:
        """Every job, oldest first."""
        found = []
        for path in self.folder.glob(f"[0-9a-f]*{SUFFIX}"):
            try:
                found.append(Job.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as error:
                log.warning("export_record_unreadable", file=path.name, error=str(error)[:200])
        return sorted(found, key=lambda job: job.created)

    def load(self) -> list[Job]:
        """Every job, oldest first; what a kill left half done is removed."""
        if not self.folder.is_dir():
            return []
        found = self.read()
        known = {job.id for job in found}
        for path in self.folder.iterdir():
            half = path.name.startswith(".") and path.name.endswith(HALF)
            if half or (path.is_dir() and path.name not in known and len(path.name) == 32):
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True) if path.is_file() else None
        return found
