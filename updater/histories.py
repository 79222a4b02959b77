"""The Sentinel-2 histories of a store: files in a folder beside it, named by its table ``series``.

A file is never written twice and is removed only after a commit that names another, so whoever
holds the write lock and has read the table may link every file it names.
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


def hold(db: Path, named: Named, folder: Path) -> None:
    """Put files of a store under another folder, which keeps them when the store drops them: as
    links where the disk has such."""
    for block, file in named:
        source, target = _place(folder_of(db), block, file), _place(folder, block, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:  # verification says so of the copy
            continue
        except OSError:
            shutil.copyfile(source, target)


def copy(folder: Path, named: Named, target: Path) -> None:
    """Copy held files to a folder, durably."""
    for block, file in named:
        source, place = _place(folder, block, file), _place(target, block, file)
        if not source.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        with place.open("rb") as stream:
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
