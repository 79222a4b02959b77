"""The map from afar: where polygons are smaller than a few pixels it is drawn as a picture.

Each pixel has the cover, usage and legal status of the polygon its middle lies in. One much
smaller than a pixel is met by no middle or stands for all its neighbours, so those are not drawn
one by one: of the small ones in a pixel, the class that covers most of it is taken. Pixels come in
blocks of the store's own grid (kept in ``page.blocks``) and are warped onto tiles, so one block
serves every tile and theme.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image

from daemon.page.mercator import Floats, Tile, pixels_of
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE
from updater.page_reads import Bytes, View
from updater.reads import Bounds

BLOCK_M: Final = 10_240.0
"""Ground of a block, metres a side: some 20 000 polygons, which bounds what is read at once however
large a département is, and what a commit makes old."""
FINE_M: Final = 20.0
COARSE_M: Final = 160.0
"""Pixels of the two grids: one and a half of a tile's at zoom 12 and at zoom 9 in France, where a
finer one would hold more polygons than a tile can show. Both go into a block without a rest."""
FINE_FROM: Final = 10
"""First zoom that is drawn from the fine grid; before, a tile would take dozens of megabytes."""
LAST_ZOOM: Final = 12
"""From the next zoom on polygons are drawn as such: a tile has a few thousand there."""
SMALL: Final = 4.0
"""Pixels of area up to which a polygon is small; few larger ones lie between all middles."""
LAYERS: Final = 3
PACK: Final = 3
"""Compression of a PNG: level 6 takes three times as long for a tenth less."""
OUTSIDE: Final = 255
ARTIFICIAL_RGB: Final[dict[bool, tuple[int, int, int]]] = {
    True: (213, 94, 0),
    False: (214, 228, 236),
}
"""Vermilion and a light blue grey (after Okabe and Ito): told apart by any eye, in print too."""
NEUTRAL: Final = (236, 236, 232)

Index = npt.NDArray[np.intp]


class Theme(StrEnum):
    """What the colours of the map say."""

    COVER = "couverture"
    USAGE = "usage"
    LEGAL = "artificialisation"


@dataclass(frozen=True, slots=True)
class Place:
    """A block: its grid, and its place in it, counted from the CRS's origin."""

    pixel: float
    column: int
    row: int

    @property
    def side(self) -> int:
        """Its pixels a side."""
        return round(BLOCK_M / self.pixel)

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in the store's CRS."""
        west, south = self.column * BLOCK_M, self.row * BLOCK_M
        return west, south, west + BLOCK_M, south + BLOCK_M


def palette(theme: Theme) -> npt.NDArray[np.uint8]:
    """Colours (RGBA) by value of a layer; what is outside the map is clear."""
    table = np.zeros((256, 4), np.uint8)
    if theme is Theme.LEGAL:
        for value, colour in ARTIFICIAL_RGB.items():
            table[int(value)] = (*colour, 255)
        return table
    codes, entries = (CS_LEAVES, COUVERTURE) if theme is Theme.COVER else (US_CODES, USAGE)
    table[0] = (*NEUTRAL, 255)
    for number, code in enumerate(codes, start=1):
        table[number] = (*entries[code].rgb, 255)
    return table


def drawn(seen: View, place: Place) -> Bytes:
    """A block ``(layer, row, column)`` from the south up: cover, usage, legal status as numbers,
    ``OUTSIDE`` where there is no map."""
    block = np.full((LAYERS, place.side, place.side), OUTSIDE, np.uint8)
    if not len(seen.shapes):
        return block
    values = np.stack([seen.cover, seen.usage, seen.artificial.astype(np.uint8)])
    west, south, _, _ = place.bounds
    area = shapely.area(seen.shapes) / place.pixel**2
    large = area >= SMALL
    owner = covering(seen.shapes[large], (west, south), place.pixel, place.side)
    known = owner >= 0
    block[:, known] = values[:, large][:, owner[known]]
    if not large.all():
        _small(block, seen.shapes[~large], values[:, ~large], area[~large], place)
    return block


