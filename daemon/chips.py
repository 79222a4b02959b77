"""Pictures that explain an alert: the same ground before and after, its outline on both.

An image that is gone, unreadable or unknown becomes a grey panel that says so: the other date still
tells something.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog
from PIL import Image, ImageDraw, ImageFont
from pyproj.exceptions import ProjError
from rasterio.errors import CRSError, RasterioError
from rasterio.features import geometry_mask
from rasterio.transform import from_bounds
from shapely.geometry.base import BaseGeometry

from daemon.chip_words import WORDS, Language, Problem, caption, length
from daemon.preview import side_by_side
from detectors.errors import DetectionError
from detectors.quicklook import Quicklook, filled, pictures, quicklook
from detectors.types import Grid
from updater.generalise import polygons_of
from updater.reads import Bounds, ImageRecord, images_in
from updater.review import find_alert
from updater.store import Store
from updater.types import AlertRecord

log = structlog.get_logger()

SIDE_PX: Final = 512
CONTEXT: Final = 2.0
"""Side of the ground shown over the larger side of the outline: half of it is surroundings."""
LEAST_SIDE_M: Final = 60.0
"""A house with its street: less ground than that is not recognised from the air."""
LEAST_PIXELS: Final = 100
"""Of the coarser image across the picture: a kilometre of Sentinel-2, where fewer are a mosaic of
squares without a shape."""
SAME_KIND: Final = 2.0
"""Pixels within this factor of the finest count as equally fine; then the newest image wins."""
SAME_FLIGHT: Final = timedelta(hours=12)
"""Images of one sensor this near in time are tiles of one flight: they fill up the surroundings."""
MOST_TILES: Final = 9
"""Tiles a picture may lie on: it is smaller than a tile, except of the largest alerts."""
LINE: Final = (255, 221, 0)
HALO: Final = (20, 20, 20)
"""A bright line between dark ones is seen on any ground."""
LINE_PX, HALO_PX = 3, 7
"""Odd: Pillow centres only those on a pixel."""
PANEL: Final = (190, 190, 190)
INK: Final = (30, 30, 30)
STRIP_PX: Final = 44
TEXT_PX: Final = 13
NOTICE_PX: Final = 15
MARGIN_PX: Final = 8
BAR_SHARE: Final = 0.2
"""Of the picture's side: the most a scale bar may take, so that the caption fits beside it."""


class Picture(StrEnum):
    """The three pictures of an alert."""

    BEFORE = "before"
    AFTER = "after"
    CHIPS = "chips"


@dataclass(frozen=True, slots=True)
class Panel:
    """One date: the item the alert names, its image where it is known, and what can be shown."""

    item: str | None
    image: ImageRecord | None
    look: Quicklook | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Chips:
    """The panels before and after, drawn, and what stands under them."""

    panels: tuple[Image.Image, Image.Image]
    captions: tuple[tuple[str, str], tuple[str, str]]
    side_m: float

    def png(self, picture: Picture) -> bytes:
        """One of the pictures as a PNG file; the same content gives the same bytes."""
        if picture is Picture.CHIPS:
            image = side_by_side(
                [
                    _captioned(panel, lines, self.side_m)
                    for panel, lines in zip(self.panels, self.captions, strict=True)
                ]
            )
        else:
            image = self.panels[picture is Picture.AFTER]
        body = io.BytesIO()
        image.save(body, "PNG")
        return body.getvalue()


def draw_alert(store: Store, alert: str, *, language: Language = Language.FR) -> Chips:
    """The pictures of an alert in its latest state.

    Raises:
        NotFound: no alert has that id.
    """
    record = find_alert(store, alert)
    known = {image.item: image for image in images_in(store, record.geometry.bounds)}
    before = known.get(record.reference or "")
    after = best_of([known[item] for item in record.acquisitions if item in known])
    grid = frame(record.geometry, store.crs, [image for image in (before, after) if image])
    items = (record.reference, after.item if after else record.acquisitions[-1])
    around = images_in(store, _bounds(grid))
    panels = [
        _panel(item, image, around, grid)
        for item, image in zip(items, (before, after), strict=True)
    ]
    first, second = _drawn(panels, record, grid, language)
    return Chips(
        (first, second),
        (
            caption("before", panels[0].item, panels[0].image, language),
            caption("after", panels[1].item, panels[1].image, language),
        ),
        grid.gsd * SIDE_PX,
    )


def best_of(images: Sequence[ImageRecord]) -> ImageRecord | None:
    """The image that shows a change best: on disk, of the finest kind, the newest of those."""
    there = [image for image in images if _is_there(image.path)] or list(images)
    if not there:
        return None
    finest = min(image.gsd for image in there)
    fine = [image for image in there if image.gsd <= SAME_KIND * finest]
    return max(fine, key=lambda image: (image.acquired, image.item))


def frame(outline: BaseGeometry, crs: str, images: Sequence[ImageRecord]) -> Grid:
    """The square of ground around an outline, in the CRS of the store, that both dates show."""
    west, south, east, north = outline.bounds
    coarsest = max((image.gsd for image in images), default=0.0)
    larger = max(east - west, north - south)
    half = max(CONTEXT * larger, LEAST_SIDE_M, LEAST_PIXELS * coarsest) / 2
    x, y = (west + east) / 2, (south + north) / 2
    transform = from_bounds(x - half, y - half, x + half, y + half, SIDE_PX, SIDE_PX)
    return Grid(crs, transform, (SIDE_PX, SIDE_PX), 0)


