"""The map as a raster: what a window shows is what rasterising the whole map shows."""

import numpy as np
import pytest
from rasterio.features import rasterize
from rasterio.transform import from_origin
from shapely.geometry import box

from daemon.labels import MapLabels
from detectors.types import Grid, Window
from schemas.nomenclature import CS_INDEX
from tests.coverages import random_coverage
from updater.types import MapPolygon

GRID = Grid("EPSG:2154", from_origin(-20, 420, 1, 1), (440, 440), 0)


def test_windows_agree_with_the_whole(monkeypatch):
    polygons = random_coverage(np.random.default_rng(4))
    labels = MapLabels(polygons, map_crs="EPSG:2154", grid=GRID)
    values = [(p.geometry, CS_INDEX[p.code_cs]) for p in polygons]
    whole = rasterize(values, GRID.shape, transform=GRID.transform, fill=0, dtype="uint8")
    assert np.array_equal(labels(GRID.window), whole)
    window = Window(100, 37, 90, 211)
    assert np.array_equal(labels(window), whole[window.slices])


def test_no_polygon_and_no_code_are_zero():
    bare = MapPolygon("N", None, None, 2021, box(0, 0, 50, 50))
    labels = MapLabels([bare], map_crs="EPSG:2154", grid=GRID)
    assert not labels(GRID.window).any()
    assert MapLabels([], map_crs="EPSG:2154", grid=GRID)(Window(0, 0, 5, 7)).shape == (5, 7)


def test_a_map_is_drawn_on_a_grid_of_another_crs():
    square = MapPolygon("A", "CS2.2.1", "US1.1", 2021, box(600_000, 6_600_000, 600_100, 6_600_100))
    degrees = Grid("EPSG:4326", from_origin(1.68, 46.5, 1e-5, 1e-5), (2_000, 2_000), 0)
    drawn = MapLabels([square], map_crs="EPSG:2154", grid=degrees)(degrees.window)
    metres = 111_320.0 * 1e-5
    area = (drawn > 0).sum() * metres * metres * np.cos(np.radians(46.49))
    assert area == pytest.approx(10_000, rel=0.02)
