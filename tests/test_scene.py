"""The scene: windows that cover the grid once, tiles that are matched, masked and repeatable."""

import numpy as np
import pytest
from rasterio.transform import from_origin

from detectors.errors import NothingValid
from detectors.scene import open_scene, windows
from detectors.scratch import Scratch
from detectors.types import Grid, Window
from tests.test_raster import written


@pytest.mark.parametrize(("shape", "block"), [((1000, 700), 256), ((513, 40), 0), ((64, 64), 128)])
def test_windows_cover_the_grid_once_and_lie_on_blocks(shape, block):
    grid = Grid("EPSG:2154", from_origin(0, 0, 1, 1), shape, block)
    seen = np.zeros(shape, int)
    for window in windows(grid, 512):
        seen[window.slices] += 1
        assert not block or (window.row % block == 0 and window.col % block == 0)
    assert (seen == 1).all()


def test_scratch_gives_back_what_it_was_given_on_disk_too(tmp_path, monkeypatch):
    monkeypatch.setattr("detectors.scratch.IN_MEMORY_BYTES", 0)
    scratch = Scratch(2, (30, 40), np.dtype(np.uint8), tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 10, 20)).astype(np.uint8)
    scratch.write(Window(5, 7, 10, 20), pixels)
    assert np.array_equal(scratch.read(Window(5, 7, 10, 20)), pixels)
    whole = scratch.read(Window(0, 0, 30, 40))
    assert whole.sum() == pixels.sum() and whole.dtype == np.uint8
    scratch.write(Window(20, 0, 2, 40), np.full((2, 2, 40), 7, np.uint8))
    assert (scratch.read(Window(20, 3, 2, 9)) == 7).all()
    scratch.close()
    assert not list(tmp_path.iterdir())


def pair(tmp_path, change):
    rng = np.random.default_rng(3)
    before = np.clip(rng.normal(120, 30, (3, 256, 256)), 1, 255).astype(np.uint8)
    paths = (tmp_path / "before.tif", tmp_path / "after.tif")
    written(paths[0], before, nodata=0)
    written(paths[1], change(before.copy()), nodata=0)
    return paths


def test_exposure_is_matched_and_nodata_of_either_date_hidden(tmp_path):
    def darker(image):
        image = (image * 0.7 + 12).astype(np.uint8)
        image[:, 100:120] = 0
        return image

    before, after = pair(tmp_path, darker)
    with open_scene([before], after) as scene:
        tile = scene.tile(scene.grid.window)
        again = scene.tile(scene.grid.window)
    seen = tile.valid.numpy()
    assert not seen[100:120].any() and seen[:100].all()
    difference = (tile.after - tile.before).numpy()[:, seen]
    assert np.abs(difference).mean() < 2
    assert (tile.after == again.after).all()


def test_samples_are_the_same_for_a_seed(tmp_path):
    before, after = pair(tmp_path, lambda image: image)
    with open_scene([before], after) as scene:
        draws = [
            [t.window for t in scene.sample(size=32, count=9, seed=seed)] for seed in (1, 1, 2)
        ]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 9


def test_a_pair_without_a_common_valid_pixel_is_refused(tmp_path):
    before, after = pair(tmp_path, np.zeros_like)
    with (
        pytest.raises(NothingValid, match="check their nodata"),
        open_scene([before], after),
    ):
        pass
