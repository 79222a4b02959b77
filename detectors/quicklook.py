"""A small picture of some ground out of an image of any size.

The file is read decimated (through its overviews where it has them) and only the small array is
warped, so that memory follows the picture and not the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from pyproj import Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window as RasterWindow
from shapely.geometry import box

from detectors.errors import TruncatedImage
from detectors.raster import open_dataset
from detectors.sentinel2 import bands_of
from detectors.types import BoolArray, ByteArray, FloatArray, Grid

TRUE_COLOUR: Final = ("B04", "B03", "B02")
"""Red, green and blue of a Sentinel-2 stack, as the eye sees them."""
EDGE_POINTS: Final = 16
"""Points a side of the picture is followed by into another CRS, where it is a curve."""
STRETCH: Final = (0.01, 0.99)
"""Quantiles that become black and white: a car or a glint takes no share of the range."""
LEAST_SPAN: Final = 0.25
"""Of the upper quantile: even ground keeps its look instead of becoming black and white noise."""
NO_DATA: Final = (232, 206)
"""Greys of the hatch where there is no data: its ground and its lines, both lighter than most of
what is on the ground."""
HATCH_PX: Final = 8


@dataclass(frozen=True, slots=True)
class Quicklook:
    """Pixels of some ground, float32 ``(3, row, col)`` in the unit of the file, NaN where it has no
    data; ``unit``: the type of the file's numbers. Looks of unlike units do not compare."""

    pixels: FloatArray
    unit: str

    @property
    def seen(self) -> bool:
        """True where there is any data."""
        return bool(np.isfinite(self.pixels).any())

    @property
    def whole(self) -> bool:
        """True where there is data everywhere."""
        return bool(np.isfinite(self.pixels).all())


def quicklook(path: Path, grid: Grid) -> Quicklook:
    """What an image shows of a small grid: enlarged by whole pixels where its own are coarser,
    averaged where they are finer.

    Raises:
        UnreadableImage, BandlessImage, ImageTooLarge, WrongCrs: the file is no image of a place.
        TruncatedImage: the file ends before its pixels do.
        ProjError: its CRS cannot be reached from the grid's.
    """
    with open_dataset(path) as dataset:
        bands = shown_bands(dataset)
        pixels = np.full((len(bands), *grid.shape), np.nan, np.float32)
        window = _window(dataset, grid)
        if window is not None:
            try:
                _warp(dataset, bands, window, grid, pixels)
            except RasterioError as error:
                detail = " ".join(str(error).split())[:120]
                raise TruncatedImage(
                    f"{path.name} ends before its pixels do ({detail}); deliver it again."
                ) from None
        unit = dataset.dtypes[0]
    return Quicklook(np.broadcast_to(pixels, (3, *grid.shape)), unit)


def filled(looks: Sequence[Quicklook]) -> Quicklook:
    """Looks of one grid as one: where the first has no data, the next one that has."""
    first, *others = looks
    pixels = first.pixels.copy()
    for other in others:
        if other.unit == first.unit:
            empty = np.isnan(pixels)
            pixels[empty] = other.pixels[empty]
    return Quicklook(pixels, first.unit)


def shown_bands(dataset: rasterio.DatasetReader) -> list[int]:
    """Numbers (from 1) of the bands to show as red, green and blue: by their descriptions, else by
    the file's colours, else the first three; one where there are fewer."""
    named = bands_of([str(name or "") for name in dataset.descriptions])
    if all(band in named for band in TRUE_COLOUR):
        return [named[band] + 1 for band in TRUE_COLOUR]
    colours = list(dataset.colorinterp)
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in colours for colour in wanted):
        return [colours.index(colour) + 1 for colour in wanted]
    plain = [n for n, colour in enumerate(colours, start=1) if colour != ColorInterp.alpha] or [1]
    return plain[:3] if len(plain) >= 3 else plain[:1]


def pictures(looks: Sequence[Quicklook], subject: BoolArray) -> list[ByteArray]:
    """Looks as colours, uint8 ``(row, col, 3)``: one stretch for all bands and all looks of one
    unit, so that hues stay and dates compare; a light hatch where there is no data. ``subject``,
    bool ``(row, col)``, is what the picture is about: small as it may be, it keeps its colours."""
    ranges = {
        unit: _range([look.pixels for look in looks if look.unit == unit], subject)
        for unit in {look.unit for look in looks}
    }
    return [_shown(look.pixels, *ranges[look.unit]) for look in looks]


