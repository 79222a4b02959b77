"""Before/after pictures of alerts in the outbox folder, drawn apart: no message waits for one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import structlog

from daemon.chip_words import Language
from daemon.chips import Picture, draw_alert
from daemon.files import write_whole
from schemas.alert import Alert
from schemas.envelope import ALERT_TYPE
from updater import outbox
from updater.alerts import OPEN_STATES
from updater.store import Store

log = structlog.get_logger()

CHANNEL: Final = "pictures"
AT_ONCE: Final = 20
"""Alerts between two notes of how far it is: a few seconds of drawing."""
SHARE: Final = 0.5
"""Part of the time a service may draw that has nothing else to do."""
BUSY_SHARE: Final = 0.05
"""The same of one at work: events come first, pictures follow."""


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """A folder that gets a picture of every alert that stands."""

    folder: Path

    def once(self, store: Store, stopping: Callable[[], bool] = lambda: False) -> int:
        """Draw what was told since the last time, until asked to stop; gives how many pictures."""
        drawn = 0
        while not stopping() and (some := self.some(store)) is not None:
            drawn += some
        return drawn

    def some(self, store: Store) -> int | None:
        """Draw the next few; gives how many pictures, None where nothing was left to look at."""
        rows = store.kept("pictures", lambda: _due(store))
        if not rows:
            return None
        alerts = (Alert.model_validate_json(row.body) for row in rows)
        drawn = 0
        for id_ in dict.fromkeys(a.id for a in alerts if a.state in OPEN_STATES):
            drawn += draw_beside(store, id_, self.folder / f"{id_}.png", Language.FR)
        outbox.advance(store, CHANNEL, rows[-1].seq)
        return drawn


def _due(store: Store) -> list[outbox.Pending]:
    """The next alerts to look at."""
    position = outbox.position(store, CHANNEL)
    return outbox.after(store, position, type_=ALERT_TYPE, limit=AT_ONCE)


class Drawer:
    """Draws for a service, one at a time; ``busy``: whether it has other work."""

    def __init__(
        self, folder: Path, stopping: Callable[[], bool], busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._pictures = PictureFolder(folder)
        self._stopping = stopping
        self._busy = busy
        self._drawing = threading.Lock()
        self._rest_until = 0.0

    def everything(self, stores: Sequence[Store]) -> None:
        """Every picture that is due, unless asked to stop: they are drawn after the next start."""
        with self._drawing:
            for store in stores:
                self._pictures.once(store, self._stopping)

    def some(self, stores: Sequence[Store]) -> None:
        """A few pictures, then a rest that leaves the time to events."""
        started = monotonic()
        if started < self._rest_until or self._stopping():
            return
        with self._drawing:
            for store in stores:
                self._pictures.some(store)
        now = monotonic()
        self._rest_until = now + (now - started) * (1 / (BUSY_SHARE if self._busy() else SHARE) - 1)


def draw_beside(store: Store, alert: str, path: Path, language: Language) -> bool:
    """Write the pictures of an alert; whatever goes wrong is logged only, for the message matters
    more."""
    try:
        write_whole(path, draw_alert(store, alert, language=language).png(Picture.CHIPS))
    except Exception as error:
        log.warning("chips_failed", alert=alert, error=str(error)[:200], exc_info=True)
        return False
    return True
