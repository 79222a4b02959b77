"""Corrections as the store keeps them: who drew which ground, from what, as of when, and what came
of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import duckdb
import shapely
from shapely.geometry.base import BaseGeometry

from schemas.change import ChangeKind
from updater.store import Store
from updater.types import Corrected

APPLIED: Final = "applied"
"""The map was redrawn by it."""
AGREED: Final = "no-new-cover"
"""The map said so already; it is held against later images like what was redrawn."""
_COLUMNS: Final = (
    "id, event, number, kind, code_cs, code_us, observed, author, source, comment, alert, outcome, "
    "ST_AsWKB(geom), recorded"
)
_STANDS: Final = "NOT EXISTS (SELECT 1 FROM events e WHERE e.key = 'revert#' || c.event)"
"""Not of a batch that was undone."""

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """One piece of ground a person drew, in the store's CRS; ``outcome``: applied, or why not."""

    id: str
    event: str
    number: int
    kind: ChangeKind
    code_cs: str
    code_us: str
    observed: datetime
    author: str
    source: str
    comment: str | None
    alert: str | None
    outcome: str
    geometry: BaseGeometry
    recorded: datetime | None = None


def correction_id(departement: str, event: str, number: int) -> str:
    """Id of a piece of a batch, the same at each try."""
    digest = hashlib.sha256(f"{departement}|{event}|{number}".encode()).hexdigest()
    return f"CO{digest[:20].upper()}"


def write_corrections(
    cursor: duckdb.DuckDBPyConnection, rows: Sequence[CorrectionRow], *, event: str, now: datetime
) -> None:
    """Append what an event drew."""
    if rows:
        cursor.executemany(
            "INSERT INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
            "ST_GeomFromWKB(?), ?, ?, ?, ?, ?)",
            [
                [
                    row.id,
                    event,
                    row.number,
                    row.kind.value,
                    row.code_cs,
                    row.code_us,
                    row.observed,
                    row.author,
                    row.source,
                    row.comment,
                    row.alert,
                    row.outcome,
                    shapely.to_wkb(row.geometry),
                    *row.geometry.bounds,
                    now,
                ]
                for row in rows
            ],
        )


def corrected_in(store: Store, bounds: Bounds) -> list[Corrected]:
    """Ground within a rectangle that people drew or confirmed, oldest first; not that of batches
    that were undone."""
    rows = store.execute(
        "SELECT ST_AsWKB(c.geom), c.observed, c.code_cs FROM corrections c "
        "WHERE c.west <= ? AND c.east >= ? "
        f"AND c.south <= ? AND c.north >= ? AND c.outcome IN (?, ?) AND {_STANDS} "
        "ORDER BY c.recorded, c.number, c.id",
        [bounds[2], bounds[0], bounds[3], bounds[1], APPLIED, AGREED],
    ).fetchall()
    return [Corrected(shapely.from_wkb(bytes(row[0])), row[1], row[2]) for row in rows]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which corrections are asked for: what is None does not matter."""

    author: str | None = None
    outcome: str | None = None
    alert: str | None = None


def corrections(
    store: Store, wanted: Wanted = Wanted(), *, most: int | None = None, skip: int = 0
) -> list[CorrectionRow]:
    """Corrections, newest first."""
    rows = store.execute(
        f"SELECT {_COLUMNS} FROM corrections c WHERE (?::VARCHAR IS NULL OR author = ?) "
        "AND (?::VARCHAR IS NULL OR outcome = ?) AND (?::VARCHAR IS NULL OR alert = ?) "
        "ORDER BY recorded DESC, event, number LIMIT ? OFFSET ?",
        [*_twice(wanted), most, skip],
    ).fetchall()
    return [_row(row) for row in rows]


def count(store: Store, wanted: Wanted = Wanted()) -> int:
    """How many there are."""
    row = store.execute(
        "SELECT count(*) FROM corrections WHERE (?::VARCHAR IS NULL OR author = ?) "
        "AND (?::VARCHAR IS NULL OR outcome = ?) AND (?::VARCHAR IS NULL OR alert = ?)",
        _twice(wanted),
    ).fetchone()
    return int(row[0]) if row else 0


def _twice(wanted: Wanted) -> list[Any]:
    return [v for value in (wanted.author, wanted.outcome, wanted.alert) for v in (value, value)]


def _row(row: tuple[Any, ...]) -> CorrectionRow:
    return CorrectionRow(
        id=row[0],
        event=row[1],
        number=int(row[2]),
        kind=ChangeKind(row[3]),
        code_cs=row[4],
        code_us=row[5],
        observed=row[6],
        author=row[7],
        source=row[8],
        comment=row[9],
        alert=row[10],
        outcome=row[11],
        geometry=shapely.from_wkb(bytes(row[12])),
        recorded=row[13],
    )
