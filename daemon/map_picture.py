"""A small picture of the map around some alerts, for mails."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry

from daemon.labels import MapLabels
from daemon.preview import OUTLINE, trace
from detectors.types import Grid
from schemas.export import ExportTheme
from updater.export_raster import colours
from updater.reads import Bounds, current_in, versions_in
from updater.store import Store

WIDTH_PX: Final = 600
"""The width mail programs show without scrolling."""
HEIGHTS_PX: Final = (300, 600)
MARGIN: Final = 0.15
"""Ground shown around the alerts, as a share of their extent on each side."""
LEAST_GROUND_M: Final = 300.0
"""Width of the ground around a single small alert: enough to recognise the place."""
MOST_GROUND_M: Final = 8_000.0
"""Wider ground stays plain: a pixel is then 13 m and more, the smallest polygons (200 m²) are one
pixel, and a département would be read for nothing."""
MOST_POLYGONS: Final = 20_000
"""Versions in the window beyond which the ground stays plain too: about a second to read and draw,
and 50 MB."""
MUTED: Final = 0.55
"""Share of white over the official colours, so that outlines and numbers stand out."""
PLAIN: Final = (238, 238, 238)
SMALLEST_PX: Final = 12
"""Outlines smaller than that get a ring around them, or they would not be seen."""
MOST_NUMBERED: Final = 60
"""Beyond that numbers cover each other; the most important keep theirs."""
INK: Final = (30, 30, 30)
TEXT_PX: Final = 14
STRIP_PX: Final = 24
"""Below the map, for the scale: over the map it might hide an alert."""


def draw(store: Store, grounds: Sequence[BaseGeometry]) -> bytes:
    """A PNG of the map now, with the outlines of alerts in the store's CRS.

    ``grounds`` come most important first and are numbered from 1; one alone has no number.
    """
    window, height = frame(shapely.total_bounds(list(grounds)).tolist())
    transform = Affine.translation(window[0], window[3]) @ Affine.scale(
        (window[2] - window[0]) / WIDTH_PX, (window[1] - window[3]) / height
    )
    picture = _ground(store, window, Grid(None, transform, (height, WIDTH_PX), 0))
    font = ImageFont.load_default(TEXT_PX)
    for number, ground in reversed(list(enumerate(grounds, start=1))):
        _outline(picture, ground, transform)
        if len(grounds) > 1 and number <= MOST_NUMBERED:
            _number(picture, str(number), ~transform @ ground.centroid.coords[0], font)
    picture = _with_scale(picture, transform.a, font)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def frame(bounds: Bounds) -> tuple[Bounds, int]:
    """The window to show around some bounds, and its height in pixels; metres are square."""
    west, south, east, north = bounds
    width = max((east - west) * (1 + 2 * MARGIN), LEAST_GROUND_M)
    height = max((north - south) * (1 + 2 * MARGIN), width * HEIGHTS_PX[0] / WIDTH_PX)
    width = max(width, height * WIDTH_PX / HEIGHTS_PX[1])
    rows = min(HEIGHTS_PX[1], round(WIDTH_PX * height / width))
    height = width * rows / WIDTH_PX
    x, y = (west + east) / 2, (south + north) / 2
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2), rows


def _ground(store: Store, window: Bounds, grid: Grid) -> Image.Image:
    """The covers in muted colours; plain where that would cost too much."""
    rows, cols = grid.shape
    wide = max(window[2] - window[0], window[3] - window[1]) > MOST_GROUND_M
    if wide or versions_in(store, window, most=MOST_POLYGONS) > MOST_POLYGONS:
        return Image.new("RGB", (cols, rows), PLAIN)
    labels = MapLabels(current_in(store, window), map_crs=store.crs, grid=grid)(grid.window)
    table = np.array([rgba[:3] for _, rgba in sorted(colours(ExportTheme.COVER).items())], float)
    muted = table * (1 - MUTED) + 255 * MUTED
    muted[0] = PLAIN
    return Image.fromarray(muted.round().astype(np.uint8)[labels])


def _outline(picture: Image.Image, ground: BaseGeometry, transform: Affine) -> None:
    trace(picture, ground, transform, colour=OUTLINE, width=2)
    west, south, east, north = ground.bounds
    if max(east - west, north - south) < SMALLEST_PX * transform.a:
        x, y = ~transform @ ((west + east) / 2, (south + north) / 2)
        ring = (x - SMALLEST_PX, y - SMALLEST_PX, x + SMALLEST_PX, y + SMALLEST_PX)
        ImageDraw.Draw(picture).ellipse(ring, outline=OUTLINE, width=2)


def _number(
    picture: Image.Image,
    text: str,
    place: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """A number to the upper right of a place, haloed so that it reads on any colour."""
    x, y = place
    x, y = min(x + 8, picture.width - 26), max(y - 8, TEXT_PX)
    ImageDraw.Draw(picture).text(
        (x, y), text, fill=INK, font=font, anchor="ls", stroke_width=3, stroke_fill=(255, 255, 255)
    )


def _with_scale(
    picture: Image.Image, metres: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    """The picture over a strip with a bar of a round length, at most a quarter of the width;
    ``metres`` to a pixel."""
    length = round_length(metres * picture.width / 4)
    whole = Image.new("RGB", (picture.width, picture.height + STRIP_PX), (255, 255, 255))
    whole.paste(picture)
    pen, middle, end = ImageDraw.Draw(whole), picture.height + STRIP_PX // 2, 8 + length / metres
    pen.line([(8, middle), (end, middle)], fill=INK, width=3)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    pen.text((end + 8, middle), text, fill=INK, font=font, anchor="lm")
    return whole


def round_length(most: float) -> float:
    """The longest of 1, 2, 5 times a power of ten that is not beyond ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most)
