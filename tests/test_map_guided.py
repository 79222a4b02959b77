"""The map-guided detector on a corner of the demo landscape: it names what was built."""

import geopandas as gpd
import numpy as np
import pytest
from rasterio.features import rasterize

from daemon.labels import MapLabels
from detectors.engine import detect_scene
from detectors.errors import UnknownDetector
from detectors.map_guided import MapGuided
from detectors.scene import open_scene
from detectors.types import CHANGED
from detectors.vectorise import regions
from schemas.nomenclature import CS_FROM_INDEX
from updater.importer import prepare


@pytest.fixture(scope="module")
def labels(small_scene):
    polygons, _ = prepare(small_scene.map, millesime=2021)
    return lambda grid: MapLabels(polygons, map_crs="EPSG:2154", grid=grid)


def detection(before, after, labels):
    with (
        open_scene([before], after, labels=labels) as scene,
        detect_scene(scene, MapGuided(), seed=0) as found,
    ):
        return found.read(scene.grid.window), scene.grid, regions(found)


@pytest.fixture(scope="module")
def found(small_scene, labels):
    return detection(small_scene.reference, small_scene.after, labels)


def test_true_changes_are_found_and_little_else(small_scene, found):
    layers, grid, _ = found
    truth = rasterize(small_scene.truth.geometry, grid.shape, transform=grid.transform) > 0
    flagged = layers[0] >= CHANGED
    assert (flagged & truth).sum() / truth.sum() > 0.6
    assert flagged[~truth].mean() < 0.03


def test_regions_carry_both_covers_and_a_probability(small_scene, found):
    _, _, regions_found = found
    assert regions_found
    truth = gpd.GeoSeries(small_scene.truth.geometry)
    hit = [r for r in regions_found if truth.intersection(r.geometry).area.sum() > 0]
    assert hit
    for region in hit:
        assert region.from_cs in CS_FROM_INDEX.values()
        assert region.to_cs in CS_FROM_INDEX.values() and region.to_cs != region.from_cs
        assert 0.5 <= region.probability <= 1


def test_a_pair_with_itself_flags_nothing(small_scene, labels):
    layers, _, _ = detection(small_scene.reference, small_scene.reference, labels)
    assert (layers[0] >= CHANGED).mean() < 1e-3


def test_the_same_seed_gives_the_same_bytes(small_scene, labels, found):
    again, _, _ = detection(small_scene.reference, small_scene.after, labels)
    assert np.array_equal(again, found[0])


def test_without_a_map_it_says_what_to_use_instead(small_scene):
    with (
        open_scene([small_scene.reference], small_scene.after) as scene,
        pytest.raises(UnknownDetector, match="--map"),
        detect_scene(scene, MapGuided()),
    ):
        pass
