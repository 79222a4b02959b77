"""A golden département extract: a real-looking delivery with known defects planted in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, box

from daemon.bench.patch import CORNER, make_map

SIDE = 20
"""Cells a side of the lattice; cell ``(i, j)`` is row ``SIDE * i + j``."""


def delivery(folder: Path, *, defects: bool = True) -> tuple[gpd.GeoDataFrame, Counter[str]]:
    """OCCUPATION_SOL with older upper-case columns and whole-number years, and the repairs an
    import has to report, by kind. Without ``defects`` there are none."""
    make_map(folder / "clean.gpkg", polygons=SIDE * SIDE, seed=11)
    clean = gpd.read_file(folder / "clean.gpkg")
    frame = gpd.GeoDataFrame(
        {
            "ID": clean["id"],
            "COUVERTURE": clean["code_cs"],
            "USAGE": clean["code_us"],
            "MILLESIME": np.full(len(clean), 2021, np.int32),
            "OSSATURE": clean["ossature"],
        },
        geometry=clean.geometry,
        crs=clean.crs,
    )
    (folder / "clean.gpkg").unlink()
    if not defects:
        return frame, Counter()
    shapes = list(frame.geometry)
    expected: Counter[str] = Counter()

    def plant(kind: str, times: int = 1) -> None:
        expected[kind] += times

    frame.loc[5, "COUVERTURE"] = None
    frame.loc[6, "USAGE"] = None
    plant("null-code", 2)
    frame.loc[7, "COUVERTURE"] = "CS9.9"
    frame.loc[8, "USAGE"] = "US6.4"
    plant("unknown-code", 2)
    frame.loc[9, "ID"] = frame.loc[10, "ID"]
    plant("duplicate-id")
    frame.loc[12, "MILLESIME"] = 2018
    plant("other-year")
    shapes[45] = _spiked(shapes[45])
    plant("invalid")
    shapes[90] = MultiPolygon([shapes[90], shapes[97]])  # two fields that do not touch
    shapes[97] = None
    plant("multi-part")
    plant("empty")
    shapes[150] = _with_vertex(shapes[150])
    plant("edge-matched", 1)
    rows = [
        ("TWICE", "CS2.2.1", "US1.1", shapes[200]),  # drawn twice
        ("INSIDE", "CS1.1.1.1", "US5", _inside(shapes[260])),  # the field has no hole for it
        ("SPECK", "CS1.2.2", "US6.3", box(*(CORNER - 500), *(CORNER - 499.9))),
        ("TWO", "CS2.1.2", "US6.3", _bow_tie(CORNER - (400, 0))),
    ]
    plant("duplicate")
    plant("overlap")
    plant("edge-moved")
    plant("sliver")
    plant("invalid")
    plant("multi-part")
    more = gpd.GeoDataFrame(
        {
            "ID": [r[0] for r in rows],
            "COUVERTURE": [r[1] for r in rows],
            "USAGE": [r[2] for r in rows],
            "MILLESIME": np.full(len(rows), 2021, np.int32),
            "OSSATURE": np.zeros(len(rows), np.int32),
        },
        geometry=[r[3] for r in rows],
        crs=frame.crs,
    )
    frame = frame.set_geometry(gpd.GeoSeries(shapes, crs=frame.crs))
    whole = gpd.GeoDataFrame(
        {name: [*frame[name], *more[name]] for name in frame.columns}, crs=frame.crs
    )
    return whole.set_geometry("geometry"), expected


def _spiked(polygon: Polygon) -> Polygon:
    """The polygon with a spike of no width into its own middle: invalid, of the same ground."""
    ring = shapely.get_coordinates(polygon.exterior)
    middle = np.round(shapely.get_coordinates(polygon.centroid)[0], 2)
    return Polygon([*ring[:3], middle, *ring[2:]])


def _with_vertex(polygon: Polygon) -> Polygon:
    """The polygon with a vertex that its neighbour lacks, in the middle of an edge."""
    ring = shapely.get_coordinates(polygon.exterior)
    half = np.round((ring[2] + ring[3]) / 2, 2)
    return Polygon([*ring[:3], half, *ring[3:]])


def _inside(polygon: Polygon) -> Polygon:
    x, y = np.round(shapely.get_coordinates(polygon.point_on_surface())[0], 0)
    return box(x - 8, y - 6, x + 8, y + 6)


def _bow_tie(at: np.ndarray) -> Polygon:
    x, y = at
    return Polygon([(x, y), (x + 100, y + 100), (x + 100, y), (x, y + 100)])
