"""From a delivered map to a store: read, repair what must be, report it, load it.

What a coverage needs is enforced (single parts, valid rings, no overlap, matched edges, the
centimetre grid); what it need not be is left alone (holes, islands). Every repair is counted by
kind and listed with the polygon it touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from pyproj import CRS
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from schemas.nomenclature import CS_LEAVES, US_CODES
from schemas.policy import COORDINATE_GRID_M
from updater import topology
from updater.commit import append_polygons
from updater.crs import epsg_of
from updater.errors import ImportFailed, StoreError
from updater.generalise import polygons_of
from updater.store import Store
from updater.types import MapPolygon
from updater.vector_io import CS_COLUMNS, US_COLUMNS, column, read, read_cover

METROPOLITAN_CRS = "EPSG:2154"
"""Where a map in degrees is projected to: Lambert-93, the product's CRS in metropolitan France."""
SPECK_M2 = 0.05
"""A polygon smaller than this is digitising noise: a few grid cells."""
_CLEAN_ROUNDS = 3
"""Cleaning and rounding may each undo a little of the other; three rounds settle every case met."""


@dataclass(slots=True)
class ImportReport:
    """What an import found and repaired. ``details``: (kind, polygon id) for each repair."""

    polygons: int = 0
    area: float = 0.0
    valid: bool = False
    crs: str = ""
    repaired: Counter[str] = field(default_factory=Counter)
    details: list[tuple[str, str]] = field(default_factory=list)

    def note(self, kind: str, polygon: str) -> None:
        """Count one repair."""
        self.repaired[kind] += 1
        self.details.append((kind, polygon))


def prepare(path: Path, *, millesime: int) -> tuple[list[MapPolygon], ImportReport]:
    """Read and repair a map without storing it (what ``--dry-run`` shows).

    Raises:
        ImportFailed: unreadable, no polygons, no CRS, or beyond repair.
    """
    report = ImportReport()
    frame, report.crs = _projected(read_cover(path), path, report)
    polygons = _single_parts(frame, millesime, report)
    polygons = _without_duplicates(polygons, report)
    if not polygons:
        raise ImportFailed(f"{path.name} holds no polygon; give the OCCUPATION_SOL layer.")
    polygons = _coverage(polygons, report)
    report.polygons = len(polygons)
    report.area = float(shapely.area([p.geometry for p in polygons]).sum())
    report.valid = topology.is_valid_coverage([p.geometry for p in polygons])
    return polygons, report


def create_store(
    db: Path, source: Path, *, territory: str, millesime: int, zone: Path | None = None
) -> ImportReport:
    """Make a store from a map file (and its zone construite).

    Raises:
        ImportFailed: as ``prepare``.
        StoreError: the store exists already.
    """
    polygons, report = prepare(source, millesime=millesime)
    zones = _zones(zone, report.crs) if zone else []
    if db.exists():
        raise StoreError(f"{db} exists already; choose another file or remove it first.")
    db.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=db.parent, prefix=".init-") as folder:  # whole or not at all
        staged = Path(folder) / db.name
        store = Store.create(staged, territory=territory, crs=report.crs, millesime=millesime)
        try:
            load(store, polygons, zones, millesime=millesime)
        finally:
            store.close()
        staged.replace(db)
    return report


def load(
    store: Store,
    polygons: Sequence[MapPolygon],
    zones: Sequence[BaseGeometry],
    *,
    millesime: int,
) -> None:
    """Put a prepared map into an empty store and index it."""
    valid_from = datetime(millesime, 1, 1, tzinfo=UTC)
    with store.transaction() as cursor:
        append_polygons(cursor, polygons, valid_from=valid_from, recorded=store.clock(), event=None)
        for shape in zones:
            cursor.execute(
                "INSERT INTO zone_construite VALUES (ST_GeomFromWKB(?))", [shapely.to_wkb(shape)]
            )
    store.build_index()


def _projected(
    frame: gpd.GeoDataFrame, path: Path, report: ImportReport
) -> tuple[gpd.GeoDataFrame, str]:
    if frame.crs is None:
        raise ImportFailed(f"{path.name} has no CRS; write one, EPSG:2154 for Lambert-93.")
    crs = CRS.from_user_input(frame.crs)
    if crs.is_geographic:
        report.note("reprojected", path.name)
        return frame.to_crs(METROPOLITAN_CRS), METROPOLITAN_CRS
    if any(axis.unit_conversion_factor != 1.0 for axis in crs.axis_info):
        raise ImportFailed(f"{path.name} is in {crs.name}, not in metres; project it first.")
    epsg = epsg_of(crs)
    return frame, f"EPSG:{epsg}" if epsg else crs.to_wkt()


def _text(value: object) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return None
    text = str(value).strip()
    return text or None


def _single_parts(
    frame: gpd.GeoDataFrame, millesime: int, report: ImportReport
) -> list[MapPolygon]:
    cs_name, us_name = column(frame, CS_COLUMNS), column(frame, US_COLUMNS)
    others = {n: column(frame, (n,)) for n in ("id", "source", "ossature", "id_origine", "code_or")}
    taken: set[str] = set()
    polygons = []
    for number, row in enumerate(frame.to_dict("records")):
        name = _text(row.get(others["id"])) if others["id"] else None
        name = name or f"P{number + 1:08d}"
        shape = row[frame.geometry.name]
        if shape is None or shape.is_empty:
            report.note("empty", name)
            continue
        base = MapPolygon(
            id=name,
            code_cs=_code(row, cs_name, CS_LEAVES, name, report),
            code_us=_code(row, us_name, US_CODES, name, report),
            millesime=millesime,
            geometry=Polygon(),
            source=(_text(row.get(others["source"])) if others["source"] else None) or "calcul",
            ossature=bool(others["ossature"]) and _text(row[others["ossature"]]) in {"1", "True"},
            id_origine=_text(row.get(others["id_origine"])) or "NC",
            code_or=_text(row.get(others["code_or"])) or "NC",
        )
        polygons += _named(base, _parts(shape, name, report), taken, report)
    return polygons


