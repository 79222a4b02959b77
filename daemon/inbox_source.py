"""Events as files in a folder."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

import structlog

from daemon.sources import Backlog, Message, SourceError
from schemas.dead_letter import Origin
from schemas.policy import MAX_EVENT_BYTES

log = structlog.get_logger()

IDLE_SECONDS = 0.2
"""Between two looks at an empty inbox: quick enough for a person, cheap enough for a disk."""
AGAIN_SECONDS = 60.0
"""Between two looks at a file that cannot be read: somebody has to mend its rights first."""


class InboxSource:
    """Events as files in a folder, oldest name first.

    A finished file moves to ``done/``, one that became a dead letter to ``failed/``: the
    original bytes stay whatever their size. A file is only moved after its effect is committed;
    a crash between the two makes the event come again, and the store knows it. What cannot be read
    (rights, a pipe, a link) stays where it is and counts as waiting, holds up nothing else, is said
    once and looked at again later.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._waiting: list[Path] = []
        self._again: dict[str, float] = {}
        """When to look again at what could not be read, by name."""

    def _entries(self) -> list[Path]:
        """Everything that may be an event.

        Raises:
            SourceError: the folder is gone or may not be read.
        """
        try:
            found = [
                path
                for path in self.folder.iterdir()
                if not path.name.startswith(".") and path.suffix != ".part" and not path.is_dir()
            ]
        except OSError as error:
            raise SourceError(
                f"The inbox {self.folder} cannot be listed ({error.strerror}); put it back and "
                "give the service the right to it."
            ) from None
        return sorted(found, key=lambda path: path.name)

    def _list(self) -> list[Path]:
        """What is to be read now."""
        found, now = self._entries(), self._clock()
        names = {path.name for path in found}
        self._again = {name: at for name, at in self._again.items() if name in names}
        return [path for path in found if self._again.get(path.name, now) <= now]

    def next(self, timeout: float) -> Message | None:
        """The next file; waits up to ``timeout`` seconds for one to appear."""
        until = time.monotonic() + timeout
        while not self._waiting:
            self._waiting = self._list()
            if self._waiting:
                break
            if time.monotonic() >= until:
                return None
            time.sleep(min(IDLE_SECONDS, timeout))
        path = self._waiting.pop(0)
        try:
            value, size, written = _plain_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._set_aside(path, error)
            return None
        origin = Origin(source="inbox", topic=_text(self.folder.name), path=_text(path.name))
        return Message(value, {}, origin, size, path, datetime.fromtimestamp(written, UTC))

    def _set_aside(self, path: Path, error: OSError) -> None:
        if path.name not in self._again:
            log.warning(
                "inbox_file_unreadable",
                file=_text(path.name),
                error=error.strerror,
                advice="give the service the right to read it, or put a plain file there",
            )
        self._again[path.name] = self._clock() + AGAIN_SECONDS

    def heartbeat(self) -> None:
        """A folder needs none."""

    def done(self, message: Message, *, failed: bool) -> None:
        """Move the file out of the way, beside those of the same name that came before.

        Raises:
            SourceError: the folder cannot be written; the event is known when it comes again.
        """
        if message.path is None:
            return
        folder = self.folder / ("failed" if failed else "done")
        try:
            folder.mkdir(exist_ok=True)
            message.path.rename(_free(folder, message.path))
        except FileNotFoundError:
            log.warning("inbox_file_went_away", file=message.origin.path)
        except OSError as error:
            raise SourceError(
                f"The inbox file {message.origin.path} cannot be moved to {folder.name}/ "
                f"({error.strerror}); give the service the right to write there."
            ) from None

    def drained(self) -> bool:
        """True when no file waits that can be read."""
        return not self._waiting and not self._list()

    def backlog(self) -> Backlog:
        """Every file that lies there; one in hand is only moved once it has its effect."""
        times = []
        for path in self._entries():
            with suppress(FileNotFoundError):  # done in the meantime
                times.append(path.lstat().st_mtime)
        oldest = datetime.fromtimestamp(min(times), UTC) if times else None
        return Backlog({"inbox": len(times)}, oldest)

    def close(self) -> None:
        """Nothing to let go of."""


def _plain_file(path: Path) -> tuple[bytes | None, int, float]:
    """Bytes (None where they are too many), size and time of a file, which must be one: a pipe
    would never end, and a link may lead to what its writer could not read.

    Raises:
        OSError: it is none, or may not be read.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link")
    _check_plain(path.lstat())  # first, for opening a pipe wakes who writes to it
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        state = os.fstat(handle)
        _check_plain(state)  # again, for another may have taken its name
        value = stream.read(MAX_EVENT_BYTES + 1)
    fits = len(value) <= MAX_EVENT_BYTES
    return (value if fits else None), max(state.st_size, len(value)), state.st_mtime


def _check_plain(state: os.stat_result) -> None:
    if not S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file")


def _text(name: str) -> str:
    """A file name as text that can be stored, also where its bytes are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _free(folder: Path, path: Path) -> Path:
    """A name in a folder that no file has: the same one, or one with a number."""
    target, number = folder / path.name, 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem}-{number}{path.suffix}"
    return target
