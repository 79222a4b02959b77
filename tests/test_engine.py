"""The tile engine: no seams, bytes that mean what they say, PNG in and PNG-sized GeoTIFF out."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from daemon.demo.render import write_geotiff
from daemon.detect_pair import detect_pair
from detectors.cva import Cva
from detectors.deep_cva import DeepCva
from detectors.engine import detect_scene, quantised, ramp
from detectors.scene import open_scene
from detectors.types import CHANGED, Window

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
