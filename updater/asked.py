"""Acquisitions that wait to be judged elsewhere: what was asked for, and what was answered.

An arrival is written together with the task that goes out and the offset it was read at; it goes
again in the transaction of its effect. Of several arrivals of one event the first stands for all;
the others are kept because each is a dead letter of its own should the event fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import duckdb
import shapely
from shapely.geometry.base import BaseGeometry

from schemas.dead_letter import Origin
from schemas.envelope import TASK_TYPE, TOPIC_TASKS
from schemas.task import Judgement, Task
from updater import faults
from updater.commit import OutboxRow, write_offset, write_outbox
from updater.reads import Bounds
from updater.store import Store

_COLUMNS: Final = (
    "seq, event, payload, headers, origin, sent, since, acquired, footprint, task, offered, "
    "judgement"
)
_LEADS: Final = "SELECT min(seq) FROM asked GROUP BY event"
"""The first arrival of each event."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An acquisition event as it came: its key, bytes, headers, place and time; when the ground was
    seen, and the footprint in the store's CRS."""

    event: str
    payload: bytes
    headers: Mapping[str, bytes]
    origin: Origin
    sent: datetime | None
    acquired: datetime
    footprint: BaseGeometry


@dataclass(frozen=True, slots=True)
class Asked:
    """An arrival that waits; ``task``: what went out last, None for one that is held back."""

    seq: int
    arrival: Arrival
    since: datetime
    task: Task | None
    offered: datetime | None
    judgement: Judgement | None


@dataclass(frozen=True, slots=True)
class Rival:
    """What another arrival is about."""

    acquired: datetime
    footprint: BaseGeometry


def note(store: Store, arrival: Arrival, task: Task | None, read: Origin) -> None:
    """Keep an arrival, send its task out (None holds it back) and note that it was read."""
    now = store.clock()
    origin = arrival.origin.model_dump_json()
    with store.transaction() as cursor:
        write_offset(cursor, read)
        known = cursor.execute(
            "SELECT 1 FROM asked WHERE event = ? AND origin = ?", [arrival.event, origin]
        ).fetchone()
        if known is not None:
            return
        (seq,) = cursor.execute("SELECT coalesce(max(seq), 0) + 1 FROM asked").fetchone() or (1,)
        cursor.execute(
            "INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
            [
                seq,
                arrival.event,
                arrival.payload,
                json.dumps({k: v.decode("latin-1") for k, v in arrival.headers.items()}),
                origin,
                arrival.sent,
                now,
                arrival.acquired,
                shapely.to_wkb(arrival.footprint),
                *arrival.footprint.bounds,
            ],
        )
        if task is not None:
            _send(store, cursor, int(seq), task, now)
        faults.reached("in-transaction")
    faults.reached("after-commit")


def give_out(store: Store, seq: int, task: Task, read: Origin | None = None) -> None:
    """Send out the task of an arrival that was held back, or once more; ``read``: the message that
    asks for it."""
    with store.transaction() as cursor:
        if read is not None:
            write_offset(cursor, read)
        cursor.execute("UPDATE asked SET judgement = NULL WHERE seq = ?", [seq])
        _send(store, cursor, seq, task, store.clock())


def _send(
    store: Store, cursor: duckdb.DuckDBPyConnection, seq: int, task: Task, now: datetime
) -> None:
    body = task.model_dump_json()
    cursor.execute("UPDATE asked SET task = ?, offered = ? WHERE seq = ?", [body, now, seq])
    key = f"{store.territory}/{task.task}"
    row = OutboxRow(f"{task.task}.{task.attempt}", TASK_TYPE, TOPIC_TASKS, key, body)
    write_outbox(cursor, [row], now)


def answer(store: Store, seq: int, judgement: Judgement, read: Origin) -> None:
    """Keep what a detector says of an arrival, and note that it was read."""
    with store.transaction() as cursor:
        write_offset(cursor, read)
        cursor.execute(
            "UPDATE asked SET judgement = ? WHERE seq = ?", [judgement.model_dump_json(), seq]
        )
        faults.reached("in-transaction")
    faults.reached("after-commit")


def forget(store: Store, seq: int) -> None:
    """An arrival is done with."""
    with store.transaction() as cursor:
        cursor.execute("DELETE FROM asked WHERE seq = ?", [seq])


def first(store: Store) -> Asked | None:
    """The arrival that has waited longest."""
    found = _rows(store, "ORDER BY seq LIMIT 1")
    return found[0] if found else None


def of_event(store: Store, event: str) -> list[Asked]:
    """Every arrival of an event, the one that stands for all first."""
    return _rows(store, "WHERE event = ? ORDER BY seq", [event])


def held(store: Store) -> list[Asked]:
    """Events held back, oldest first."""
    return _rows(store, f"WHERE task IS NULL AND seq IN ({_LEADS}) ORDER BY seq")


def unanswered(store: Store, *, offered_before: datetime) -> list[Asked]:
    """Events whose task went out before a time and has no judgement, oldest first."""
    return _rows(store, "WHERE offered < ? AND judgement IS NULL ORDER BY seq", [offered_before])


def rivals(store: Store, bounds: Bounds, *, before: int | None = None) -> list[Rival]:
    """What arrived before one arrival (or before now) and lies within a rectangle."""
    rows = store.execute(
        "SELECT acquired, footprint FROM asked WHERE west <= ? AND east >= ? AND south <= ? "
        "AND north >= ? AND (?::BIGINT IS NULL OR seq < ?)",
        [bounds[2], bounds[0], bounds[3], bounds[1], before, before],
    ).fetchall()
    return [Rival(acquired, shapely.from_wkb(bytes(wkb))) for acquired, wkb in rows]


def waiting(store: Store) -> tuple[int, datetime | None]:
    """How many arrivals wait, and since when the oldest does."""
    row = store.execute("SELECT count(*), min(since) FROM asked").fetchone()
    return (int(row[0]), row[1]) if row else (0, None)


def tasks(store: Store) -> set[str]:
    """Ids of the tasks that are out."""
    rows = store.execute("SELECT task FROM asked WHERE task IS NOT NULL").fetchall()
    return {Task.model_validate_json(row[0]).task for row in rows}


def _rows(store: Store, where: str, parameters: Sequence[Any] = ()) -> list[Asked]:
    rows = store.execute(f"SELECT {_COLUMNS} FROM asked {where}", list(parameters)).fetchall()
    return [_asked(row) for row in rows]


def _asked(row: tuple[Any, ...]) -> Asked:
    seq, event, payload, headers, origin, sent, since, acquired, footprint, task, offered, said = (
        row
    )
    arrival = Arrival(
        event=event,
        payload=bytes(payload),
        headers={k: v.encode("latin-1") for k, v in json.loads(headers).items()},
        origin=Origin.model_validate_json(origin),
        sent=sent,
        acquired=acquired,
        footprint=shapely.from_wkb(bytes(footprint)),
    )
    return Asked(
        seq=int(seq),
        arrival=arrival,
        since=since,
        task=Task.model_validate_json(task) if task else None,
        offered=offered,
        judgement=Judgement.model_validate_json(said) if said else None,
    )
