"""What became of made-up acquisitions: each in its store, each message on its topic, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from daemon.bench.country import Country, Scene
from daemon.bench.roles import CHANNELS
from daemon.bench.watch import BenchFailed
from schemas.envelope import (
    ALERT_TYPE,
    CHANGE_TYPE,
    TASK_TYPE,
    TOPIC_ALERTS,
    TOPIC_CHANGES,
    TOPIC_TASKS,
)
from updater import asked, outbox
from updater.store import Store
from updater.verify import verify

READ_SECONDS: Final = 10.0
"""Longest wait for a topic's next record when it is read from its beginning."""
SENT_BY_ROLES: Final = {
    CHANGE_TYPE: TOPIC_CHANGES,
    ALERT_TYPE: TOPIC_ALERTS,
    TASK_TYPE: TOPIC_TASKS,
}


@dataclass(slots=True)
class Topic:
    """What lies on a topic: records, distinct ids, bytes of keys, headers and values."""

    records: int
    ids: set[bytes]
    size: int


def read_topic(server: str, name: str, partitions: int) -> Topic:
    """A topic from its beginning to its end.

    Raises:
        BenchFailed: the broker stops answering.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": server,
            "group.id": "bench",
            "enable.auto.commit": False,
            "log_level": 2,
        }
    )
    found = Topic(0, set(), 0)
    try:
        for number in range(partitions):
            place = TopicPartition(name, number, OFFSET_BEGINNING)
            low, high = consumer.get_watermark_offsets(place, timeout=READ_SECONDS)
            consumer.assign([place])
            for _ in range(high - low):
                record = consumer.poll(READ_SECONDS)
                if record is None or record.error() is not None:
                    raise BenchFailed(f"The broker does not give {name} back; its log says why.")
                headers = {k: _raw(v) for k, v in dict(record.headers() or []).items()}
                found.records += 1
                found.ids.add(headers["ce_id"])
                found.size += len(_raw(record.value())) + len(_raw(record.key()))
                found.size += sum(len(name) + len(value) for name, value in headers.items())
    finally:
        consumer.close()
    return found


def _raw(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


@dataclass(frozen=True, slots=True)
class Account:
    """What the stores and the topics hold: polygons each event changed, and the figures."""

    changed: dict[str, int]
    figures: dict[str, Any]


def account_for(country: Country, scenes: Sequence[Scene], topics: Mapping[str, Topic]) -> Account:
    """Every event and every message of a run, found once where it belongs."""
    found, changed = Counter[str](), dict[str, int]()
    written = Counter[str]()
    for code, path in country.stores.items():
        sent = {scene.name for scene in scenes if scene.departement == code}
        with Store.open(path) as store:
            rows = store.execute("SELECT item, changed FROM events").fetchall()
            known = {item: int(count) for item, count in rows}
            changed |= known
            found["lost"] += len(sent - known.keys())
            found["misplaced_or_doubled"] += len(rows) - len(sent & known.keys())
            found["dead_letters"] += _count(store, "SELECT count(*) FROM dead_letters")
            found["still_asked"] += asked.waiting(store)[0]
            found["unpublished"] += sum(outbox.depth(store, name)[0] for name in CHANNELS)
            found["invalid_maps"] += not verify(store).valid
            written.update(
                dict(store.execute("SELECT type, count(*) FROM outbox GROUP BY type").fetchall())
            )
    on_topics = {type_: topics[name] for type_, name in SENT_BY_ROLES.items()}
    found["messages_lost"] += sum(
        max(0, written[type_] - len(topic.ids)) for type_, topic in on_topics.items()
    )
    found["messages_doubled"] += sum(topic.records - len(topic.ids) for topic in topics.values())
    figures: dict[str, Any] = {
        "events": len(changed),
        "changes": sum(changed.values()),
        "buildings_sent": sum(scene.changes for scene in scenes),
        "messages": {name: topic.records for name, topic in topics.items()},
        **found,
        "accounted_for": not found.total() and len(changed) == len(scenes),
    }
    return Account(changed, figures)


def _count(store: Store, sql: str) -> int:
    (count,) = store.execute(sql).fetchone() or (0,)
    return int(count)
