"""One export written by a process of its own, watched: progress, cancelling, the disk.

This process only asks the store and passes rows on; GDAL, which holds Python's lock for long, never
runs in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import duckdb
import structlog

from schemas.errors import MillesimedError
from updater.errors import ExportFailed
from updater.export_plan import Plan
from updater.export_rows import parts, send
from updater.store import Store
from updater.trouble import of_store

log = structlog.get_logger()

POLL_SECONDS: Final = 0.1
"""Between two looks at a process that writes."""
END_SECONDS: Final = 10.0
"""How long a killed process may take to be gone."""


class Interrupted(MillesimedError):
    """Nobody wants the file any more, or not now."""

    reason = "interrupted"


@dataclass(slots=True)
class Progress:
    """How far a file is."""

    total: int
    done: int = 0
    written: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """0 to 1; 1 only where the file is whole."""
        return min(0.99, self.done / self.total) if self.total else 0.0


def write(
    store: Store,
    plan: Plan,
    folder: Path,
    *,
    tell: Callable[[float], None],
    check: Callable[[], None],
) -> dict[str, Any]:
    """The file of a plan in a folder; gives ``file``, ``rows``, ``bytes`` and ``sha256``.

    ``check`` is called all the while and raises what is to end it.

    Raises:
        MillesimedError: it cannot be written, or was ended.
    """
    progress = Progress(plan.total)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "updater.export_child", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # a signal of the terminal is for the service, which ends it
        )
        try:
            _carry(process, store, plan, progress, tell=tell, check=check)
        finally:
            process.kill()
            process.wait(END_SECONDS)
        if "file" in progress.written:
            return progress.written
        if "error" in progress.written:
            raise ExportFailed(str(progress.written["error"]))
        said.seek(0)
        text = said.read()[-2000:].decode(errors="replace")
        log.error("export_process_ended", code=process.returncode, said=text)
    raise ExportFailed(
        f"The process that wrote the file ended by itself ({process.returncode}); ask again, and "
        "see the service's log."
    )


def _carry(
    process: subprocess.Popen[bytes],
    store: Store,
    plan: Plan,
    progress: Progress,
    *,
    tell: Callable[[float], None],
    check: Callable[[], None],
) -> None:
    """Feed a process until it ends by itself."""
    wrong: list[Exception] = []
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("both are pipes")
    feeder = threading.Thread(
        target=_feed, args=(process.stdin, store, plan, wrong), name="export-rows", daemon=True
    )
    hearer = threading.Thread(
        target=_hear, args=(process.stdout, progress), name="export-progress", daemon=True
    )
    feeder.start()
    hearer.start()
    try:
        while True:
            check()
            if wrong:
                raise wrong[0]
            tell(progress.share)
            try:
                process.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        hearer.join(END_SECONDS)
    finally:
        process.kill()
        feeder.join(END_SECONDS)


def _feed(stream: IO[bytes], store: Store, plan: Plan, wrong: list[Exception]) -> None:
    try:
        with stream:
            send(stream, plan, parts(store, plan))
    except (BrokenPipeError, ValueError):  # it ended first, and says why
        pass
    except duckdb.Error as error:
        wrong.append(of_store(store.path.name, error))
    except Exception as error:  # noqa: BLE001 - whoever waits for the file is told
        wrong.append(error)


def _hear(stream: IO[bytes], progress: Progress) -> None:
    with stream:
        for line in stream:
            said = json.loads(line)
            progress.done = said.pop("done", progress.done)
            progress.written.update(said)
