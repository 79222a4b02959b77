"""The map from afar: where polygons are smaller than a few pixels it is drawn as a picture.

Each pixel has the cover, usage and legal status of the polygon its middle lies in. One much
smaller than a pixel is met by no middle or stands for all its neighbours, so those are not drawn
one by one: of the small ones in a pixel, the class that covers most of it is taken. Pixels come in
blocks of the store's own grid and are warped onto tiles, so one block serves every tile and theme.
"""

from __future__ import annotations

import io
import threading
import zlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image

from daemon.page.mercator import Floats, Tile, pixels_of
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE
from updater.page_reads import Bytes, View, view
from updater.reads import Bounds
from updater.store import Store

BLOCK_PX: Final = 512
FINE_M: Final = 20.0
COARSE_M: Final = 160.0
"""Pixels of the two grids: one and a half of a tile's at zoom 12 and at zoom 9 in France, where a
finer one would hold more polygons than a tile can show."""
FINE_FROM: Final = 10
"""First zoom that is drawn from the fine grid; before, a tile would take dozens of its blocks."""
LAST_ZOOM: Final = 12
"""From the next zoom on polygons are drawn as such: a tile has a few thousand there."""
SMALL: Final = 4.0
"""Pixels of area up to which a polygon is small; few larger ones lie between all middles."""
KEPT: Final = 400
"""Blocks kept, a few tens of kB each."""
LAYERS: Final = 3
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
    def bounds(self) -> Bounds:
        """West, south, east, north in the store's CRS."""
        side = self.pixel * BLOCK_PX
        west, south = self.column * side, self.row * side
        return west, south, west + side, south + side


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
    block = np.full((LAYERS, BLOCK_PX, BLOCK_PX), OUTSIDE, np.uint8)
    if not len(seen.shapes):
        return block
    values = np.stack([seen.cover, seen.usage, seen.artificial.astype(np.uint8)])
    west, south, _, _ = place.bounds
    area = shapely.area(seen.shapes) / place.pixel**2
    large = area >= SMALL
    owner = covering(seen.shapes[large], (west, south), place.pixel)
    known = owner >= 0
    block[:, known] = values[:, large][:, owner[known]]
    if not large.all():
        _small(block, seen.shapes[~large], values[:, ~large], area[~large], place)
    return block


def covering(shapes: npt.NDArray[np.object_], corner: tuple[float, float], pixel: float) -> Index:
    """Which polygon each middle of a block's pixels lies in, −1 for none: every edge is cut by the
    rows of middles, and between two cuts of one polygon lies its inside (even-odd)."""
    owner = np.full((BLOCK_PX, BLOCK_PX), -1, np.intp)
    rings, polygon = shapely.get_rings(shapes, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    if not len(points):
        return owner
    x, y = ((points - corner) / pixel - 0.5).T
    inner = ring[1:] == ring[:-1]
    x0, y0, x1, y1 = x[:-1][inner], y[:-1][inner], x[1:][inner], y[1:][inner]
    name = polygon[ring[:-1][inner]]
    low = np.maximum(np.ceil(np.minimum(y0, y1)), 0).astype(np.intp)
    high = np.minimum(np.ceil(np.maximum(y0, y1)), BLOCK_PX).astype(np.intp)
    times = np.maximum(high - low, 0)
    edge = np.repeat(np.arange(len(times)), times)
    row = low[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(times) - times, times)
    cut = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    order = np.lexsort((cut, name[edge], row))
    row, cut, who = row[order][::2], cut[order], name[edge][order][::2]
    start = np.clip(np.ceil(cut[::2]), 0, BLOCK_PX).astype(np.intp)
    end = np.clip(np.ceil(cut[1::2]), 0, BLOCK_PX).astype(np.intp)
    width = np.maximum(end - start, 0)
    first = np.repeat(row * BLOCK_PX + start, width)
    step = np.arange(len(first)) - np.repeat(np.cumsum(width) - width, width)
    owner.reshape(-1)[first + step] = np.repeat(who, width)
    return owner


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
    inside = (column >= 0) & (column < BLOCK_PX) & (row >= 0) & (row < BLOCK_PX)
    pixel = (row * BLOCK_PX + column)[inside]
    area, values = area[inside], values[:, inside]
    filled = np.bincount(pixel, weights=area, minlength=BLOCK_PX**2)
    flat = block.reshape(LAYERS, -1)
    taken = (filled >= 0.5) | ((filled > 0) & (flat[2] == OUTSIDE))
    for layer in range(LAYERS):
        key, which = np.unique(pixel * 256 + values[layer], return_inverse=True)
        share = np.bincount(which, weights=area)
        order = np.argsort(share, kind="stable")
        best = np.zeros(BLOCK_PX**2, np.uint8)
        best[key[order] // 256] = key[order] % 256  # the largest share is written last
        flat[layer, taken] = best[taken]


def _places(pixel: float, across: Index, up: Index) -> list[Place]:
    """Every block from the first to the last that a tile may lie on."""
    return [
        Place(pixel, column, row)
        for column in range(int(across.min()), int(across.max()) + 1)
        for row in range(int(up.min()), int(up.max()) + 1)
    ]


class Overview:
    """The blocks of one store, drawn when they are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[tuple[Place, datetime], bytes] = {}
        self._stamp = -1
        self._lock = threading.Lock()

    def png(self, tile: Tile, theme: Theme, *, valid_at: datetime, stamp: int) -> bytes:
        """A tile as a PNG file with a palette; ``stamp``: of the map as it is now."""
        pixel = FINE_M if tile.z >= FINE_FROM else COARSE_M
        x, y = pixels_of(tile, self._store.crs)
        column, row = np.floor(x / pixel).astype(np.intp), np.floor(y / pixel).astype(np.intp)
        layer = list(Theme).index(theme)
        values = np.full(x.shape, OUTSIDE, np.uint8)
        across, up = column // BLOCK_PX, row // BLOCK_PX
        for place in _places(pixel, across, up):
            mine = (across == place.column) & (up == place.row)
            if mine.any():
                block = self._block(place, valid_at, stamp)[layer]
                values[mine] = block[row[mine] % BLOCK_PX, column[mine] % BLOCK_PX]
        table = palette(theme)
        image = Image.fromarray(values)
        image.putpalette(table[:, :3].tobytes())
        body = io.BytesIO()
        image.save(body, "PNG", transparency=table[:, 3].tobytes())
        return body.getvalue()

    def _block(self, place: Place, valid_at: datetime, stamp: int) -> Bytes:
        with self._lock:
            if stamp != self._stamp:
                self._kept.clear()
                self._stamp = stamp
            packed = self._kept.get((place, valid_at))
        if packed is None:
            seen = view(self._store, place.bounds, valid_at=valid_at)
            packed = zlib.compress(drawn(seen, place).tobytes(), 1)
            with self._lock:
                if stamp == self._stamp:
                    self._kept[place, valid_at] = packed
                while len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
        shape = (LAYERS, BLOCK_PX, BLOCK_PX)
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
