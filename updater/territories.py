"""Territories people ask for: communes, EPCI, SCOT, départements, or any polygon of a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from schemas.alert import Place
from schemas.territory import TerritoryKind
from updater.crs import reproject
from updater.errors import ImportFailed, NotFound
from updater.generalise import as_multi
from updater.store import Store
from updater.vector_io import VECTOR, column, read, texts

CODE_COLUMNS: Final = (
    "code_insee",
    "insee_com",
    "insee",
    "code_siren",
    "siren_epci",
    "siren",
    "code_scot",
    "id_scot",
    "insee_dep",
    "code_dep",
    "code",
    "id",
)
NAME_COLUMNS: Final = ("nom_officiel", "nom_com", "nom", "nom_epci", "libelle", "name")
"""Names these columns have in ADMIN EXPRESS and its relatives; case does not matter."""


@dataclass(frozen=True, slots=True)
class Territory:
    """A territory in the CRS of the store."""

    kind: TerritoryKind
    code: str
    name: str
    geometry: BaseGeometry


def add_territories(store: Store, path: Path, kind: TerritoryKind) -> int:
    """Make the territories of a file known; one known already is replaced. Gives how many.

    Raises:
        ImportFailed: unreadable, without CRS, or without a code column.
    """
    frame = read(path)
    if frame.crs is None:
        raise ImportFailed(f"{path.name} has no CRS; write one.")
    if column(frame, CODE_COLUMNS) is None:
        raise ImportFailed(
            f"{path.name} has no code column ({', '.join(CODE_COLUMNS[:5])}, …); rename one."
        )
    shapes = shapely.make_valid(np.array(frame.to_crs(store.crs).geometry, dtype=object))
    codes, names = texts(frame, *CODE_COLUMNS), texts(frame, *NAME_COLUMNS)
    added = 0
    with store.transaction() as cursor:
        for code, name, shape in zip(codes, names, shapes, strict=True):
            if code is None or shape is None or shape.is_empty:
                continue
            wkb = shapely.to_wkb(as_multi(shape))
            cursor.execute(
                "INSERT OR REPLACE INTO territories VALUES (?, ?, ?, ST_GeomFromWKB(?))",
                [kind.value, code, name or code, wkb],
            )
            added += 1
    return added


def territories(store: Store, kind: TerritoryKind | None = None) -> list[Territory]:
    """Every territory the store knows, by kind and code."""
    rows = store.execute(
        "SELECT kind, code, name, ST_AsWKB(geom) FROM territories "
        "WHERE ? IS NULL OR kind = ? ORDER BY kind, code",
        [kind, kind],
    ).fetchall()
    return _territories(rows)


def territories_of(store: Store, codes: Collection[str]) -> list[Territory]:
    """The territories of some codes."""
    rows = store.execute(
        "SELECT kind, code, name, ST_AsWKB(geom) FROM territories "
        "WHERE code IN (SELECT unnest(?::VARCHAR[])) ORDER BY kind, code",
        [list(codes)],
    ).fetchall()
    return _territories(rows)


def _territories(rows: Sequence[tuple[Any, ...]]) -> list[Territory]:
    return [Territory(TerritoryKind(r[0]), r[1], r[2], shapely.from_wkb(bytes(r[3]))) for r in rows]


def places_of(store: Store, grounds: Sequence[BaseGeometry]) -> list[tuple[Place, ...]]:
    """The territories each piece of ground lies in, smallest kind first, and of one kind the one
    that holds most of it."""
    if not grounds:
        return []
    window = shapely.total_bounds(list(grounds)).tolist()
    rows = store.execute(
        "SELECT kind, code, name, ST_AsWKB(geom) FROM territories "
        "WHERE ST_Intersects(geom, ST_MakeEnvelope(?, ?, ?, ?)) ORDER BY kind, code",
        window,
    ).fetchall()
    near = _territories(rows)
    order = list(TerritoryKind)
    found = []
    for ground in grounds:
        shares = [(t, shapely.intersection(t.geometry, ground).area) for t in near]
        inside = [(t, share) for t, share in shares if share > 0]
        inside.sort(key=lambda pair: (order.index(pair[0].kind), -pair[1], pair[0].code))
        found.append(tuple(Place(kind=t.kind, code=t.code, name=t.name) for t, _ in inside))
    return found


def find_territory(store: Store, wanted: str) -> Territory | None:
    """The territory of a code, or the ground of a vector file; None for the whole département.

    Raises:
        NotFound: no territory has that code and no file that name.
        ImportFailed: the file is no vector layer with a CRS.
    """
    if wanted == store.territory:
        return None
    found = territories_of(store, [wanted])
    if found:
        return found[0]
    path = Path(wanted)
    if path.suffix.lower() not in VECTOR or not path.is_file():
        raise NotFound(
            f"There is no territory {wanted!r}; add some with `millesimed territory add`, or give "
            "a vector file."
        )
    frame = read(path)
    if frame.crs is None:
        raise ImportFailed(f"{path.name} has no CRS; write one.")
    ground = shapely.union_all(shapely.make_valid(np.array(frame.geometry, dtype=object)))
    shape = reproject(ground, frame.crs.to_wkt(), store.crs)
    return Territory(TerritoryKind.OTHER, path.stem, path.stem, shape)
