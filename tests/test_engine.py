"""The tile engine: no seams, bytes that mean what they say, PNG in and PNG-sized GeoTIFF out."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from daemon.demo.render import write_geotiff
from daemon.detect_pair import detect_pair
from detectors.cva import Cva
from detectors.deep_cva import DeepCva
from detectors.engine import detect_scene, quantised, ramp, sieved
from detectors.registry import DETECTORS, make_detector
from detectors.scene import open_scene
from detectors.scratch import Scratch
from detectors.types import CHANGED, Grid, Window

BOUNDS = (500_000.0, 6_280_000.0, 500_384.0, 6_280_384.0)


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(9)
    coarse = rng.normal(0, 1, (3, 24, 24)).repeat(32, 1).repeat(32, 2)
    before = np.clip(110 + 30 * coarse + rng.normal(0, 6, coarse.shape), 0, 255)
    after = before + rng.normal(0, 4, before.shape)
    after[:, 200:300, 240:300] = 220
    for name, image in (("before", before), ("after", after)):
        write_geotiff(tmp_path / f"{name}.tif", np.clip(image, 0, 255).astype(np.uint8), BOUNDS)
    return tmp_path / "before.tif", tmp_path / "after.tif"


@pytest.mark.parametrize(("detector", "tolerance"), [(Cva, 1), (DeepCva, 12)])
def test_tiled_and_whole_agree(pair, detector, tolerance):
    with open_scene([pair[0]], pair[1]) as scene:
        results = []
        for size in (256, 1024):
            with detect_scene(scene, detector(), tile_size=size) as found:
                results.append(found.read(scene.grid.window)[0].astype(int))
    difference = np.abs(results[0] - results[1])
    assert np.quantile(difference, 0.99) <= tolerance
    assert difference.mean() < 0.3 * tolerance


@pytest.mark.parametrize("name", [n for n, e in DETECTORS.items() if not e.make().needs_map])
def test_a_pair_with_itself_flags_nothing(pair, name):
    with (
        open_scene([pair[0]], pair[0]) as scene,
        detect_scene(scene, make_detector(name)) as found,
    ):
        assert found.changed_fraction == 0


def test_specks_are_taken_out_wherever_strips_end(monkeypatch):
    grid = Grid("EPSG:2154", from_origin(0, 300, 1, 1), (300, 40), 0)
    found = np.zeros((4, 300, 40), np.uint8)
    for row in range(0, 300, 30):
        found[0, row : row + 2, 5:9] = 200  # 8 m²
        found[0, row + 12 : row + 20, 5:13] = 200  # 64 m²
    layers = Scratch(4, grid.shape, np.uint8, Path())
    layers.write(grid.window, found)
    monkeypatch.setattr("detectors.engine.STRIP_PIXELS", 40)
    assert sieved(layers, grid) == 10 * 64
    left = layers.read(grid.window)[0]
    assert (left >= CHANGED).sum() == 10 * 64 and (left == CHANGED - 1).sum() == 10 * 8


def test_half_is_128_and_a_ramp_never_weighs_nothing():
    assert quantised(np.array([0.0, 0.49999, 0.5, 1.0], np.float32)).tolist() == [0, 127, 128, 255]
    weights = ramp(Window(100, 100, 100, 80), (500, 500), 16)
    assert weights.min() > 0 and weights.max() <= 1.001 and weights[50, 40] == weights.max()
    corner = ramp(Window(0, 0, 100, 80), (500, 500), 16)
    assert corner[0, 0] == weights.max() and corner[-1, -1] < 0.01


def test_change_tif_lies_on_the_grid_of_before_and_regions_beside_it(pair, tmp_path):
    figures = detect_pair(*pair, out=tmp_path / "out", detector="cva", map_path=None, device="cpu")
    with rasterio.open(pair[0]) as before, rasterio.open(tmp_path / "out" / "change.tif") as change:
        assert (change.crs, change.transform, change.shape) == (
            before.crs,
            before.transform,
            before.shape,
        )
        assert change.dtypes == ("uint8",)
        flagged = change.read(1) >= CHANGED
    assert flagged.mean() == pytest.approx(figures["changed_fraction"])
    assert flagged[210:290, 250:290].mean() > 0.9
    with Image.open(tmp_path / "out" / "change.png") as picture:
        outlined = np.asarray(picture)[:, 768 + 10 :]
    assert (outlined == (255, 40, 60)).all(axis=-1).sum() > 100
    assert figures["regions"] >= 1 and (tmp_path / "out" / "regions.gpkg").is_file()


def test_png_in_gives_a_geotiff_of_its_size(tmp_path):
    rng = np.random.default_rng(2)
    image = rng.integers(60, 180, (200, 300, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    image[50:120, 80:160] = 250
    Image.fromarray(image).save(tmp_path / "b.png")
    detect_pair(
        tmp_path / "a.png",
        tmp_path / "b.png",
        out=tmp_path / "out",
        detector="cva",
        map_path=None,
        device="cpu",
    )
    with rasterio.open(tmp_path / "out" / "change.tif") as change:
        assert change.shape == (200, 300)
        assert (change.read(1)[60:110, 90:150] >= CHANGED).mean() > 0.9
    with Image.open(tmp_path / "out" / "change.png") as picture:
        assert picture.size == (3 * 300 + 20, 200)