def _range(images: Sequence[FloatArray], subject: BoolArray) -> tuple[float, float]:
    """What becomes black and white."""
    quantiles = [
        np.quantile(known, STRETCH)
        for values in (images, [image[:, subject] for image in images])
        if len(known := np.concatenate([v[np.isfinite(v)] for v in values]))
    ]
    if not quantiles:
        return 0.0, 1.0
    low, high = float(np.min(quantiles)), float(np.max(quantiles))
    return min(low, high - LEAST_SPAN * abs(high)), max(high, low + 1e-6)


def _shown(pixels: FloatArray, low: float, high: float) -> ByteArray:
    rows, cols = pixels.shape[1:]
    row, col = np.ogrid[:rows, :cols]
    hatch = np.where((row + col) % HATCH_PX == 0, NO_DATA[1], NO_DATA[0])
    known = np.isfinite(pixels)
    level = np.clip((np.where(known, pixels, low) - low) / (high - low), 0, 1) * 255
    colours = np.where(known.all(axis=0), level.round(), hatch)
    return np.ascontiguousarray(np.moveaxis(colours, 0, -1).astype(np.uint8))


def _window(dataset: rasterio.DatasetReader, grid: Grid) -> RasterWindow | None:
    """The file's pixels under the grid, a pixel more on each side; None where there are none."""
    rows, cols = grid.shape
    edge = shapely.segmentize(box(0, 0, cols, rows), cols / EDGE_POINTS)
    col, row = _file_pixels(dataset, grid, shapely.get_coordinates(edge).T)
    if not (np.isfinite(col).all() and np.isfinite(row).all()):
        return None
    left, top = max(0, math.floor(col.min()) - 1), max(0, math.floor(row.min()) - 1)
    right = min(dataset.width, math.ceil(col.max()) + 1)
    low = min(dataset.height, math.ceil(row.max()) + 1)
    if right <= left or low <= top:
        return None
    return RasterWindow(left, top, right - left, low - top)


def _warp(
    dataset: rasterio.DatasetReader,
    bands: Sequence[int],
    window: RasterWindow,
    grid: Grid,
    out: FloatArray,
) -> None:
    """Read a window, at a pixel just finer than the grid's, and warp it into ``out``."""
    across, down = _pixels_per_cell(dataset, grid)
    shape = (
        math.ceil(window.height / max(1, int(down))),
        math.ceil(window.width / max(1, int(across))),
    )
    pixels = dataset.read(
        list(bands),
        window=window,
        out_shape=(len(bands), *shape),
        out_dtype=np.float32,
        resampling=Resampling.average,
    )
    valid = dataset.dataset_mask(window=window, out_shape=shape) > 0
    pixels[:, ~(valid & np.isfinite(pixels).all(axis=0))] = np.nan
    own = dataset.window_transform(window)
    reproject(
        pixels,
        out,
        src_transform=own @ Affine.scale(window.width / shape[1], window.height / shape[0]),
        src_crs=dataset.crs,
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs=grid.crs,
        dst_nodata=np.nan,
        resampling=Resampling.average if across * down > 1 else Resampling.nearest,
    )


def _pixels_per_cell(dataset: rasterio.DatasetReader, grid: Grid) -> tuple[float, float]:
    """How many of the file's columns and rows lie on one pixel of the grid, at its middle."""
    rows, cols = grid.shape
    middle = np.array([[cols / 2], [rows / 2]])
    col, row = _file_pixels(dataset, grid, middle + np.array([[0, 1, 0], [0, 0, 1]]))
    return float(np.ptp(col)), float(np.ptp(row))


def _file_pixels(
    dataset: rasterio.DatasetReader, grid: Grid, points: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Columns and rows of the file at columns and rows ``(2, point)`` of the grid."""
    x, y = grid.transform @ points
    if grid.crs != dataset.crs.to_string():
        change = Transformer.from_crs(grid.crs, dataset.crs.to_wkt(), always_xy=True)
        x, y = change.transform(x, y)
    col, row = ~dataset.transform @ np.array([x, y])
    return col, row
