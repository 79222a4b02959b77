"""What waits to be published, and what each channel has had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from updater.store import Store


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
    """The oldest messages a channel still lacks, in the order they were committed."""
    rows = store.execute(
        "SELECT o.seq, o.id, o.type, o.topic, o.key, o.body, o.created FROM outbox o "
        "ANTI JOIN (SELECT seq FROM deliveries WHERE channel = ?) d ON o.seq = d.seq "
        "ORDER BY o.seq LIMIT ?",
        [channel, limit],
    ).fetchall()
    return [Pending(*row) for row in rows]


def delivered(store: Store, channel: str, sequences: Sequence[int]) -> None:
    """Note that a channel has had some messages."""
    if not sequences:
        return
    with store.transaction() as cursor:
        cursor.execute(
            "INSERT OR IGNORE INTO deliveries SELECT ?, unnest(?::BIGINT[]), ?",
            [channel, list(sequences), store.clock()],
        )


def depth(store: Store, channel: str) -> tuple[int, datetime | None]:
    """How many messages a channel lacks, and since when the oldest waits."""
    row = store.execute(
        "SELECT count(*), min(o.created) FROM outbox o "
        "ANTI JOIN (SELECT seq FROM deliveries WHERE channel = ?) d ON o.seq = d.seq",
        [channel],
    ).fetchone()
    return (int(row[0]), row[1]) if row else (0, None)
