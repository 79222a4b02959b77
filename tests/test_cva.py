"""Change vectors agree with plain float64 NumPy, and nothing changes in a pair of one image."""

import numpy as np
import pytest

from detectors.cva import Cva
from detectors.engine import detect_scene
from detectors.scene import open_scene
from tests.test_scene import pair


def brightened(image):
    image[:, 60:120, 60:120] = 250
    return image


def test_probability_follows_the_standardised_length(tmp_path):
    before, after = pair(tmp_path, brightened)
    with open_scene([before], after) as scene:
        detector = Cva()
        detector.fit(scene, seed=0)
        tile = scene.tile(scene.grid.window)
        scores = detector.detect([tile])[0]
    a, b = (image.double().numpy().reshape(3, -1) for image in (tile.before, tile.after))
    difference = (b - a).T  # the scene is one tile: its pixels are the sample
    centre = np.median(difference, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(difference - centre), axis=0), 1e-3)
    length = (((difference - centre) / spread) ** 2).mean(axis=1)
    expected = np.tanh(np.sqrt(length) / 6).reshape(256, 256)
    same = (a == b).all(axis=0).reshape(256, 256)
    assert scores.magnitude.numpy()[~same] == pytest.approx(expected[~same], abs=1e-3)
    flagged = scores.probability.numpy() >= 0.5
    assert flagged[65:115, 65:115].mean() > 0.95 and flagged[150:].mean() < 0.01


def test_a_pair_with_itself_flags_nothing(tmp_path):
    before, after = pair(tmp_path, lambda image: image)
    with open_scene([before], after) as scene, detect_scene(scene, Cva()) as found:
        assert found.changed_fraction == 0
