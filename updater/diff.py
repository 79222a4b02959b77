"""The differential between two states of the map: what changed, from what to what.

Only versions that are in one state and not in the other are compared, so the cost follows the
change. Ground that changed by evolution and by correction is told apart by the event that
retired the older version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from schemas.change import ChangeKind
from schemas.legal import LegalStatus, legal_status
from updater.clip import cut
from updater.reads import as_of, by_version
from updater.store import Store
from updater.topology import areal
from updater.types import MapPolygon

MIN_PIECE_M2 = 1e-3
"""Smaller common ground is what rounding leaves along shared edges."""


@dataclass(frozen=True, slots=True)
class DiffPiece:
    """A piece of ground whose codes differ between the two states."""

    id_before: str
    id_after: str
    cs_before: str | None
    us_before: str | None
    cs_after: str | None
    us_after: str | None
    kind: ChangeKind
    geometry: BaseGeometry

    @property
    def artificialisation(self) -> int:
        """+1 artificialised, −1 désartificialised, 0 neither; by the matrix."""
        was = legal_status(self.cs_before, self.us_before) is LegalStatus.ARTIF
        now = legal_status(self.cs_after, self.us_after) is LegalStatus.ARTIF
        return int(now) - int(was)


@dataclass(frozen=True, slots=True)
class Differential:
    """All pieces, and the sums that go with them (m²). ``stock_before`` and ``stock_after``:
    artificialised ground of the territory in either state, by the matrix."""

    pieces: Sequence[DiffPiece]
    stock_before: float = 0.0
    stock_after: float = 0.0

    @property
    def unexplained(self) -> float:
        """Difference of the stocks that the pieces do not account for, m²: rounding, or a bug."""
        return self.stock_after - self.stock_before - self.flux()

    def area(self, *, artificialisation: int) -> float:
        """Square metres of evolution with this legal effect."""
        return float(
            sum(
                p.geometry.area
                for p in self.pieces
                if p.artificialisation == artificialisation and p.kind is ChangeKind.EVOLUTION
            )
        )

    def count(self, kind: ChangeKind) -> int:
        """How many pieces are of one kind."""
        return sum(1 for p in self.pieces if p.kind is kind)

    def flux(self, kind: ChangeKind | None = None) -> float:
        """Net artificialised ground of one kind of change, or of both, m²."""
        return float(
            sum(
                p.geometry.area * p.artificialisation
                for p in self.pieces
                if kind is None or p.kind is kind
            )
        )

    def matrix(self) -> dict[str, dict[str, float]]:
        """Square metres by cover before and cover after."""
        table: dict[str, dict[str, float]] = {}
        for piece in self.pieces:
            row = table.setdefault(piece.cs_before or "null", {})
            to = piece.cs_after or "null"
            row[to] = round(row.get(to, 0.0) + float(piece.geometry.area), 2)
        return table


def differential(
    store: Store,
    before: datetime,
    after: datetime,
    *,
    territory: BaseGeometry | None = None,
    recorded_at: datetime | None = None,
) -> Differential:
    """What changed on the ground between two instants of the valid axis, as known now."""
    known = recorded_at or store.clock()
    old = as_of(store, valid_at=before, recorded_at=known)
    new = as_of(store, valid_at=after, recorded_at=known)
    pieces = overlay(old, new, corrections=_corrected(store))
    if territory is not None:
        pieces = within(pieces, territory)
    shared = {p.version for p in old} & {p.version for p in new}
    same = _stock([p for p in old if p.version in shared], territory)
    return Differential(
        pieces,
        stock_before=same + _stock([p for p in old if p.version not in shared], territory),
        stock_after=same + _stock([p for p in new if p.version not in shared], territory),
    )


def pieces_between(store: Store, before: datetime, after: datetime) -> list[DiffPiece]:
    """The pieces of the differential as known now, without its stocks: only versions that are in
    one of the two states are read, so that it costs what changed and not what the map has."""
    old = store.execute(
        "SELECT version FROM polygons SEMI JOIN (SELECT version FROM retirements GROUP BY version "
        "HAVING min(valid_to) > $before AND min(valid_to) <= $after) USING (version) "
        "WHERE valid_from <= $before",
        {"before": before, "after": after},
    ).fetchall()
    new = store.execute(
        "SELECT version FROM polygons ANTI JOIN (SELECT version FROM retirements "
        "WHERE valid_to <= $after) USING (version) "
        "WHERE valid_from > $before AND valid_from <= $after",
        {"before": before, "after": after},
    ).fetchall()
    return overlay(
        by_version(store, [row[0] for row in old]),
        by_version(store, [row[0] for row in new]),
        corrections=_corrected(store),
    )


def within(pieces: Sequence[DiffPiece], territory: BaseGeometry) -> list[DiffPiece]:
    """The pieces cut to a territory."""
    inside = cut([p.geometry for p in pieces], territory)
    return [
        replace(piece, geometry=areal(shape))
        for piece, shape in zip(pieces, inside, strict=True)
        if shape.area > MIN_PIECE_M2
    ]


def _stock(polygons: Sequence[MapPolygon], territory: BaseGeometry | None) -> float:
    """Artificialised ground of a territory, by the matrix, m²."""
    shapes = [
        p.geometry for p in polygons if legal_status(p.code_cs, p.code_us) is LegalStatus.ARTIF
    ]
    inside = shapes if territory is None else cut(shapes, territory)
    return float(shapely.area(inside).sum()) if shapes else 0.0


def _corrected(store: Store) -> set[int]:
    rows = store.execute(
        "SELECT version FROM retirements WHERE kind = ?", [ChangeKind.CORRECTION.value]
    ).fetchall()
    return {int(row[0]) for row in rows}


def overlay(
    old: Sequence[MapPolygon], new: Sequence[MapPolygon], *, corrections: set[int]
) -> list[DiffPiece]:
    """Pieces with other codes, from the versions the two states do not share."""
    shared = {p.version for p in old} & {p.version for p in new}
    left = [p for p in old if p.version not in shared]
    right = [p for p in new if p.version not in shared]
    if not left or not right:
        return []
    shapes = np.array([p.geometry for p in right], dtype=object)
    first, second = shapely.STRtree(shapes).query(
        [p.geometry for p in left], predicate="intersects"
    )
    pieces = []
    for i, j in zip(first, second, strict=True):
        was, now = left[i], right[j]
        if (was.code_cs, was.code_us) == (now.code_cs, now.code_us):
            continue
        shape = shapely.intersection(was.geometry, now.geometry)
        if shape.area > MIN_PIECE_M2:
            kind = ChangeKind.CORRECTION if was.version in corrections else ChangeKind.EVOLUTION
            pieces.append(
                DiffPiece(
                    was.id, now.id, was.code_cs, was.code_us, now.code_cs, now.code_us, kind, shape
                )
            )
    return pieces
