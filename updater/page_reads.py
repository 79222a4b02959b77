"""Questions a map page asks: which years there are, what lies in a window at one of them.

They cost what they show, not what the map has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from schemas.legal import MATRIX
from schemas.nomenclature import CS_LEAVES, US_CODES
from updater.reads import Bounds
from updater.store import Store

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

_HELD: Final = """
WITH hit AS MATERIALIZED (
    SELECT version, id, code_cs, code_us, valid_from, ossature, geom FROM polygons
    WHERE ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?))
), held AS (
    SELECT * FROM hit WHERE valid_from <= ? AND version NOT IN (
        SELECT version FROM retirements
        WHERE valid_to <= ? AND version IN (SELECT version FROM hit)
    )
)
"""
"""The map in a window at an instant. The window stands alone in its own step: beside a join the
R-tree is not used, and a window would cost a scan of the whole map."""
_CS: Final = {code: number for number, code in enumerate(CS_LEAVES, start=1)}
_US: Final = {code: number for number, code in enumerate(US_CODES, start=1)}
_ARTIFICIAL: Final = np.zeros((len(CS_LEAVES) + 1, len(US_CODES) + 1), bool)
for _cs, _uses in MATRIX.items():
    _ARTIFICIAL[_CS[_cs], [_US[use] for use in _uses]] = True


@dataclass(frozen=True, slots=True)
class Stamp:
    """What of a store has changed: the same stamp, the same map, alerts and so on."""

    map: int
    alerts: int
    images: int
    territories: int


def stamp(store: Store) -> Stamp:
    """The store's present stamp; counts of tables that only grow, which cost nothing to ask."""
    row = store.execute(
        "SELECT (SELECT count(*) FROM polygons) + (SELECT count(*) FROM retirements)"
        " + (SELECT count(*) FROM legal), (SELECT count(*) FROM alerts),"
        " (SELECT coalesce(epoch_us(max(recorded)), 0) FROM images),"
        " (SELECT count(*) FROM territories)"
    ).fetchone()
    return Stamp(*(row or (0, 0, 0, 0)))


@dataclass(frozen=True, slots=True)
class View:
    """Polygons of a window: cover and usage as numbers (1 and on, in the order of the
    nomenclature; 0: none), legal status, the year they are from, outlines in the store's CRS."""

    ids: Sequence[str]
    cover: Bytes
    usage: Bytes
    artificial: Flags
    since: npt.NDArray[np.int16]
    shapes: npt.NDArray[np.object_]

    def within(self, bounds: Bounds) -> View:
        """Those whose rectangle touches a smaller window."""
        west, south, east, north = bounds
        box = shapely.bounds(self.shapes)
        kept = np.flatnonzero(
            (box[:, 0] <= east) & (box[:, 2] >= west) & (box[:, 1] <= north) & (box[:, 3] >= south)
        )
        return View(
            ids=[self.ids[i] for i in kept.tolist()],
            cover=self.cover[kept],
            usage=self.usage[kept],
            artificial=self.artificial[kept],
            since=self.since[kept],
            shapes=self.shapes[kept],
        )


def view(store: Store, bounds: Bounds, *, valid_at: datetime) -> View:
    """The map in a rectangle of the store's CRS, as the ground was at an instant, as known now."""
    table = store.cursor.execute(
        _HELD + "SELECT version, id, code_cs, code_us, year(valid_from)::SMALLINT AS since, "
        "ST_AsWKB(geom)::BLOB AS geom FROM held",
        [*bounds, valid_at, valid_at],
    ).to_arrow_table()  # whole: see updater.store.Rows
    cover, usage = _numbers(table["code_cs"], _CS), _numbers(table["code_us"], _US)
    artificial = _ARTIFICIAL[cover, usage]
    _judged(store, table["version"], artificial)
    return View(
        ids=table["id"].to_pylist(),
        cover=cover,
        usage=usage,
        artificial=artificial,
        since=table["since"].to_numpy(),
        shapes=shapely.from_wkb(table["geom"].to_numpy()),
    )


