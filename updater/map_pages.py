"""The map of one instant in pages: by place, time and code, a bounded number of polygons at once.

A page begins after the last version of the page before, not at a count: rows that come or go in
between move nothing. All pages of a chain ask for what was known at one time (``latest``), so
together they are one state of the map, whatever is committed while they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import shapely
from shapely.geometry.base import BaseGeometry

from updater.reads import EPOCH, of_versions
from updater.store import Store
from updater.types import MapPolygon

COLUMNS: Final = {
    **{name: f"p.{name}" for name in ("id", "code_cs", "code_us", "source", "id_origine")},
    "code_or": "p.code_or",
    "millesime": "p.millesime::VARCHAR",
    "ossature": "p.ossature::INTEGER",
}
"""Columns a page can be filtered by, as the exported product has them."""
NEAR: Final = """
near AS MATERIALIZED (
    SELECT version FROM polygons
    WHERE ST_Intersects(geom, ST_GeomFromWKB(?)) AND version > ?
)"""
"""Versions of any age that touch a ground; the R-tree serves it, which it does not in a join."""


@dataclass(frozen=True, slots=True)
class State:
    """One state of the map: the ground at ``valid_at`` by what was known at ``recorded_at``."""

    valid_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a layer is asked for.

    ``ground``: what is there must touch it (the store's CRS). ``since``, ``until``: it must have
    been so at some time between them, both included. ``equal``: values of columns.
    """

    ground: BaseGeometry | None = None
    since: datetime | None = None
    until: datetime | None = None
    equal: Mapping[str, Any] = field(default_factory=dict)

    @property
    def everything(self) -> bool:
        """True where nothing is left out."""
        return self == Part()


def latest(store: Store) -> datetime:
    """When the map was last written to. What is committed from now on is recorded later."""
    row = store.execute(
        "SELECT greatest((SELECT max(recorded) FROM polygons), "
        "(SELECT max(recorded) FROM retirements))"
    ).fetchone()
    return EPOCH if row is None or row[0] is None else row[0]


def millesimes(store: Store) -> list[int]:
    """Years the map has a state of its own for: the delivered one, and those of acquisitions that
    changed it."""
    rows = store.execute(
        "SELECT DISTINCT year(p.valid_from AT TIME ZONE 'UTC') FROM polygons p ANTI JOIN "
        "retirements r ON r.version = p.version AND r.valid_to <= p.valid_from"
    ).fetchall()
    return sorted({store.millesime, *(int(row[0]) for row in rows)})


def page(store: Store, state: State, part: Part, *, after: int, most: int) -> list[MapPolygon]:
    """At most so many polygons of a state, in the order of their versions, from the first beyond
    ``after``."""
    head, where, values = _held(state, part, after)
    rows = store.execute(
        f"{head} SELECT p.version FROM {where} ORDER BY p.version LIMIT ?", [*values, most]
    ).fetchall()
    return of_versions(store, [row[0] for row in rows])


def count(store: Store, state: State, part: Part) -> int:
    """How many polygons all pages hold together."""
    head, where, values = _held(state, part, 0)
    row = store.execute(f"{head} SELECT count(*) FROM {where}", values).fetchone()
    return int(row[0]) if row else 0


def around(store: Store, state: State, ground: BaseGeometry) -> list[MapPolygon]:
    """Every polygon of a state that touches some ground."""
    head, where, values = _held(state, Part(ground=ground), 0)
    rows = store.execute(f"{head} SELECT p.version FROM {where}", values).fetchall()
    return of_versions(store, [row[0] for row in rows])


def _held(state: State, part: Part, after: int) -> tuple[str, str, list[Any]]:
    """What goes before SELECT, what follows FROM, and the values for both."""
    values: list[Any] = []
    head, source = "", "polygons p"
    if part.ground is not None:
        head, source = f"WITH {NEAR}", "near JOIN polygons p ON near.version = p.version"
        values += [shapely.to_wkb(part.ground), after]
    begun = state.valid_at if part.until is None else min(state.valid_at, part.until)
    ended = state.valid_at if part.since is None else max(state.valid_at, part.since)
    where = (
        f"{source} ANTI JOIN (SELECT version FROM retirements WHERE recorded <= ? "
        "AND valid_to <= ?) gone ON gone.version = p.version "
        "WHERE p.version > ? AND p.recorded <= ? AND p.valid_from <= ?"
    )
    values += [state.recorded_at, ended, after, state.recorded_at, begun]
    for name, value in part.equal.items():
        if name not in COLUMNS:
            raise ValueError(f"polygons are not filtered by {name}")
        where += f" AND {COLUMNS[name]} = ?"
        values.append(value)
    return head, where, values
