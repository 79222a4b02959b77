"""Reading images: checked before anything is allocated, windowed, mosaicked, on any grid.

Drivers are an allow-list (no VRT: it could point anywhere), and the image is its file alone: what
lies beside it (``.aux.xml``, ``.ovr``, ``.msk``, world files) could point anywhere too. One
handle per ``Raster``; open one per thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import rasterio
import rasterio.warp
import structlog
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from detectors.errors import (
    BandlessImage,
    ImageTooLarge,
    NoOverlap,
    TruncatedImage,
    UnreadableImage,
    WrongCrs,
)
from detectors.types import BoolArray, FloatArray, Grid, Window
from schemas.policy import MAX_BANDS, MAX_BLOCK_BYTES, MAX_PIXELS, MAX_PIXELS_PER_BYTE

log = structlog.get_logger()

os.environ.setdefault("GDAL_CACHEMAX", "256")
"""GDAL's block cache in MiB, read when it first opens a file. Its default, a twentieth of the
machine's memory, buys nothing where every block is read once."""

SIGNATURES: Final = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\0\0\0\x0cjP  ", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
)
"""First bytes of the formats imagery is delivered in and the one driver each is opened with;
everything else GDAL knows stays closed."""
DEFAULT_BLOCK: Final = 512
"""Block assumed where a file has strips: windows of it read each strip once per row of tiles."""
_MAX_BLOCK: Final = 2048
_ALIGNED: Final = 1e-6
"""Pixels by which two grids may differ and still count as the same."""


