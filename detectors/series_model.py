"""What is usual for a pixel: features of its bands, the year they follow, the extremes they reach.

Each feature follows a constant and one wave a year, fitted by weighted least squares from sums.
Sums do not depend on the order of the looks, and a look's weight depends on its date alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from detectors.types import BoolArray, FloatArray

NEEDED: Final = ("B02", "B03", "B04", "B08", "B11")
CENTRE: Final = (0.45, 0.55, 6.7)
"""About the mean of each feature; sums of what is left lose no digits in float32."""
NDVI, RISE, BRIGHT = 0, 1, 2
"""The features: NDVI; the rise from blue to 1.6 µm, (B11 − B02) / (B11 + B02), about 0.8 of plants,
0.4 to 0.6 of soil, 0 to 0.3 of concrete, gravel, asphalt and metal; the logarithm of the visible
bands' mean."""
YEAR_DAYS: Final = 365.25
HALF_LIFE_DAYS: Final = 730.0
"""A look counts half as much after two years: the model follows how a place is farmed now."""
WEIGHT_DAY: Final = 3_650
"""Day whose looks weigh 1. Later ones weigh more, instead of all earlier ones less."""
RIDGE: Final = (0.02, 0.5, 0.5)
"""Looks' worth of belief that a pixel has no seasons: keeps the wave small where few months were
seen."""
SPREAD_FLOOR: Final = (0.04, 0.035, 0.12)
"""Spread that atmosphere, angle and noise give the features of ground that does not change."""


def features(image: FloatArray, place: Mapping[str, int]) -> FloatArray:
    """The three features, centred, ``(feature, row, col)``; reflectance × 10 000."""
    blue, green, red, near, swir = (np.maximum(image[place[b]], 1) for b in NEEDED)
    found = np.stack(
        [
            (near - red) / (near + red),
            (swir - blue) / (swir + blue),
            np.log((blue + green + red) / 3),
        ]
    )
    return np.asarray(found - _column(CENTRE), np.float32)


def snow_or_glare(image: FloatArray, place: Mapping[str, int]) -> BoolArray:
    """Pixels that snow hides (NDSI of 0.25 and more, Dozier 1989) or that are brighter in blue than
    anything but cloud."""
    blue, green, swir = (image[place[b]] for b in ("B02", "B03", "B11"))
    index = (green - swir) / np.maximum(green + swir, 1)
    return np.asarray(((index > 0.25) & (green > 1_800)) | (blue > 5_500), bool)


def water(image: FloatArray, place: Mapping[str, int]) -> BoolArray:
    """Pixels under water or mostly so: dark at 1.6 µm, and green above near infrared."""
    green, near, swir = (image[place[b]] for b in ("B03", "B08", "B11"))
    return np.asarray(((green > near) & (swir < 900)) | (swir < 350), bool)


def _column(values: tuple[float, ...]) -> FloatArray:
    return np.array(values, np.float32)[:, None, None]


def regressors(day: int) -> tuple[float, float, float]:
    """Constant, cosine and sine of the year."""
    angle = 2 * np.pi * day / YEAR_DAYS
    return 1.0, float(np.cos(angle)), float(np.sin(angle))


def weight(day: int) -> float:
    """Weight of a look of that day."""
    return float(2.0 ** ((day - WEIGHT_DAY) / HALF_LIFE_DAYS))


def take_in(moments: FloatArray, values: FloatArray, day: int, where: BoolArray) -> None:
    """Add one look to the sums, in place."""
    r, w = regressors(day), weight(day)
    on = where.astype(np.float32)
    place = 0
    for i in range(3):
        for j in range(i, 3):
            moments[place] += np.float32(w * r[i] * r[j]) * on
            place += 1
    for value in values:
        seen = value * on
        for factor in r:
            moments[place] += np.float32(w * factor) * seen
            place += 1
    moments[15:] += np.float32(w) * values**2 * on


def predict(moments: FloatArray, day: int) -> tuple[FloatArray, FloatArray]:
    """What a look of that day should show, and the spread of what is left, ``(feature, row, col)``
    each."""
    scale = np.float32(1 / weight(day))
    a00, a01, a02, a11, a12, a22 = moments[:6] * scale
    a00, a11, a22 = a00 + RIDGE[0], a11 + RIDGE[1], a22 + RIDGE[2]
    # Cholesky of a symmetric 3 × 3, for all pixels at once
    l00 = np.sqrt(a00)
    l10, l20 = a01 / l00, a02 / l00
    l11 = np.sqrt(np.maximum(a11 - l10**2, 1e-3))
    l21 = (a12 - l20 * l10) / l11
    l22 = np.sqrt(np.maximum(a22 - l20**2 - l21**2, 1e-3))
    r = regressors(day)
    freedom = np.maximum(a00 - 3, 1)
    expected = np.empty((3, *moments.shape[1:]), np.float32)
    spread = np.empty_like(expected)
    for f in range(3):
        b0, b1, b2 = moments[6 + 3 * f : 9 + 3 * f] * scale
        y0 = b0 / l00
        y1 = (b1 - l10 * y0) / l11
        y2 = (b2 - l20 * y0 - l21 * y1) / l22
        x2 = y2 / l22
        x1 = (y1 - l21 * x2) / l11
        x0 = (y0 - l10 * x1 - l20 * x2) / l00
        expected[f] = x0 * r[0] + x1 * r[1] + x2 * r[2]
        left = moments[15 + f] * scale - (y0**2 + y1**2 + y2**2)
        spread[f] = np.sqrt(np.maximum(left, 0) / freedom)
    return expected, np.maximum(spread, _column(SPREAD_FLOOR))


def lower(lowest: FloatArray, value: FloatArray, where: BoolArray) -> None:
    """Put a value among the three lowest ``(3, row, col)``, in place, where it belongs there."""
    rest = np.where(where, value, np.inf).astype(np.float32)
    for rank in range(3):
        kept = np.minimum(lowest[rank], rest)
        rest = np.maximum(lowest[rank], rest)
        lowest[rank] = kept
