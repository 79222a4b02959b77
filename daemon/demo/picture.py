"""The demo's picture: before, after, and what the map took from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import from_bounds

from daemon.preview import PANEL_PX, side_by_side, trace
from detectors.raster import open_dataset
from updater.diff import DiffPiece

_COLOURS = {1: (255, 40, 60), -1: (60, 220, 90), 0: (255, 200, 40)}
"""Outline by legal effect: artificialised red, désartificialised green, other yellow."""


def _panel(paths: Iterable[Path], bounds: tuple[float, float, float, float]) -> Image.Image:
    west, south, east, north = bounds
    canvas = Image.new("RGB", (PANEL_PX, PANEL_PX))
    for path in paths:
        with open_dataset(path) as source:
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
    left, middle = _panel([before], bounds), _panel(after, bounds)
    right = middle.copy()
    transform = from_bounds(*bounds, PANEL_PX, PANEL_PX)
    for piece in pieces:
        trace(right, piece.geometry, transform, colour=_COLOURS[piece.artificialisation], width=3)
    side_by_side([left, middle, right]).save(path)
