"""A store on real ground, with images, for tests of what other programs read it with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from shapely import affinity
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from schemas.policy import Sensor
from tests.coverages import random_coverage
from tests.map_store import MILLESIME, building, patched
from updater.commit import add_image
from updater.importer import load
from updater.reads import ImageRecord
from updater.store import Store

EAST, NORTH, SIDE = 500_000.0, 6_270_000.0, 900.0
"""Near Auch, Lambert-93."""
PLACES = [(x, y) for x in (100, 300, 500, 700) for y in (120, 380, 700)]


def there(shape: BaseGeometry) -> BaseGeometry:
    """A shape about the origin, moved to the ground."""
    return affinity.translate(shape, EAST, NORTH)


def lambert_store(path: Path, seed: int = 3, *, cells: int = 160) -> Store:
    """A random coverage of 2021 near Auch, changed in 2024."""
    polygons = random_coverage(np.random.default_rng(seed), cells=cells, side=SIDE)
    store = Store.create(path, territory="D032", crs="EPSG:2154", millesime=MILLESIME)
    moved = [replace(p, geometry=there(p.geometry)) for p in polygons]
    load(store, moved, [there(box(0, 0, SIDE, SIDE))], millesime=MILLESIME)
    patched(store, 1, [building(EAST + x, NORTH + y) for x, y in PLACES])
    return store


def tile(folder: Path, number: int, *, crs: str | None = "EPSG:2154") -> Path:
    """A small image of a tile of the ground."""
    path = folder / f"tile-{number}.tif"
    transform = from_origin(EAST + 100 * number, NORTH + 200, 2.0, 2.0)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=50,
        height=100,
        count=3,
        dtype="uint8",
        crs=crs,
        transform=transform,
    ) as image:
        image.write(np.full((3, 100, 50), number, np.uint8))
    return path


def with_images(store: Store, folder: Path, count: int = 7) -> list[ImageRecord]:
    """Images of a row of tiles, a day apart, every third of SPOT; the second has a surface model,
    the third's file is gone."""
    made = []
    for number in range(count):
        path = tile(folder, number)
        with rasterio.open(path) as image:
            footprint = box(*image.bounds)
        elevation = tile(folder, 100) if number == 1 else None
        if number == 2:
            path.unlink()
        found = ImageRecord(
            item=f"image-{number}",
            path=path,
            sensor=Sensor.PVA if number % 3 else Sensor.SPOT,
            acquired=datetime(2021, 6, 1, 10, tzinfo=UTC) + timedelta(days=number),
            gsd=2.0,
            footprint=footprint,
            elevation=elevation,
        )
        add_image(store, found)
        made.append(found)
    return made
