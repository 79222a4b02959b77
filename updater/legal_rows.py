"""Legal statuses kept in the store, and brought up to date only around what changed.

A row of ``legal`` says what one version of a polygon was known to be; the latest row of a version
holds. The thresholds look at surfaces under 2 500 m², which at the product's least width of 5 m
reach no further than ``SURFACE_REACH_M``; two thresholds follow each other, so a change moves
statuses within twice that, and the map within four times is what it takes to tell them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from schemas.legal import LegalStatus
from updater.artificialisation import Status, statuses
from updater.generalise import polygons_of
from updater.reads import current_in, extent
from updater.store import Store
from updater.types import MapPolygon

SURFACE_REACH_M: Final = 500.0
"""Length of a surface of 2 500 m² and 5 m wide."""
EVERYTHING_FROM: Final = 0.2
"""Share of the map without a status from which all of it is judged: what changed is everywhere."""
SQUARE_M: Final = 5_000.0
"""Side of the squares that are judged one after the other, so that no more than one of them and
its surroundings is in memory."""


def refresh(store: Store) -> int:
    """Judge what changed since the last time, and its surroundings; gives how many polygons have
    a new status."""
    fresh = store.execute(
        "SELECT p.version, ST_XMin(geom), ST_YMin(geom), ST_XMax(geom), ST_YMax(geom) "
        "FROM map_now p ANTI JOIN legal l ON l.version = p.version"
    ).fetchall()
    if not fresh:
        return 0
    boxes = shapely.box(*np.array([r[1:] for r in fresh], float).T)
    reach = 2 * SURFACE_REACH_M
    row = store.execute("SELECT count(*) FROM map_now").fetchone()
    if len(fresh) >= EVERYTHING_FROM * (row[0] if row else 0):
        grounds: BaseGeometry = shapely.box(*(extent(store) or shapely.total_bounds(boxes)))
    else:
        grounds = shapely.union_all(shapely.buffer(boxes, reach, join_style="mitre"))
    written = 0
    for ground in _in_squares(grounds):
        window = shapely.bounds(shapely.buffer(ground, reach, join_style="mitre")).tolist()
        around = current_in(store, (window[0], window[1], window[2], window[3]))
        found = statuses(around)
        near = shapely.intersects(ground, [p.geometry for p in around])
        told = [
            pair for pair, hit in zip(zip(around, found, strict=True), near, strict=True) if hit
        ]
        written += _write(store, [p for p, _ in told], [s for _, s in told])
    return written


def _in_squares(ground: BaseGeometry) -> Iterator[BaseGeometry]:
    """Some ground square by square."""
    west, south, east, north = ground.bounds
    shapely.prepare(ground)
    for y in np.arange(south, north, SQUARE_M).tolist():
        for x in np.arange(west, east, SQUARE_M).tolist():
            part = shapely.clip_by_rect(ground, x, y, x + SQUARE_M, y + SQUARE_M)
            yield from polygons_of(part)


def known(store: Store, versions: Sequence[int]) -> dict[int, Status]:
    """The statuses the store keeps of some versions."""
    rows = store.execute(
        "SELECT version, artif, crit_seuil FROM legal_now "
        "WHERE version IN (SELECT unnest(?::BIGINT[]))",
        [list(versions)],
    ).fetchall()
    return {
        int(version): Status(LegalStatus.ARTIF if artif else LegalStatus.NON_ARTIF, bool(by))
        for version, artif, by in rows
    }


def _write(store: Store, polygons: Sequence[MapPolygon], found: Sequence[Status]) -> int:
    kept = known(store, [p.version for p in polygons])
    new = [(p.version, s) for p, s in zip(polygons, found, strict=True) if kept.get(p.version) != s]
    if not new:
        return 0
    table = pa.table(
        {
            "version": pa.array([version for version, _ in new], pa.int64()),
            "artif": [s.status is LegalStatus.ARTIF for _, s in new],
            "crit_seuil": [s.by_threshold for _, s in new],
        }
    )
    with store.transaction() as cursor:
        cursor.register("judged", table)
        cursor.execute(
            "INSERT INTO legal SELECT version, artif, crit_seuil, ? FROM judged", [store.clock()]
        )
        cursor.unregister("judged")
    return len(new)
