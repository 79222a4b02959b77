"""Ground that one of the two images does not show: cloud and its shadow, from an overview.

A cloud of an aerial image is bright, colourless, large, absent on the other date and, unlike a
white roof, has no sharp edge. Everything here is a pure function of small ``(band, row, col)``
arrays on a scale of 0 to 255, one pixel being about ``OVERVIEW_GSD_M``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from kornia.filters import box_blur, sobel
from rasterio.features import rasterize, shapes
from shapely.geometry import shape
from torch import Tensor

from detectors.types import BoolArray, FloatArray

OVERVIEW_GSD_M = 2.0
"""Pixel of the overview: a cloud is tens of metres wide, a roof edge still sharp."""
CLOUD_LEVEL = 175.0
"""Darkest band of a cloud's core, of 255."""
CLOUD_RISE = 45.0
"""How much brighter than the other date its core is."""
CLOUD_GREY = 0.16
"""Largest saturation, (max − min) / max, of a cloud's core."""
CLOUD_AREA_M2 = 600.0
"""Smaller bright things are roofs and cars."""
SOFT_EDGE = 0.2
"""Steepest mean edge of a cloud: share of its contrast per overview pixel, by a Sobel filter that
gives a third for a blurred step. A cloud that fades over 10 m gives a tenth."""
CLOUD_REACH_M = 14.0
"""How far the thin border of a cloud is taken beyond its core."""
SHADOW_RATIO = 0.72
"""Brightness under a cloud's shadow against the other date."""
SHADOW_DISTANCE_M = 400.0
"""How far from its cloud a shadow may fall: a 300 m high cloud under a 40° sun."""


def cloud(image: FloatArray, other: FloatArray, *, gsd: float) -> BoolArray:
    """Pixels of ``image`` that a cloud hides and ``other`` does not, ``(row, col)``."""
    low, high = image.min(axis=0), image.max(axis=0)
    core = (
        (low > CLOUD_LEVEL)
        & ((high - low) < CLOUD_GREY * np.maximum(high, 1))
        & (low - other.min(axis=0) > CLOUD_RISE)
    )
    level = _blur(image.mean(axis=0), 3)
    steep = sobel(torch.as_tensor(level)[None, None])[0, 0].numpy()
    found = np.zeros(core.shape, bool)
    for part in _components(core, at_least=CLOUD_AREA_M2 / gsd**2):
        ring = dilated(part, 3) & ~part
        if not ring.any():
            continue
        contrast = float(level[part].mean() - np.percentile(level[ring], 25))
        edge = dilated(part, 1) & ~eroded(part, 2)
        if contrast > 0 and float(steep[edge].mean()) / contrast < SOFT_EDGE:
            found |= part
    return dilated(found, max(1, round(CLOUD_REACH_M / gsd))) if found.any() else found


def cloud_shadow(
    image: FloatArray, other: FloatArray, clouds: BoolArray, *, gsd: float
) -> BoolArray:
    """Pixels darkened by the shadow of one of the clouds found, ``(row, col)``."""
    if not clouds.any():
        return clouds
    now, then = _blur(image.mean(axis=0), 5), _blur(other.mean(axis=0), 5)
    dark = (now < SHADOW_RATIO * then) & ~clouds
    near = dilated(clouds, round(SHADOW_DISTANCE_M / gsd))
    smallest = 0.2 * float(clouds.sum())
    found = np.zeros(dark.shape, bool)
    for part in _components(opened(dark, 2), at_least=smallest):
        if (part & near).any():
            found |= part
    return dilated(found, max(1, round(CLOUD_REACH_M / gsd))) if found.any() else found


def hidden(before: FloatArray, after: FloatArray, *, gsd: float) -> BoolArray:
    """Pixels one of the two dates does not show, ``(row, col)``; images on 0 to 255."""
    result = np.zeros(before.shape[1:], bool)
    for image, other in ((after, before), (before, after)):
        clouds = cloud(image, other, gsd=gsd)
        result |= clouds | cloud_shadow(image, other, clouds, gsd=gsd)
    return result


def _blur(image: npt.NDArray[Any], size: int) -> FloatArray:
    blurred = box_blur(torch.as_tensor(image, dtype=torch.float32)[None, None], size)
    return np.asarray(blurred[0, 0].numpy(), np.float32)


def _pool(mask: BoolArray, radius: int) -> Tensor:
    side = 2 * radius + 1
    tensor = torch.as_tensor(mask, dtype=torch.float32)[None, None]
    for kernel in ((side, 1), (1, side)):
        pad = (kernel[0] // 2, kernel[1] // 2)
        tensor = torch.nn.functional.max_pool2d(tensor, kernel, stride=1, padding=pad)
    return tensor[0, 0]


def dilated(mask: BoolArray, radius: int) -> BoolArray:
    """The mask grown by a square of ``radius`` pixels."""
    return np.asarray(_pool(mask, radius).numpy() > 0, bool)


def eroded(mask: BoolArray, radius: int) -> BoolArray:
    """The mask shrunk by a square of ``radius`` pixels."""
    return ~dilated(~mask, radius)


def opened(mask: BoolArray, radius: int) -> BoolArray:
    """The mask without what is narrower than ``2 × radius`` pixels."""
    return dilated(eroded(mask, radius), radius)


def _components(mask: BoolArray, *, at_least: float = 1.0) -> list[BoolArray]:
    """Connected parts of a mask of at least so many pixels, each as a mask."""
    parts = []
    for geometry, _ in shapes(mask.astype(np.uint8), mask=mask):
        if shape(geometry).area >= at_least:
            drawn = rasterize([geometry], out_shape=mask.shape, dtype="uint8")
            parts.append(np.asarray(drawn > 0, bool) & mask)
    return parts
