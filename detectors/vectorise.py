"""From a probability raster to regions: one polygon per changed object, with its covers.

Connected changed pixels make a region; inside it the covers vote, so that speckle of one cover in
another does not cut it up. Where two covers each hold enough of it, it is split between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer
from rasterio.features import geometry_mask, shapes
from rasterio.transform import Affine
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from detectors.engine import Detection
from detectors.masks import dilated, eroded
from detectors.types import CHANGED, BoolArray, ByteArray, Grid, Region, Window
from schemas.nomenclature import CS_FROM_INDEX

MIN_AREA_M2 = 50.0
"""Smallest region: the footprint from which a building is taken into the map."""
MIN_PIXELS = 10
"""Nor fewer pixels than this, whatever their size (Theia's minimum at 10 m)."""
CLEAN_M = 0.75
"""Radius of the opening and closing that take speckle out."""
SPLIT_SHARE = 0.25
"""A second cover that holds this share of a region makes a region of its own."""


def area_of(geometry: BaseGeometry, grid: Grid) -> float:
    """Square metres on the ground, also where the grid is in degrees."""
    if grid.crs is not None and CRS.from_user_input(grid.crs).is_geographic:
        return abs(Geod(ellps="WGS84").geometry_area_perimeter(geometry)[0])
    return float(geometry.area)


def regions(
    detection: Detection, *, target_crs: str | None = None, min_area: float = MIN_AREA_M2
) -> list[Region]:
    """Changed regions of a scene, largest first.

    ``target_crs``: where polygons are wanted (the map's CRS), None for the grid's own.
    ``min_area``: smallest region kept, m².
    """
    grid = detection.scene.grid
    layers = detection.read(grid.window)
    changed = layers[0] >= CHANGED
    if not changed.any():
        return []
    radius = max(0, round(CLEAN_M / grid.gsd)) if grid.crs is not None and grid.gsd > 0.01 else 1
    if min(changed.shape) > 8 * radius > 0:
        changed = _cleaned(changed, radius)
    found = [
        part
        for geometry in _polygons(changed, grid.transform)
        for part in _split(geometry, layers, grid)
        if _large_enough(part.geometry, grid, min_area)
    ]
    found.sort(key=lambda r: (-r.geometry.area, r.geometry.bounds))
    return [_placed(region, grid, target_crs) for region in found]


def _cleaned(mask: BoolArray, radius: int) -> BoolArray:
    """Opened, then closed, with a square."""
    kept = dilated(eroded(mask, radius), radius)
    return eroded(dilated(kept, radius), radius)


def _polygons(mask: BoolArray, transform: Affine) -> Iterator[BaseGeometry]:
    for geometry, _ in shapes(mask.astype(np.uint8), mask=mask, transform=transform):
        yield shape(geometry)


def _large_enough(geometry: BaseGeometry, grid: Grid, min_area: float) -> bool:
    pixel = abs(grid.transform.determinant)
    return geometry.area >= MIN_PIXELS * pixel and area_of(geometry, grid) >= min_area


def _window_of(geometry: BaseGeometry, grid: Grid) -> Window:
    west, south, east, north = geometry.bounds
    inverse = ~grid.transform
    corners = [inverse @ (west, north), inverse @ (east, south)]
    cols, rows = zip(*corners, strict=True)
    row, col = max(0, int(min(rows))), max(0, int(min(cols)))
    stop_row = min(grid.shape[0], int(np.ceil(max(rows))) + 1)
    stop_col = min(grid.shape[1], int(np.ceil(max(cols))) + 1)
    return Window(row, col, stop_row - row, stop_col - col)


def _split(geometry: BaseGeometry, layers: ByteArray, grid: Grid) -> list[Region]:
    """The region, or one region for each cover that holds enough of it."""
    window = _window_of(geometry, grid)
    part = layers[(slice(None), *window.slices)]
    transform = grid.transform_of(window)
    inside = geometry_mask([geometry], out_shape=part.shape[1:], transform=transform, invert=True)
    if not inside.any():
        return []
    counts = np.bincount(part[3][inside], minlength=256)
    holders = np.flatnonzero(counts >= SPLIT_SHARE * counts.sum())
    if len(holders) < 2:
        return [_region(geometry, part, inside, int(counts.argmax()))]
    owner = holders[np.argmax([_held(part[3] == value, inside) for value in holders], axis=0)]
    pieces = []
    for value in holders:
        mine = inside & (owner == value)
        pieces += [
            _region(piece, part, mine & _inside(piece, mine.shape, transform), int(value))
            for piece in _polygons(mine, transform)
        ]
    return pieces


def _held(mask: BoolArray, inside: BoolArray) -> np.ndarray:
    """How strongly a cover holds each pixel: its share of the neighbourhood."""
    import torch
    from kornia.filters import box_blur

    values = torch.as_tensor((mask & inside).astype(np.float32))[None, None]
    side = min(9, min(mask.shape) // 2 * 2 - 1)
    return np.asarray(box_blur(values, max(1, side))[0, 0].numpy())


def _inside(geometry: BaseGeometry, size: tuple[int, ...], transform: Affine) -> BoolArray:
    return np.asarray(
        geometry_mask([geometry], out_shape=size, transform=transform, invert=True), bool
    )


def _region(geometry: BaseGeometry, part: ByteArray, inside: BoolArray, to_value: int) -> Region:
    sure = part[0][inside] if inside.any() else part[0].flatten()
    size = part[1][inside] if inside.any() else part[1].flatten()
    before = np.bincount(part[2][inside], minlength=256) if inside.any() else np.zeros(256)
    return Region(
        geometry=geometry,
        from_cs=CS_FROM_INDEX.get(int(before.argmax())),
        to_cs=CS_FROM_INDEX.get(to_value),
        probability=float(sure.mean()) / 255,
        magnitude=float(size.mean()) / 255,
    )


def _placed(region: Region, grid: Grid, target_crs: str | None) -> Region:
    if target_crs is None or grid.crs is None or target_crs == grid.crs:
        return region
    change = Transformer.from_crs(grid.crs, target_crs, always_xy=True)
    moved = shapely.transform(region.geometry, change.transform, interleaved=False)
    return replace(region, geometry=moved)


def write_regions(found: list[Region], path: Path, *, crs: str | None) -> None:
    """Regions as a GeoPackage: covers, probability, magnitude, surface (m²), looks."""
    frame = gpd.GeoDataFrame(
        {
            "from_cs": [r.from_cs for r in found],
            "to_cs": [r.to_cs for r in found],
            "probability": [r.probability for r in found],
            "magnitude": [r.magnitude for r in found],
            "surface": [float(r.geometry.area) for r in found],
            "looks": [r.looks for r in found],
        },
        geometry=[r.geometry for r in found],
        crs=crs,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_file(path, driver="GPKG", layer="regions", engine="pyogrio")
