"""How far a map is: the ground it covers, what imagery of each year has looked at, and when it
last heard of anything."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import shapely
from shapely.geometry import box

from schemas.policy import SENSOR_POLICY
from updater.crs import WGS84, reproject
from updater.reads import end_of, extent, images
from updater.store import Store
from updater.types import PERSON

PATCHING: Final = frozenset(sensor for sensor, policy in SENSOR_POLICY.items() if policy.patches)
"""Sensors whose images make a millésime."""


def area(store: Store) -> float:
    """Square metres the map covers, which no patch changes."""
    row = store.execute("SELECT coalesce(sum(ST_Area(geom)), 0) FROM map_now").fetchone()
    return float(row[0]) if row else 0.0


def looked_at(store: Store) -> dict[int, float]:
    """Square metres of the map that imagery of each year since the store's own millésime has
    looked at: polygons whose middle lies in a footprint."""
    years: dict[int, list[shapely.Geometry]] = {}
    for image in images(store):
        if image.sensor in PATCHING and image.acquired.year > store.millesime:
            years.setdefault(image.acquired.year, []).append(image.footprint)
    return {year: _within(store, shapely.union_all(parts)) for year, parts in years.items()}


def _within(store: Store, ground: shapely.Geometry) -> float:
    row = store.execute(
        "SELECT coalesce(sum(ST_Area(geom)), 0) FROM map_now "
        "WHERE ST_Contains(ST_GeomFromWKB(?), ST_PointOnSurface(geom))",
        [shapely.to_wkb(ground)],
    ).fetchone()
    return float(row[0]) if row else 0.0


def known_images(store: Store) -> int:
    """How many images the store knows: progress moves only where this does."""
    row = store.execute("SELECT count(*) FROM images").fetchone()
    return int(row[0]) if row else 0


def newest_image(store: Store) -> datetime:
    """When the newest image the map takes into account was taken; the end of its millésime where
    there is none."""
    row = store.execute("SELECT max(acquired) FROM images").fetchone()
    found = row[0] if row else None
    return found if found is not None else end_of(store.millesime)


def newest_event(store: Store) -> datetime | None:
    """When the newest image an event brought was taken; None before the first."""
    row = store.execute("SELECT max(acquired) FROM events WHERE sensor <> ?", [PERSON]).fetchone()
    return row[0] if row else None


def last_heard(store: Store) -> datetime | None:
    """When the last event had its effect, or became a dead letter; None before the first."""
    row = store.execute(
        "SELECT max(heard) FROM (SELECT recorded AS heard FROM events "
        "UNION ALL SELECT received FROM dead_letters)"
    ).fetchone()
    return row[0] if row else None


def middle(store: Store) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of the map's bounds; None for an empty map."""
    bounds = extent(store)
    if bounds is None:
        return None
    point = reproject(box(*bounds).centroid, store.crs, WGS84)
    return float(point.x), float(point.y)
