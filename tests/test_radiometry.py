"""Matching recovers a known exposure although part of the ground changed."""

import numpy as np
import pytest
import torch

from detectors.radiometry import fit, identity


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_gain_and_offset_are_recovered_under_change(share):
    rng = np.random.default_rng(7)
    before = rng.normal([90, 110, 100], [35, 25, 30], (20_000, 3)).astype(np.float32)
    gain, offset = np.array([1.25, 0.8, 1.1]), np.array([-9.0, 14.0, 3.0])
    after = (before - offset) / gain
    changed = rng.random(len(after)) < share
    after[changed] = rng.normal(200, 20, (int(changed.sum()), 3))
    match = fit(before, after.astype(np.float32))
    restored = match.apply(torch.as_tensor(after.T[:, None].astype(np.float32)))[:, 0].T.numpy()
    assert np.abs(restored - before)[~changed].mean() < 1.5


def test_the_same_image_and_too_few_pixels_are_left_alone():
    rng = np.random.default_rng(7)
    image = rng.normal(100, 20, (5_000, 3)).astype(np.float32)
    for match in (fit(image, image), fit(image[:50], image[:50] * 2)):
        assert match.gain.tolist() == identity(3).gain.tolist()
        assert match.offset.tolist() == [0, 0, 0]
