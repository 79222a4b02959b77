"""From a delivered map to a store: find the layers, read the codes, repair, report, load.

Layers and columns are found by content, in any case and by older names; every repair is counted by
kind and listed with the polygon it touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from detectors.types import Progress
from schemas.nomenclature import CS_LEAVES, US_CODES
from updater import faults
from updater.commit import append_polygons
from updater.crs import epsg_of, legal_crs
from updater.errors import ImportFailed, StoreError
from updater.generalise import polygons_of
from updater.repair import ImportReport, Outlines, as_coverage, single_parts
from updater.store import Store
from updater.types import MapPolygon
from updater.vector_io import (
    CS_COLUMNS,
    US_COLUMNS,
    YEAR_COLUMNS,
    column,
    read,
    read_cover,
    read_zone,
    texts,
)

TRUE = frozenset({"1", "1.0", "true", "True", "t", "oui"})


def prepare(
    path: Path,
    *,
    millesime: int,
    territory: str | None = None,
    progress: Progress | None = None,
) -> tuple[list[MapPolygon], ImportReport]:
    """Read and repair a map without storing it (what ``--dry-run`` shows).

    Raises:
        ImportFailed: unreadable, no polygons, no CRS, or beyond repair.
    """
    try:
        return _prepared(path, millesime, territory, progress)
    except (ShapelyError, ProjError) as error:
        text = " ".join(str(error).split())[:120].rstrip(".")
        raise ImportFailed(
            f"The shapes of {path.name} are beyond repair ({text}); check its CRS and clean it "
            "with coverage tools first."
        ) from None


def _prepared(
    path: Path, millesime: int, territory: str | None, progress: Progress | None
) -> tuple[list[MapPolygon], ImportReport]:
    report = ImportReport()
    tick = progress or (lambda *_: None)
    tick("read", 0, 3)
    frame, report.crs = _projected(read_cover(path), path, legal_crs(territory), report)
    tick("read", 1, 3)
    names = _names(frame)
    outlines = single_parts(names, np.array(frame.geometry, dtype=object), report)
    tick("read", 2, 3)
    if not len(outlines):
        raise ImportFailed(f"{path.name} holds no polygon; give the OCCUPATION_SOL layer.")
    outlines = as_coverage(outlines, report, progress)
    polygons = _polygons(frame, names, outlines, millesime, report)
    tick("read", 3, 3)
    report.polygons = len(polygons)
    report.area = float(shapely.area(outlines.shapes).sum())
    report.valid = True  # as_coverage gives a coverage or raises
    return polygons, report


def create_store(
    db: Path,
    source: Path,
    *,
    territory: str,
    millesime: int,
    zone: Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Make a store from a map file (and its zone construite, by default the one in that file).

    Raises:
        ImportFailed: as ``prepare``.
        StoreError: the store exists already.
    """
    if db.exists():
        raise StoreError(f"{db} exists already; choose another file or remove it first.")
    polygons, report = prepare(source, millesime=millesime, territory=territory, progress=progress)
    zones = _zones(zone, source, report.crs)
    db.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=db.parent, prefix=".init-") as folder:  # whole or not at all
        staged = Path(folder) / db.name
        store = Store.create(staged, territory=territory, crs=report.crs, millesime=millesime)
        try:
            load(store, polygons, zones, millesime=millesime, progress=progress)
        finally:
            store.close()
        if db.exists():
            raise StoreError(f"{db} was made by another process meanwhile; it is left alone.")
        faults.reached("in-import")
        staged.replace(db)
    return report


BATCH = 100_000
"""Polygons appended in one go."""


