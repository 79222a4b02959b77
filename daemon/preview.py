"""A picture of one detection: before, after with outlines, and the probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry

from detectors.raster import Raster
from detectors.types import Grid, Region
from updater.generalise import polygons_of

PANEL_PX = 900
"""Longest side of a panel: three fit a wide screen."""
GAP_PX = 10
OUTLINE = (255, 40, 60)


def draw_detection(
    path: Path,
    *,
    before: Path,
    after: Path,
    probability: Path,
    grid: Grid,
    regions: Sequence[Region],
) -> None:
    """Write the panels side by side as a PNG; ``regions`` are in the CRS of the grid."""
    small = _small(grid)
    panels = [_colour(before, small), _colour(after, small), _grey(probability, small)]
    for region in regions:
        trace(panels[1], region.geometry, small.transform, colour=OUTLINE, width=2)
    side_by_side(panels).save(path)


def trace(
    panel: Image.Image,
    geometry: BaseGeometry,
    transform: Affine,
    *,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """Draw the outer outlines of a geometry; ``transform`` takes the panel's (col, row) to its
    CRS."""
    pen, inverse = ImageDraw.Draw(panel), ~transform
    for polygon in polygons_of(geometry):
        ring = [tuple(inverse @ (x, y)) for x, y, *_ in polygon.exterior.coords]
        pen.line(ring, fill=colour, width=width)


def side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels of one size in a row, a white gap between them."""
    cols, rows = panels[0].size
    gaps = GAP_PX * (len(panels) - 1)
    wide = Image.new("RGB", (cols * len(panels) + gaps, rows), (255, 255, 255))
    for number, panel in enumerate(panels):
        wide.paste(panel, (number * (cols + GAP_PX), 0))
    return wide


def _small(grid: Grid) -> Grid:
    """The grid at a pixel coarse enough for a panel."""
    factor = max(1.0, max(grid.shape) / PANEL_PX)
    shape = (max(1, round(grid.shape[0] / factor)), max(1, round(grid.shape[1] / factor)))
    scale = Affine.scale(grid.shape[1] / shape[1], grid.shape[0] / shape[0])
    return Grid(grid.crs, grid.transform @ scale, shape, 0)


def _read(path: Path, grid: Grid) -> npt.NDArray[np.float32]:
    if grid.crs is None:  # a bare picture cannot be warped
        with Image.open(path) as image:
            array = np.asarray(image.resize((grid.shape[1], grid.shape[0])), np.float32)
        return array[None] if array.ndim == 2 else np.moveaxis(array[..., :3], -1, 0)
    with Raster([path], grid) as raster:
        return raster.read(grid.window)[0]


def _colour(path: Path, grid: Grid) -> Image.Image:
    """The first three bands, or the first alone, stretched over their range."""
    image = _read(path, grid)
    bands = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    low, high = (np.quantile(bands, q, axis=(1, 2), keepdims=True) for q in (0.01, 0.99))
    shown = np.clip((bands - low) / np.maximum(high - low, 1e-6), 0, 1) * 255
    return Image.fromarray(np.moveaxis(shown, 0, -1).astype(np.uint8))


def _grey(path: Path, grid: Grid) -> Image.Image:
    image = _read(path, grid)[0]
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).convert("RGB")