def open_dataset(path: Path, *, allow_no_crs: bool = False) -> rasterio.DatasetReader:
    """One image file, checked: driver, bands, size, CRS.

    Raises:
        UnreadableImage, BandlessImage, ImageTooLarge, WrongCrs.
    """
    if not path.is_file():
        raise UnreadableImage(f"There is no image {path.name}; check the path.")
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise UnreadableImage(
            f"{path.name} cannot be read ({error.strerror}); check its rights and its disk."
        ) from None
    driver = next((name for start, name in SIGNATURES if head.startswith(start)), None)
    if driver is None:
        raise UnreadableImage(
            f"{path.name} is neither TIFF, JPEG 2000, PNG nor JPEG; deliver a GeoTIFF or JPEG 2000."
        )
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            dataset = rasterio.open(path, driver=driver)
    except (RasterioError, ValueError, TypeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise UnreadableImage(
            f"{path.name} cannot be read as an image ({detail}); deliver a GeoTIFF or JPEG 2000."
        ) from None
    try:
        _check(dataset, path, allow_no_crs=allow_no_crs)
    except Exception:
        dataset.close()
        raise
    return dataset


def _check(dataset: rasterio.DatasetReader, path: Path, *, allow_no_crs: bool) -> None:
    if dataset.count < 1 or dataset.count > MAX_BANDS:
        raise BandlessImage(
            f"{path.name} has {dataset.count} bands; deliver an image with 1 to {MAX_BANDS}."
        )
    if any("complex" in dtype for dtype in dataset.dtypes):
        raise UnreadableImage(f"{path.name} holds complex numbers; deliver their amplitude.")
    if dataset.width * dataset.height > MAX_PIXELS:
        raise ImageTooLarge(
            f"{path.name} has {dataset.width} × {dataset.height} pixels, more than {MAX_PIXELS}; "
            "cut it into tiles."
        )
    if dataset.width * dataset.height > MAX_PIXELS_PER_BYTE * path.stat().st_size:
        raise TruncatedImage(
            f"{path.name} declares {dataset.width} × {dataset.height} pixels in "
            f"{path.stat().st_size} bytes; deliver it again, with its pixels."
        )
    block = max(rows * cols for rows, cols in dataset.block_shapes)
    if block * sum(np.dtype(t).itemsize for t in dataset.dtypes) > MAX_BLOCK_BYTES:
        raise ImageTooLarge(
            f"{path.name} keeps {block} pixels in one block; tile it, 512 × 512 for example."
        )
    if dataset.crs is None and not allow_no_crs:
        raise WrongCrs(f"{path.name} has no CRS; write one, EPSG:2154 for Lambert-93.")
    bounds = np.array([*dataset.bounds, dataset.transform.determinant])
    if not np.isfinite(bounds).all() or dataset.transform.is_degenerate:
        raise WrongCrs(f"{path.name} has pixels without a size or a place; georeference it again.")
    if dataset.block_shapes[0][1] == dataset.width and dataset.width > _MAX_BLOCK:
        log.warning("image_in_strips", image=path.name, advice="tile it to read faster")


def grid_of(dataset: rasterio.DatasetReader) -> Grid:
    """The pixel grid of a file, with its block size where it is tiled."""
    rows, cols = dataset.block_shapes[0]
    tiled = cols < dataset.width and rows == cols and rows <= _MAX_BLOCK
    crs = dataset.crs.to_string() if dataset.crs else None
    return Grid(crs, dataset.transform, (dataset.height, dataset.width), rows if tiled else 0)


def is_aligned(a: Grid, b: Grid) -> bool:
    """True when two grids have the same pixels, maybe offset by whole ones."""
    if a.crs != b.crs:
        return False
    offset = ~a.transform @ b.transform
    whole = abs(offset.c - round(offset.c)) + abs(offset.f - round(offset.f))
    scale = abs(offset.a - 1) + abs(offset.e - 1) + abs(offset.b) + abs(offset.d)
    return bool(scale * max(b.shape) < _ALIGNED * max(b.shape) and whole < 1e-3)


def byte_profile(grid: Grid, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - GDAL's options
    """Creation profile of a one-band byte GeoTIFF of a grid's shape."""
    rows, cols = grid.shape
    size = {"height": rows, "width": cols}
    return {"driver": "GTiff", **size, "count": 1, "dtype": "uint8", **more}


class Raster:
    """One or several images read on one grid; where they overlap the first valid one wins.

    ``read`` gives float32 ``(band, row, col)`` in the unit of the file and a bool ``(row, col)``
    that is False where no image has data. ``names``: the bands' descriptions in the first image.
    """

    def __init__(self, paths: Sequence[Path], grid: Grid) -> None:
        self.grid = grid
        self._stack = ExitStack()
        self._layers: list[tuple[Any, int, int]] = []
        self._names = [path.name for path in paths]
        bands = []
        names: list[str] = []
        for path in paths:
            dataset = self._stack.enter_context(open_dataset(path, allow_no_crs=grid.crs is None))
            bands.append(_colour_bands(dataset))
            names = names or [str(d or "") for d in dataset.descriptions]
            self._layers.append(self._on_grid(dataset, path))
        self.bands = min(bands)
        self.names: tuple[str, ...] = tuple(names[: self.bands])

    def _on_grid(self, dataset: rasterio.DatasetReader, path: Path) -> tuple[Any, int, int]:
        own = grid_of(dataset)
        if is_aligned(self.grid, own):
            offset = ~self.grid.transform @ own.transform
            return dataset, round(offset.f), round(offset.c)
        if self.grid.crs is None or dataset.crs is None:
            raise WrongCrs(f"{path.name} has another size and no CRS; georeference both images.")
        finer = self.grid.gsd > 1.5 * own.gsd if self.grid.crs == own.crs else False
        vrt = WarpedVRT(
            dataset,
            crs=self.grid.crs,
            transform=self.grid.transform,
            width=self.grid.shape[1],
            height=self.grid.shape[0],
            resampling=Resampling.average if finer else Resampling.cubic,
            add_alpha=dataset.mask_flag_enums[0] == [MaskFlags.all_valid],
        )
        return self._stack.enter_context(vrt), 0, 0

    def read(self, window: Window) -> tuple[FloatArray, BoolArray]:
        """Pixels and validity of a window of the grid.

        Raises:
            TruncatedImage: the file ends before its pixels do.
        """
        image = np.zeros((self.bands, window.height, window.width), np.float32)
        valid = np.zeros((window.height, window.width), bool)
        for (layer, row, col), name in zip(self._layers, self._names, strict=True):
            self._paste(layer, window, (row, col), image, valid, name)
            if valid.all():
                break
        return image, valid

    def _paste(
        self,
        layer: Any,  # noqa: ANN401 - dataset or warped view
        window: Window,
        offset: tuple[int, int],
        image: FloatArray,
        valid: BoolArray,
        name: str,
    ) -> None:
        top, left = window.row - offset[0], window.col - offset[1]
        row, col = max(0, top), max(0, left)
        stop_row = min(layer.height, top + window.height)
        stop_col = min(layer.width, left + window.width)
        if stop_row <= row or stop_col <= col:
            return
        part = RasterWindow(col, row, stop_col - col, stop_row - row)
        indexes = list(range(1, self.bands + 1))
        try:
            pixels = layer.read(indexes, window=part, out_dtype=np.float32)
            mask = layer.dataset_mask(window=part) > 0
        except (RasterioIOError, RasterioError) as error:
            detail = " ".join(str(error).split())[:120]
            raise TruncatedImage(
                f"{name} ends before its pixels do ({detail}); deliver it again."
            ) from None
        where = (slice(row - top, stop_row - top), slice(col - left, stop_col - left))
        fresh = mask & ~valid[where] & np.isfinite(pixels).all(axis=0)
        image[:, where[0], where[1]][:, fresh] = pixels[:, fresh]
        valid[where] |= fresh

    def close(self) -> None:
        """Close every file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _colour_bands(dataset: rasterio.DatasetReader) -> int:
    """Bands that carry an image: an alpha band is validity, not colour."""
    alpha = rasterio.enums.ColorInterp.alpha
    return max(1, sum(1 for c in dataset.colorinterp if c != alpha))


def common_grid(before: Sequence[Path], after: Path, *, whole_before: bool) -> Grid:
    """The grid a pair is judged on: the first BEFORE image's pixels, over all of it
    (``whole_before``) or over the ground AFTER shares with the BEFORE images.

    Raises:
        NoOverlap: the two share no ground.
        WrongCrs: two images without CRS of unlike size.
    """
    with open_dataset(before[0], allow_no_crs=True) as first:
        base = grid_of(first)
    with open_dataset(after, allow_no_crs=base.crs is None) as other:
        if base.crs is None:
            if other.shape != base.shape:
                raise WrongCrs("The images have no CRS and unlike sizes; georeference them.")
            return base
        bounds = _bounds_in(other, base, after)
    extents = [pixel_extent(base, path) for path in before]
    frame = (
        min(e[0] for e in extents),
        min(e[1] for e in extents),
        max(e[2] for e in extents),
        max(e[3] for e in extents),
    )
    shared = _cut(frame, _to_pixels(base, bounds))
    if shared is None:
        raise NoOverlap(f"{after.name} and the image before share no ground; check both.")
    row, col, stop_row, stop_col = (
        (0, 0, *base.shape) if whole_before and len(before) == 1 else shared
    )
    transform = base.transform @ rasterio.Affine.translation(col, row)
    return Grid(base.crs, transform, (stop_row - row, stop_col - col), base.block)


def pixel_extent(base: Grid, path: Path) -> tuple[int, int, int, int]:
    """First row and column, and one past the last ones, that a file covers on a grid's pixels."""
    with open_dataset(path) as dataset:
        return _to_pixels(base, _bounds_in(dataset, base, path))


def _bounds_in(dataset: rasterio.DatasetReader, base: Grid, path: Path) -> tuple[float, ...]:
    """Left, bottom, right and top of a file in a grid's CRS."""
    bounds = tuple(dataset.bounds)
    if dataset.crs.to_string() == base.crs:
        return bounds
    try:
        bounds = tuple(rasterio.warp.transform_bounds(dataset.crs, base.crs, *bounds))
    except (RasterioError, CRSError, CPLE_BaseError):
        bounds = (np.inf,)
    if not np.isfinite(bounds).all():
        raise NoOverlap(f"{path.name} lies nowhere in {base.crs}; check its CRS.")
    return bounds


def _to_pixels(base: Grid, bounds: tuple[float, ...]) -> tuple[int, int, int, int]:
    left, bottom, right, top = bounds
    inverse = ~base.transform
    cols, rows = zip(inverse @ (left, top), inverse @ (right, bottom), strict=True)
    return (
        int(np.floor(min(rows) + 1e-6)),
        int(np.floor(min(cols) + 1e-6)),
        int(np.ceil(max(rows) - 1e-6)),
        int(np.ceil(max(cols) - 1e-6)),
    )


def _cut(
    a: tuple[int, int, int, int], b: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    row, col = max(a[0], b[0]), max(a[1], b[1])
    stop_row, stop_col = min(a[2], b[2]), min(a[3], b[3])
    return (row, col, stop_row, stop_col) if stop_row > row and stop_col > col else None
