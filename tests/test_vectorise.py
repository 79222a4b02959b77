"""From probabilities to regions: covers vote, speckle goes, areas are in square metres."""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pytest
from rasterio.transform import from_origin

from detectors.types import Grid, Region
from detectors.vectorise import area_of, regions, write_regions
from schemas.nomenclature import CS_INDEX

LAWN, HOUSE, ROAD = (CS_INDEX[c] for c in ("CS2.2.1", "CS1.1.1.1", "CS1.1.1.2"))


@dataclass
class Found:
    """What ``regions`` reads of a detection."""

    layers: np.ndarray
    grid: Grid

    @property
    def scene(self):
        return self

    def read(self, window):
        return self.layers[(slice(None), *window.slices)]


def empty(gsd=0.5, crs="EPSG:2154", shape=(200, 240)):
    layers = np.zeros((4, *shape), np.uint8)
    layers[2] = LAWN
    return Found(layers, Grid(crs, from_origin(500_000, 6_300_000, gsd, gsd), shape, 0))


def paint(found, rows, cols, cover, probability=230):
    found.layers[0, rows, cols] = probability
    found.layers[3, rows, cols] = cover


def test_one_object_is_one_region_with_its_covers():
    found = empty()
    paint(found, slice(40, 80), slice(60, 120), HOUSE)
    (region,) = regions(found)
    assert region.geometry.area == pytest.approx(40 * 60 * 0.25)
    assert (region.from_cs, region.to_cs) == ("CS2.2.1", "CS1.1.1.1")
    assert region.probability == pytest.approx(230 / 255)


def test_speckle_and_what_is_too_small_are_left_out():
    found = empty()
    paint(found, slice(10, 11), slice(0, 200), ROAD)  # half a metre wide
    paint(found, slice(100, 110), slice(100, 110), HOUSE)  # 25 m²
    assert regions(found) == []
    assert len(regions(found, min_area=20)) == 1


def test_two_covers_that_touch_become_two_regions_and_speckle_does_not_split():
    found = empty()
    paint(found, slice(20, 80), slice(20, 80), HOUSE)
    paint(found, slice(20, 80), slice(80, 160), ROAD)
    rng = np.random.default_rng(0)
    noisy = rng.random((60, 60)) < 0.1
    found.layers[3, 20:80, 20:80][noisy] = ROAD
    large = [r for r in regions(found) if r.geometry.area > 100]
    assert sorted(r.to_cs for r in large) == ["CS1.1.1.1", "CS1.1.1.2"]
    assert sum(r.geometry.area for r in large) == pytest.approx(60 * 140 * 0.25, rel=0.02)


def test_regions_come_in_the_crs_they_are_wanted_in():
    found = empty()
    paint(found, slice(40, 80), slice(60, 120), HOUSE)
    (here,), (there,) = regions(found), regions(found, target_crs="EPSG:4326")
    back = gpd.GeoSeries([there.geometry], crs=4326).to_crs(2154)[0]
    assert back.symmetric_difference(here.geometry).area < 0.1


def test_area_on_a_grid_in_degrees_is_square_metres():
    found = empty(gsd=1e-4, crs="EPSG:4326", shape=(20, 20))
    grid = Grid("EPSG:4326", from_origin(2.0, 48.0, 1e-4, 1e-4), (20, 20), 0)
    found.grid = grid
    paint(found, slice(2, 12), slice(2, 12), HOUSE)
    (region,) = regions(found)
    metres = gpd.GeoSeries([region.geometry], crs=4326).to_crs(2154)[0].area
    assert area_of(region.geometry, grid.crs) == pytest.approx(metres, rel=2e-3)


def test_a_file_of_regions_has_the_documented_columns(tmp_path):
    found = empty()
    paint(found, slice(40, 80), slice(60, 120), HOUSE)
    write_regions(regions(found), tmp_path / "r.gpkg", crs="EPSG:2154")
    frame = gpd.read_file(tmp_path / "r.gpkg")
    assert {"from_cs", "to_cs", "probability", "magnitude", "surface", "looks"} <= set(frame)
    assert frame["surface"][0] == pytest.approx(600)
    write_regions([], tmp_path / "none.gpkg", crs="EPSG:2154")
    assert len(gpd.read_file(tmp_path / "none.gpkg")) == 0


def test_largest_first():
    found = empty()
    paint(found, slice(10, 30), slice(10, 40), HOUSE)
    paint(found, slice(100, 180), slice(10, 90), ROAD)
    areas = [r.geometry.area for r in regions(found)]
    assert areas == sorted(areas, reverse=True) and len(areas) == 2
    assert isinstance(regions(found)[0], Region)


def test_strips_and_large_regions_agree_with_the_whole(monkeypatch):
    found = empty()
    rng = np.random.default_rng(3)
    for _ in range(12):
        row, col = rng.integers(0, 160), rng.integers(0, 200)
        paint(found, slice(row, row + 30), slice(col, col + 25), HOUSE)
    whole = regions(found)
    monkeypatch.setattr("detectors.vectorise.STRIP_PIXELS", 240 * 7)
    monkeypatch.setattr("detectors.vectorise.LARGE_PIXELS", 0)
    strips = regions(found)
    assert len(strips) == len(whole) > 1
    for a, b in zip(whole, strips, strict=True):
        assert a.geometry.equals(b.geometry)
        assert (a.from_cs, a.to_cs) == (b.from_cs, b.to_cs)
        assert a.probability == pytest.approx(b.probability)
