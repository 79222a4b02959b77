"""Bringing one file here: resumed where it broke off, checked, then given its name.

Bytes go to ``.NAME.part``; a note beside it says which version they are of (its strong ETag or its
date), so that a resumed download never mixes two. A file under its own name is whole and checked.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx

from daemon.acquire.http import Caller, Passing
from daemon.acquire.watcher import AcquireError, Stopped
from daemon.files import settle

_CHUNK: Final = 1 << 20
SPARE_BYTES: Final = 1 << 30
"""Left free on the disk, for the store and its log."""
MULTIHASH: Final = {"11": "sha1", "12": "sha256", "13": "sha512", "d501": "md5"}
"""Function codes as varints; blake and others are left unchecked."""
_RANGE: Final = re.compile(r"bytes (\d+)-")


class WrongChecksum(AcquireError):
    """The bytes are not those that were promised."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest, hexadecimal, and the algorithm as ``hashlib`` calls it."""

    algorithm: str
    digest: str

    @classmethod
    def md5(cls, text: str | None) -> Self | None:
        """An MD5, None where the text is none."""
        found = (text or "").strip().strip('"').lower()
        return cls("md5", found) if re.fullmatch(r"[0-9a-f]{32}", found) else None

    @classmethod
    def multihash(cls, text: str | None) -> Self | None:
        """A multihash in hexadecimal (STAC file extension), None for other functions."""
        found = (text or "").strip().lower()
        for code, algorithm in MULTIHASH.items():
            size = hashlib.new(algorithm, usedforsecurity=False).digest_size
            digest = found.removeprefix(f"{code}{size:02x}")
            if digest != found and re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", digest):
                return cls(algorithm, digest)
        return None

    def of(self, path: Path) -> bool:
        """True where a file has it."""
        digest = hashlib.new(self.algorithm, usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == self.digest


def md5_list(text: str) -> dict[str, str]:
    """Names and MD5 in a list as ``md5sum`` writes it; a digest alone is under ``""``."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        digest, _, name = line.strip().partition(" ")
        if re.fullmatch(r"[0-9a-fA-F]{32}", digest):
            found[name.strip().lstrip("*").rsplit("/", 1)[-1]] = digest.lower()
    return found


@dataclass(slots=True)
class Downloads:
    """Brings files here. ``most``: largest file, bytes; ``brought``: told of bytes as they come."""

    caller: Caller
    most: int
    brought: Callable[[int], None] = lambda _: None
    stopping: Callable[[], bool] = lambda: False

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        checksum: Checksum | None = None,
        size: int | None = None,
        auth: httpx.Auth | None = None,
        version: str | None = None,
    ) -> Path:
        """A file, downloaded unless it is there. ``version``: the only ETag that will do.

        Raises:
            WrongChecksum: twice the bytes were not those promised.
            Refused, Unreachable, AcquireError, Stopped.
        """
        if target.is_file() and (size is None or target.stat().st_size == size):
            return target
        if size is not None:
            self._fits(size, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(target)
        for again in (True, False):
            self._complete(url, part, checksum=checksum, auth=auth, version=version)
            have = part.size
            if (size is None or have == size) and (checksum is None or checksum.of(part.path)):
                settle(part.path, target)
                part.forget()
                return target
            part.drop()
            if not again:
                raise WrongChecksum(
                    f"{target.name} came twice with other bytes than its checksum or size says "
                    f"({have} bytes); tell the provider."
                )
        raise AssertionError("the second try returns or raises")

    def _complete(
        self,
        url: str,
        part: _Part,
        *,
        checksum: Checksum | None,
        auth: httpx.Auth | None,
        version: str | None,
    ) -> None:
        """Download until the end of the file, in as many pieces as it takes; a piece that brings
        bytes begins the count of tries anew."""
        number = 0
        while True:
            before = part.size
            try:
                self._piece(url, part, trusted=checksum is not None, auth=auth, version=version)
                return
            except Passing as error:
                number = 1 if part.size > before else number + 1
                self.caller.retry(number, error, url)

    def _piece(
        self, url: str, part: _Part, *, trusted: bool, auth: httpx.Auth | None, version: str | None
    ) -> None:
        """As much of the file as one connection brings."""
        headers = {"Accept-Encoding": "identity"}
        if version is not None:
            headers["If-Match"] = version
        have = part.resumable(url, trusted=trusted)
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator := part.validator():
                headers["If-Range"] = validator
        with self.caller.stream(url, headers=headers, auth=auth) as answer:
            if answer.status_code == 416:
                part.drop()
                raise Passing("the file is another now")
            if answer.status_code == 206:
                begins = _RANGE.match(answer.headers.get("content-range", ""))
                if begins is None or int(begins[1]) != have:
                    part.drop()
                    raise Passing("another range than asked for")
            else:
                have = 0
            length = answer.headers.get("content-length", "")
            self._fits(have + (int(length) if length.isdigit() else 0), part.path)
            part.note(url, answer.headers)
            self._write(answer, part, have)

    def _write(self, answer: httpx.Response, part: _Part, have: int) -> None:
        with part.path.open("r+b" if have else "wb") as stream:
            stream.seek(have)
            stream.truncate()
            for chunk in answer.iter_raw():
                have += len(chunk)
                if have > self.most:
                    self._fits(have, part.path)
                stream.write(chunk)
                self.brought(len(chunk))
                if self.stopping():
                    raise Stopped

    def _fits(self, size: int, path: Path) -> None:
        if size > self.most:
            raise AcquireError(
                f"{path.name.lstrip('.').removesuffix('.part')} has {size} bytes or more, above "
                f"`max_bytes` ({self.most}); raise it if that is meant."
            )
        folder = next(p for p in path.parents if p.exists())
        there = path.stat().st_size if path.exists() else 0
        if size - there > shutil.disk_usage(folder).free - SPARE_BYTES:
            raise AcquireError(
                f"{size} bytes do not fit on the disk of {folder}; make room or choose another "
                "`acquire_folder`."
            )


@dataclass(slots=True)
class _Part:
    """A file on its way."""

    target: Path

    @property
    def path(self) -> Path:
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def _note(self) -> Path:
        return self.target.with_name(f".{self.target.name}.note")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self) -> str | None:
        """What says that the file is still the same."""
        found = self._read().get("validator")
        return found if isinstance(found, str) else None

    def resumable(self, url: str, *, trusted: bool) -> int:
        """Bytes that need not come again: of the same address, and of a version the server can
        tell apart or a checksum will (``trusted``)."""
        known = self._read()
        same = known.get("url") == _bare(url) and (trusted or known.get("validator"))
        return self.size if same else 0

    def note(self, url: str, headers: httpx.Headers) -> None:
        """Remember which version the bytes are of."""
        tag = headers.get("etag", "")
        validator = tag if tag.startswith('"') else headers.get("last-modified")
        self._note.write_text(json.dumps({"url": _bare(url), "validator": validator}))

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self._note.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def forget(self) -> None:
        self._note.unlink(missing_ok=True)

    def drop(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.forget()


def _bare(url: str) -> str:
    """An address without its query, which may be a signature made anew each time."""
    return url.partition("?")[0]


def safe_name(text: str) -> str:
    """A file name made of anything: letters, digits, dots and dashes, no longer than 120, with a
    digest where that loses something."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:120]
    if kept and kept == text:
        return kept
    return f"{kept[:100] or 'unnamed'}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
