"""Masks of Sentinel-2 stacks: cloud by s2cloudless, glint on water, bands by any usual name."""

import builtins

import numpy as np
import pytest

from detectors import sentinel2
from detectors.sentinel2 import CLOUD_BANDS, bands_of, cloud, glint, hidden

FIELD = (1200, 950, 800, 1100, 2900, 3100, 1000, 15, 2000, 1100)
"""Top-of-atmosphere reflectance × 10 000 of a green field, in the order of CLOUD_BANDS."""
CLOUD = (5200, 5300, 5500, 5600, 6000, 6100, 2600, 500, 4300, 3300)
SIDE = 240


def stack(spectrum, seed=0):
    rng = np.random.default_rng(seed)
    values = np.array(spectrum, np.float32)[:, None, None]
    return (values * (1 + rng.normal(0, 0.03, (len(spectrum), SIDE, SIDE)))).astype(np.float32)


def test_the_models_cloud_is_hidden_and_the_field_is_not():
    image = stack(FIELD)
    image[:, 60:150, 80:170] = stack(CLOUD, 1)[:, 60:150, 80:170]
    found = cloud(image, gsd=10.0)
    assert found[65:145, 85:165].all()
    assert not found[200:].any() and not found[:, 220:].any()
    place = {band: index for index, band in enumerate(CLOUD_BANDS)}
    for pair in ((stack(FIELD, 2), image), (image, stack(FIELD, 2))):
        assert np.array_equal(hidden(*pair, place, gsd=10.0)[70:140, 90:160], np.ones((70, 70)))


def test_without_the_model_the_infrared_answers(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.startswith("s2cloudless"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    sentinel2._classifier.cache_clear()
    place = {band: index for index, band in enumerate(CLOUD_BANDS)}
    try:
        assert not hidden(stack(FIELD), stack(FIELD, 1), place, gsd=10.0).any()
        with pytest.raises(RuntimeError, match="not installed"):
            cloud(stack(FIELD), gsd=10.0)
    finally:
        sentinel2._classifier.cache_clear()


def test_bands_are_known_by_either_name():
    assert bands_of(["red", "green", "nir", "swir16"]) == {"B04": 0, "B03": 1, "B08": 2, "B11": 3}
    assert bands_of(["B3", "b08", "B11", "SCL", ""]) == {"B03": 0, "B08": 1, "B11": 2}


@pytest.mark.parametrize(
    ("now", "is_glint"),
    [
        ((1500, 1300, 1200), True),  # the sun's image, alike in every band
        ((1400, 2000, 3200), False),  # gravel: the pond was filled
        ((700, 3200, 1900), False),  # reed
        ((650, 260, 60), False),  # other water
    ],
)
def test_only_the_suns_image_on_water_is_glint(now, is_glint):
    place = {"B03": 0, "B08": 1, "B11": 2}
    water = np.ones((3, 8, 8), np.float32) * np.array([600, 250, 50])[:, None, None]
    image = np.ones((3, 8, 8), np.float32) * np.array(now)[:, None, None]
    assert glint(image, water, place).all() == is_glint
    field = np.ones((3, 8, 8), np.float32) * np.array([800, 2900, 2000])[:, None, None]
    assert not glint(image, field, place).any()
