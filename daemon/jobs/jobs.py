"""Exports as jobs: asked for now, written one after the other, fetched later.

A job is a file on disk beside its record, so a restart loses none: what was running is begun again,
what is finished is still there. The same question about the same state of the map is answered with
the file there is.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import perf_counter
from typing import Final
from uuid import uuid4

import structlog

from daemon.config import ExportSettings
from daemon.files import settle
from daemon.jobs.asked import asked_of, key_of
from daemon.jobs.child import Interrupted, write
from daemon.jobs.records import OPEN, Job, JobState, Shelf
from daemon.metrics import Metrics
from schemas.errors import MillesimedError
from schemas.export import ExportRequest
from updater.clock import Clock, utc_now
from updater.errors import ExportFailed, NotFound
from updater.export_plan import plan_of
from updater.store import Store
from updater.trouble import explained

log = structlog.get_logger()

MOST_ATTEMPTS: Final = 3
"""Times a job is begun: one that takes the service with it is not begun for ever."""
SWEEP_SECONDS: Final = 60.0
"""Between two looks for what is too old."""
STOP_SECONDS: Final = 15.0
FULL: Final = "Too many exports are waited for; ask again in a minute."
RETRY_SECONDS: Final = 60


class QueueFull(MillesimedError):
    """As many jobs as may wait are waiting."""

    reason = "queue-full"


class Finished(MillesimedError):
    """A job that has ended cannot be cancelled."""

    reason = "finished"


class Exports:
    """The jobs of a service."""

    def __init__(
        self,
        settings: ExportSettings,
        shelf: Shelf,
        stores: Sequence[Store],
        metrics: Metrics,
        clock: Clock = utc_now,
    ) -> None:
        self._settings, self._shelf, self._stores = settings, shelf, stores
        self._metrics, self._clock = metrics, clock
        self._jobs: dict[str, Job] = {}
        self._cancelled: set[str] = set()
        self._changed = threading.Condition(threading.RLock())
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Take up what was left, and work on what is asked from now on."""
        self._shelf.folder.mkdir(parents=True, exist_ok=True)
        for job in self._shelf.load():
            self._jobs[job.id] = job
            self._take_up(job)
        self.sweep()
        for number in range(self._settings.at_once):
            thread = threading.Thread(target=self._work, name=f"export-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End what is being written; it is begun again at the next start."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(STOP_SECONDS)

    def _take_up(self, job: Job) -> None:
        """A job of an earlier run of the service."""
        if job.state is JobState.DONE and not self._is_whole(job):
            self._shelf.clear(job)
            job.state = JobState.EXPIRED
        elif job.state in OPEN:
            self._shelf.clear(job)
            job.state, job.progress = JobState.QUEUED, 0.0
            if job.attempts >= MOST_ATTEMPTS:
                job.error = f"The service ended {job.attempts} times while it wrote this file."
                job.state, job.ended = JobState.FAILED, self._clock()
        else:
            return
        self._shelf.save(job)

    def _is_whole(self, job: Job) -> bool:
        path = self._shelf.file(job)
        return path.is_file() and path.stat().st_size == job.bytes

    def ask(self, request: ExportRequest) -> Job:
        """A new job, or the finished one that answers the same of the same map.

        Raises:
            QueueFull: too many are waiting.
            UsageError: the store has no such map.
            NotFound: no store or territory of that name.
        """
        store, place = asked_of(self._stores, request)
        key = key_of(store, request)
        with self._changed:
            known = self._finished(key)
            if known is not None:
                self._metrics.exports.labels(request.product.value, "kept").inc()
                return known.model_copy()
            waiting = sum(job.state is JobState.QUEUED for job in self._jobs.values())
            if waiting >= self._settings.queue:
                raise QueueFull(FULL)
        plan_of(store, request, place)  # what it refuses is refused at once
        job = Job(
            id=uuid4().hex,
            request=request,
            departement=store.territory,
            key=key,
            created=self._clock(),
        )
        with self._changed:
            self._shelf.save(job)
            self._jobs[job.id] = job
            self._count()
            self._changed.notify_all()
            return job.model_copy()

    def find(self, name: str) -> Job:
        """A job as it is now.

        Raises:
            NotFound: there is none.
        """
        with self._changed:
            job = self._jobs.get(name)
            if job is None:
                raise NotFound("There is no such export, or it is no longer known; ask for it.")
            return job.model_copy()

    def all(self) -> list[Job]:
        """Every job, newest first."""
        with self._changed:
            return [job.model_copy() for job in reversed(self._jobs.values())]

    def path(self, job: Job) -> str:
        """Where a finished job's file is."""
        return str(self._shelf.file(job))

    def cancel(self, name: str) -> Job:
        """Nobody waits for it any more.

        Raises:
            NotFound: there is none.
            Finished: it has ended.
        """
        with self._changed:
            self.find(name)
            job = self._jobs[name]
            if job.state not in OPEN:
                raise Finished("This export has ended; its file goes by itself when it is old.")
            self._cancelled.add(job.id)
            if job.state is JobState.QUEUED:
                self._end(job, JobState.CANCELLED)
            return job.model_copy(update={"state": JobState.CANCELLED})

    def sweep(self) -> None:
        """Remove files that are too old or too many, oldest first, and forget old records."""
        with self._changed:
            now = self._clock()
            done = [j for j in self._jobs.values() if j.state is JobState.DONE]
            total = sum(j.bytes or 0 for j in done)
            for job in sorted(done, key=lambda j: j.ended or j.created):
                if total <= self._settings.keep_bytes and (
                    job.expires is None or job.expires > now
                ):
                    continue
                total -= job.bytes or 0
                job.state = JobState.EXPIRED
                self._shelf.save(job)
                self._shelf.clear(job)
            forget = now - 2 * timedelta(days=self._settings.keep_days)
            for job in list(self._jobs.values()):
                if job.state not in OPEN | {JobState.DONE} and (job.ended or job.created) < forget:
                    self._shelf.drop(self._jobs.pop(job.id))
            self._count()

    def _finished(self, key: str) -> Job | None:
        for job in self._jobs.values():
            if job.key == key and job.state is JobState.DONE and self._is_whole(job):
                return job
        return None

    def _work(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                waiting = (j for j in self._jobs.values() if j.state is JobState.QUEUED)
                job = next(waiting, None)
                if job is None:
                    self._changed.wait(SWEEP_SECONDS)
                else:
                    job.state, job.started = JobState.RUNNING, self._clock()
                    job.attempts += 1
                    self._count()
            try:
                if job is None:
                    self.sweep()
                else:
                    self._guarded(job)
            except OSError as error:  # of the records' own folder
                log.error("export_record_failed", error=str(error)[:200])
                self._stopping.wait(1)

    def _guarded(self, job: Job) -> None:
        """Write one file; whatever happens, its job has an end."""
        began = perf_counter()
        try:
            self._shelf.save(job)
            self._write(job)
            state = JobState.DONE
        except Interrupted:
            if job.id not in self._cancelled:  # the service stops
                job.attempts -= 1
                job.state, job.progress = JobState.QUEUED, 0.0
                self._shelf.save(job)
                return
            state = JobState.CANCELLED
        except (MillesimedError, OSError) as error:
            state, known = JobState.FAILED, explained(error)
            job.error = str(known or error)
            log.error("export_failed", job=job.id, error=job.error[:200])
        except Exception:
            log.exception("export_failed", job=job.id)
            state, job.error = JobState.FAILED, "The service failed; its log says why."
        finally:
            self._shelf.unstage(job)
        product = job.request.product.value
        self._metrics.export_seconds.labels(product).observe(perf_counter() - began)
        self._end(job, state)

    def _end(self, job: Job, state: JobState) -> None:
        with self._changed:
            now = self._clock()
            job.state, job.ended = state, now
            if state is JobState.DONE:
                job.progress = 1.0
                job.expires = now + timedelta(days=self._settings.keep_days)
                self._metrics.export_written.inc(job.bytes or 0)
            else:
                self._shelf.clear(job)
            self._cancelled.discard(job.id)
            self._metrics.exports.labels(job.request.product.value, state.value).inc()
            self._shelf.save(job)
            self.sweep()

    def _write(self, job: Job) -> None:
        store, place = asked_of(self._stores, job.request)
        job.key = key_of(store, job.request)  # of the map that is written, not of the one asked of
        plan = plan_of(store, job.request, place)
        staged = self._shelf.staging(job)
        with self._changed:
            known = self._finished(job.key)
        if known is not None:
            os.link(self._shelf.file(known), staged / self._shelf.file(known).name)
            made = {"file": known.file, "rows": known.rows, "bytes": known.bytes}
            made["sha256"] = known.sha256
        else:
            made = write(
                store, plan, staged, tell=lambda share: _tell(job, share), check=self._check(job)
            )
        size = int(made["bytes"] or 0)
        if size > self._settings.keep_bytes:
            raise ExportFailed(
                f"The file has {size} bytes, more than exports.keep_bytes allows; take a smaller "
                "territory."
            )
        shutil.rmtree(self._shelf.place(job), ignore_errors=True)
        settle(staged, self._shelf.place(job))
        job.file, job.rows, job.bytes = str(made["file"]), int(made["rows"] or 0), size
        job.sha256 = str(made["sha256"])

    def _check(self, job: Job) -> Callable[[], None]:
        def check() -> None:
            if self._stopping.is_set() or job.id in self._cancelled:
                raise Interrupted("This export is not wanted now.")
            if shutil.disk_usage(self._shelf.folder).free < self._settings.spare_bytes:
                raise ExportFailed(
                    "The disk of the exports has too little room left (exports.spare_bytes); make "
                    "room, then ask again."
                )

        return check

    def _count(self) -> None:
        states = Counter(job.state for job in self._jobs.values())
        for state in JobState:
            self._metrics.export_jobs.labels(state.value).set(states[state])
        kept = [j.bytes or 0 for j in self._jobs.values() if j.state is JobState.DONE]
        self._metrics.export_bytes.set(sum(kept))


def _tell(job: Job, share: float) -> None:
    job.progress = max(job.progress, share)
