"""Questions to the store: polygons of a place or a time, alerts, images, what was seen before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from schemas.policy import NEIGHBOUR_RADIUS_M, Sensor
from updater.alert_rows import record_from_row
from updater.store import Store
from updater.types import MACHINE, PERSON, AlertRecord, MapPolygon

NEIGHBOURS_WITHIN_M = 100.0
"""Ground fetched around a plan's own, so that most neighbours come with the first look-up."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
"""Later than any record: "as known now"."""

Bounds = tuple[float, float, float, float]

_COLUMNS = (
    "id, code_cs, code_us, millesime, ST_AsWKB(geom), version, source, ossature, "
    "id_origine, code_or, epoch_us(valid_from)"
)
IMAGE = "item, path, sensor, acquired, gsd, ST_AsWKB(footprint), elevation"
"""What is read of an image."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image the store knows: reference of a millésime or an acquisition already judged; with
    the surface model (MNS) of its date where there is one."""

    item: str
    path: Path
    sensor: Sensor
    acquired: datetime
    gsd: float
    footprint: BaseGeometry
    elevation: Path | None = None


def shown_on(store: Store, image: ImageRecord, ground: BaseGeometry) -> list[MapPolygon]:
    """The map as the world was on a reference image, within the bounds of some ground (in the
    store's CRS): never older than the millésime the store was made from."""
    west, south, east, north = shapely.bounds(ground).tolist()
    return as_of_in(
        store,
        valid_at=max(image.acquired, end_of(store.millesime)),
        bounds=(west, south, east, north),
    )


