"""Figures of the map: artificialised ground by year, what flowed in and out by territory, how late
the map is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import shapely

from schemas.change import ChangeKind
from schemas.legal import LegalStatus, legal_status
from updater.clip import cut
from updater.diff import DiffPiece
from updater.reads import end_of
from updater.store import Store
from updater.territories import Territory
from updater.types import PERSON


@dataclass(frozen=True, slots=True)
class Stock:
    """Ground of a millésime, m²: all of it, and what is artificialised by the matrix."""

    year: int
    area: float
    artificialised: float


@dataclass(frozen=True, slots=True)
class Flux:
    """What became artificialised in a territory and what ceased to be, m², evolutions alone."""

    code: str
    name: str
    artificialised: float
    desartificialised: float


@dataclass(frozen=True, slots=True)
class Delay:
    """Days from when an image was taken to when the map knew it."""

    item: str
    sensor: str
    acquired: str
    days: float


def stock(store: Store, year: int) -> Stock:
    """Sums over the whole map at the end of a year."""
    rows = store.execute(
        "SELECT code_cs, code_us, sum(ST_Area(geom)) "
        "FROM map_as_of(?::TIMESTAMPTZ, 'infinity'::TIMESTAMPTZ) GROUP BY ALL",
        [end_of(year)],
    ).fetchall()
    artificial = sum(r[2] for r in rows if legal_status(r[0], r[1]) is LegalStatus.ARTIF)
    return Stock(year, float(sum(r[2] for r in rows)), float(artificial))


def fluxes(pieces: Sequence[DiffPiece], territories: Sequence[Territory]) -> list[Flux]:
    """Flux of each territory, the largest artificialisation first."""
    moved = [p for p in pieces if p.artificialisation and p.kind is ChangeKind.EVOLUTION]
    shapes = [p.geometry for p in moved]
    found = []
    for territory in territories:
        inside = shapely.area(cut(shapes, territory.geometry)) if moved else []
        gained = sum(a for a, p in zip(inside, moved, strict=True) if p.artificialisation > 0)
        lost = sum(a for a, p in zip(inside, moved, strict=True) if p.artificialisation < 0)
        found.append(Flux(territory.code, territory.name, float(gained), float(lost)))
    return sorted(found, key=lambda f: (-f.artificialised, f.code))


def matrix(pieces: Sequence[DiffPiece]) -> dict[str, dict[str, float]]:
    """Square metres of evolution by cover before and cover after."""
    table: dict[str, dict[str, float]] = {}
    for piece in pieces:
        if piece.kind is ChangeKind.EVOLUTION:
            row = table.setdefault(piece.cs_before or "", {})
            to = piece.cs_after or ""
            row[to] = round(row.get(to, 0.0) + float(piece.geometry.area), 2)
    return table


def delays(store: Store) -> list[Delay]:
    """Every acquisition that had its effect, the latest known first."""
    rows = store.execute(
        "SELECT item, sensor, strftime(acquired, '%Y-%m-%d'), "
        "epoch(recorded - acquired) / 86400 FROM events WHERE sensor <> ? "
        "ORDER BY recorded DESC, item",
        [PERSON],
    ).fetchall()
    return [Delay(row[0], row[1], row[2], float(row[3])) for row in rows]
