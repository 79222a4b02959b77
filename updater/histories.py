"""The Sentinel-2 histories of a store: files in a folder beside it, named by its table ``series``.

A file is never written twice, and removed only after a commit that names another: whoever holds the
write lock and has read the table finds every file it names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from detectors.errors import DamagedState
from detectors.series_state import load_state

SUFFIX: Final = ".series"

Named = Sequence[tuple[str, str]]
"""Blocks, each with the name of its file."""


def folder_of(db: Path) -> Path:
    """Where the histories of a store lie."""
    return db.with_name(db.stem + SUFFIX)


def give(source: Path, named: Named, target: Path) -> None:
    """Put the named files of one folder into another, durably: as links on the same disk, for no
    file is written twice, else as copies. One that is missing is left to verification."""
    for block, file in named:
        old, new = _place(source, block, file), _place(target, block, file)
        if not old.exists():
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old, new)
        except OSError:  # another disk, or one without links
            shutil.copyfile(old, new)
            with new.open("rb") as stream:
                os.fsync(stream.fileno())


def unreadable(db: Path, named: Named) -> int:
    """How many files are missing, or are no whole history."""
    return sum(not _is_whole(_place(folder_of(db), block, file)) for block, file in named)


def _is_whole(path: Path) -> bool:
    try:
        load_state(path)
    except (OSError, DamagedState):
        return False
    return True


def _place(folder: Path, block: str, file: str) -> Path:
    return folder / Path(block).stem / file
