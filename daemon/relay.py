"""Emptying the outbox: at least once, in order, to every channel.

Each channel has its own position in the outbox (``positions``), so a broken one holds up
nobody else. A message is noted as delivered after the channel accepted it; a crash between the
two sends it again with the same id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Protocol

import structlog
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import KafkaException, Producer

from daemon.chip_words import Language
from daemon.config import KafkaSettings
from daemon.feeds import alerts_of, collection
from daemon.files import write_whole
from daemon.metrics import Metrics
from daemon.pictures import draw_beside
from daemon.subscribers import Failed, Note
from schemas.envelope import (
    ALERT_TYPE,
    TOPIC_ALERTS,
    TOPIC_CHANGES,
    TOPIC_DEAD_LETTERS,
    cloud_event,
    to_kafka,
    to_structured,
)
from schemas.subscription import Subscription
from updater import outbox
from updater.outbox import Pending
from updater.store import Store

log = structlog.get_logger()

SOURCE = "urn:millesimed:updater"
FLUSH_SECONDS = 10.0
"""How long a Kafka delivery may take before the round is given up and tried again."""
FEED_SHARE = 0.05
"""Part of the time that may go into writing the feed, which holds every alert there is."""


class Channel(Protocol):
    """Somewhere messages go."""

    name: str

    def send(self, store: Store, rows: Sequence[Pending]) -> list[int]:
        """Publish messages in order; gives the sequence numbers that were accepted."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


def _event(store: Store, row: Pending) -> CloudEvent:
    return cloud_event(
        type_=row.type,
        id_=row.id,
        source=f"{SOURCE}:{store.territory}",
        data=json.loads(row.body),
        time=row.created,
        key=row.key,
    )


class FolderChannel:
    """One file per message, and the alert feed as GeoJSON beside them.

    The file is named by the message's id, so a second delivery writes the same file again.
    """

    name = "folder"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stale: dict[str, Store] = {}
        self._rest_until: dict[str, float] = {}

    def send(self, store: Store, rows: Sequence[Pending]) -> list[int]:
        """Write the messages; when alerts are among them the feed is due."""
        for row in rows:
            event = _event(store, row)
            kind = row.topic.removeprefix("millesimed.")
            write_whole(self.folder / kind / f"{row.id}.json", to_structured(event))
        if any(row.type == ALERT_TYPE for row in rows):
            self._stale[store.territory] = store
        return [row.seq for row in rows]

    def settle(self) -> None:
        """Write the feeds that are due and not resting: the longer one takes to write, the longer
        it rests, so that a feed of many alerts is no brake."""
        for territory in list(self._stale):
            if monotonic() >= self._rest_until.get(territory, 0.0):
                self._write(territory)

    def _write(self, territory: str) -> None:
        started = monotonic()
        store = self._stale.pop(territory)
        body = json.dumps(collection(alerts_of(store)), ensure_ascii=False).encode()
        write_whole(self.folder / "feed" / f"alerts-{territory}.geojson", body)
        now = monotonic()
        self._rest_until[territory] = now + (now - started) / FEED_SHARE

    def close(self) -> None:
        """Write the feeds that are still due."""
        for territory in list(self._stale):
            self._write(territory)


