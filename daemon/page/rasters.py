"""Tiles of the images a store knows: reference images and acquisitions, by year, never by path."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import rasterio
import structlog
from PIL import Image
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError
from rio_tiler.errors import RioTilerError
from rio_tiler.io import Reader

from daemon.page.mercator import SIDE_PX, Tile
from detectors.errors import DetectionError
from detectors.quicklook import STRETCH, shown_bands
from detectors.raster import open_dataset
from updater.reads import ImageRecord, images_in
from updater.store import Store

log = structlog.get_logger()

MOST_IMAGES: Final = 6
"""Images a tile is put together from: of one flight four meet in a corner."""
MOST_DECIMATION: Final = 32
"""Pixels of an image on one of the tile, along a side: more would read a whole delivery for a few
hundred pixels where the file has no overviews."""
QUALITY: Final = 80
SAMPLE_PX: Final = 512
"""Side of the sample that the stretch of an image with more than 8 bits is taken from."""
EQUATOR_M: Final = 40_075_016.686

Bytes = npt.NDArray[np.uint8]


def first_zoom(gsd: float, latitude: float) -> int:
    """The first zoom at which an image of that pixel (metres) is shown."""
    for zoom in range(22):
        ground = EQUATOR_M * np.cos(np.radians(latitude)) / (2**zoom * SIDE_PX)
        if ground <= gsd * MOST_DECIMATION:
            return zoom
    return 22


def of_year(store: Store, tile: Tile, year: int) -> list[ImageRecord]:
    """Images of a year that touch a tile, the finest first and of those the newest."""
    found = [i for i in images_in(store, tile.window(store.crs)) if i.acquired.year == year]
    return sorted(found, key=lambda i: (round(i.gsd, 1), -i.acquired.timestamp(), i.item))


def image_tile(store: Store, tile: Tile, *, year: int) -> bytes:
    """What the images of a year show, as WebP; nothing where they show nothing."""
    whole = np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8)
    for record in of_year(store, tile, year)[:MOST_IMAGES]:
        part = _part(record, tile)
        if part is not None:
            empty = whole[..., 3] == 0
            whole[empty] = part[empty]
        if (whole[..., 3] > 0).all():
            break
    if not whole[..., 3].any():
        return b""
    body = io.BytesIO()
    covered = bool((whole[..., 3] > 0).all())
    image = Image.fromarray(whole).convert("RGB") if covered else Image.fromarray(whole)
    image.save(body, "WEBP", quality=QUALITY, method=2)
    return body.getvalue()


def _part(record: ImageRecord, tile: Tile) -> Bytes | None:
    """One image on a tile as RGBA; None where it is gone, unreadable or too fine for the zoom."""
    try:
        with open_dataset(record.path) as dataset:
            if not _readable(dataset, record, tile):
                return None
            bands = shown_bands(dataset)
            with Reader(None, dataset=dataset) as reader:
                seen = reader.tile(tile.x, tile.y, tile.z, tilesize=SIDE_PX, indexes=bands)
            pixels = np.broadcast_to(seen.data, (3, SIDE_PX, SIDE_PX))
            if dataset.dtypes[0] != "uint8":
                pixels = _stretched(pixels, *_range(record.path, tuple(bands)))
    except (DetectionError, RasterioError, RioTilerError, ProjError, OSError) as error:
        log.warning("image_not_shown", item=record.item, error=" ".join(str(error).split())[:200])
        return None
    return np.dstack([*pixels.astype(np.uint8), seen.mask])


def _readable(dataset: rasterio.DatasetReader, record: ImageRecord, tile: Tile) -> bool:
    """True where a tile does not take far more pixels than it shows."""
    _, south, _, north = tile.bounds
    latitude = np.degrees(np.arctan(np.sinh((south + north) / 2 / 6_378_137.0)))
    return bool(dataset.overviews(1)) or tile.z >= first_zoom(record.gsd, float(latitude))


@lru_cache(maxsize=1024)
def _range(path: Path, bands: tuple[int, ...]) -> tuple[float, float]:
    """What becomes black and white in an image: one stretch for all its tiles and bands."""
    with open_dataset(path) as dataset:
        scale = max(1.0, max(dataset.shape) / SAMPLE_PX)
        shape = (len(bands), round(dataset.height / scale), round(dataset.width / scale))
        sample = dataset.read(list(bands), out_shape=shape, masked=True).compressed()
    if not len(sample):
        return 0.0, 1.0
    low, high = np.quantile(sample, STRETCH)
    return float(low), max(float(high), float(low) + 1e-6)


def _stretched(pixels: npt.NDArray[np.generic], low: float, high: float) -> Bytes:
    level = (pixels.astype(np.float32) - low) / (high - low)
    return np.asarray(np.clip(level, 0, 1) * 255, np.uint8)


def years(images: Sequence[ImageRecord]) -> dict[int, list[ImageRecord]]:
    """Images by the year they were taken."""
    found: dict[int, list[ImageRecord]] = {}
    for image in images:
        found.setdefault(image.acquired.year, []).append(image)
    return dict(sorted(found.items()))
