"""A cloud is masked; a quarry, a roof and a pond are not."""

import numpy as np
import pytest

from detectors.masks import cloud, cloud_infrared, cloud_shadow, hidden, snow

GSD = 2.0


def ground(seed=0, level=110.0):
    rng = np.random.default_rng(seed)
    base = np.array([level, level + 15, level - 30])[:, None, None]
    return (base + rng.normal(0, 4, (3, 300, 300))).astype(np.float32)


def veil(cy=150, cx=150, radius=20.0, softness=2.5):
    y, x = np.mgrid[0:300, 0:300]
    distance = np.hypot(y - cy, x - cx)
    return (1 / (1 + np.exp((distance - radius) / softness))).astype(np.float32)


def painted(image, colour, cy=150, cx=150, half=16):
    out = image.copy()
    out[:, cy - half : cy + half, cx - half : cx + half] = np.array(colour)[:, None, None]
    return out


def test_a_soft_white_cloud_and_its_shadow_are_hidden():
    before = ground()
    white = np.array([243, 245, 249], np.float32)[:, None, None]
    after = ground(1) * (1 - 0.5 * veil(100, 210))
    after = after * (1 - veil()) + white * veil()
    found = cloud(after, before, gsd=GSD)
    assert found[150, 150] and found.sum() < 4 * np.pi * 20**2
    assert cloud_shadow(after, before, found, gsd=GSD)[100, 210]
    both = hidden(before, after, gsd=GSD)
    assert both[150, 150] and both[100, 210] and not both[20:60, 20:60].any()
    assert np.array_equal(both, hidden(after, before, gsd=GSD))


@pytest.mark.parametrize(
    "colour", [(206, 194, 168), (232, 234, 238), (40, 55, 66)], ids=["quarry", "roof", "pond"]
)
def test_sharp_or_coloured_ground_is_not(colour):
    assert not hidden(ground(), painted(ground(1), colour), gsd=GSD).any()


def test_snow_is_seen_in_the_short_wave_infrared_and_a_pond_is_not():
    rng = np.random.default_rng(4)
    dry = rng.normal(1500, 300, (200, 200)).clip(300).astype(np.float32)
    white = dry.copy()
    white[40:180] = rng.normal(350, 80, (140, 200)).clip(60)
    hidden_by_snow = snow(white, dry)
    assert hidden_by_snow[60:160].mean() > 0.95 and hidden_by_snow[:30].mean() < 0.05
    assert not snow(dry, white).any()
    pond = dry.copy()
    pond[50:80, 50:80] = 200
    assert not snow(pond, dry).any()


def test_a_cloud_in_the_infrared_fades_and_a_new_quarry_does_not():
    rng = np.random.default_rng(6)
    dry = rng.normal(1300, 120, (200, 200)).clip(300).astype(np.float32)
    y, x = np.mgrid[0:200, 0:200]
    soft = 1 / (1 + np.exp((np.hypot(y - 60, x - 60) - 14) / 2.5))
    cloudy = (dry * (1 - soft) + 4800 * soft).astype(np.float32)
    cloudy[120:150, 120:150] = 3900  # bare rock, with a sharp edge
    found = cloud_infrared(cloudy, dry)
    assert found[60, 60] and not found[135, 135]
    assert not cloud_infrared(dry, cloudy).any()