def end_of(millesime: int) -> datetime:
    """The instant that stands for a millésime on the valid axis: the end of its year."""
    return datetime(millesime, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def _polygons(rows: Sequence[tuple[Any, ...]]) -> list[MapPolygon]:
    shapes = shapely.from_wkb([bytes(row[4]) for row in rows])
    since = {us: EPOCH + timedelta(microseconds=us) for us in {row[10] for row in rows}}
    found = []
    for row, shape in zip(rows, shapes, strict=True):
        if not isinstance(shape, Polygon):
            raise TypeError(f"polygon {row[0]} is stored as {shape.geom_type}")
        found.append(
            MapPolygon(
                id=row[0],
                code_cs=row[1],
                code_us=row[2],
                millesime=int(row[3]),
                geometry=shape,
                version=int(row[5]),
                source=row[6],
                ossature=bool(row[7]),
                id_origine=row[8],
                code_or=row[9],
                valid_from=since[row[10]],
            )
        )
    return found


def current_in(store: Store, bounds: Bounds) -> list[MapPolygon]:
    """Polygons of the map as it is now that touch a rectangle, in the store's CRS.

    The R-tree serves constant windows only, not joins: the window gives candidates of every
    age, a second look-up drops the retired ones.
    """
    return as_of_in(store, valid_at=FOREVER, bounds=bounds)


def as_of_in(
    store: Store, *, valid_at: datetime, bounds: Bounds, recorded_at: datetime = FOREVER
) -> list[MapPolygon]:
    """What ``as_of`` gives within a rectangle, without reading the rest of the map."""
    rows = store.execute(
        f"SELECT {_COLUMNS} FROM polygons WHERE ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?)) "
        "AND valid_from <= ? AND recorded <= ?",
        [*bounds, valid_at, recorded_at],
    ).fetchall()
    gone = {
        row[0]
        for row in store.execute(
            "SELECT version FROM retirements WHERE version IN (SELECT unnest(?::BIGINT[])) "
            "AND valid_to <= ? AND recorded <= ?",
            [[row[5] for row in rows], valid_at, recorded_at],
        ).fetchall()
    }
    found = _polygons([r for r in rows if r[5] not in gone])
    return sorted(found, key=lambda p: (p.id, p.version))


def of_versions(store: Store, versions: Sequence[int]) -> list[MapPolygon]:
    """Some versions of polygons, in the order of their numbers."""
    if not versions:
        return []
    rows = store.execute(
        f"SELECT {_COLUMNS} FROM polygons WHERE version BETWEEN ? AND ? "
        "AND version IN (SELECT unnest(?::BIGINT[])) ORDER BY version",
        [min(versions), max(versions), list(versions)],  # the range spares reading other blocks
    ).fetchall()
    return _polygons(rows)


def by_version(store: Store, versions: Sequence[int]) -> list[MapPolygon]:
    """Polygons by the numbers of their versions, retired or not."""
    return _polygons(
        store.execute(
            f"SELECT {_COLUMNS} FROM polygons WHERE version IN (SELECT unnest(?::BIGINT[])) "
            "ORDER BY version",
            [list(versions)],
        ).fetchall()
    )


def versions_in(store: Store, bounds: Bounds, *, most: int) -> int:
    """How many polygons of any age touch a rectangle; counting ends one beyond ``most``."""
    row = store.execute(
        "SELECT count(*) FROM (SELECT 1 FROM polygons "
        "WHERE ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?)) LIMIT ?)",
        [*bounds, most + 1],
    ).fetchone()
    return int(row[0]) if row else 0


def map_now(store: Store) -> list[MapPolygon]:
    """The whole map in its latest state."""
    return _polygons(store.execute(f"SELECT {_COLUMNS} FROM map_now ORDER BY id").fetchall())


def neighbourhood(store: Store, grounds: Sequence[BaseGeometry]) -> list[MapPolygon]:
    """What a plan needs to judge some ground: the polygons it touches, all their neighbours,
    and everything within ``NEIGHBOUR_RADIUS_M`` of it."""
    if not grounds:
        return []
    around = shapely.total_bounds(list(grounds)) + np.array([-1, -1, 1, 1]) * NEIGHBOUR_RADIUS_M
    window = around + np.array([-1, -1, 1, 1]) * NEIGHBOURS_WITHIN_M
    near = current_in(store, tuple(window))
    tree = shapely.STRtree([p.geometry for p in near])
    hit = {int(i) for i in tree.query(list(grounds), predicate="intersects")[1]}
    touched = [near[i].geometry for i in hit if not near[i].ossature]
    if not touched or box(*window).contains(box(*shapely.total_bounds(touched))):
        return near
    wider = shapely.total_bounds([*touched, box(*window)])
    return current_in(store, tuple(wider))


def as_of(
    store: Store,
    *,
    valid_at: datetime,
    recorded_at: datetime = FOREVER,
    bounds: Bounds | None = None,
) -> list[MapPolygon]:
    """The map as the ground was at ``valid_at``, by what was known at ``recorded_at``."""
    if bounds is not None:
        return as_of_in(store, valid_at=valid_at, bounds=bounds, recorded_at=recorded_at)
    sql = f"SELECT {_COLUMNS} FROM map_as_of(?::TIMESTAMPTZ, ?::TIMESTAMPTZ) ORDER BY id, version"
    return _polygons(store.execute(sql, [valid_at, recorded_at]).fetchall())


def extent(store: Store) -> Bounds | None:
    """Bounding box of the map, or None when it is empty. No patch changes it, so an open store
    is asked once."""
    known: Bounds | None = store.remembered.get("extent")
    if known is not None:
        return known
    row = store.execute(
        "SELECT min(ST_XMin(geom)), min(ST_YMin(geom)), max(ST_XMax(geom)), max(ST_YMax(geom)) "
        "FROM polygons"
    ).fetchone()
    if row is None or row[0] is None:
        return None
    found = store.remembered["extent"] = (row[0], row[1], row[2], row[3])
    return found


def zone_construite(store: Store, bounds: Bounds) -> BaseGeometry | None:
    """Union of the built-up zones in a rectangle; None where the map has none at all."""
    total = store.execute("SELECT count(*) FROM zone_construite").fetchone()
    if total is None or not total[0]:
        return None
    rows = store.execute(
        "SELECT ST_AsWKB(geom) FROM zone_construite "
        "WHERE ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?))",
        list(bounds),
    ).fetchall()
    return shapely.union_all(shapely.from_wkb([bytes(row[0]) for row in rows]))


def zone_construite_parts(store: Store) -> list[BaseGeometry]:
    """Every built-up zone of the map, in the order it was delivered."""
    rows = store.execute("SELECT ST_AsWKB(geom) FROM zone_construite").fetchall()
    return [shapely.from_wkb(bytes(row[0])) for row in rows]


def seen(store: Store, key: str) -> bool:
    """True when an event of that key has had its effect."""
    row = store.execute("SELECT 1 FROM events WHERE key = ?", [key]).fetchone()
    return row is not None


def next_offsets(store: Store) -> dict[tuple[str, int], int]:
    """Where to go on reading: the next offset of each (topic, partition)."""
    rows = store.execute("SELECT topic, partition, next_offset FROM offsets").fetchall()
    return {(row[0], int(row[1])): int(row[2]) for row in rows}


def images(store: Store) -> list[ImageRecord]:
    """Every image the store knows, newest first."""
    rows = store.execute(f"SELECT {IMAGE} FROM images ORDER BY acquired DESC, item").fetchall()
    return [image_of(row) for row in rows]


def images_in(store: Store, bounds: Bounds) -> list[ImageRecord]:
    """Images whose footprint touches a rectangle, newest first."""
    rows = store.execute(
        f"SELECT {IMAGE} FROM images WHERE ST_Intersects(footprint, "
        "ST_MakeEnvelope(?, ?, ?, ?)) ORDER BY acquired DESC, item",
        list(bounds),
    ).fetchall()
    return [image_of(row) for row in rows]


def image_of(row: tuple[Any, ...]) -> ImageRecord:
    """The image of a row of ``IMAGE``."""
    return ImageRecord(
        item=row[0],
        path=Path(row[1]),
        sensor=Sensor(row[2]),
        acquired=row[3],
        gsd=float(row[4]),
        footprint=shapely.from_wkb(bytes(row[5])),
        elevation=Path(row[6]) if row[6] else None,
    )


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """The file that holds the Sentinel-2 history of a block, and since when."""

    file: str
    recorded: datetime


def series_file(store: Store, block: str) -> SeriesFile | None:
    """The history of a block, None where it has none."""
    row = store.execute("SELECT file, recorded FROM series WHERE block = ?", [block]).fetchone()
    return None if row is None else SeriesFile(*row)


def drawn_since(store: Store, recorded: datetime, bounds: Bounds) -> list[MapPolygon]:
    """Polygons of today's map in a rectangle whose cover the service changed after a time."""
    rows = store.execute(
        "SELECT version FROM polygons WHERE recorded > ? AND event IS NOT NULL "
        "AND (starts_with(source, ?) OR starts_with(source, ?)) "
        "AND ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?))",
        [recorded, MACHINE, PERSON, *bounds],
    ).fetchall()
    fresh = {row[0] for row in rows}
    return [p for p in current_in(store, bounds) if p.version in fresh] if fresh else []


def alerts_now(store: Store) -> list[AlertRecord]:
    """Every alert in its latest state."""
    rows = store.execute("SELECT record, ST_AsWKB(geom) FROM alerts_now ORDER BY id").fetchall()
    return [record_from_row(row[0], bytes(row[1])) for row in rows]


def alerts_in(store: Store, bounds: Bounds) -> list[AlertRecord]:
    """Alerts, in their latest state, whose outline touches a rectangle."""
    near = store.execute(
        "SELECT DISTINCT id FROM alerts WHERE ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?))",
        list(bounds),
    ).fetchall()
    if not near:
        return []
    rows = store.execute(
        "SELECT record, ST_AsWKB(geom) FROM alerts WHERE id IN (SELECT unnest(?::VARCHAR[])) "
        "QUALIFY row_number() OVER (PARTITION BY id ORDER BY sequence DESC) = 1 ORDER BY id",
        [[row[0] for row in near]],
    ).fetchall()
    shapes = shapely.from_wkb([bytes(row[1]) for row in rows])
    inside = shapely.intersects(shapes, box(*bounds))  # an earlier state may lie elsewhere
    return [
        record_from_row(row[0], bytes(row[1])) for row, hit in zip(rows, inside, strict=True) if hit
    ]
