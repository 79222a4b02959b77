"""Files that are there complete or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, body: bytes) -> None:
    """A file that is there complete or not at all."""
    write_parts(path, (body,))


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """The same, of parts that need not be in memory together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.part")
    with staged.open("wb") as stream:
        stream.writelines(parts)
    staged.replace(path)


def write_durably(path: Path, body: bytes) -> None:
    """A file that is there complete or not at all, and still there after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    staged.write_bytes(body)
    settle(staged, path)


def settle(staged: Path, path: Path) -> None:
    """Give a finished file or folder its name, durably: bytes first, then the name."""
    for part in [p for p in staged.rglob("*") if p.is_file()] if staged.is_dir() else [staged]:
        _sync(part)
    staged.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
