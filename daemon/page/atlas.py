"""What the map page keeps in memory of each store, and the queue its tiles are drawn in.

Everything kept carries the stamp of what it was made from: after a commit that changed the map
its tiles are drawn anew, after a review those of the alerts. Reads have their own cursors and never
hold a commit up. Few tiles are drawn at a time, whoever asks: detection needs the cores more.
"""

from __future__ import annotations

import gzip
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, TypeVar

import anyio
import structlog
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException

from daemon import feeds
from daemon.page.blocks import Overview
from daemon.page.overview import FINE_FROM
from daemon.page.tiles import Drawable, changes_of
from daemon.page.told import Told, told_of
from updater.diff import DiffPiece, pieces_between
from updater.figures import Stock, stock
from updater.page_reads import Stamp, millesimes, stamp
from updater.reads import Bounds, alerts_now, end_of, extent
from updater.review import FalseAlarms, false_alarms
from updater.store import Store
from updater.territories import Territory, territories

log = structlog.get_logger()
T = TypeVar("T")

AT_ONCE: Final = 2
"""Tiles drawn at the same time."""
MOST_WAITING: Final = 400
"""Tiles waited for: eight views of fifty; beyond that a caller is told to come again."""
KEPT_BYTES: Final = 128_000_000
"""Finished tiles kept, the one not asked for longest goes first: some 10 000."""
KEPT_VALUES: Final = 64
"""Other things kept of a store, as differentials of two years."""
PACK: Final = 5
"""Compression: level 9 takes three times as long for 2 % less."""
WARM_COARSE_M: Final = 30_000.0
WARM_FINE_M: Final = 80_000.0
"""Sides of a map from which, and up to which, its first view may be drawn from the coarse and the
fine grid of the overview: small and large screens differ."""
WARM_STORES: Final = 8
"""Stores whose first view is got ready: a process of a whole country has better things to do when
it starts."""
BUSY: Final = "Too many tiles are being drawn; ask again in a second."


@dataclass(frozen=True, slots=True)
class Body:
    """A finished tile: compressed where that helps, with its ETag; empty where nothing is there."""

    content: bytes
    packed: bool
    etag: str

    @classmethod
    def of(cls, content: bytes, *, pack: bool) -> Body:
        """From what was drawn."""
        kept = gzip.compress(content, PACK, mtime=0) if pack and content else content
        return cls(kept, pack, feeds.etag(content))

    @property
    def plain(self) -> bytes:
        """As it was drawn."""
        return gzip.decompress(self.content) if self.packed and self.content else self.content


class Ask(Protocol):
    """A tile somebody wants; equal ones are the same tile."""

    packed: ClassVar[bool]

    def stamped(self, now: Stamp) -> int:
        """The part of a stamp that it depends on."""
        ...

    def draw(self, sheet: Sheet) -> bytes:
        """Draw it."""
        ...


class Sheet:
    """One store: its stamp, and what is derived from it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.overview = Overview(store)
        self._stamp: tuple[int, Stamp] | None = None
        self._values: OrderedDict[Hashable, tuple[int, object]] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def known_stamp(self) -> Stamp | None:
        """The stamp, None where it must be asked for first."""
        found = self._stamp
        return found[1] if found and found[0] == self.store.commits else None

    @property
    def stamp(self) -> Stamp:
        """What the store's content is now."""
        found = self.known_stamp
        if found is None:
            commits = self.store.commits  # before the look: one that comes between asks again
            found = stamp(self.store)
            self._stamp = (commits, found)
        return found

    def _kept(self, key: Hashable, made_from: int, make: Callable[[], T]) -> T:
        """A value, made once for each stamp, one at a time."""
        with self._lock:
            held = self._values.get(key)
            if held is not None and held[0] == made_from:
                self._values.move_to_end(key)
                return held[1]  # type: ignore[return-value]
            value = make()
            self._values[key] = (made_from, value)
            while len(self._values) > KEPT_VALUES:
                self._values.popitem(last=False)
            return value

    @property
    def millesimes(self) -> list[int]:
        """Years the map can be shown at."""
        return self._kept("millesimes", self.stamp.map, lambda: millesimes(self.store))

    @property
    def extent(self) -> Bounds | None:
        """Where the map is, in the store's CRS; patches never move its edge."""
        return self._kept("extent", 0, lambda: extent(self.store))

    @property
    def territories(self) -> list[Territory]:
        """Territories people ask for."""
        now = self.stamp.territories
        return self._kept("territories", now, lambda: territories(self.store))

    def pieces(self, before: int, after: int) -> list[DiffPiece]:
        """What differs between two millésimes."""
        return self._kept(
            ("pieces", before, after),
            self.stamp.map,
            lambda: pieces_between(self.store, end_of(before), end_of(after)),
        )

    def changes(self, before: int, after: int) -> Drawable:
        """The same, to be drawn."""
        return self._kept(
            ("changes", before, after),
            self.stamp.map,
            lambda: changes_of(self.pieces(before, after)),
        )

    def stock(self, year: int) -> Stock:
        """Sums of a millésime."""
        return self._kept(("stock", year), self.stamp.map, lambda: stock(self.store, year))

    @property
    def told(self) -> Told:
        """Every alert in its latest state."""
        return self._kept(
            "told", self.stamp.alerts, lambda: told_of(alerts_now(self.store), self.store)
        )

    @property
    def false_alarms(self) -> list[FalseAlarms]:
        """What people rejected, by kind and cause."""
        return self._kept("false alarms", self.stamp.alerts, lambda: false_alarms(self.store))

    def warmed(self) -> Iterator[object]:
        """Get ready what the page asks for first, a little with each step: the state, and the map
        from afar at its newest millésime."""
        yield self.told, self.territories
        known, years = self.extent, self.millesimes
        if known is None:
            return
        side = max(known[2] - known[0], known[3] - known[1])
        coarse, fine = side > WARM_COARSE_M, side < WARM_FINE_M
        for zoom in [FINE_FROM - 1] * coarse + [FINE_FROM] * fine:
            yield from self.overview.warmed(zoom, valid_at=end_of(years[-1]), stamp=self.stamp.map)


