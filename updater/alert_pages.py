"""Alerts in pages, by id, in the state they had at one time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import shapely

from updater.alert_rows import record_from_row
from updater.map_pages import Part
from updater.reads import EPOCH
from updater.store import Store
from updater.types import AlertRecord

COLUMNS: Final = ("id", "kind", "state")
"""Columns a page can be filtered by."""


def latest(store: Store) -> datetime:
    """When an alert was last written. What is committed from now on is recorded later."""
    row = store.execute("SELECT max(recorded) FROM alerts").fetchone()
    return EPOCH if row is None or row[0] is None else row[0]


def page(store: Store, known: datetime, part: Part, *, after: str, most: int) -> list[AlertRecord]:
    """At most so many alerts in their latest state at a time, by id, beyond an id.

    ``part``: time is when the change was seen, from the first look to the last.
    """
    where, values = _latest_of(known, part)
    rows = store.execute(
        f"SELECT id, sequence FROM {where} AND id > ? ORDER BY id LIMIT ?",
        [*values, after, most],
    ).fetchall()
    if not rows:
        return []
    found = store.execute(
        "SELECT a.record, ST_AsWKB(a.geom) FROM alerts a JOIN (SELECT unnest(?::VARCHAR[]) AS id, "
        "unnest(?::INTEGER[]) AS sequence) w ON w.id = a.id AND w.sequence = a.sequence "
        "ORDER BY a.id",
        [[row[0] for row in rows], [row[1] for row in rows]],
    ).fetchall()
    return [record_from_row(row[0], bytes(row[1])) for row in found]


def count(store: Store, known: datetime, part: Part) -> int:
    """How many alerts all pages hold together."""
    where, values = _latest_of(known, part)
    row = store.execute(f"SELECT count(*) FROM {where}", values).fetchone()
    return int(row[0]) if row else 0


def _latest_of(known: datetime, part: Part) -> tuple[str, list[Any]]:
    values: list[Any] = [known]
    where = (
        "(SELECT * FROM alerts WHERE recorded <= ? QUALIFY row_number() OVER "
        "(PARTITION BY id ORDER BY sequence DESC) = 1) WHERE true"
    )
    if part.ground is not None:
        where += " AND ST_Intersects(geom, ST_GeomFromWKB(?))"
        values.append(shapely.to_wkb(part.ground))
    if part.since is not None:
        where += " AND (record->>'seen_last')::TIMESTAMPTZ >= ?"
        values.append(part.since)
    if part.until is not None:
        where += " AND (record->>'seen_first')::TIMESTAMPTZ <= ?"
        values.append(part.until)
    for name, value in part.equal.items():
        if name not in COLUMNS:
            raise ValueError(f"alerts are not filtered by {name}")
        where += f" AND {name} = ?"
        values.append(value)
    return where, values
