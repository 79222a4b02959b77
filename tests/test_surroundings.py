"""Lessons: old ground around a scene, never the scene's own, with the labels of that ground."""

import numpy as np
import pytest
import torch
from rasterio.transform import from_origin

from detectors.scene import open_scene
from detectors.surroundings import Surroundings
from detectors.types import Grid
from tests.test_raster import written

GSD = 1.0


@pytest.fixture
def images(tmp_path):
    """An old image of 512 m whose value tells the place, a new one of its north-east quarter."""
    place = np.add.outer(np.arange(512) // 4, np.zeros(512, int)).astype(np.uint8) + 1
    before = written(tmp_path / "before.tif", np.stack([place] * 3), north=512.0)
    after = written(
        tmp_path / "after.tif", np.full((3, 256, 256), 90, np.uint8), west=256.0, north=512.0
    )
    return before, after


def labels(grid):
    """Covers by place: class 3 in the north half, class 5 in the south half."""

    def draw(window):
        _, north = grid.transform_of(window) @ (0, 0)
        rows = north - (np.arange(window.height) + 0.5) * GSD
        half = np.where(rows > 256, 3, 5).astype(np.uint8)
        return np.repeat(half[:, None], window.width, axis=1)

    return draw


def test_lessons_lie_outside_the_scene_and_carry_their_own_labels(images):
    before, after = images
    with open_scene([before], after, labels=labels, whole_before=False) as scene:
        assert scene.grid.shape == (256, 256)
        lessons = list(scene.lessons(size=64, count=99, seed=0))
        again = list(scene.lessons(size=64, count=5, seed=0))
    assert len(lessons) == 64 - 16 and len(again) == 5
    for lesson in lessons:
        row = (lesson.before[0, 0, 0] - 1) * 4  # the image tells where it is
        assert (lesson.labels == (3 if row < 256 else 5)).all() and lesson.valid.all()


def test_a_scene_that_is_all_there_is_has_none(images):
    before, _ = images
    grid = Grid("EPSG:2154", from_origin(0, 512, 1, 1), (512, 512), 0)
    around = Surroundings([before], grid, bands=3, labels=labels, device=torch.device("cpu"))
    assert list(around.lessons(size=64, count=9, seed=0)) == []


def test_ground_farther_than_a_kilometre_teaches_nothing(images, monkeypatch):
    before, _ = images
    monkeypatch.setattr("detectors.surroundings.CONTEXT_M", 64.0)
    grid = Grid("EPSG:2154", from_origin(0, 512, 1, 1), (64, 64), 0)
    around = Surroundings([before], grid, bands=3, labels=labels, device=torch.device("cpu"))
    lessons = list(around.lessons(size=64, count=99, seed=0))
    assert len(lessons) == 3
