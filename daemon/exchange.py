"""The folder update and detect processes share: files too large for a message.

A file is named after its task and its own content, so that whoever writes the same thing twice
writes the same file, and nobody overwrites another's. It is there whole or not at all, and is
written before the message that names it is sent.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Final, Literal

import shapely
import structlog
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from daemon.files import write_durably
from schemas.errors import MillesimedError, UsageError
from schemas.task import Claim
from updater.crs import WGS84, reproject
from updater.reads import extent
from updater.store import Store

log = structlog.get_logger()

ORPHAN_SECONDS: Final = 2 * 86_400.0
"""A file without a task is swept away after this long: a slow detection of a task that was given
out twice may still write one."""
_SERVED: Final = "served"
"""Folder of the départements that update processes own."""


class ClaimMissing(MillesimedError):
    """A file of the exchange folder is not there, or not the one announced."""

    reason = "claim-missing"


class Exchange:
    """The exchange folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder and see that it can be written.

        Raises:
            UsageError: it cannot.
        """
        probe = self.folder / ".probe"
        try:
            write_durably(probe, b"")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"The exchange folder {self.folder} cannot be written ({error.strerror}); give "
                "this program the right to, or set `exchange` to a folder all roles share."
            ) from None

    def put(
        self, departement: str, task: str, kind: Literal["context", "judgement"], body: bytes
    ) -> Claim:
        """Keep a file of a task, durably; gives what a message says of it."""
        digest = hashlib.sha256(body).hexdigest()
        claim = Claim(file=f"{task}.{digest[:16]}.{kind}.arrow", sha256=digest)
        write_durably(self._path(departement, claim), body)
        return claim

    def get(self, departement: str, claim: Claim) -> bytes:
        """A file as it was announced.

        Raises:
            ClaimMissing: it is not there, or another one.
        """
        try:
            body = self._path(departement, claim).read_bytes()
        except FileNotFoundError:
            raise ClaimMissing(
                f"{claim.file} is not in the exchange folder; set `exchange` to the same folder in "
                "every role."
            ) from None
        if hashlib.sha256(body).hexdigest() != claim.sha256:
            raise ClaimMissing(
                f"{claim.file} is not the file that was announced; look after the disk of the "
                "exchange folder."
            )
        return body

    def mark(self, departement: str, task: str) -> Path:
        """Where a worker leaves its mark while it judges a task."""
        return self.folder / departement / f"{task}.judging"

    def discard(self, departement: str, claim: Claim | None) -> None:
        """A file is not needed."""
        if claim is not None:
            self._path(departement, claim).unlink(missing_ok=True)

    def remove(self, departement: str, task: str) -> None:
        """Nothing of a task is needed any longer."""
        for path in (self.folder / departement).glob(f"{task}.*"):
            path.unlink(missing_ok=True)

    def sweep(self, departement: str, tasks: Set[str]) -> int:
        """Remove old files of tasks that are not out; gives how many."""
        oldest, swept = time.time() - ORPHAN_SECONDS, 0
        for path in self._files(departement):
            task = path.name.lstrip(".").partition(".")[0]
            if task not in tasks and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                swept += 1
        if swept:
            log.info("exchange_swept", departement=departement, files=swept)
        return swept

    def serve(self, store: Store) -> None:
        """Say that a process owns the map of a département, and where it lies (EPSG:4326)."""
        bounds = extent(store)
        if bounds is None:
            return
        ground = reproject(shapely.segmentize(box(*bounds), 10_000.0), store.crs, WGS84)
        card = {"departement": store.territory, "bounds": list(ground.bounds)}
        path = self.folder / _SERVED / f"{store.territory}.json"
        write_durably(path, json.dumps(card).encode())

    def served(self) -> dict[str, BaseGeometry]:
        """Every département some process owns, running or not, and its bounds (EPSG:4326)."""
        found = {}
        folder = self.folder / _SERVED
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            card = json.loads(path.read_text(encoding="utf-8"))
            found[str(card["departement"])] = box(*card["bounds"])
        return found

    def _files(self, departement: str) -> Iterator[Path]:
        folder = self.folder / departement
        if folder.is_dir():
            yield from (path for path in folder.iterdir() if path.is_file())

    def _path(self, departement: str, claim: Claim) -> Path:
        return self.folder / departement / claim.file
