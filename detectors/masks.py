"""Ground that one of the two images does not show: cloud and its shadow, from an overview.

A cloud of an aerial image is bright, colourless, large, absent on the other date and, unlike a
white roof, has no sharp edge. Everything here is a pure function of small ``(band, row, col)``
arrays on a scale of 0 to 255, one pixel being about ``OVERVIEW_GSD_M``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from kornia.filters import box_blur, sobel
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine
from shapely.geometry import shape

from detectors.types import BoolArray, FloatArray

OVERVIEW_GSD_M = 2.0
"""Pixel of the overview: a cloud is tens of metres wide, a roof edge still sharp."""
CLOUD_LEVEL = 185.0
"""Darkest band of a cloud's core, of 255."""
CLOUD_WHITE = 205.0
"""The same, in the middle of the core: bare mineral ground stays below."""
CLOUD_RISE = 45.0
"""How much brighter than the other date its core is."""
CLOUD_GREY = 0.045
"""Largest saturation, (max − min) / max, in the middle of a cloud: it is white, gravel and concrete
are not quite."""
CLOUD_AREA_M2 = 600.0
"""Smaller bright things are roofs and cars."""
SOFT_EDGE = 0.4
"""Steepest step across a soft edge: share of its contrast per overview pixel. A roof or a pond
steps up within one pixel (0.5 and more), a cloud that fades over 10 m by a tenth to a third."""
CLOUD_REACH_M = 18.0
"""How far the thin border of a cloud is taken beyond its core."""
SHADOW_RATIO = 0.72
"""Brightness under a cloud's shadow against the other date."""
SHADOW_SIZE = (0.2, 3.0)
"""Size of a shadow against its cloud's."""
COMPONENT_MARGIN = 12
"""Pixels kept around a part that is looked at by itself: its border and the ground beyond."""
CLOUD_SWIR = 2_200.0
"""Reflectance × 10 000 at 1.6 µm a cloud has at least in its core; most soils stay below."""
CLOUD_RATIO = 1.5
"""How much brighter than the other date a cloud is there."""
CLOUD_SWIR_PIXELS = 20
"""Smallest cloud looked for, pixels (0.2 ha at 10 m)."""
CLOUD_SWIR_SHADOW = 0.65
"""Brightness under the shadow of such a cloud against the other date."""
CLOUD_SWIR_REACH = 4
"""Pixels the thin border of such a cloud is taken beyond its core."""
SNOW_SWIR = 1_100.0
"""Reflectance × 10 000 at 1.6 µm above which ground is not snow (Dozier 1989 puts it at 0.11)."""
SNOW_RATIO = 0.7
"""Darkening in the SWIR against the other date that snow brings at least."""
SNOW_SHARE = 0.25
"""Share of a scene that must darken so: less may be ponds, shadow and wet fields."""
SHADOW_DISTANCE_M = 400.0
"""How far from its cloud a shadow may fall: a 300 m high cloud under a 40° sun."""


def cloud(image: FloatArray, other: FloatArray, *, gsd: float) -> BoolArray:
    """Pixels of ``image`` that a cloud hides and ``other`` does not, ``(row, col)``."""
    low, high = image.min(axis=0), image.max(axis=0)
    core = (
        (low > CLOUD_LEVEL)
        & ((high - low) < 2 * CLOUD_GREY * np.maximum(high, 1))
        & (low - other.min(axis=0) > CLOUD_RISE)
    )
    level = image.mean(axis=0)
    found = np.zeros(core.shape, bool)
    for where, part in _components(core, at_least=CLOUD_AREA_M2 / gsd**2):
        top, bottom = high[where][part], low[where][part]
        grey = float(np.median((top - bottom) / np.maximum(top, 1)))
        white = float(np.median(bottom)) >= CLOUD_WHITE and grey < CLOUD_GREY
        if white and _is_soft(part, level[where]):
            found[where] |= part
    return dilated(found, max(1, round(CLOUD_REACH_M / gsd))) if found.any() else found


def cloud_shadow(
    image: FloatArray, other: FloatArray, clouds: BoolArray, *, gsd: float
) -> BoolArray:
    """Pixels darkened by the shadow of one of the clouds found, ``(row, col)``."""
    if not clouds.any():
        return clouds
    ratio = np.clip(image.mean(axis=0) / np.maximum(other.mean(axis=0), 1), 0, 2)
    dark = (_blur(ratio, 5) < SHADOW_RATIO) & ~clouds
    near = dilated(clouds, round(SHADOW_DISTANCE_M / gsd))
    size = float(clouds.sum())
    found = np.zeros(dark.shape, bool)
    for where, part in _components(opened(dark, 2), at_least=SHADOW_SIZE[0] * size):
        fits = part.sum() <= SHADOW_SIZE[1] * size and (part & near[where]).any()
        if fits and _is_soft(part, -ratio[where]):
            found[where] |= part
    return dilated(found, max(1, round(CLOUD_REACH_M / gsd))) if found.any() else found