def _numbers(codes: pa.ChunkedArray, known: dict[str, int]) -> Bytes:
    """Codes as numbers; 0 for none or one that is in no nomenclature."""
    coded = codes.combine_chunks().dictionary_encode()
    table = np.array([known.get(code or "", 0) for code in coded.dictionary.to_pylist()] + [0])
    index = coded.indices.fill_null(len(table) - 1).to_numpy()
    return np.asarray(table[index], np.uint8)


def _judged(store: Store, versions: pa.ChunkedArray, artificial: Flags) -> None:
    """Put in the statuses that a threshold decided against the matrix, where they are known."""
    wanted = versions.to_numpy()
    rows = store.execute(
        "SELECT version, arg_max(artif, recorded) FROM legal "
        "WHERE version IN (SELECT unnest(?::BIGINT[])) GROUP BY version",
        [wanted.tolist()],
    ).fetchall()
    if rows:
        order = np.argsort(wanted)
        told = np.array(rows)
        artificial[order[np.searchsorted(wanted, told[:, 0], sorter=order)]] = told[:, 1] != 0


def polygons(store: Store) -> int:
    """Versions on record, which costs nothing to ask."""
    row = store.execute("SELECT count(*) FROM polygons").fetchone()
    return int(row[0]) if row else 0


MANY: Final = 20_000
"""Versions beyond which a change is taken for one of the whole map."""


def latest_change(store: Store) -> datetime | None:
    """When the map or a status was last written; None before anything was."""
    row = store.execute(
        "SELECT greatest((SELECT max(recorded) FROM polygons), "
        "(SELECT max(recorded) FROM retirements), (SELECT max(recorded) FROM legal))"
    ).fetchone()
    return row[0] if row else None


def ground_changed(store: Store, since: datetime) -> npt.NDArray[np.float64] | None:
    """Rectangles ``(n, 4)`` around every polygon that came, went or has another status, as known
    since after an instant; None where that is most of the map."""
    rows = store.execute(
        "SELECT version FROM retirements WHERE recorded > $since "
        "UNION SELECT version FROM legal WHERE recorded > $since LIMIT $most",
        {"since": since, "most": MANY + 1},
    ).fetchall()
    if len(rows) > MANY:
        return None
    boxes = "SELECT ST_XMin(geom), ST_YMin(geom), ST_XMax(geom), ST_YMax(geom) FROM polygons WHERE "
    found = store.execute(boxes + "recorded > ?", [since]).fetchall()
    if rows:
        known = [int(row[0]) for row in rows]
        found += store.execute(
            boxes + "version BETWEEN ? AND ? AND version IN (SELECT unnest(?::BIGINT[]))",
            [min(known), max(known), known],
        ).fetchall()
    return np.array(found, np.float64).reshape(-1, 4)


def millesimes(store: Store) -> list[int]:
    """Years the map can be shown at: the one it was made from, and those it grew in."""
    rows = store.execute(
        "SELECT DISTINCT year(acquired) FROM events WHERE changed > 0 ORDER BY 1"
    ).fetchall()
    return sorted({store.millesime, *(int(row[0]) for row in rows)})


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a polygon; ``area`` in m², ``valid_to`` None where it still holds."""

    version: int
    code_cs: str | None
    code_us: str | None
    area: float
    source: str
    valid_from: datetime
    valid_to: datetime | None
    recorded: datetime
    event: str | None


def versions_of(store: Store, polygon: str) -> list[Version]:
    """Every version of a polygon, oldest first."""
    rows = store.execute(
        "SELECT version, code_cs, code_us, ST_Area(geom), source, valid_from, "
        "(SELECT min(valid_to) FROM retirements r WHERE r.version = p.version), recorded, event "
        "FROM polygons p WHERE id = ? ORDER BY version",
        [polygon],
    ).fetchall()
    return [Version(*row) for row in rows]