def _bounds(grid: Grid) -> Bounds:
    west, north = grid.transform @ (0, 0)
    east, south = grid.transform @ (grid.shape[1], grid.shape[0])
    return west, south, east, north


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _panel(
    item: str | None, image: ImageRecord | None, around: Sequence[ImageRecord], grid: Grid
) -> Panel:
    """What one date shows: the image itself, and beside it the other tiles of its flight."""
    if image is None:
        return Panel(item, None, None, Problem.UNKNOWN)
    if not _is_there(image.path):
        return Panel(item, image, None, Problem.MISSING)
    look = _looked(image, grid)
    if look is None:
        return Panel(item, image, None, Problem.UNREADABLE)
    if not look.whole:
        tiles = [tile for tile in around if _one_flight(tile, image) and _is_there(tile.path)]
        beside = [_looked(tile, grid) for tile in tiles[: MOST_TILES - 1]]
        look = filled([look, *(part for part in beside if part is not None)])
    return Panel(item, image, look, None if look.seen else Problem.EMPTY)


def _one_flight(tile: ImageRecord, image: ImageRecord) -> bool:
    near = abs(tile.acquired - image.acquired) <= SAME_FLIGHT
    return tile.item != image.item and tile.sensor is image.sensor and near


def _looked(image: ImageRecord, grid: Grid) -> Quicklook | None:
    """What an image shows, None where it cannot be read."""
    try:
        return quicklook(image.path, grid)
    except (DetectionError, RasterioError, CRSError, ProjError, OSError) as error:
        log.warning("chip_unreadable", item=image.item, error=str(error)[:200])
        return None


def _drawn(
    panels: Sequence[Panel], record: AlertRecord, grid: Grid, language: Language
) -> list[Image.Image]:
    """The panels with the outline on each, in one stretch."""
    changed = geometry_mask(
        [record.geometry], grid.shape, grid.transform, all_touched=True, invert=True
    )
    shown = iter(pictures([p.look for p in panels if p.look is not None], changed))
    drawn = []
    for panel in panels:
        image = (
            Image.new("RGB", (SIDE_PX, SIDE_PX), PANEL)
            if panel.look is None
            else Image.fromarray(next(shown))
        )
        _outline(image, record.geometry, grid)
        if panel.problem is not None:
            _notice(image, WORDS[language][panel.problem])
        drawn.append(image)
    return drawn


def _outline(image: Image.Image, outline: BaseGeometry, grid: Grid) -> None:
    """Draw every ring, holes too; a pixel's middle stands for the pixel."""
    pen, inverse = ImageDraw.Draw(image), ~grid.transform
    rings = [r for part in polygons_of(outline) for r in (part.exterior, *part.interiors)]
    for colour, width in ((HALO, HALO_PX), (LINE, LINE_PX)):
        for ring in rings:
            corners = (inverse @ (x, y) for x, y, *_ in ring.coords)
            line = [(round(col - 0.5), round(row - 0.5)) for col, row in corners]
            pen.line([*line, line[1]], fill=colour, width=width, joint="curve")


def _notice(image: Image.Image, text: str) -> None:
    """A sentence in the upper quarter, which no outline reaches."""
    pen = ImageDraw.Draw(image)
    place = (SIDE_PX / 2, SIDE_PX / 8)
    pen.text(
        place, text, font=_font(NOTICE_PX), fill=INK, anchor="mm", stroke_width=3, stroke_fill=PANEL
    )


def _captioned(panel: Image.Image, lines: tuple[str, str], side_m: float) -> Image.Image:
    """A panel with two lines and a scale bar in a strip under it."""
    whole = Image.new("RGB", (SIDE_PX, SIDE_PX + STRIP_PX), (255, 255, 255))
    whole.paste(panel, (0, 0))
    pen, font = ImageDraw.Draw(whole), _font(TEXT_PX)
    metres = scale_bar(side_m)
    right, left = SIDE_PX - MARGIN_PX, SIDE_PX - MARGIN_PX - round(metres / side_m * SIDE_PX)
    base = SIDE_PX + STRIP_PX - 10
    pen.line([(left, base - 5), (left, base), (right, base), (right, base - 5)], INK, 2)
    pen.text(((left + right) / 2, base - 7), length(metres), INK, font, anchor="ms")
    room = SIDE_PX * (1 - BAR_SHARE) - 3 * MARGIN_PX
    for number, line in enumerate(lines):
        pen.text((MARGIN_PX, SIDE_PX + 6 + 18 * number), _fitted(line, font, room), INK, font)
    return whole


def _fitted(line: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """A line, its end left out where it is longer than the room, in pixels."""
    kept = len(line)
    while kept and font.getlength(line[:kept] + "…" * (kept < len(line))) > room:
        kept -= 1
    return line[:kept] + "…" * (kept < len(line))


def scale_bar(side_m: float) -> float:
    """The longest 1, 2 or 5 times a power of ten, metres, that a scale bar has room for."""
    room = BAR_SHARE * side_m
    steps = [lead * 10.0**power for power in range(-1, 7) for lead in (1, 2, 5)]
    return max((step for step in steps if step <= room), default=steps[0])


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has no accents. Found without an
    import, which would look for a home to keep a cache in."""
    spec = find_spec("matplotlib")
    place = spec.origin if spec is not None and spec.origin is not None else ""
    file = Path(place).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size)
