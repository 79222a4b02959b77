"""Where a polygon comes from and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import shapely
from shapely.geometry.base import BaseGeometry

from updater.errors import NotFound
from updater.store import Store


@dataclass(frozen=True, slots=True)
class Step:
    """One link: which polygon became which, how, by which event and detector, known since when."""

    parent: str
    child: str
    operation: str
    event: str
    detector: str
    recorded: datetime


_WALK: Final = """
WITH RECURSIVE walk AS (
    SELECT * FROM lineage WHERE {start} = ?
    UNION
    SELECT l.* FROM lineage l JOIN walk w ON l.{start} = w.{end}
)
SELECT parent, child, operation, event, detector, recorded FROM walk
ORDER BY recorded, parent, child
"""
_BACK: Final = _WALK.format(start="child", end="parent")
_ON: Final = _WALK.format(start="parent", end="child")


def ancestors(store: Store, polygon: str) -> list[Step]:
    """Every link that leads to a polygon, oldest first.

    Raises:
        NotFound: the map never had a polygon of that id.
    """
    return _walk(store, polygon, _BACK)


def descendants(store: Store, polygon: str) -> list[Step]:
    """Every link that leads away from a polygon, oldest first.

    Raises:
        NotFound: the map never had a polygon of that id.
    """
    return _walk(store, polygon, _ON)


def heirs(store: Store, polygons: Sequence[str], ground: BaseGeometry) -> list[str]:
    """Ids of the polygons of today's map that some polygons became, as far as they touch some
    ground (in the CRS of the store): what an alert's polygons are after later splits and merges."""
    rows = store.execute(
        "WITH RECURSIVE walk AS (SELECT unnest(?::VARCHAR[]) AS id "
        "UNION SELECT l.child FROM lineage l JOIN walk w ON l.parent = w.id) "
        "SELECT DISTINCT m.id FROM map_now m JOIN walk w ON m.id = w.id "
        "WHERE ST_Intersects(m.geom, ST_GeomFromWKB(?)) ORDER BY m.id",
        [list(polygons), shapely.to_wkb(ground)],
    ).fetchall()
    return [str(row[0]) for row in rows]


def _walk(store: Store, polygon: str, sql: str) -> list[Step]:
    rows = store.execute(sql, [polygon]).fetchall()
    if not rows and not _known(store, polygon):
        raise NotFound(f"The map never had a polygon {polygon}; check the id.")
    return [Step(*row) for row in rows]


def _known(store: Store, polygon: str) -> bool:
    return store.execute("SELECT 1 FROM polygons WHERE id = ?", [polygon]).fetchone() is not None


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event that had an effect on the map."""

    id: str
    item: str
    acquired: datetime
    sensor: str
    detector: str
    kind: str
    changed: int
    recorded: datetime


def events(store: Store) -> Sequence[EventRow]:
    """Every event that had its effect, newest first."""
    rows = store.execute(
        "SELECT id, item, acquired, sensor, detector, kind, changed, recorded FROM events "
        "ORDER BY recorded DESC, id"
    ).fetchall()
    return [EventRow(*row) for row in rows]
