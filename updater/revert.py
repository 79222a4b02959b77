"""Undoing one event, as history of its own: nothing is deleted, the older versions hold again.

The polygons the event opened are closed at the instant they opened, those it closed are opened
again from that instant on. So the map of any time is what it would be without the event, by what is
known now, and still what it was, by what was known then. Alerts that rest on this event alone are
superseded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from schemas.alert import AlertState
from schemas.change import Change, ChangeKind, LineageLink, Operation
from schemas.envelope import CHANGE_TYPE, TOPIC_CHANGES
from updater.alert_rows import record_from_row
from updater.alerts import superseded
from updater.commit import OutboxRow, alert_row, write_alert, write_outbox
from updater.errors import NotFound, PatchRefused
from updater.store import Store
from updater.types import AlertRecord

PREFIX = "revert#"
"""What the key of a revert begins with; the event's own key follows."""


@dataclass(frozen=True, slots=True)
class Reverted:
    """What an undo did: polygons closed and opened again, alerts withdrawn."""

    event: str
    closed: int
    reopened: int
    alerts: int


@dataclass(frozen=True, slots=True)
class _Event:
    key: str
    id: str
    item: str
    acquired: datetime
    sensor: str
    detector: str


def revert(store: Store, event: str, *, reason: str) -> Reverted:
    """Undo one event by its id or key.

    Raises:
        NotFound: no such event had an effect on this store.
        PatchRefused: it changed nothing, was reverted already, or later events built on it.
    """
    found = _find(store, event)
    created = _versions(store, "SELECT version FROM polygons WHERE event = ?", found.key)
    retired = _versions(store, "SELECT version FROM retirements WHERE event = ?", found.key)
    if not created and not retired:
        raise PatchRefused(f"The event {event} changed nothing on the map; nothing to revert.")
    created = _with_successors(store, found, created)
    key = PREFIX + found.key
    with store.transaction() as cursor:
        now = store.clock()
        since = cursor.execute(
            "SELECT min(valid_to) FROM retirements WHERE event = ?", [found.key]
        ).fetchone()
        _swap(cursor, found.key, key, created, retired, since[0] if since else now, now)
        alerts = _withdrawn(cursor, found, reason=reason, now=now)
        for record in alerts:
            write_alert(cursor, record, event=key, now=now)
        write_outbox(cursor, _messages(store, cursor, found, key, alerts, now), now)
        cursor.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                key,
                PREFIX + found.id,
                found.item,
                found.acquired,
                found.sensor,
                found.detector,
                ChangeKind.CORRECTION.value,
                len(retired),
                json.dumps({"reverts": found.id, "reason": reason}),
                now,
            ],
        )
    return Reverted(found.id, len(created), len(retired), len(alerts))


def _find(store: Store, event: str) -> _Event:
    rows = store.execute(
        "SELECT key, id, item, acquired, sensor, detector FROM events WHERE key = ? OR id = ? "
        "ORDER BY recorded DESC",
        [event, event],
    ).fetchall()
    if not rows:
        raise NotFound(f"No event {event} had an effect on this map; see `millesimed events`.")
    return _Event(*rows[0])


def _versions(store: Store, sql: str, key: str) -> list[int]:
    return [int(row[0]) for row in store.execute(sql, [key]).fetchall()]


def _with_successors(store: Store, event: _Event, created: list[int]) -> list[int]:
    """The versions an event opened, and those that stand for them where a later event closed them
    and was undone itself.

    Raises:
        PatchRefused: the event was reverted already, or a later one that stands built on it.
    """
    every, blocking = list(created), set()
    pending = created
    while pending:
        rows = store.execute(
            "SELECT r.event, e.id, s.version FROM retirements r "
            "JOIN polygons p ON p.version = r.version "
            "LEFT JOIN events e ON e.key = r.event "
            "LEFT JOIN polygons s ON s.event = ? || r.event AND s.id = p.id "
            "WHERE r.version IN (SELECT unnest(?::BIGINT[]))",
            [PREFIX, pending],
        ).fetchall()
        if any(row[0] == PREFIX + event.key for row in rows):
            raise PatchRefused(f"The event {event.id} was reverted already.")
        blocking |= {str(row[1] or row[0]) for row in rows if row[2] is None}
        pending = [int(row[2]) for row in rows if row[2] is not None]
        every += pending
    if blocking:
        names = ", ".join(sorted(blocking)[:5])
        raise PatchRefused(
            f"Later events changed what {event.id} drew; revert them first, newest first: {names}."
        )
    return every


def _swap(
    cursor: duckdb.DuckDBPyConnection,
    old_key: str,
    key: str,
    created: list[int],
    retired: list[int],
    since: datetime,
    now: datetime,
) -> None:
    cursor.execute(
        "INSERT INTO retirements SELECT version, valid_from, ?, ?, ? FROM polygons "
        "WHERE version IN (SELECT unnest(?::BIGINT[]))",
        [ChangeKind.CORRECTION.value, now, key, created],
    )
    cursor.execute(
        "INSERT INTO polygons SELECT nextval('version_seq'), id, code_cs, code_us, millesime, "
        "source, ossature, id_origine, code_or, geom, ?, ?, ? FROM polygons "
        "WHERE version IN (SELECT unnest(?::BIGINT[])) ORDER BY version",
        [since, now, key, retired],
    )
    cursor.execute(
        "INSERT INTO lineage SELECT DISTINCT child, parent, ?, ?, detector, ?::TIMESTAMPTZ "
        "FROM lineage WHERE event = ?",
        [Operation.REVERT.value, key, now, old_key],
    )


def _withdrawn(
    cursor: duckdb.DuckDBPyConnection, event: _Event, *, reason: str, now: datetime
) -> list[AlertRecord]:
    """Alerts that this acquisition alone supports, superseded."""
    rows = cursor.execute(
        "SELECT record, ST_AsWKB(geom) FROM alerts_now WHERE id IN "
        "(SELECT id FROM alerts WHERE event = ?) ORDER BY id",
        [event.key],
    ).fetchall()
    records = [record_from_row(row[0], bytes(row[1])) for row in rows]
    return [
        superseded(record, reason=f"reverted: {reason}", at=now)
        for record in records
        if set(record.acquisitions) == {event.item}
        and record.state not in (AlertState.SUPERSEDED, AlertState.REJECTED)
    ]


def _messages(
    store: Store,
    cursor: duckdb.DuckDBPyConnection,
    event: _Event,
    key: str,
    alerts: list[AlertRecord],
    now: datetime,
) -> list[OutboxRow]:
    links: list[tuple[Any, ...]] = cursor.execute(
        "SELECT parent, child FROM lineage WHERE event = ? ORDER BY 1, 2", [key]
    ).fetchall()
    change = Change(
        event=PREFIX + event.id,
        departement=store.territory,
        millesime=event.acquired.year,
        kind=ChangeKind.CORRECTION,
        acquired=event.acquired,
        recorded=now,
        detector=event.detector,
        retired=sorted({link[0] for link in links}),
        created=sorted({link[1] for link in links}),
        lineage=[LineageLink(parent=a, child=b, operation=Operation.REVERT) for a, b in links],
        pieces=[],
    )
    place = f"{store.territory}/{event.item}"
    told = OutboxRow(
        f"{PREFIX}{event.id}", CHANGE_TYPE, TOPIC_CHANGES, place, change.model_dump_json()
    )
    return [told, *(alert_row(store, record) for record in alerts)]
