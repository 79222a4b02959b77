"""Which alerts someone asks for: by state, kind, size, certainty, place and time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import shapely
from shapely.geometry import box

from schemas.alert import AlertKind, AlertState
from updater.alert_rows import rank
from updater.crs import WGS84, transformer
from updater.reads import Bounds, alerts_now
from updater.store import Store
from updater.types import AlertRecord


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for; what is not given does not matter.

    ``min_area``: square metres. ``bbox``: west, south, east, north in degrees (EPSG:4326).
    ``since``: known at that time or later.
    """

    states: Collection[AlertState] = ()
    kinds: Collection[AlertKind] = ()
    min_area: float = 0.0
    min_probability: float = 0.0
    bbox: Bounds | None = None
    since: datetime | None = None

    def takes(self, record: AlertRecord) -> bool:
        """True where everything but the place fits."""
        return (
            (not self.states or record.state in self.states)
            and (not self.kinds or not set(self.kinds).isdisjoint(record.kinds))
            and record.geometry.area >= self.min_area
            and record.probability >= self.min_probability
            and (self.since is None or record.known_at >= self.since)
        )


def search(store: Store, asked: Asked) -> list[AlertRecord]:
    """Alerts in their latest state, most important first."""
    found = [record for record in alerts_now(store) if asked.takes(record)]
    if asked.bbox is not None and found:
        hit = _within(found, store.crs, asked.bbox)
        found = [record for record, inside in zip(found, hit, strict=True) if inside]
    return sorted(found, key=order)


def order(record: AlertRecord) -> tuple[float, str]:
    """Sorts the most important first; what is equal, by id."""
    return -rank(record), record.id


def _within(records: Sequence[AlertRecord], crs: str, bbox: Bounds) -> list[bool]:
    """Which outlines touch a rectangle in degrees. They go to degrees, not the rectangle to the
    store's CRS, where one as large as the world has no coordinates."""
    change = transformer(crs, WGS84)
    outlines = np.array([record.geometry for record in records], dtype=object)
    world = shapely.transform(outlines, change.transform, interleaved=False)
    return [bool(inside) for inside in shapely.intersects(world, box(*bbox))]
