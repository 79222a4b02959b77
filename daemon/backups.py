"""Backups the running service makes: on the clock and on request, the newest few kept."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from schemas.errors import MillesimedError
from updater.copies import HELD
from updater.histories import SUFFIX
from updater.recovery import STAGED, Copied, backup, drop
from updater.store import Store

log = structlog.get_logger()

TIME: Final = "%Y%m%dT%H%M%S%fZ"
"""UTC, so that names sort by age."""
STAMP: Final = f"{'[0-9]' * 8}T{'[0-9]' * 12}Z"
"""What such a name is matched by: no other file of the folder is ever dropped."""


@dataclass(slots=True)
class Backups:
    """A folder of backups, of each store the newest ``kept``; one is made at a time."""

    folder: Path
    kept: int
    _making: threading.Lock = field(default_factory=threading.Lock)

    def make(self, store: Store) -> Copied:
        """Back a store up, and drop what is too old.

        Raises:
            StoreError: the copy does not verify.
        """
        with self._making:
            self._tidy(store)
            name = f"{store.territory}-{store.clock():{TIME}}.duckdb"
            made = backup(store, self.folder / name)
            for path in self.of(store)[: -self.kept]:
                drop(path)
        log.info("backup_made", path=str(made.path), bytes=made.size)
        return made

    def _tidy(self, store: Store) -> None:
        """Remove what a kill left in the middle of a backup."""
        for path in self.folder.glob(f".{store.territory}-{STAMP}.duckdb.*{STAGED}"):
            drop(path)
        for path in self.folder.glob(f"{store.territory}-{STAMP}{SUFFIX}"):
            if not path.with_suffix(".duckdb").exists():
                shutil.rmtree(path, ignore_errors=True)
        for path in store.path.parent.glob(f".{store.path.name}.*{HELD}"):
            shutil.rmtree(path, ignore_errors=True)

    def due(self, stores: Sequence[Store], hours: float) -> datetime:
        """When the next round is: so long after the newest backup of the store that waits longest,
        at once where one has none."""
        ages = [self._made(paths[-1]) for store in stores if (paths := self.of(store))]
        if len(ages) < len(stores):
            return stores[0].clock()
        return min(ages) + timedelta(hours=hours)

    @staticmethod
    def _made(path: Path) -> datetime:
        return datetime.strptime(path.stem.rpartition("-")[2], TIME).replace(tzinfo=UTC)

    def of(self, store: Store) -> list[Path]:
        """Backups of a store, oldest first."""
        return sorted(self.folder.glob(f"{store.territory}-{STAMP}.duckdb"))

    def round(self, stores: Sequence[Store]) -> None:
        """Back every store up; what goes wrong with one is logged and holds up no other."""
        for store in stores:
            try:
                self.make(store)
            except (MillesimedError, OSError) as error:
                log.error("backup_failed", store=store.path.name, error=str(error)[:200])
