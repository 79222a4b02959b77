"""Images that end the process that judges them: a fault in a driver, all of the memory taken.

A mark is left before an image is judged and taken away afterwards. One that carries the marks of
``SUSPECT_AFTER`` attempts that nobody ended is judged by a process of its own; an image of a
series, whose history only the store's own process may change, is read through by one first. If that
dies too, that is the answer: the image ends no further process, and what waits behind it goes on.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, TypeVar

import structlog

from daemon import logs
from daemon.config import Settings
from daemon.judging import Context, Judged, judged_context
from detectors.types import Progress
from schemas.errors import MillesimedError

log = structlog.get_logger()
T = TypeVar("T")

SUSPECT_AFTER: Final = 2
"""Attempts that ended with their process: one may be a power cut, or somebody's ``kill -9``."""
GIVE_UP_AFTER: Final = 4
"""Attempts after which an image is not looked at again, though it can be read apart."""
LOOK_SECONDS: Final = 0.25
"""Between two looks at whether the service is to stop."""


class DetectorDied(MillesimedError):
    """Every process that judged this image has died at it."""

    reason = "detector-died"


def judged_warily(
    mark: Path, key: str, context: Context, settings: Settings, progress: Progress
) -> Judged:
    """As ``judged_context``, in a process of its own where those before died at it.

    ``mark``: a file of this acquisition, or of whoever judges one acquisition after the other;
    ``key``: which acquisition.

    Raises:
        DetectorDied: that process died too.
    """
    with _attempt(mark, key) as deaths:
        if deaths < SUSPECT_AFTER:
            return judged_context(context, settings, progress)
        return _apart(partial(judged_context, context, settings), progress, deaths)


def observed_warily(
    mark: Path, key: str, observe: Callable[[], T], read: Callable[[Progress], None], tick: Progress
) -> T:
    """What ``observe`` gives, where the processes before died at it only after ``read`` has come to
    its end in a process of its own.

    Raises:
        DetectorDied: that process died too, or one that came after it.
    """
    with _attempt(mark, key) as deaths:
        if deaths >= GIVE_UP_AFTER:
            raise DetectorDied(
                f"{deaths} processes ended while they judged this image, which can be read; look "
                "at the machine's memory and the service's log, then retry the dead letter."
            )
        if deaths >= SUSPECT_AFTER:
            _apart(read, tick, deaths)
        return observe()


@contextmanager
def _attempt(mark: Path, key: str) -> Iterator[int]:
    """A mark as long as this lasts; gives the attempts before that nobody ended."""
    deaths = _deaths(mark, key)
    with suppress(OSError):  # a full disk is told of by what has to be written
        mark.write_text(json.dumps({"key": key, "begun": deaths + 1}), encoding="utf-8")
    try:
        yield deaths
    finally:
        mark.unlink(missing_ok=True)


def _deaths(mark: Path, key: str) -> int:
    """Attempts at an acquisition that nobody ended."""
    try:
        said = json.loads(mark.read_bytes())
        return int(said["begun"]) if said["key"] == key else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _apart(work: Callable[[Progress], T], progress: Progress, deaths: int) -> T:
    """What some work comes to in a process of its own."""
    log.warning("judged_apart", deaths=deaths)
    start = get_context("spawn")
    here, there = start.Pipe()
    arguments = (there, work, logs.as_json())
    process = start.Process(target=_work, args=arguments, name="apart", daemon=True)
    process.start()
    there.close()
    now = ("detect", 0, 0)
    try:
        while True:
            if here.poll(LOOK_SECONDS):
                kind, said = here.recv()
                if kind == "done":
                    return said  # type: ignore[no-any-return]
                if kind == "failed":
                    raise said
                now = said
            progress(*now)
    except EOFError:
        progress(*now)  # asked to stop meanwhile: then it comes again
        process.join()
        raise DetectorDied(
            f"The process that judged this image ended with {_ending(process.exitcode)}, as "
            f"{deaths} before it; look at the image with gdalinfo and at the machine's memory, "
            "then retry the dead letter."
        ) from None
    finally:
        process.kill()
        process.join()
        here.close()


def _work(answer: Connection, work: Callable[[Progress], object], as_json: bool) -> None:
    """The process: what it comes to, and how far it is, goes to the one that asked."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group; who asked decides
        signal.signal(number, signal.SIG_IGN)
    logs.configure(as_json=as_json)
    try:
        done = work(lambda *now: answer.send(("progress", now)))
    except Exception as error:  # noqa: BLE001 - it is raised where it can be named
        answer.send(("failed", error))
        return
    answer.send(("done", done))


def _ending(code: int | None) -> str:
    """How a process ended."""
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"code {code}"