def snow(image: FloatArray, other: FloatArray) -> BoolArray:
    """Pixels that snow hides on ``image``, from the short-wave infrared alone, ``(row, col)``.

    Both arrays are one SWIR band (1.6 µm, Sentinel-2 B11) in reflectance × 10 000. Fresh snow is
    nearly black there (Dozier 1989). So are ponds and shadows, but only snow darkens a good part
    of a scene at once.
    """
    seen = (image > 0) & (other > 0)
    dark = seen & (image < SNOW_SWIR) & (image < SNOW_RATIO * other)
    if dark.sum() < SNOW_SHARE * max(1, int(seen.sum())):
        return np.zeros(image.shape, bool)
    return dilated(closed(dark, 1), 1)


def cloud_infrared(image: FloatArray, other: FloatArray) -> BoolArray:
    """Pixels of ``image`` that a cloud or its shadow hides, from one SWIR band (reflectance ×
    10 000) alone.

    Water clouds are bright at 1.6 µm, and fade out over several pixels; bare ground and roofs are
    bright on both dates, or begin at a line.
    """
    core = (image > CLOUD_SWIR) & (image > CLOUD_RATIO * other) & (other > 0)
    found = np.zeros(image.shape, bool)
    for where, part in _components(core, at_least=CLOUD_SWIR_PIXELS):
        if _is_soft(part, image[where]):
            found[where] |= part
    if not found.any():
        return found
    ratio = np.clip(image / np.maximum(other, 1), 0, 2).astype(np.float32)
    dark = (_blur(ratio, 5) < CLOUD_SWIR_SHADOW) & ~found
    for where, part in _components(opened(dark, 1), at_least=CLOUD_SWIR_PIXELS):
        if _is_soft(part, -ratio[where]):
            found[where] |= part
    return dilated(found, CLOUD_SWIR_REACH)


def _is_soft(part: BoolArray, level: npt.NDArray[Any]) -> bool:
    """True where a bright part of ``level`` fades into its surroundings over several pixels."""
    ring = dilated(part, 9) & ~dilated(part, 7)  # beyond the fading border
    edge = part & ~eroded(part, 1)
    if not ring.any() or not edge.any():
        return False
    image = torch.as_tensor(level, dtype=torch.float32)[None, None]
    steep = torch.nn.functional.max_pool2d(sobel(image), 5, stride=1, padding=2)[0, 0].numpy()
    inner = eroded(part, 2)
    inside = float(np.median(level[inner if inner.any() else part]))
    contrast = inside - float(np.median(level[ring]))
    return contrast > 0 and float(np.median(steep[edge])) < SOFT_EDGE * contrast


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


def dilated(mask: BoolArray, radius: int) -> BoolArray:
    """The mask grown by a square of ``radius`` pixels."""
    for axis in (0, 1):
        grown = np.moveaxis(
            np.pad(mask, [(radius, radius) if axis == i else (0, 0) for i in (0, 1)]), axis, 0
        )
        reach = 1  # each row now says whether one of the last ``reach`` rows is set
        while reach <= 2 * radius:
            step = min(reach, 2 * radius + 1 - reach)
            grown[step:] = grown[step:] | grown[:-step]
            reach += step
        mask = np.moveaxis(grown[2 * radius :], 0, axis)
    return mask


def eroded(mask: BoolArray, radius: int) -> BoolArray:
    """The mask shrunk by a square of ``radius`` pixels."""
    return ~dilated(~mask, radius)


def opened(mask: BoolArray, radius: int) -> BoolArray:
    """The mask without what is narrower than ``2 × radius`` pixels."""
    return dilated(eroded(mask, radius), radius)


def closed(mask: BoolArray, radius: int) -> BoolArray:
    """The mask with gaps narrower than ``2 × radius`` pixels filled."""
    return eroded(dilated(mask, radius), radius)


def _components(
    mask: BoolArray, *, at_least: float = 1.0
) -> Iterator[tuple[tuple[slice, slice], BoolArray]]:
    """Connected parts of a mask of at least so many pixels: a window around each, and the part as a
    mask of that window."""
    for geometry, _ in shapes(mask.astype(np.uint8), mask=mask):
        outline = shape(geometry)
        if outline.area < at_least:
            continue
        left, top, right, bottom = (int(v) for v in outline.bounds)
        rows = slice(max(0, top - COMPONENT_MARGIN), bottom + COMPONENT_MARGIN)
        cols = slice(max(0, left - COMPONENT_MARGIN), right + COMPONENT_MARGIN)
        here = mask[rows, cols]
        place = Affine.translation(cols.start, rows.start)
        drawn = rasterize([outline], out_shape=here.shape, transform=place, dtype="uint8")
        yield (rows, cols), np.asarray(drawn > 0, bool) & here
