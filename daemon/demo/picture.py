"""The demo's picture: before, after, and what the map took from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw
from rasterio.enums import Resampling

from updater.diff import DiffPiece
from updater.generalise import polygons_of

PANEL_PX = 900
"""Side of each panel: three fit a wide screen."""
_COLOURS = {1: (255, 40, 60), -1: (60, 220, 90), 0: (255, 200, 40)}
"""Outline by legal effect: artificialised red, désartificialised green, other yellow."""


def _panel(paths: Iterable[Path], bounds: tuple[float, float, float, float]) -> Image.Image:
    west, south, east, north = bounds
    canvas = Image.new("RGB", (PANEL_PX, PANEL_PX))
    for path in paths:
        with rasterio.open(path) as source:
            b = source.bounds
            left, right = ((x - west) / (east - west) * PANEL_PX for x in (b.left, b.right))
            top, low = ((north - y) / (north - south) * PANEL_PX for y in (b.top, b.bottom))
            size = (max(1, round(low - top)), max(1, round(right - left)))
            pixels = source.read([1, 2, 3], out_shape=(3, *size), resampling=Resampling.average)
        part = Image.fromarray(np.moveaxis(pixels, 0, -1).astype(np.uint8))
        canvas.paste(part, (round(left), round(top)))
    return canvas


def draw(
    path: Path,
    *,
    before: Path,
    after: Iterable[Path],
    pieces: Iterable[DiffPiece],
    bounds: tuple[float, float, float, float],
) -> None:
    """Write the three panels side by side as a PNG."""
    west, south, east, north = bounds
    left, middle = _panel([before], bounds), _panel(after, bounds)
    right = middle.copy()
    pen = ImageDraw.Draw(right)
    for piece in pieces:
        for polygon in polygons_of(piece.geometry):
            ring = [
                (
                    (x - west) / (east - west) * PANEL_PX,
                    (north - y) / (north - south) * PANEL_PX,
                )
                for x, y in polygon.exterior.coords
            ]
            pen.line(ring, fill=_COLOURS[piece.artificialisation], width=3)
    wide = Image.new("RGB", (3 * PANEL_PX + 20, PANEL_PX), (255, 255, 255))
    for i, panel in enumerate((left, middle, right)):
        wide.paste(panel, (i * (PANEL_PX + 10), 0))
    wide.save(path)