def load(
    store: Store,
    polygons: Sequence[MapPolygon],
    zones: Sequence[BaseGeometry],
    *,
    millesime: int,
    progress: Progress | None = None,
) -> None:
    """Put a prepared map into an empty store and index it."""
    valid_from = datetime(millesime, 1, 1, tzinfo=UTC)
    recorded = store.clock()
    # neighbours on the ground become neighbours in the file: a look-up reads fewer blocks
    order = gpd.GeoSeries([p.geometry for p in polygons]).hilbert_distance().argsort().tolist()
    polygons = [polygons[i] for i in order]
    with store.transaction() as cursor:
        for start in range(0, len(polygons), BATCH):
            part = polygons[start : start + BATCH]
            append_polygons(cursor, part, valid_from=valid_from, recorded=recorded, event=None)
            if progress is not None:
                progress("store", min(start + BATCH, len(polygons)), len(polygons))
        for shape in zones:
            cursor.execute(
                "INSERT INTO zone_construite VALUES (ST_GeomFromWKB(?))", [shapely.to_wkb(shape)]
            )
    store.build_index()


def _projected(
    frame: gpd.GeoDataFrame, path: Path, crs_in_metres: str, report: ImportReport
) -> tuple[gpd.GeoDataFrame, str]:
    if frame.crs is None:
        raise ImportFailed(f"{path.name} has no CRS; write one, EPSG:2154 for Lambert-93.")
    crs = CRS.from_user_input(frame.crs)
    if crs.is_geographic:
        report.note("reprojected", path.name)
        return frame.to_crs(crs_in_metres), crs_in_metres
    if any(axis.unit_conversion_factor != 1.0 for axis in crs.axis_info):
        raise ImportFailed(f"{path.name} is in {crs.name}, not in metres; project it first.")
    epsg = epsg_of(crs)
    return frame, f"EPSG:{epsg}" if epsg else crs.to_wkt()


def _names(frame: gpd.GeoDataFrame) -> list[str]:
    """The id of every row; those without one are named by their place in the file."""
    given = texts(frame, "id")
    return [name or f"P{number:08d}" for number, name in enumerate(given, start=1)]


def _polygons(
    frame: gpd.GeoDataFrame,
    names: Sequence[str],
    outlines: Outlines,
    millesime: int,
    report: ImportReport,
) -> list[MapPolygon]:
    """The repaired outlines with the codes of the rows they come from."""
    cs = _codes(texts(frame, *CS_COLUMNS), CS_LEAVES, names, report)
    us = _codes(texts(frame, *US_COLUMNS), US_CODES, names, report)
    _check_years(frame, names, millesime, report)
    source = [text or "calcul" for text in texts(frame, "source")]
    fixed = [text in TRUE for text in texts(frame, "ossature")]
    origin = [text or "NC" for text in texts(frame, "id_origine")]
    code = [text or "NC" for text in texts(frame, "code_or")]
    return [
        MapPolygon(
            name,
            cs[row],
            us[row],
            millesime,
            shape,
            0,
            source[row],
            fixed[row],
            origin[row],
            code[row],
        )
        for row, name, shape in zip(
            outlines.rows.tolist(), outlines.names, outlines.shapes, strict=True
        )
    ]


def _codes(
    given: Sequence[str | None], allowed: Sequence[str], names: Sequence[str], report: ImportReport
) -> list[str | None]:
    """Codes of the nomenclature; others are left null and noted."""
    known = set(allowed)
    for text, name in zip(given, names, strict=True):
        if text not in known:
            report.note("null-code" if text is None else "unknown-code", name)
    return [text if text in known else None for text in given]


def _check_years(
    frame: gpd.GeoDataFrame, names: Sequence[str], millesime: int, report: ImportReport
) -> None:
    """Note polygons whose own year is another: text (2021, 2021-01-01) or a number."""
    if column(frame, YEAR_COLUMNS) is None:
        return
    for text, name in zip(texts(frame, *YEAR_COLUMNS), names, strict=True):
        if text is not None and text[:4] != str(millesime):
            report.note("other-year", name)


def _zones(zone: Path | None, source: Path, crs: str) -> list[BaseGeometry]:
    """The built-up zones: of the file given, or of the layer that lies beside the map."""
    frame = read(zone) if zone else read_zone(source)
    if frame is None:
        return []
    if frame.crs is None:
        raise ImportFailed(f"{(zone or source).name} has no CRS; write one.")
    shapes = shapely.make_valid(np.array(frame.to_crs(crs).geometry, dtype=object))
    return [part for shape in shapes if shape is not None for part in polygons_of(shape)]