class Atlas:
    """The sheets, and the finished tiles of all of them."""

    def __init__(self) -> None:
        self._sheets: dict[str, Sheet] = {}
        self._tiles: OrderedDict[tuple[str, Ask], tuple[int, Body]] = OrderedDict()
        self._bytes = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._limiter: anyio.CapacityLimiter | None = None

    def sheet(self, store: Store) -> Sheet:
        """What is kept of a store."""
        with self._lock:
            found = self._sheets.get(store.territory)
            if found is None:
                found = self._sheets[store.territory] = Sheet(store)
            return found

    def warm(self, stores: Sequence[Store], stopped: threading.Event) -> None:
        """Get the first view of a few stores ready, until told to stop; what fails is drawn, and
        its failure told, once somebody asks."""
        for store in stores[:WARM_STORES]:
            try:
                for _ in self.sheet(store).warmed():
                    if stopped.is_set():
                        return
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                log.warning("map_not_warmed", store=store.path.name, error=str(error)[:200])

    async def tile(self, store: Store, ask: Ask) -> Body:
        """A tile, kept or drawn.

        Raises:
            HTTPException: 503, too many are waited for.
        """
        sheet = self.sheet(store)
        now = sheet.known_stamp
        found = self._found(sheet, ask, now) if now else None
        if found is not None:
            return found
        if self._waiting >= MOST_WAITING:
            raise HTTPException(503, BUSY, {"Retry-After": "1"})
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(AT_ONCE)
        self._waiting += 1
        try:
            return await run_sync(self._drawn, sheet, ask, limiter=self._limiter)
        finally:
            self._waiting -= 1

    def _found(self, sheet: Sheet, ask: Ask, now: Stamp) -> Body | None:
        with self._lock:
            held = self._tiles.get((sheet.store.territory, ask))
            if held is None or held[0] != ask.stamped(now):
                return None
            self._tiles.move_to_end((sheet.store.territory, ask))
            return held[1]

    def _drawn(self, sheet: Sheet, ask: Ask) -> Body:
        now = sheet.stamp
        found = self._found(sheet, ask, now)  # somebody else may have asked while this one waited
        if found is not None:
            return found
        body = Body.of(ask.draw(sheet), pack=ask.packed)
        with self._lock:
            old = self._tiles.pop((sheet.store.territory, ask), None)
            self._tiles[sheet.store.territory, ask] = (ask.stamped(now), body)
            self._bytes += len(body.content) - (len(old[1].content) if old else 0)
            while self._bytes > KEPT_BYTES:
                _, (_, gone) = self._tiles.popitem(last=False)
                self._bytes -= len(gone.content)
        return body


@asynccontextmanager
async def warming(app: FastAPI) -> AsyncIterator[None]:
    """While an application serves: its first views are got ready by a thread of their own."""
    stopped = threading.Event()
    atlas, stores = app.state.atlas, app.state.served.stores
    # no daemon: one that is inside the database when the interpreter ends takes the process down
    thread = threading.Thread(target=atlas.warm, args=(stores, stopped), name="warm")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        await run_sync(thread.join)
