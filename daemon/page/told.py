"""Alerts as the map page lists them: small rows, filtered and sorted in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import numpy as np
import shapely

from daemon.page.tiles import Drawable, alerts_of
from schemas.alert import AlertKind, AlertState, Place
from updater.alert_rows import rank
from updater.crs import WGS84, transformer
from updater.reads import Bounds
from updater.store import Store
from updater.types import AlertRecord


class Order(StrEnum):
    """How the list is sorted."""

    RANK = "rank"
    DATE = "date"
    AREA = "area"
    PROBABILITY = "probability"


@dataclass(frozen=True, slots=True)
class Row:
    """One alert in the list; ``bounds`` in degrees, ``area`` in square metres."""

    id: str
    kinds: tuple[AlertKind, ...]
    state: AlertState
    area: float
    probability: float
    rank: float
    seen_first: date
    seen_last: date
    looks: int
    places: tuple[Place, ...]
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for; what is not given does not matter. ``first`` and ``last``: days between
    which the ground was last seen so."""

    kinds: Collection[AlertKind] = ()
    states: Collection[AlertState] = ()
    territory: str | None = None
    min_area: float = 0.0
    min_probability: float = 0.0
    first: date | None = None
    last: date | None = None

    def takes(self, row: Row) -> bool:
        """True where everything fits."""
        return (
            (not self.states or row.state in self.states)
            and (not self.kinds or not set(self.kinds).isdisjoint(row.kinds))
            and row.area >= self.min_area
            and row.probability >= self.min_probability
            and (self.first is None or row.seen_last >= self.first)
            and (self.last is None or row.seen_last <= self.last)
            and (self.territory is None or any(p.code == self.territory for p in row.places))
        )


@dataclass(frozen=True, slots=True)
class Told:
    """Every alert of a store: rows, most important first, and outlines to be drawn."""

    rows: Sequence[Row]
    outlines: Drawable


def told_of(records: Sequence[AlertRecord], store: Store) -> Told:
    """From the records of a store."""
    outlines = alerts_of(records)
    world = shapely.bounds(
        shapely.transform(
            outlines.shapes, transformer(store.crs, WGS84).transform, interleaved=False
        )
    )
    rows = [
        Row(
            id=r.id,
            kinds=r.kinds,
            state=r.state,
            area=round(float(r.geometry.area), 1),
            probability=round(r.probability, 4),
            rank=round(rank(r), 1),
            seen_first=r.seen_first.date(),
            seen_last=r.seen_last.date(),
            looks=r.looks,
            places=r.places,
            bounds=(west, south, east, north),
        )
        for r, (west, south, east, north) in zip(records, np.round(world, 6).tolist(), strict=True)
    ]
    return Told(ordered(rows, Order.RANK), outlines)


def ordered(rows: Sequence[Row], order: Order) -> list[Row]:
    """Sorted, the greatest or latest first; what is equal by rank, then id."""
    first: dict[Order, Callable[[Row], float]] = {
        Order.RANK: lambda r: -r.rank,
        Order.DATE: lambda r: -r.seen_last.toordinal(),
        Order.AREA: lambda r: -r.area,
        Order.PROBABILITY: lambda r: -r.probability,
    }
    return sorted(rows, key=lambda r: (first[order](r), -r.rank, r.id))
