"""Which publications go on on this machine: for each map a file that is locked meanwhile and says
how far it is, so that two never meet, and others can see it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from daemon.config import Settings
from daemon.families import PUBLICATION_STATES
from daemon.publish.token import PublishError
from schemas.errors import MillesimedError

SUFFIX: Final = ".lock"
LOOKS: Final = 5
LOOK_SECONDS: Final = 0.05
"""Between two tries for the lock: whoever looks whether it is held has it for an instant."""
UNDER_WAY, FAILED, INTERRUPTED = PUBLICATION_STATES
Note = Callable[[str], None]
"""Told what is being done."""


@contextmanager
def alone(folder: Path, name: str, **about: object) -> Iterator[Note]:
    """Nobody else on this machine publishes the same map meanwhile; ``about``: what others are to
    know of it.

    Raises:
        PublishError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / f".{name}{SUFFIX}", os.O_RDWR | os.O_CREAT, 0o644)
    said: dict[str, Any] = {"map": name, "since": datetime.now(UTC).isoformat(), **about}

    def note(**more: object) -> None:
        said.update(more)
        body = json.dumps(said).encode()
        with suppress(OSError):  # a full disk is no reason to end
            os.pwrite(handle, body, 0)
            os.ftruncate(handle, len(body))

    try:
        if not _locked(handle):
            raise PublishError(
                f"Another process is publishing {name}; wait for its end, then run this again."
            )
        note(step="begin")
        try:
            yield lambda step: note(step=step) if step != said["step"] else None
        except MillesimedError as error:
            note(error=str(error))
            raise
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    for number in range(LOOKS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS * (number + 1 < LOOKS))
        else:
            return True
    return False


def publications(settings: Settings) -> list[dict[str, Any]]:
    """Publications under way, and those whose last run failed or was killed; newest first."""
    found = []
    for folder in _folders(settings):
        for path in folder.glob(f".*{SUFFIX}"):
            with suppress(OSError):
                found += _read(path)
    return sorted(found, key=lambda row: row["since"] or "", reverse=True)


def _folders(settings: Settings) -> list[Path]:
    """Where deliveries are made; stores are published from their backups too."""
    own = settings.publication.folder if settings.publication is not None else None
    if own is not None:
        return [own]
    places = [path.parent for path in settings.db]
    if settings.backup_folder is not None:
        places.append(settings.backup_folder)
    return [place / "deliveries" for place in dict.fromkeys(places)]


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as stream:
        text = stream.read()
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
    try:
        said = json.loads(text)
    except ValueError:  # ended well, or just begun
        said = {}
    if not said and not held:
        return []
    state = UNDER_WAY if held else FAILED if "error" in said else INTERRUPTED
    name = path.name.removeprefix(".").removesuffix(SUFFIX)
    known = ("millesime", "since", "step", "error")
    return [{"map": name, "state": state} | {key: said.get(key) for key in known}]
