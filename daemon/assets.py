"""May this file be opened, and is it still the one the event spoke of?

An event is written by somebody else, so its address is taken apart strictly: a plain file of this
machine, inside the configured folders where there are any, and never one of the system's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Final
from urllib.parse import unquote, urlsplit

from schemas.acquisition import Asset
from schemas.errors import MillesimedError
from schemas.policy import MAX_IMAGE_BYTES

SYSTEM_FOLDERS: Final = (Path("/proc"), Path("/sys"), Path("/dev"))
"""Files here are the kernel's answers, not deliveries; some of them pass for regular files."""
DIGESTS: Final = {"1220": "sha256", "1340": "sha512"}
"""Hash function of a multihash by its first two bytes: code and length."""
_ODD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%2[fF]|%[01][0-9A-Fa-f]|%7[fF]")
"""Percent signs that begin no escape, and escapes of a slash or a control character."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class AssetRefused(MillesimedError):
    """The image's address is not one this service opens."""

    reason = "asset-refused"


class AssetMissing(MillesimedError):
    """The image is not where the event says."""

    reason = "asset-missing"


class AssetChanged(MillesimedError):
    """The file is not, or no longer, the one that was announced."""

    reason = "asset-changed"


@dataclass(frozen=True, slots=True)
class Seal:
    """What a file was when it was checked; ``asset``: what the event says of it."""

    path: Path
    asset: Asset
    state: tuple[int, ...]


def asset_path(asset: Asset, roots: Sequence[Path] = ()) -> Path:
    """The local file of an asset, symbolic links resolved.

    ``roots``: folders the file must lie in; without any every folder but the system's will do.

    Raises:
        AssetRefused: any address but a plain path or ``file://`` one, or a file that may not be
            opened.
        AssetMissing: no such file.
    """
    shown = repr(asset.href[:200])
    given = _local_path(asset.href, shown)
    if not given.is_absolute():
        raise AssetRefused(f"The image address {shown} is relative; give it from the root.")
    if ".." in given.parts:
        raise AssetRefused(f"The image address {shown} climbs out of its folder; give it straight.")
    if len(given.parts) > 1 and given.parts[1].startswith("vsi"):
        raise AssetRefused(f"The image address {shown} is a virtual path; give a file.")
    try:
        path = given.resolve()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise AssetMissing(
            f"The image {given.name[:200]} is not there; deliver it, then retry the event."
        ) from None
    except (OSError, RuntimeError):  # name too long, links in a circle, no right to look
        raise AssetRefused(
            f"The image address {shown} cannot be followed; deliver the file elsewhere."
        ) from None
    if any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS):
        raise AssetRefused(f"The image address {shown} is the system's own; give a delivered file.")
    if roots and not any(path.is_relative_to(root.resolve()) for root in roots):
        raise AssetRefused(
            f"The image {path.name} lies outside the folders images may come from; move it there "
            "or add its folder to `asset_roots`."
        )
    if not S_ISREG(mode):
        raise AssetRefused(f"The image address {shown} is no plain file; give the image itself.")
    return path


def _local_path(href: str, shown: str) -> Path:
    """An address as a path, decoded once.

    Raises:
        AssetRefused: another kind of address, or one that is oddly written.
    """
    try:
        parsed = urlsplit(href)
        text = unquote(parsed.path, errors="strict")
    except ValueError:
        raise AssetRefused(f"The image address {shown} cannot be read; write it plainly.") from None
    if parsed.scheme not in {"", "file"} or parsed.netloc not in {"", "localhost"}:
        raise AssetRefused(f"The image address {shown} is no local file; copy it first.")
    odd = parsed.query or parsed.fragment or not text or _CONTROL.search(href + text)
    if odd or _ODD_PERCENT.search(href):
        raise AssetRefused(f"The image address {shown} is oddly written; write it plainly.")
    return Path(text)


def sealed(asset: Asset, path: Path) -> Seal:
    """A file as it is now, which must be what the event says: size and checksum where given.

    Raises:
        AssetRefused: too many bytes, or a checksum of an unknown kind.
        AssetChanged: another size or checksum than announced.
        AssetMissing: it went away.
    """
    state = _state(path)
    size = state[2]
    if size > MAX_IMAGE_BYTES:
        raise AssetRefused(
            f"{path.name} has {size} bytes, more than the {MAX_IMAGE_BYTES} allowed; cut it into "
            "tiles."
        )
    if asset.size is not None and asset.size != size:
        raise AssetChanged(
            f"{path.name} has {size} bytes, the event says {asset.size}; deliver the file that was "
            "announced, or announce this one."
        )
    _check_sum(asset, path)
    return Seal(path, asset, state)


def assert_unchanged(seals: Sequence[Seal]) -> None:
    """The files are still what they were, to be asked after the last byte was read.

    A file that was merely touched passes where the event gives its checksum.

    Raises:
        AssetChanged, AssetMissing: one is not.
    """
    for seal in seals:
        if _state(seal.path) == seal.state:
            continue
        if seal.asset.checksum is None:
            raise AssetChanged(
                f"{seal.path.name} changed while it was read; deliver it whole, then retry the "
                "event."
            )
        _check_sum(seal.asset, seal.path)


def _check_sum(asset: Asset, path: Path) -> None:
    if asset.checksum is None:
        return
    prefix, digest = asset.checksum[:4], asset.checksum[4:]
    name = DIGESTS.get(prefix)
    if name is None or len(digest) != 2 * hashlib.new(name).digest_size:
        raise AssetRefused(
            f"The checksum of {path.name} is no SHA-256 or SHA-512 multihash; give it as 1220… or "
            "leave it out."
        )
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, name).hexdigest()
    except FileNotFoundError:
        raise _gone(path) from None
    except OSError as error:
        raise AssetRefused(
            f"{path.name} cannot be read ({error.strerror}); check its rights and its disk."
        ) from None
    if found != digest:
        raise AssetChanged(
            f"{path.name} is not the file that was announced (its checksum differs); deliver that "
            "one, or announce this one."
        )


def _state(path: Path) -> tuple[int, ...]:
    """Device, inode, size, and when content and entry last changed (nanoseconds)."""
    try:
        found = path.stat()
    except OSError:
        raise _gone(path) from None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _gone(path: Path) -> AssetMissing:
    return AssetMissing(f"The image {path.name} went away; deliver it, then retry the event.")
