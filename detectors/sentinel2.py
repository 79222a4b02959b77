"""What one of two Sentinel-2 stacks does not show: cloud, snow, sun glint on water.

Bands are known by their descriptions, Sentinel-2's own or STAC's common names; values are
reflectance × 10 000. Each mask needs its own bands and is left out where they are lacking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import structlog
import torch

from detectors import masks
from detectors.types import BoolArray, FloatArray

log = structlog.get_logger()

COMMON_NAMES: Final = {
    "COASTAL": "B01",
    "BLUE": "B02",
    "GREEN": "B03",
    "RED": "B04",
    "REDEDGE071": "B05",
    "REDEDGE1": "B05",
    "NIR": "B08",
    "NIR08": "B8A",
    "NIR09": "B09",
    "CIRRUS": "B10",
    "SWIR": "B11",
    "SWIR1": "B11",
    "SWIR16": "B11",
    "SWIR2": "B12",
    "SWIR22": "B12",
}
"""STAC's common names (EO extension) and the usual short ones, in Sentinel-2's numbering."""
GREEN: Final = "B03"
NIR: Final = "B08"
SWIR: Final = "B11"
CLOUD_BANDS: Final = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
"""What s2cloudless looks at, in its order; B10 exists at level 1C only."""
CLOUD_GSD_M: Final = 60.0
"""Pixel clouds are looked for at: the coarsest of those bands."""
CLOUD_REACH_M: Final = 120.0
"""How far the thin border of a cloud is taken beyond what the model says."""
WATER_INDEX: Final = 0.2
"""NDWI (McFeeters 1996) above which ground is open water."""
WATER_SWIR: Final = 400.0
"""Water is nearly black at 1.6 µm."""
GLINT_RISE: Final = 150.0
"""Least rise of reflectance × 10 000 at 1.6 µm that glint brings."""
GLINT_FLATNESS: Final = 0.6
"""Least ratio of the rises in green and at 1.6 µm. Glint rises alike in every band (Hedley et al.
2005); a pond that was filled rises in the short-wave infrared first."""


def bands_of(names: Sequence[str]) -> dict[str, int]:
    """Where each band the masks use lies among the bands of a file, by its description."""
    found: dict[str, int] = {}
    useful = {*CLOUD_BANDS, GREEN, NIR, SWIR}
    for index, name in enumerate(names):
        upper = name.upper().strip()
        if len(upper) == 2 and upper[0] == "B" and upper[1].isdigit():
            upper = f"B0{upper[1]}"
        band = COMMON_NAMES.get(upper, upper)
        if band in useful:
            found.setdefault(band, index)
    return found


def hidden(
    before: FloatArray, after: FloatArray, bands: Mapping[str, int], *, gsd: float | None
) -> BoolArray:
    """Pixels that one of the two dates does not show, ``(row, col)``.

    Args:
        before: ``(band, row, col)``, reflectance × 10 000, 0 where there is no data.
        after: the same of the other date.
        bands: where each band lies; ``B11`` must be there.
        gsd: metres per pixel, None where unknown.
    """
    result = np.zeros(before.shape[1:], bool)
    whole = all(b in bands for b in CLOUD_BANDS) and gsd is not None and _classifier() is not None
    for image, other in ((after, before), (before, after)):
        infrared, reference = image[bands[SWIR]], other[bands[SWIR]]
        result |= masks.snow(infrared, reference)
        if whole and gsd is not None:
            result |= cloud(image[[bands[b] for b in CLOUD_BANDS]], gsd=gsd)
        else:
            result |= masks.cloud_infrared(infrared, reference)
        if GREEN in bands and NIR in bands:
            result |= glint(image, other, bands)
    return result


def clouds_of(image: FloatArray, bands: Mapping[str, int], *, gsd: float) -> BoolArray:
    """Clouds of one date by s2cloudless, ``(row, col)``; none where it is not installed."""
    if _classifier() is None:
        return np.zeros(image.shape[1:], bool)
    return cloud(image[[bands[b] for b in CLOUD_BANDS]], gsd=gsd)


def cloud(image: FloatArray, *, gsd: float) -> BoolArray:
    """Clouds by s2cloudless (Skakun et al. 2022 compare it with nine others), ``(row, col)``.

    ``image``: the bands ``CLOUD_BANDS``, top-of-atmosphere reflectance × 10 000.

    Raises:
        RuntimeError: the package is not installed.
    """
    detector = _classifier()
    if detector is None:
        raise RuntimeError("s2cloudless is not installed")
    step = max(1, round(CLOUD_GSD_M / gsd))
    pixels = torch.as_tensor(np.ascontiguousarray(image))[None] / 10_000
    small = torch.nn.functional.avg_pool2d(pixels, step, ceil_mode=True)[0]
    seen = detector.get_cloud_masks(small.permute(1, 2, 0).numpy()[None])[0] > 0
    found = np.kron(seen, np.ones((step, step), bool))[: image.shape[1], : image.shape[2]]
    reach = max(1, round(CLOUD_REACH_M / gsd))
    return masks.dilated(np.asarray(found, bool), reach) if found.any() else found


@lru_cache(maxsize=1)
def _classifier() -> Any:  # noqa: ANN401 - the package may be absent
    """The cloud model of the ``s2cloudless`` wheel, None where it is not installed."""
    try:
        from s2cloudless.cloud_detector import S2PixelCloudDetector
    except ImportError:
        log.warning("no_cloud_model", advice="pip install 'millesimed[sentinel2]'")
        return None
    return S2PixelCloudDetector(threshold=0.4, average_over=2, dilation_size=1)


def glint(image: FloatArray, other: FloatArray, bands: Mapping[str, int]) -> BoolArray:
    """Open water of ``other`` that mirrors the sun on ``image``, ``(row, col)``."""
    green, near, swir = (other[bands[b]] for b in (GREEN, NIR, SWIR))
    index = (green - near) / np.maximum(green + near, 1)
    water = (index > WATER_INDEX) & (swir < WATER_SWIR) & (green > 0)
    rise = {b: image[bands[b]] - other[bands[b]] for b in (GREEN, NIR, SWIR)}
    flat = (rise[GREEN] > GLINT_FLATNESS * rise[SWIR]) & (rise[NIR] > GLINT_FLATNESS * rise[SWIR])
    return np.asarray(water & flat & (rise[SWIR] > GLINT_RISE), bool)
