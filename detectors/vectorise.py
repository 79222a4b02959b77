"""From a probability raster to regions: one polygon per changed object, with its covers.

Connected changed pixels make a region; inside it the covers vote, so that speckle of one cover in
another does not cut it up. Where two covers each hold enough of it, it is split between them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from pyproj import CRS, Geod, Transformer
from rasterio.features import geometry_mask, shapes
from rasterio.transform import Affine, array_bounds
from rasterio.windows import Window as RasterWindow
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from detectors.engine import STRIP_PIXELS, Detection
from detectors.masks import dilated, eroded
from detectors.raster import byte_profile
from detectors.types import CHANGED, BoolArray, ByteArray, Grid, Ground, Region, Window
from schemas.nomenclature import CS_FROM_INDEX
from schemas.policy import SMALLEST_OBJECT_M2

MIN_AREA_M2 = SMALLEST_OBJECT_M2
"""Smallest region, unless the caller wants another."""
MIN_PIXELS = 10
"""Nor fewer pixels than this, whatever their size (Theia's minimum at 10 m)."""
CLEAN_M = 0.75
"""Radius of the opening and closing that take speckle out."""
LARGE_PIXELS = 16_000_000
"""A region whose frame holds more pixels is not split between covers: at 0.2 m that is 64 ha, more
than any single change a map is patched with."""
SPLIT_SHARE = 0.25
"""A second cover that holds this share of a region makes a region of its own."""


def area_of(geometry: BaseGeometry, crs: str | None) -> float:
    """Square metres on the ground, also where the CRS is in degrees; pixels where there is none."""
    if crs is not None and CRS.from_user_input(crs).is_geographic:
        return abs(Geod(ellps="WGS84").geometry_area_perimeter(geometry)[0])
    return float(geometry.area)


def regions(
    detection: Detection, *, target_crs: str | None = None, min_area: float = MIN_AREA_M2
) -> list[Region]:
    """Changed regions of a scene, largest first.

    The mask is cleaned window by window and polygonised from a file, so that memory holds the
    regions and one window, whatever the scene's size. ``target_crs``: where polygons are wanted
    (the map's CRS), None for the grid's own. ``min_area``: smallest region kept, m².
    """
    grid = detection.scene.grid
    with tempfile.TemporaryDirectory(prefix="millesimed-") as folder:
        path = Path(folder) / "changed.tif"
        if not _write_mask(detection, path):
            return []
        with rasterio.open(path) as mask:
            band = rasterio.band(mask, 1)
            outlines = [
                outline
                for geometry, _ in shapes(band, mask=band)
                if _large_enough(outline := shape(geometry), grid, min_area)
            ]
    found = [
        part
        for outline in outlines
        for part in _split(outline, detection)
        if _large_enough(part.geometry, grid, min_area)
    ]
    found.sort(key=lambda r: (-r.geometry.area, r.geometry.bounds))
    return [_placed(region, grid, target_crs) for region in found]


def _write_mask(detection: Detection, path: Path) -> bool:
    """The cleaned mask of changed pixels as a file; False when nothing changed."""
    grid = detection.scene.grid
    radius = max(0, round(CLEAN_M / grid.gsd)) if grid.is_metric else 1
    if min(grid.shape) <= 8 * radius:
        radius = 0
    profile = byte_profile(grid, compress="lzw", transform=grid.transform)
    anything = False
    rows = max(1, STRIP_PIXELS // grid.shape[1])
    with rasterio.open(path, "w", **profile) as target:
        for strip in grid.window.strips(rows):
            outer = strip.grown(4 * radius, shape=grid.shape)
            changed = detection.read(outer)[0] >= CHANGED
            if radius and changed.any():
                changed = _cleaned(changed, radius)
            kept = changed[strip.within(outer)]
            anything |= bool(kept.any())
            place = RasterWindow(0, strip.row, strip.width, strip.height)
            target.write(kept.astype(np.uint8), 1, window=place)
    return anything


def _cleaned(mask: BoolArray, radius: int) -> BoolArray:
    """Opened, then closed, with a square."""
    kept = dilated(eroded(mask, radius), radius)
    return eroded(dilated(kept, radius), radius)


def _polygons(mask: BoolArray, transform: Affine) -> Iterator[BaseGeometry]:
    for geometry, _ in shapes(mask.astype(np.uint8), mask=mask, transform=transform):
        yield shape(geometry)


def _large_enough(geometry: BaseGeometry, grid: Grid, min_area: float) -> bool:
    pixel = abs(grid.transform.determinant)
    return geometry.area >= MIN_PIXELS * pixel and area_of(geometry, grid.crs) >= min_area


def _window_of(geometry: BaseGeometry, grid: Grid) -> Window:
    west, south, east, north = geometry.bounds
    inverse = ~grid.transform
    corners = [inverse @ (west, north), inverse @ (east, south)]
    cols, rows = zip(*corners, strict=True)
    row, col = max(0, int(min(rows))), max(0, int(min(cols)))
    stop_row = min(grid.shape[0], int(np.ceil(max(rows))) + 1)
    stop_col = min(grid.shape[1], int(np.ceil(max(cols))) + 1)
    return Window(row, col, max(0, stop_row - row), max(0, stop_col - col))


def _split(geometry: BaseGeometry, detection: Detection) -> list[Region]:
    """The region, or one region for each cover that holds enough of it."""
    grid = detection.scene.grid
    window = _window_of(geometry, grid)
    if window.height * window.width > LARGE_PIXELS:
        return [_large(geometry, detection, window)]
    part = detection.read(window)
    transform = grid.transform_of(window)
    inside = _inside(geometry, part.shape[1:], transform)
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


def _large(geometry: BaseGeometry, detection: Detection, window: Window) -> Region:
    """A region too large to be looked at in one piece: its figures summed strip by strip."""
    grid = detection.scene.grid
    counts = np.zeros((2, 256), np.int64)
    sums, pixels = np.zeros(2), 0
    for strip in window.strips(max(1, STRIP_PIXELS // window.width)):
        part = detection.read(strip)
        inside = _inside(geometry, part.shape[1:], grid.transform_of(strip))
        sums += [float(layer[inside].sum(dtype=np.int64)) for layer in part[:2]]
        pixels += int(inside.sum())
        counts += [np.bincount(layer[inside], minlength=256) for layer in part[2:]]
    probability, magnitude = sums / max(1, pixels) / 255
    return Region(
        geometry=geometry,
        from_cs=CS_FROM_INDEX.get(int(counts[0].argmax())),
        to_cs=CS_FROM_INDEX.get(int(counts[1].argmax())),
        probability=float(probability),
        magnitude=float(magnitude),
    )


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


def looks_at(
    detection: Detection, outlines: Mapping[str, BaseGeometry], *, crs: str
) -> dict[str, Ground]:
    """What the scene shows of some ground, in ``crs``: how much of it both dates saw, and how much
    of that looks changed. Ground outside the scene, or too large for one look, is left out; all of
    it where the detector abstained.
    """
    grid = detection.scene.grid
    if grid.crs is None or detection.abstained:
        return {}
    change = Transformer.from_crs(crs, grid.crs, always_xy=True)
    frame = box(*array_bounds(*grid.shape, grid.transform))
    found = {}
    for name, outline in outlines.items():
        ground = shapely.transform(outline, change.transform, interleaved=False)
        if not frame.intersects(ground):
            continue
        window = _window_of(ground, grid)
        if not 0 < window.height * window.width <= LARGE_PIXELS:
            continue
        valid = detection.scene.tile(window).valid.cpu().numpy()
        inside = _inside(ground, valid.shape, grid.transform_of(window))
        seen = inside & valid
        whole = max(int(inside.sum()), round(ground.area / abs(grid.transform.determinant)), 1)
        changed = detection.read(window)[0][seen] >= CHANGED
        found[name] = Ground(
            valid=float(seen.sum()) / whole, changed=float(changed.mean()) if seen.any() else 0.0
        )
    return found


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
            "surface": [area_of(r.geometry, crs) for r in found],
            "looks": [r.looks for r in found],
        },
        geometry=[r.geometry for r in found],
        crs=crs,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_file(path, driver="GPKG", layer="regions", engine="pyogrio")