class FolderCarrier:
    """The folder of one subscription: a GeoJSON feature and a picture for each alert, in its latest
    state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def deliver(self, store: Store, wanted: Subscription, notes: Sequence[Note]) -> None:
        """Write each alert; a second delivery writes the same file again.

        Raises:
            Failed: the disk does not take it.
        """
        for note in notes:
            (feature,) = collection([note.alert])["features"]
            body = json.dumps(feature, ensure_ascii=False).encode()
            try:
                write_whole(self.folder / wanted.id / f"{note.alert.id}.geojson", body)
            except OSError as error:
                raise Failed(f"{type(error).__name__}: {error.strerror}") from None
            picture = self.folder / wanted.id / f"{note.alert.id}.png"
            draw_beside(store, note.alert.id, picture, Language(wanted.language))

    def close(self) -> None:
        """Nothing to let go of."""


class KafkaChannel:
    """Messages as CloudEvents in Kafka binary mode."""

    name = "kafka"

    def __init__(self, settings: KafkaSettings) -> None:
        self._topics = {
            TOPIC_CHANGES: settings.changes,
            TOPIC_ALERTS: settings.alerts,
            TOPIC_DEAD_LETTERS: settings.dead_letters,
        }
        self._producer = Producer(
            {
                "bootstrap.servers": settings.servers,
                "acks": "all",
                "enable.idempotence": False,  # duplicates carry the same id; order per key holds
                "max.in.flight.requests.per.connection": 1,
                "linger.ms": 5,
                "message.timeout.ms": int(FLUSH_SECONDS * 1000),
                "message.max.bytes": 4_000_000,
                **settings.options,
            }
        )

    def send(self, store: Store, rows: Sequence[Pending]) -> list[int]:
        """Produce the messages and wait; those the broker did not take come again."""
        taken: list[int] = []
        for row in rows:
            record = to_kafka(_event(store, row))

            def report(error: object, _: object, seq: int = row.seq) -> None:
                if error is None:
                    taken.append(seq)
                else:
                    log.warning("kafka_delivery_failed", seq=seq, error=str(error))

            try:
                self._producer.produce(
                    self._topics.get(row.topic, row.topic),
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers.items()),
                    on_delivery=report,
                )
            except (BufferError, KafkaException) as error:
                log.warning("kafka_produce_failed", seq=row.seq, error=str(error))
                break
        self._producer.flush(FLUSH_SECONDS)
        return _without_gap(rows, taken)

    def close(self) -> None:
        """Send what is still buffered."""
        self._producer.flush(FLUSH_SECONDS)


def _without_gap(rows: Sequence[Pending], taken: Sequence[int]) -> list[int]:
    """The accepted messages before the first one that was not: order survives a failure."""
    accepted = set(taken)
    kept = []
    for row in rows:
        if row.seq not in accepted:
            break
        kept.append(row.seq)
    return kept


def relay_once(stores: Sequence[Store], channels: Sequence[Channel], metrics: Metrics) -> int:
    """One round over every store and channel; gives how many messages were published."""
    total = 0
    for store in stores:
        for channel in channels:
            total += _relay_channel(store, channel, metrics)
    for channel in channels:
        if isinstance(channel, FolderChannel):
            channel.settle()
    measure(stores, channels, metrics)
    return total


def measure(stores: Sequence[Store], channels: Sequence[Channel], metrics: Metrics) -> None:
    """How much each channel lacks of all stores, and since when. Where none lacks anything, what
    was committed before is published."""
    committed, waiting = metrics.newest("commit"), 0
    for channel in channels:
        found = [(store, *outbox.depth(store, channel.name)) for store in stores]
        ages = [(store.clock() - since).total_seconds() for store, _, since in found if since]
        depth = sum(count for _, count, _ in found)
        waiting += depth
        metrics.outbox_depth.labels(channel.name).set(depth)
        metrics.outbox_age.labels(channel.name).set(max(ages, default=0.0))
    if committed is not None and not waiting:
        metrics.acquired("publish", committed)


def _relay_channel(store: Store, channel: Channel, metrics: Metrics) -> int:
    total = 0
    while rows := outbox.pending(store, channel.name):
        with metrics.stage("publish"):
            accepted = channel.send(store, rows)
        outbox.delivered(store, channel.name, accepted)
        now = store.clock()
        taken = set(accepted)
        for row in (row for row in rows if row.seq in taken):
            metrics.event_to_publish.observe((now - row.created).total_seconds())
            metrics.told(channel.name, row.id, now)
        metrics.published.labels(channel.name).inc(len(accepted))
        total += len(accepted)
        if len(accepted) < len(rows):
            break
    return total
