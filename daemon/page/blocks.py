"""The blocks that the map from afar is put together from: drawn once, kept, and drawn anew only
where the map has changed since."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np

from daemon.page.mercator import SIDE_PX, Tile
from daemon.page.overview import (
    BLOCK_M,
    OUTSIDE,
    Place,
    Theme,
    drawn,
    mosaic,
    pixel_at,
    places_in,
    png,
    warped,
)
from updater.page_reads import Bytes, ground_changed, latest_change, polygons, view
from updater.reads import extent
from updater.store import Store

KEPT: Final = 400
"""Blocks kept of a store, a few tens of kB each: any département in four years from afar."""

READ_AT_ONCE: Final = 40_000
"""Polygons looked at together, some 40 MB: one look at a few blocks costs less than one at each."""

Key = tuple[Place, datetime]
Packed = tuple[bytes, ...]
"""A block, each layer compressed by itself: a tile shows one."""


@dataclass(slots=True)
class _Flight:
    """A block that somebody draws; whoever else wants it waits."""

    done: threading.Event = field(default_factory=threading.Event)
    packed: Packed | None = None


class Overview:
    """The blocks of one store, drawn when they are asked for, each by one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[Key, Packed] = {}
        self._flights: dict[Key, _Flight] = {}
        self._stamp: int | None = None
        self._seen: datetime | None = None
        self._lock = threading.Lock()

    def png(self, tile: Tile, theme: Theme, *, valid_at: datetime, stamp: int) -> bytes:
        """A tile as a PNG file with a palette; ``stamp``: of the map as it is now."""
        self._follow(stamp)
        crs, layer = self._store.crs, list(Theme).index(theme)
        rows = places_in(pixel_at(tile.z), tile.window(crs), extent(self._store) or (0, 0, -1, -1))
        if not rows:
            return png(np.full((SIDE_PX, SIDE_PX), OUTSIDE, np.uint8), theme)
        blocks = self._blocks([[(place, valid_at) for place in row] for row in rows], layer)
        picture = mosaic(blocks)
        return png(warped(picture, rows[0][0], tile, crs), theme)

    def warmed(self, zoom: int, *, valid_at: datetime, stamp: int) -> Iterator[object]:
        """Draw every block of a zoom's grid that is not there yet, some with each step, so that the
        first who looks at the map does not wait for them."""
        self._follow(stamp)
        known = extent(self._store)
        for row in places_in(pixel_at(zoom), known, known) if known else []:
            for some in self._runs([(place, valid_at) for place in row]):
                yield self._draw(some)

    def _follow(self, stamp: int) -> None:
        """Forget blocks of ground that was changed since the last look."""
        with self._lock:
            if stamp == self._stamp:
                return
            latest = latest_change(self._store)
            if self._seen is not None and latest != self._seen:
                boxes = ground_changed(self._store, self._seen)
                for key in [*self._kept, *self._flights]:
                    west, south, east, north = key[0].bounds
                    if boxes is None or (
                        (boxes[:, 0] <= east) & (boxes[:, 2] >= west)
                        & (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
                    ).any():  # fmt: skip
                        self._kept.pop(key, None)
                        self._flights.pop(key, None)
            self._stamp, self._seen = stamp, latest

    def _runs(self, row: list[Key]) -> list[list[Key]]:
        """A row of blocks in parts that are read at once."""
        known, count = extent(self._store), polygons(self._store)
        if known is None:
            return []
        area = (known[2] - known[0]) * (known[3] - known[1])
        each = count * BLOCK_M**2 / max(area, BLOCK_M**2)
        step = max(1, round(READ_AT_ONCE / max(each, 1.0)))
        return [row[i : i + step] for i in range(0, len(row), step)]

    def _blocks(self, rows: list[list[Key]], layer: int) -> list[list[Bytes]]:
        """One layer of rows of blocks. Those that another thread draws are waited for last, so that
        two who want the same share the work."""
        found: dict[Key, Packed] = {}
        for row in rows:
            for some in self._runs(row):
                found |= self._draw(some)
        for key in (key for row in rows for key in row if key not in found):
            found[key] = self._awaited(key)

        def one(key: Key) -> Bytes:
            return np.frombuffer(zlib.decompress(found[key][layer]), np.uint8)

        return [[one(key).reshape(key[0].side, -1) for key in row] for row in rows]

    def _awaited(self, key: Key) -> Packed:
        """A block that another thread was at."""
        while True:
            with self._lock:
                flight = self._flights.get(key)
            if flight is not None:
                flight.done.wait()
                if flight.packed is not None:
                    return flight.packed
            found = self._draw([key])  # the other failed, or was done before the look
            if key in found:
                return found[key]

    def _draw(self, row: list[Key]) -> dict[Key, Packed]:
        """Blocks beside each other, compressed: kept, or drawn here from one look at the map; those
        that another thread draws are left out."""
        with self._lock:
            found = {key: self._kept[key] for key in row if key in self._kept}
            mine = {k: _Flight() for k in row if k not in found and k not in self._flights}
            self._flights |= mine
        if not mine:
            return found
        try:
            west, south, _, _ = next(iter(mine))[0].bounds
            last, valid_at = next(reversed(mine))
            seen = view(self._store, (west, south, *last.bounds[2:]), valid_at=valid_at)
            for key, flight in mine.items():
                block = drawn(seen.within(key[0].bounds), key[0])
                flight.packed = found[key] = tuple(
                    zlib.compress(part.tobytes(), 1) for part in block
                )
        finally:
            self._landed(mine)
        return found

    def _landed(self, flights: dict[Key, _Flight]) -> None:
        """Keep what was drawn, but for ground that was changed meanwhile, and tell who waits."""
        with self._lock:
            for key, flight in flights.items():
                if self._flights.get(key) is flight:
                    del self._flights[key]
                    if flight.packed is not None:
                        self._kept[key] = flight.packed
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        for flight in flights.values():
            flight.done.set()
