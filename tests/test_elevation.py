"""Height: freed of the campaigns' offset, silent where unknown, and heard by the detectors."""

import numpy as np
import pytest
import torch
from rasterio.transform import from_origin

from detectors.elevation import LOUDEST, evidence, rise_of
from detectors.scene import open_scene
from detectors.siamese import Siamese
from detectors.synthetic import make_pair
from detectors.types import Grid
from tests.test_raster import written

PLACE = {"west": 500_000.0, "north": 6_300_000.0, "gsd": 0.2}
SIDE = 192


@pytest.fixture
def models(tmp_path):
    """Surface models of two dates, the second 0.8 m higher everywhere, a block of 6 m built."""
    rng = np.random.default_rng(0)
    low = (120 + rng.normal(0, 0.1, (1, SIDE, SIDE))).astype(np.float32)
    high = low + 0.8
    high[0, 40:90, 50:110] += 6
    high[0, :10] = -9999
    paths = (tmp_path / "low.tif", tmp_path / "high.tif")
    for path, model in zip(paths, (low, high), strict=True):
        written(path, model, nodata=-9999, **PLACE)
    return paths


def test_the_offset_is_taken_off_and_silence_is_nan(models, tmp_path):
    grid = Grid("EPSG:2154", from_origin(500_000, 6_300_000, 0.2, 0.2), (SIDE, SIDE), 0)
    rise = rise_of(([models[0]], models[1]), grid, tmp_path).read_float(grid.window)[0]
    assert np.isnan(rise[:10]).all() and not np.isnan(rise[10:]).any()
    assert rise[45:85, 55:105].mean() == pytest.approx(6, abs=0.05)
    assert np.abs(rise[100:]).max() < 0.1


def test_height_speaks_for_the_way_it_went():
    rise = torch.tensor([[6.0, 6.0, -6.0, 0.0, torch.nan]])
    appears = torch.tensor([[True, False, False, True, True]])
    odds = evidence(rise, appears)[0].tolist()
    assert odds == [LOUDEST, -LOUDEST, LOUDEST, pytest.approx(-3), 0]
    assert not evidence(None, appears).any()


def test_height_settles_what_the_images_leave_open(models, tmp_path):
    made = make_pair(np.random.default_rng([5, 5]), size=SIDE)
    images = (tmp_path / "before.tif", tmp_path / "after.tif")
    for path, image in zip(images, (made.before, made.after), strict=True):
        written(path, image, **PLACE)
    found = []
    for elevation in (None, ([models[0]], models[1])):
        with open_scene([images[0]], images[1], elevation=elevation) as scene:
            detector = Siamese()
            detector.fit(scene, seed=0)
            tile = scene.tile(scene.grid.window)
            assert (tile.rise is None) is (elevation is None)
            found.append(detector.detect([tile])[0].probability)
    flat = found[1][120:, :] - found[0][120:, :]
    assert (flat <= 1e-6).all()  # nothing rose there: less likely than before
    _, before, after = detector.logits(tile)
    rose = (after >= before)[45:85, 55:105]
    assert (found[1] - found[0])[45:85, 55:105][rose].min() >= 0
