"""Which alerts someone asks for: by state, kind, size, certainty, place and time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import shapely
from shapely.geometry import box

from schemas.alert import AlertKind, AlertState
from schemas.policy import LEGAL_WEIGHT
from updater.alert_rows import record_from_row
from updater.crs import WGS84, transformer
from updater.reads import Bounds
from updater.store import Store
from updater.types import AlertRecord

AT_ONCE: Final = 500
"""Alerts read at a time where all are gone through: some megabytes."""
ALL: Final = 2**62
"""More alerts than there can be."""
AREA_SLACK: Final = 1e-6
"""Square metres: the database sums the corners of an outline in another order than GEOS."""
_RANKED: Final = """
SELECT id,
    ST_Area(geom) * (record::JSON->>'$.probability')::DOUBLE
        * list_extract($weights::DOUBLE[], list_position($weighed::VARCHAR[], kind)) AS rank,
    geom
FROM alerts_now
WHERE (len($states::VARCHAR[]) = 0 OR list_contains($states::VARCHAR[], state))
    AND (len($kinds::VARCHAR[]) = 0 OR list_has_any(
        list_append(record::JSON->>'$.kinds[*]', kind), $kinds::VARCHAR[]))
    AND ST_Area(geom) >= $min_area
    AND (record::JSON->>'$.probability')::DOUBLE >= $min_probability
    AND ($since IS NULL OR (record::JSON->>'$.known_at')::TIMESTAMPTZ >= $since::TIMESTAMPTZ)
"""
"""Every alert asked for, wherever it lies. Only its rank and outline leave the database."""
COUNT: Final = f"SELECT count(*) FROM ({_RANKED})"
FIRST: Final = f"SELECT id, rank FROM ({_RANKED}) ORDER BY rank DESC, id LIMIT $most"
PLACED: Final = f"SELECT id, rank, ST_AsWKB(geom) FROM ({_RANKED}) ORDER BY rank DESC, id"
LOADED: Final = (
    "SELECT record, ST_AsWKB(geom) FROM alerts_now WHERE id IN (SELECT unnest(?::VARCHAR[]))"
)
Key = tuple[float, str]
"""Sorts alerts by importance: rank with its sign turned, id."""


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

    @property
    def parameters(self) -> dict[str, Any]:
        """The same for the database."""
        return {
            "states": [state.value for state in self.states],
            "kinds": [kind.value for kind in self.kinds],
            "min_area": self.min_area - AREA_SLACK,
            "min_probability": self.min_probability,
            "since": self.since,
            "weighed": list(LEGAL_WEIGHT),
            "weights": list(LEGAL_WEIGHT.values()),
        }


def first(store: Store, asked: Asked, most: int) -> tuple[int, list[Key]]:
    """How many alerts there are, and the keys of so many of the most important ones in order."""
    if asked.bbox is not None:
        rows = store.execute(PLACED, asked.parameters).fetchall()
        inside = _within([bytes(row[2]) for row in rows], store.crs, asked.bbox)
        keys = [(-float(rows[i][1]), str(rows[i][0])) for i in np.flatnonzero(inside)]
        return len(keys), keys[:most]
    (count,) = store.execute(COUNT, asked.parameters).fetchone() or (0,)
    found = store.execute(FIRST, {**asked.parameters, "most": most}).fetchall()
    return int(count), [(-float(rank), str(alert)) for alert, rank in found]


def page(
    stores: Sequence[Store], asked: Asked, number: int, size: int
) -> tuple[int, list[tuple[AlertRecord, Store]]]:
    """How many alerts several stores have, and one page of them, most important first; only those
    on the page are read whole. ``number``: from 1."""
    total, keys = 0, []
    for which, store in enumerate(stores):
        count, found = first(store, asked, number * size)
        total += count
        keys += [(key, which) for key in found]
    shown = sorted(keys)[(number - 1) * size : number * size]
    records: dict[tuple[int, str], AlertRecord] = {}
    for which, store in enumerate(stores):
        wanted = [alert for (_, alert), of in shown if of == which]
        if wanted:
            records |= {(which, r.id): r for r in _load(store, wanted)}
    return total, [(records[of, alert], stores[of]) for (_, alert), of in shown]


def each(store: Store, asked: Asked) -> Iterator[AlertRecord]:
    """All alerts asked for in their latest state, most important first, a few read at a time. One
    that changes meanwhile comes as it is then."""
    _, keys = first(store, asked, ALL)
    for start in range(0, len(keys), AT_ONCE):
        wanted = [alert for _, alert in keys[start : start + AT_ONCE]]
        records = {record.id: record for record in _load(store, wanted)}
        yield from (records[alert] for alert in wanted)


def search(store: Store, asked: Asked) -> list[AlertRecord]:
    """The same, all at once."""
    return list(each(store, asked))


def _load(store: Store, alerts: list[str]) -> list[AlertRecord]:
    rows = store.execute(LOADED, [alerts]).fetchall()
    return [record_from_row(record, bytes(wkb)) for record, wkb in rows]


def _within(outlines: Sequence[bytes], crs: str, bbox: Bounds) -> list[bool]:
    """Which outlines (WKB) touch a rectangle in degrees. They go to degrees, not the rectangle to
    the store's CRS, where one as large as the world has no coordinates."""
    if not outlines:
        return []
    change = transformer(crs, WGS84)
    world = shapely.transform(shapely.from_wkb(outlines), change.transform, interleaved=False)
    return [bool(inside) for inside in shapely.intersects(world, box(*bbox))]
