"""What is wrong with the disk or the database, in one sentence that says what to do."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

import duckdb

from updater.errors import StoreError

OUT_OF_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, or what this process may write of it, is full."""
NOT_ALLOWED: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

_FULL: Final = ("no space left", "quota exceeded", "file too large")
_CLOSED: Final = ("read-only file system", "permission denied", "operation not permitted")
_OF_THE_DATA: Final = (
    duckdb.IntegrityError,
    duckdb.DataError,
    duckdb.ProgrammingError,
    duckdb.NotSupportedError,
)
"""Errors that the same statement with the same values raises again on any disk."""


class NoRoom(StoreError):
    """The disk is full."""

    reason = "no-room"


def is_of_the_data(error: duckdb.Error) -> bool:
    """True where another try would fail the same way, because of what was to be written."""
    return isinstance(error, _OF_THE_DATA)


def explained(error: Exception) -> StoreError | None:
    """A full disk or a closed folder as what a person can act on; None for any other trouble."""
    text = str(error).lower()
    code = error.errno if isinstance(error, OSError) else None
    if code in OUT_OF_ROOM or any(words in text for words in _FULL):
        return NoRoom("The disk is full; make room and start again, nothing is lost.")
    if code in NOT_ALLOWED or any(words in text for words in _CLOSED):
        return StoreError(
            f"{_place(error)} cannot be written; give this program the right to, or another folder."
        )
    return None


def of_store(name: str, error: duckdb.Error) -> StoreError:
    """Any trouble with an open store, as a sentence."""
    text = " ".join(str(error).split())[:200].rstrip(".")
    return explained(error) or StoreError(
        f"The store {name} failed ({text}); start again, and restore it from a backup if it does "
        "not open."
    )


def _place(error: Exception) -> str:
    name = error.filename2 or error.filename if isinstance(error, OSError) else None
    return Path(str(name)).name if name else "The folder of the file"
