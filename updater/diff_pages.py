"""The differential between two states in pages, at the cost of the pieces on a page.

Only versions that hold in one state and not in the other can differ, and both kinds are found in
``retirements`` and by their beginning; the map itself is never loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import shapely

from schemas.change import ChangeKind
from updater import map_pages
from updater.diff import DiffPiece, overlay
from updater.map_pages import Part, State
from updater.reads import of_versions
from updater.store import Store
from updater.types import MapPolygon

Key = tuple[int, str]
"""Place of a piece in the order of all: its older polygon's version, its newer polygon's id."""
BATCH: Final = 500
"""Older polygons overlaid at once."""
LEFT: Final = """
left_versions AS (
    SELECT p.version, p.geom, r.corrected FROM polygons p JOIN (
        SELECT version, bool_or(kind = $correction) AS corrected, min(valid_to) AS valid_to
        FROM retirements WHERE recorded <= $known GROUP BY version
    ) r ON r.version = p.version
    WHERE p.recorded <= $known AND p.valid_from <= $before
        AND r.valid_to > $before AND r.valid_to <= $after
)"""
"""What held at ``before`` and ended by ``after``."""
RIGHT: Final = """
right_versions AS (
    SELECT p.version, p.geom, p.valid_from FROM polygons p ANTI JOIN (
        SELECT version FROM retirements WHERE recorded <= $known AND valid_to <= $after
    ) gone ON gone.version = p.version
    WHERE p.recorded <= $known AND p.valid_from > $before AND p.valid_from <= $after
)"""
"""What began after ``before`` and holds at ``after``."""


def page(
    store: Store,
    span: tuple[datetime, datetime],
    known: datetime,
    part: Part,
    *,
    after: Key,
    most: int,
    takes: Callable[[DiffPiece], bool] = lambda piece: True,
) -> list[tuple[Key, DiffPiece]]:
    """At most so many pieces between two instants, as known at a time, beyond a key.

    ``part``: time is when the newer polygon began.
    """
    found: list[tuple[Key, DiffPiece]] = []
    for key, piece in _pieces(store, span, known, part, after):
        if takes(piece):
            found.append((key, piece))
            if len(found) == most:
                break
    return found


def piece_of(
    store: Store, span: tuple[datetime, datetime], known: datetime, older: str, newer: str
) -> tuple[Key, DiffPiece] | None:
    """The piece between two polygons, by the ids they have in either state; None without one."""
    before, after = State(span[0], known), State(span[1], known)
    olds = map_pages.page(store, before, Part(equal={"id": older}), after=0, most=1)
    news = map_pages.page(store, after, Part(equal={"id": newer}), after=0, most=1)
    row = store.execute(
        "SELECT bool_or(kind = ?) FROM retirements WHERE recorded <= ? AND version IN "
        "(SELECT unnest(?::BIGINT[]))",
        [ChangeKind.CORRECTION.value, known, [p.version for p in olds]],
    ).fetchone()
    corrections = {p.version for p in olds} if row and row[0] else set()
    found = overlay(olds, news, corrections=corrections)
    return ((olds[0].version, newer), found[0]) if found else None


def _pieces(
    store: Store, span: tuple[datetime, datetime], known: datetime, part: Part, after: Key
) -> Iterator[tuple[Key, DiffPiece]]:
    times = {"before": span[0], "after": span[1], "known": known}
    last = after[0] - 1  # its polygon may have more pieces
    while corrected := _older(store, times, part, last):
        last = max(corrected)
        olds = of_versions(store, list(corrected))
        news = _newer(store, times, part, list(corrected))
        corrections = {version for version, so in corrected.items() if so}
        number = {p.id: p.version for p in olds}
        pieces = overlay(olds, news, corrections=corrections)
        keyed = [((number[p.id_before], p.id_after), p) for p in pieces]
        for key, piece in sorted(keyed, key=lambda pair: pair[0]):
            if key > after and (
                part.ground is None or shapely.intersects(piece.geometry, part.ground)
            ):
                yield key, piece


def _older(store: Store, times: dict[str, Any], part: Part, last: int) -> dict[int, bool]:
    """The next versions that ended, and which of them were corrected."""
    sql = f"WITH {LEFT} SELECT version, corrected FROM left_versions WHERE version > $last"
    values = times | {"last": last, "correction": ChangeKind.CORRECTION.value}
    if part.ground is not None:
        sql += " AND ST_Intersects(geom, ST_GeomFromWKB($ground))"
        values["ground"] = shapely.to_wkb(part.ground)
    rows = store.cursor.execute(f"{sql} ORDER BY version LIMIT {BATCH}", values).fetchall()
    return dict(rows)


def _newer(
    store: Store, times: dict[str, Any], part: Part, olds: Sequence[int]
) -> list[MapPolygon]:
    """The versions that began where some older ones ended."""
    sql = (
        f"WITH {RIGHT}, olds AS (SELECT geom FROM polygons WHERE version IN "
        "(SELECT unnest($olds::BIGINT[]))) SELECT DISTINCT n.version FROM right_versions n "
        "JOIN olds o ON ST_Intersects(n.geom, o.geom) WHERE true"
    )
    values = times | {"olds": list(olds)}
    for sign, name, bound in ((">=", "since", part.since), ("<=", "until", part.until)):
        if bound is not None:
            sql += f" AND n.valid_from {sign} ${name}"
            values[name] = bound
    rows = store.cursor.execute(sql, values).fetchall()
    return of_versions(store, [row[0] for row in rows])
