"""Backups the running service makes: on the clock and on request, the newest few kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from schemas.errors import MillesimedError
from updater.recovery import STAGED, Copied, backup, drop
from updater.store import Store

log = structlog.get_logger()

TIME: Final = "%Y%m%dT%H%M%S%fZ"
"""UTC, so that names sort by age."""


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
            for path in self.folder.glob(f".{store.territory}-*{STAGED}"):  # a kill left it
                drop(path)
            name = f"{store.territory}-{store.clock():{TIME}}.duckdb"
            made = backup(store, self.folder / name)
            for path in self.of(store)[: -self.kept]:
                drop(path)
        log.info("backup_made", path=str(made.path), bytes=made.size)
        return made

    def of(self, store: Store) -> list[Path]:
        """Backups of a store, oldest first."""
        return sorted(self.folder.glob(f"{store.territory}-*Z.duckdb"))

    def round(self, stores: Sequence[Store]) -> None:
        """Back every store up; what goes wrong with one is logged and holds up no other."""
        for store in stores:
            try:
                self.make(store)
            except (MillesimedError, OSError) as error:
                log.error("backup_failed", store=store.path.name, error=str(error)[:200])
