"""What a look of the time-series monitor says, as regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from rasterio.features import geometry_mask, shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from detectors.series import Look
from detectors.series_scores import SEED, SUPPORT
from detectors.types import BoolArray, FloatArray, Grid, Region
from detectors.vectorise import area_of
from schemas.policy import PAVED, SENSOR_POLICY, Sensor

MINERAL: Final = "CS1.1.2.1"
CLEARED: Final = "CS2.2.1"
SEED_SHARE: Final = 0.2
"""Share of a region that this look itself must be sure of; the rest is mixed or hidden."""
MIN_AREA_M2: Final = SENSOR_POLICY[Sensor.SENTINEL_2].min_alert_area


def looks_regions(look: Look, grid: Grid, *, min_area: float = MIN_AREA_M2) -> list[Region]:
    """Changed regions, largest first, in the CRS of the grid.

    A region begins where the probability reaches 0.5 and takes in what adjoins from 0.35 on, so
    that its outline stays where it is from look to look; ground that is hidden this time belongs to
    it where it was changed before. Its probability is the mean over the
    pixels that reach 0.5. ``min_area``: smallest region, m².
    """
    found = [
        Region(
            geometry=outline,
            from_cs=None,
            to_cs=MINERAL if look.mineral[seeds].mean() > 0.5 else PAVED,
            probability=float(look.probability[seeds].mean()),
            magnitude=float(look.magnitude[seeds].mean()),
        )
        for outline, seeds in _outlines(look.probability, look, grid, min_area)
    ]
    found += [
        Region(
            geometry=outline,
            from_cs=None,
            to_cs=CLEARED,
            probability=float(look.clearing[seeds].mean()),
            magnitude=float(look.magnitude[seeds].mean()),
        )
        for outline, seeds in _outlines(look.clearing, look, grid, min_area)
    ]
    return sorted(found, key=lambda r: (-r.geometry.area, r.geometry.bounds))


def _outlines(
    probability: FloatArray, look: Look, grid: Grid, min_area: float
) -> Iterator[tuple[BaseGeometry, BoolArray]]:
    """Outlines of large enough regions, and the seeds in each, ``(row, col)``."""
    if look.late:
        return
    joined = (look.valid & (probability >= SUPPORT)) | look.kept
    seeds = look.valid & (probability >= SEED)
    for geometry, _ in shapes(joined.astype(np.uint8), mask=joined, transform=grid.transform):
        outline = shape(geometry)
        if area_of(outline, grid.crs) < min_area:
            continue
        inside = ~geometry_mask([outline], out_shape=grid.shape, transform=grid.transform)
        mine = np.asarray(inside & seeds, bool)
        if mine.sum() >= SEED_SHARE * inside.sum():
            yield outline, mine
