"""Unpacking deliveries: ``.zip``, ``.7z`` and its volumes, never outside the folder given.

An archive comes from elsewhere: names that climb out, links, encrypted parts and more bytes than
allowed are refused before anything is written.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import py7zr
from py7zr.exceptions import ArchiveError

from daemon.acquire.watcher import AcquireError
from daemon.files import settle

MOST_MEMBERS: Final = 100_000
"""A product of Sentinel-2 has 100, a département of BD ORTHO 2 000."""
VOLUME: Final = re.compile(r"\.(7z|zip)(\.\d{3})?$", re.IGNORECASE)
IMAGES: Final = frozenset({".tif", ".tiff", ".jp2"})
VECTORS: Final = frozenset({".shp", ".dbf", ".shx", ".prj", ".cpg", ".gpkg"})

Wanted = Callable[[str], bool]
"""True for the name of a member that is unpacked."""


DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    ArchiveError,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    LookupError,
)
"""What the readers raise at bytes that make no sense."""


class BadArchive(AcquireError):
    """The archive is damaged, or holds what must not be unpacked."""


def delivered(name: str) -> bool:
    """What of a delivery of IGN is of use: images, and vector files that index and date them."""
    return PurePosixPath(name).suffix.lower() in IMAGES | VECTORS


def unpack(volumes: Sequence[Path], folder: Path, *, wanted: Wanted, most: int) -> Path:
    """The wanted members of an archive, below a folder that is there whole or not at all.

    Args:
        volumes: the archive, or its volumes ``.001``, ``.002`` in order.
        most: bytes it may hold unpacked.

    Raises:
        BadArchive: damaged, too large, or with members that lead elsewhere.
    """
    if folder.is_dir():
        return folder
    staged = folder.with_name(f".{folder.name}.{os.getpid()}-{threading.get_ident()}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    name = volumes[0].name
    try:
        if zipfile.is_zipfile(volumes[0]):
            _unzip(volumes[0], staged, wanted=wanted, most=most)
        else:
            _un7z(volumes, staged, wanted=wanted, most=most)
        if any(path.is_symlink() for path in staged.rglob("*")):
            raise BadArchive(f"{name} holds links; it is not unpacked.")
        settle(staged, folder)
    except DAMAGED as error:
        raise BadArchive(f"{name} is damaged ({type(error).__name__}); fetch it again.") from None
    except OSError as error:
        raise AcquireError(f"{name} cannot be unpacked ({error.strerror}); see to it.") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _unzip(path: Path, staged: Path, *, wanted: Wanted, most: int) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        for member in members:
            if stat.S_ISLNK(member.external_attr >> 16):
                raise BadArchive(f"{path.name} holds links; it is not unpacked.")
            if member.flag_bits & 1:
                raise BadArchive(f"{path.name} is encrypted; deliver it without a password.")
        chosen = [m for m in members if wanted(m.filename)]
        _judge(path.name, [m.filename for m in members], sum(m.file_size for m in chosen), most)
        for member in chosen:
            target = staged / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            # reading stops at the size that was judged, and fails where the CRC is another
            with archive.open(member) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)


def _un7z(volumes: Sequence[Path], staged: Path, *, wanted: Wanted, most: int) -> None:
    name = volumes[0].name
    with _Joined(volumes) as stream, py7zr.SevenZipFile(stream, max_extract_size=most) as archive:
        if archive.needs_password():
            raise BadArchive(f"{name} is encrypted; deliver it without a password.")
        members = [m for m in archive.list() if not m.is_directory]
        if not all(m.is_file for m in members):
            raise BadArchive(f"{name} holds links; it is not unpacked.")
        chosen = [m for m in members if wanted(m.filename)]
        _judge(name, [m.filename for m in members], sum(m.uncompressed for m in chosen), most)
        if chosen:
            archive.extract(staged, targets=[m.filename for m in chosen])


def _judge(name: str, members: Sequence[str], size: int, most: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise BadArchive(f"{name} holds {len(members)} files, more than {MOST_MEMBERS}.")
    if size > most:
        raise BadArchive(
            f"{name} holds {size} bytes, above `max_bytes` ({most}); raise it if that is meant."
        )
    for member in members:
        path = PurePosixPath(member)
        if path.is_absolute() or ".." in path.parts or "\\" in member or ":" in member[:3]:
            raise BadArchive(f"{name} holds the name {member[:80]!r}, which leads elsewhere.")


class _Joined:
    """Volumes read as one file; py7zr wants no more of a file than this."""

    def __init__(self, volumes: Sequence[Path]) -> None:
        import multivolumefile

        first = volumes[0]
        self._stream: Any
        if len(volumes) == 1 and not re.search(r"\.\d{3}$", first.name):
            self._stream = first.open("rb")
        else:
            self._stream = multivolumefile.open(str(first)[: -len(".001")], "rb")

    def __enter__(self) -> Any:  # noqa: ANN401 - whichever of the two
        return self._stream

    def __exit__(self, *_: object) -> None:
        self._stream.close()
