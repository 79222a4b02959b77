"""A raster of classes on the grid of another CRS: each pixel takes the class of the one its middle
lies in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import rasterio
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from detectors.types import DEGREE_M
from updater.crs import transformer
from updater.export_sums import Sums
from updater.reads import Bounds

EDGE_POINTS: Final = 32
"""Points on each side of a rectangle whose edges are curves in another CRS."""
STRIP: Final = 4_096
"""Side of the windows that are warped at once, pixels: 16 MB, and whole blocks of the file."""


class Grid(NamedTuple):
    """Where a raster's pixels lie: its upper left corner and their side, in units of its CRS, and
    its rows and columns."""

    west: float
    north: float
    pixel: float
    rows: int
    columns: int

    @property
    def transform(self) -> Affine:
        """From columns and rows to coordinates."""
        return Affine(self.pixel, 0.0, self.west, 0.0, -self.pixel, self.north)

    @property
    def size(self) -> int:
        """How many pixels it has."""
        return self.rows * self.columns


def grid_over(bounds: Bounds, pixel: float) -> Grid:
    """Whole pixels on multiples of their side that cover a rectangle."""
    west, south, east, north = (value / pixel for value in bounds)
    left, top = int(np.floor(west)), int(np.ceil(north))
    rows, columns = top - int(np.floor(south)), int(np.ceil(east)) - left
    return Grid(left * pixel, top * pixel, pixel, max(rows, 1), max(columns, 1))


def grid_in(bounds: Bounds, metres: float, source: str, target: str) -> Grid:
    """The grid of a rectangle of one CRS in another; ``metres`` a pixel, in degrees and EPSG:3857
    those of the equator: nowhere coarser on the ground."""
    pixel = metres / DEGREE_M if CRS.from_user_input(target).is_geographic else metres
    moved = transformer(source, target).transform_bounds(*bounds, densify_pts=EDGE_POINTS)
    return grid_over(moved, pixel)


def warp(
    plain: Path,
    path: Path,
    profile: dict[str, Any],
    describe: Callable[[Any], None],
    tell: Callable[[int], None],
) -> Sums:
    """Write what a raster shows on the grid of another one's profile; ``describe`` is given the
    open file first, ``tell`` how many pixels are done. Gives the sums of what was written.

    Raises:
        OSError, rasterio's errors: the disk does not take it.
    """
    sums = Sums()
    ours = {name: profile[name] for name in ("crs", "transform", "width", "height", "nodata")}
    with (
        rasterio.open(plain) as source,
        WarpedVRT(source, resampling=Resampling.nearest, **ours) as seen,
        rasterio.open(path, "w", **profile) as target,
    ):
        describe(target)
        for window in _windows(profile["height"], profile["width"]):
            values = seen.read(1, window=window)
            target.write(values, 1, window=window)
            sums.note(window, values)
            tell(window.width * window.height)
    return sums


def _windows(rows: int, columns: int) -> Iterator[Window]:
    for top in range(0, rows, STRIP):
        for left in range(0, columns, STRIP):
            yield Window(left, top, min(STRIP, columns - left), min(STRIP, rows - top))
