"""Images the stores know, by place, time and sensor, newest first, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from schemas.policy import Sensor
from updater.reads import IMAGE, Bounds, ImageRecord, image_of
from updater.store import Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images; what is not given does not matter. ``since`` and ``until`` are included."""

    sensors: Sequence[Sensor] | None = None
    items: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Of the last image on a page: the next one begins after it."""

    acquired: datetime
    item: str


@dataclass(frozen=True, slots=True)
class Holding:
    """The images of one sensor in a store: extent in its CRS, dates, pixels in metres."""

    sensor: Sensor
    extent: Bounds
    first: datetime
    last: datetime
    finest: float
    coarsest: float


def search(
    store: Store,
    wanted: Wanted,
    *,
    ground: BaseGeometry | None = None,
    after: Place | None = None,
    most: int,
) -> list[ImageRecord]:
    """At most so many images, newest first; ``ground``: in the store's CRS."""
    where, values = "true", list[Any]()

    def also(condition: str, *more: object) -> None:
        nonlocal where
        where += f" AND {condition}"
        values.extend(more)

    if wanted.sensors is not None:
        also("sensor IN (SELECT unnest(?::VARCHAR[]))", [s.value for s in wanted.sensors])
    if wanted.items is not None:
        also("item IN (SELECT unnest(?::VARCHAR[]))", list(wanted.items))
    if wanted.since is not None:
        also("acquired >= ?", wanted.since)
    if wanted.until is not None:
        also("acquired <= ?", wanted.until)
    if after is not None:
        also("(acquired < ? OR (acquired = ? AND item > ?))", *([after.acquired] * 2), after.item)
    if ground is not None:
        also("ST_Intersects(footprint, ST_GeomFromWKB(?))", shapely.to_wkb(ground))
    rows = store.execute(
        f"SELECT {IMAGE} FROM images WHERE {where} ORDER BY acquired DESC, item LIMIT ?",
        [*values, most],
    ).fetchall()
    return [image_of(row) for row in rows]


def holdings(store: Store) -> list[Holding]:
    """What the store has of each sensor."""
    rows = store.execute(
        "SELECT sensor, min(ST_XMin(footprint)), min(ST_YMin(footprint)), "
        "max(ST_XMax(footprint)), max(ST_YMax(footprint)), min(acquired), max(acquired), "
        "min(gsd), max(gsd) FROM images GROUP BY sensor ORDER BY sensor"
    ).fetchall()
    return [
        Holding(Sensor(row[0]), (row[1], row[2], row[3], row[4]), row[5], row[6], row[7], row[8])
        for row in rows
    ]
