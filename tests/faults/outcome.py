"""What a service made of what it was sent, without clocks: store, files and published messages."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from tests.map_store import content
from updater.reads import as_of, end_of
from updater.store import Store

CLOCKS = frozenset({"recorded", "known_at", "received", "time"})
"""When the system knew: the one thing that differs between two runs."""
TABLES = {
    "versions": "SELECT id, code_cs, code_us, millesime, source, ST_AsWKB(geom), valid_from, event "
    "FROM polygons ORDER BY ALL",
    "retirements": "SELECT p.id, p.event, r.valid_to, r.kind, r.event FROM retirements r "
    "JOIN polygons p USING (version) ORDER BY ALL",
    "lineage": "SELECT parent, child, operation, event, detector FROM lineage ORDER BY ALL",
    "events": "SELECT key, id, item, acquired, sensor, detector, kind, changed, ignored "
    "FROM events ORDER BY ALL",
    "images": "SELECT item, sensor, acquired FROM images ORDER BY ALL",
    "outbox": "SELECT id, type, topic, key, body FROM outbox ORDER BY id",
    "alerts": "SELECT id, sequence, kind, state, record, ST_AsWKB(geom), event "
    "FROM alerts ORDER BY ALL",
    "corrections": "SELECT id, event, number, author, source, observed, outcome, ST_AsWKB(geom) "
    "FROM corrections ORDER BY ALL",
    "dead letters": "SELECT id, event, reason, message, letter FROM dead_letters ORDER BY id",
}


@dataclass(frozen=True)
class Outcome:
    """Everything two runs must agree on."""

    map: list[tuple[object, ...]]
    history: dict[str, list[tuple[object, ...]]]
    published: dict[str, list[tuple[str, str]]]
    doubled: Counter[str] = field(default_factory=Counter, compare=False)

    def lost(self, whole: Outcome) -> int:
        """Events, dead letters and messages an uninterrupted run has and this one has not."""
        return sum((_ids(whole) - _ids(self)).values())

    def surplus(self, whole: Outcome) -> int:
        """What this one has and an uninterrupted run has not."""
        return sum((_ids(self) - _ids(whole)).values())


def _ids(outcome: Outcome) -> Counter[tuple[object, ...]]:
    tables = ("events", "dead letters", "outbox")
    rows = [(name, row[0]) for name in tables for row in outcome.history[name]]
    return Counter(rows + [(t, id_) for t, found in outcome.published.items() for id_, _ in found])


def store_outcome(path: Path) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """Map and history of a store."""
    with Store.open(path) as store:
        history = {
            name: [tuple(_plain(v) for v in row) for row in store.execute(query).fetchall()]
            for name, query in TABLES.items()
        }
        return content(as_of(store, valid_at=end_of(2030))), history


def _plain(value: object) -> object:
    """A value of a table; documents lose their clocks."""
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(without_clocks(json.loads(value)), sort_keys=True)
    return value


def without_clocks(document: Any) -> Any:
    """A document without the times at which the system knew."""
    if isinstance(document, dict):
        return {k: without_clocks(v) for k, v in document.items() if k not in CLOCKS}
    if isinstance(document, list):
        return [without_clocks(value) for value in document]
    return document


def from_folder(outbox: Path) -> dict[str, list[tuple[str, str]]]:
    """What a folder channel and a folder subscription hold, by kind."""
    found = {}
    for pattern in ("changes/*.json", "alerts/*.json", "dead-letters/*.json"):
        found[pattern] = [(p.stem, _plain(p.read_text())) for p in sorted(outbox.glob(pattern))]
    told = sorted(outbox.glob("subscriptions/*/*.geojson"))
    found["subscription"] = [(p.stem, _plain(p.read_text())) for p in told]
    found["feed"] = [(p.stem, _feed(p)) for p in sorted(outbox.glob("feed/*.geojson"))]
    return found


def _feed(path: Path) -> str:
    features = without_clocks(json.loads(path.read_text()))["features"]
    return json.dumps(sorted(features, key=lambda f: f["id"]), sort_keys=True)


def from_topics(
    server: str, topics: dict[str, str], doubled: Counter[str]
) -> dict[str, list[tuple[str, str]]]:
    """What a consumer that deduplicates on the id gets from each topic, in order.

    ``topics``: what is read under which name. A second delivery must be the first one again.
    """
    return {name: _deduplicated(_read(server, topic), doubled) for name, topic in topics.items()}


def _deduplicated(records: list[tuple[str, bytes]], doubled: Counter[str]) -> list[tuple[str, str]]:
    first: dict[str, bytes] = {}
    for id_, value in records:
        doubled[id_] += id_ in first
        assert first.setdefault(id_, value) == value, f"{id_} was delivered with another content"
    return [(id_, str(_plain(value.decode()))) for id_, value in first.items()]


def _read(server: str, topic: str) -> list[tuple[str, bytes]]:
    """Every message of a topic: id and body."""
    consumer = Consumer({"bootstrap.servers": server, "group.id": "reader", "log_level": 2})
    try:
        place = TopicPartition(topic, 0, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=20)
        consumer.assign([place])
        found: list[tuple[str, bytes]] = []
        while len(found) < end:
            record = consumer.poll(20)
            assert record is not None and record.error() is None, "the broker lost messages"
            headers = dict(record.headers())
            found.append((headers["ce_id"].decode(), record.value()))
        return found
    finally:
        consumer.close()
