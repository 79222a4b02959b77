"""What waits to be published, and what each channel has had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import duckdb

from updater.store import Store

_LACKING: Final = """
SELECT o.seq, o.id, o.type, o.topic, o.key, o.body, o.created FROM outbox o
WHERE o.seq > ? UNION ALL
SELECT o.seq, o.id, o.type, o.topic, o.key, o.body, o.created FROM outbox o
JOIN passed_over p ON p.seq = o.seq WHERE p.channel = ?
"""
"""What a channel lacks: all behind its position, and what others went past."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One message a channel has not had yet."""

    seq: int
    id: str
    type: str
    topic: str
    key: str
    body: str
    created: datetime


def pending(store: Store, channel: str, *, limit: int = 500) -> list[Pending]:
    """The oldest messages a channel still lacks, in the order they were committed, but for those
    that are parked."""
    rows = store.execute(
        f"{_LACKING} ORDER BY seq LIMIT ?", [position(store, channel), channel, limit]
    ).fetchall()
    return [Pending(*row) for row in rows]


def delivered(store: Store, channel: str, sequences: Sequence[int]) -> None:
    """Note that a channel has had some messages."""
    if not sequences:
        return
    with store.transaction() as cursor:
        _settle(cursor, channel, sequences)


def park(store: Store, channel: str, refused: Mapping[int, str]) -> None:
    """Note what a channel will not take, with the reason."""
    if not refused:
        return
    with store.transaction() as cursor:
        _settle(cursor, channel, list(refused))
        cursor.executemany(
            "INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?)",
            [[channel, seq, reason, store.clock()] for seq, reason in refused.items()],
        )


def _settle(cursor: duckdb.DuckDBPyConnection, channel: str, sequences: Sequence[int]) -> None:
    """Move a channel's position to the last of some messages; those before it that are not among
    them are passed over, and come again."""
    row = cursor.execute("SELECT seq FROM positions WHERE channel = ?", [channel]).fetchall()
    before = int(row[0][0]) if row else 0
    settled = list(sequences)
    cursor.execute(
        "DELETE FROM passed_over WHERE channel = ? AND seq IN (SELECT unnest(?::BIGINT[]))",
        [channel, settled],
    )
    last = max(settled)
    if last <= before:
        return
    cursor.execute(
        "INSERT OR IGNORE INTO passed_over SELECT ?, seq FROM outbox "
        "WHERE seq > ? AND seq < ? AND seq NOT IN (SELECT unnest(?::BIGINT[]))",
        [channel, before, last, settled],
    )
    cursor.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", [channel, last])


def offer_again(store: Store, channel: str) -> None:
    """Forget that a channel refused anything; it is offered once more."""
    with store.transaction() as cursor:
        cursor.execute(
            "INSERT OR IGNORE INTO passed_over SELECT channel, seq FROM parked WHERE channel = ?",
            [channel],
        )
        cursor.execute("DELETE FROM parked WHERE channel = ?", [channel])


def position(store: Store, channel: str) -> int:
    """The last message a channel that keeps a position has had."""
    row = store.execute("SELECT seq FROM positions WHERE channel = ?", [channel]).fetchone()
    return int(row[0]) if row else 0


def after(store: Store, seq: int, *, type_: str, limit: int = 500) -> list[Pending]:
    """Messages of one type behind a position, in the order they were committed."""
    rows = store.execute(
        "SELECT seq, id, type, topic, key, body, created FROM outbox "
        "WHERE seq > ? AND type = ? ORDER BY seq LIMIT ?",
        [seq, type_, limit],
    ).fetchall()
    return [Pending(*row) for row in rows]


def advance(store: Store, channel: str, seq: int, *, parked: dict[int, str] | None = None) -> None:
    """Move a channel's position, and note what was given up on the way, with the reason."""
    with store.transaction() as cursor:
        for number, reason in (parked or {}).items():
            cursor.execute(
                "INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?)",
                [channel, number, reason, store.clock()],
            )
        cursor.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", [channel, seq])


def parked(store: Store, channel: str) -> list[tuple[Pending, str]]:
    """Messages a channel gave up, oldest first, with the reason."""
    rows = store.execute(
        "SELECT o.seq, o.id, o.type, o.topic, o.key, o.body, o.created, p.reason "
        "FROM parked p JOIN outbox o ON o.seq = p.seq WHERE p.channel = ? ORDER BY o.seq",
        [channel],
    ).fetchall()
    return [(Pending(*row[:7]), str(row[7])) for row in rows]


def unpark(store: Store, channel: str, seq: int) -> None:
    """Note that a message given up was delivered after all."""
    with store.transaction() as cursor:
        cursor.execute("DELETE FROM parked WHERE channel = ? AND seq = ?", [channel, seq])


def backlog(
    store: Store, channels: Sequence[str], *, type_: str, until: datetime | None = None
) -> tuple[int, datetime | None]:
    """How many messages of one type lie behind the positions of some channels, committed before
    ``until``, and since when the oldest does; one that two channels lack counts twice."""
    row = store.execute(
        "SELECT count(*), min(o.created) FROM positions p JOIN outbox o ON o.seq > p.seq "
        "WHERE p.channel IN (SELECT unnest(?::VARCHAR[])) AND o.type = ? "
        "AND (?::TIMESTAMPTZ IS NULL OR o.created < ?)",
        [list(channels), type_, until, until],
    ).fetchone()
    return (int(row[0]), row[1]) if row else (0, None)


def given_up(store: Store, channels: Sequence[str]) -> int:
    """How many messages some channels gave up and have not had since."""
    row = store.execute(
        "SELECT count(*) FROM parked WHERE channel IN (SELECT unnest(?::VARCHAR[]))",
        [list(channels)],
    ).fetchone()
    return int(row[0]) if row else 0


def depth(store: Store, channel: str) -> tuple[int, datetime | None]:
    """How many messages a channel lacks, and since when the oldest waits."""
    row = store.execute(
        f"SELECT count(*), min(created) FROM ({_LACKING})", [position(store, channel), channel]
    ).fetchone()
    return (int(row[0]), row[1]) if row else (0, None)