def _code(
    row: dict[object, object],
    name: str | None,
    allowed: Sequence[str],
    polygon: str,
    report: ImportReport,
) -> str | None:
    code = _text(row.get(name)) if name else None
    if code is None:
        report.note("null-code", polygon)
        return None
    if code not in allowed:
        report.note("unknown-code", polygon)
        return None
    return code


def _parts(shape: BaseGeometry, name: str, report: ImportReport) -> list[Polygon]:
    """Valid single polygons on the grid; every vertex rounds the same for both its sides."""
    if not shape.is_valid:
        report.note("invalid", name)
        shape = shapely.make_valid(shapely.force_2d(shape))
    rounded = shapely.set_precision(shapely.force_2d(shape), COORDINATE_GRID_M, mode="pointwise")
    if not rounded.is_valid:
        rounded = shapely.make_valid(rounded)
    parts = polygons_of(rounded)
    whole = [part for part in parts if part.area >= SPECK_M2]
    if len(whole) < len(parts) or not whole:
        report.note("sliver", name)
    if len(whole) > 1:
        report.note("multi-part", name)
    return whole


def _named(
    base: MapPolygon, parts: Sequence[Polygon], taken: set[str], report: ImportReport
) -> list[MapPolygon]:
    named = []
    for number, part in enumerate(parts, start=1):
        name = base.id if len(parts) == 1 else f"{base.id}-{number}"
        if name in taken:
            report.note("duplicate-id", name)
            copies = 2
            while f"{name}_{copies}" in taken:
                copies += 1
            name = f"{name}_{copies}"
        taken.add(name)
        named.append(replace(base, id=name, geometry=part))
    return named


def _without_duplicates(polygons: Sequence[MapPolygon], report: ImportReport) -> list[MapPolygon]:
    known: set[bytes] = set()
    kept = []
    shapes = shapely.to_wkb(shapely.normalize([p.geometry for p in polygons]))
    for polygon, wkb in zip(polygons, shapes, strict=True):
        if wkb in known:
            report.note("duplicate", polygon.id)
            continue
        known.add(wkb)
        kept.append(polygon)
    return kept


def _coverage(polygons: list[MapPolygon], report: ImportReport) -> list[MapPolygon]:
    """The polygons as an edge-matched coverage; an overlap goes to the smaller polygon, which is
    the more particular one."""
    _report_overlaps(polygons, report)
    for _ in range(_CLEAN_ROUNDS):
        shapes = np.array([p.geometry for p in polygons], dtype=object)
        edges = shapely.coverage_invalid_edges(shapes)
        bad = np.flatnonzero(~shapely.is_empty(edges))
        if not len(bad):
            return polygons
        tree = shapely.STRtree(shapes)
        members = np.unique(tree.query(shapes[bad], predicate="intersects")[1])
        cleaned = shapely.coverage_clean(
            shapes[members],
            gap_width=topology.CLEAN_GAP_M,
            snapping_distance=COORDINATE_GRID_M / 2,
            merge_strategy="min_area",
        )
        polygons = _put_back(polygons, members, cleaned, report)
    if topology.is_valid_coverage([p.geometry for p in polygons]):
        return polygons
    raise ImportFailed(
        "The map still overlaps itself after three repairs; clean it with coverage tools first."
    )


def _put_back(
    polygons: list[MapPolygon],
    members: npt.NDArray[np.intp],
    cleaned: Sequence[BaseGeometry],
    report: ImportReport,
) -> list[MapPolygon]:
    result: list[MapPolygon] = []
    by_index = dict(zip((int(m) for m in members), cleaned, strict=True))
    for index, polygon in enumerate(polygons):
        if index not in by_index:
            result.append(polygon)
            continue
        shape = by_index[index]
        if shapely.equals_identical(shape, polygon.geometry):
            result.append(polygon)
            continue
        if abs(shape.area - polygon.geometry.area) > SPECK_M2:
            report.note("edge-moved", polygon.id)
        parts = [
            p
            for p in polygons_of(shapely.set_precision(shape, COORDINATE_GRID_M, mode="pointwise"))
            if p.area > 0
        ]
        if not parts:
            report.note("swallowed", polygon.id)
        for number, part in enumerate(parts, start=1):
            name = polygon.id if number == 1 else f"{polygon.id}-{number}"
            result.append(replace(polygon, id=name, geometry=part))
    return result


def _report_overlaps(polygons: Sequence[MapPolygon], report: ImportReport) -> None:
    shapes = [p.geometry for p in polygons]
    tree = shapely.STRtree(shapes)
    first, second = tree.query(shapes, predicate="intersects")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a < b]
    if not pairs:
        return
    left = np.array([shapes[a] for a, _ in pairs], dtype=object)
    right = np.array([shapes[b] for _, b in pairs], dtype=object)
    crossing = ~(shapely.touches(left, right))
    for (a, b), hit in zip(pairs, crossing, strict=True):
        if hit and shapely.intersection(shapes[a], shapes[b]).area > SPECK_M2:
            report.note("overlap", f"{polygons[a].id} × {polygons[b].id}")


def _zones(path: Path, crs: str) -> list[BaseGeometry]:
    frame = read(path)
    if frame.crs is None:
        raise ImportFailed(f"{path.name} has no CRS; write one.")
    shapes = shapely.make_valid(frame.to_crs(crs).geometry.to_numpy())
    return [part for shape in shapes if shape is not None for part in polygons_of(shape)]