def covering(
    shapes: npt.NDArray[np.object_], corner: tuple[float, float], pixel: float, side: int
) -> Index:
    """Which polygon each middle of a block's pixels lies in, −1 for none: every edge is cut by the
    rows of middles, and between two cuts of one polygon lies its inside (even-odd)."""
    owner = np.full((side, side), -1, np.intp)
    points, ring, polygon = _outlines(shapes)
    if not len(points):
        return owner
    x, y = ((points - corner) / pixel - 0.5).T
    level = np.clip(np.ceil(y), 0, side).astype(np.int32)
    edge = np.flatnonzero((level[1:] != level[:-1]) & (ring[1:] == ring[:-1]))
    low = np.minimum(level[edge], level[edge + 1])  # an edge between two rows of middles cuts none
    times = np.abs(level[edge + 1] - level[edge])
    row = np.repeat(low - np.cumsum(times) + times, times) + np.arange(times.sum())
    slope = (x[edge + 1] - x[edge]) / (y[edge + 1] - y[edge])
    which = np.repeat(np.arange(len(edge)), times)
    cut = x[edge][which] + (row - y[edge][which]) * slope[which]
    name = polygon[ring[edge]][which]
    order = np.lexsort((cut, row * len(shapes) + name))
    row, cut, who = row[order][::2], cut[order], name[order][::2]
    start = np.clip(np.ceil(cut[::2]), 0, side).astype(np.intp)
    end = np.clip(np.ceil(cut[1::2]), 0, side).astype(np.intp)
    width = np.maximum(end - start, 0)
    first = np.repeat(row * side + start - np.cumsum(width) + width, width)
    owner.reshape(-1)[first + np.arange(len(first))] = np.repeat(who, width)
    return owner


def _outlines(shapes: npt.NDArray[np.object_]) -> tuple[Floats, Index, Index]:
    """Points of all rings, the ring of each point, the polygon of each ring. Most polygons have
    one ring, and making those as shapes of their own would cost more than all the rest."""
    plain = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
    plain &= shapely.get_num_interior_rings(shapes) == 0
    whole, others = np.flatnonzero(plain), np.flatnonzero(~plain)
    rings, owner = shapely.get_rings(shapes[others], return_index=True)
    simple, ring = shapely.get_coordinates(shapes[whole], return_index=True)
    holed, more = shapely.get_coordinates(rings, return_index=True)
    points = np.concatenate([simple, holed])
    return points, np.concatenate([ring, more + len(whole)]), np.concatenate([whole, others[owner]])


def _small(
    block: Bytes,
    shapes: npt.NDArray[np.object_],
    values: Bytes,
    area: Floats,
    place: Place,
) -> None:
    """Their greatest class, where small polygons cover half a pixel or nothing else does."""
    box = shapely.bounds(shapes)
    middle = (box[:, :2] + box[:, 2:]) / 2
    column, row = np.floor((middle - place.bounds[:2]) / place.pixel).astype(np.intp).T
    side = place.side
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    pixel = (row * side + column)[inside]
    area, values = area[inside], values[:, inside]
    filled = np.bincount(pixel, weights=area, minlength=side**2)
    flat = block.reshape(LAYERS, -1)
    taken = (filled >= 0.5) | ((filled > 0) & (flat[2] == OUTSIDE))
    for layer in range(LAYERS):
        key, which = np.unique(pixel * 256 + values[layer], return_inverse=True)
        share = np.bincount(which, weights=area)
        order = np.argsort(share, kind="stable")
        best = np.zeros(side**2, np.uint8)
        best[key[order] // 256] = key[order] % 256  # the largest share is written last
        flat[layer, taken] = best[taken]


def pixel_at(zoom: int) -> float:
    """The pixel, metres, of the grid that a zoom is drawn from."""
    return FINE_M if zoom >= FINE_FROM else COARSE_M


def places_in(pixel: float, bounds: Bounds, extent: Bounds) -> list[list[Place]]:
    """Blocks of a rectangle, rows from the south up, as far as there is a map; all are asked for,
    so none where it has nothing."""
    low = np.floor(np.maximum(bounds[:2], extent[:2]) / BLOCK_M).astype(int)
    high = np.floor(np.minimum(bounds[2:], extent[2:]) / BLOCK_M).astype(int)
    columns = range(int(low[0]), int(high[0]) + 1)
    rows = [[Place(pixel, c, r) for c in columns] for r in range(int(low[1]), int(high[1]) + 1)]
    return rows if columns else []


def mosaic(rows: list[list[Bytes]]) -> Bytes:
    """One picture of blocks of one layer that lie beside each other."""
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def warped(picture: Bytes, first: Place, tile: Tile, crs: str) -> Bytes:
    """A picture whose lower left block is ``first``, on the pixels of a tile."""
    x, y = pixels_of(tile, crs)
    west, south, _, _ = first.bounds
    column = np.floor((x - west) / first.pixel).astype(np.int32)
    row = np.floor((y - south) / first.pixel).astype(np.int32)
    height, width = picture.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    values = np.full(x.shape, OUTSIDE, np.uint8)
    values[inside] = picture[row[inside], column[inside]]
    return values


def png(values: Bytes, theme: Theme) -> bytes:
    """Values of a layer as a PNG file with a palette."""
    table = palette(theme)
    image = Image.fromarray(values)
    image.putpalette(table[:, :3].tobytes())
    body = io.BytesIO()
    image.save(body, "PNG", transparency=table[:, 3].tobytes(), compress_level=PACK)
    return body.getvalue()
