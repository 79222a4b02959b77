"""Events from Kafka topics, as a member of a consumer group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_STORED,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import (
    Message as KafkaRecord,
)

from daemon.config import KafkaSettings
from daemon.kafka_errors import QUIET, Complaints, made
from daemon.sources import Backlog, Message, Place, SourceError
from schemas.dead_letter import Origin
from schemas.policy import MAX_EVENT_BYTES

log = structlog.get_logger()

BEAT_SECONDS = 0.05
"""How long a heartbeat listens."""
PAUSE_AFTER_SECONDS = 2.0
"""Work that takes longer is kept alive by polling with everything paused. A pause throws away what
was fetched ahead, which costs short work more than it takes."""
FETCH_WAIT_MS = 100
"""How long the broker may hold a fetch that finds nothing: a partition that was paused meanwhile is
not asked for before."""
END_SECONDS = 2.0
"""How long a broker may take to say where a partition ends."""
ASSIGN_SECONDS = 10.0
"""How long it may take to say how far a group is, when its partitions are given out."""
TOPIC_LOOK_MS = 10_000
"""Between two looks for the topic, which may be created after the start."""


class KafkaSource:
    """A consumer-group member whose position is the store's, not the broker's.

    On assignment every partition seeks to the offset the store holds; committing to the broker
    afterwards is a courtesy to lag dashboards. Only who has no store (``offsets`` is None) goes on
    where the broker's own record says. While a message is worked on for long all partitions are
    paused and polling goes on, so that a long detection never looks like a dead consumer.

    ``topics``: what is read, the acquisitions where nothing is said; ``group``: likewise; ``own``:
    settings of librdkafka that the configuration does not overrule.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        offsets: Callable[[], dict[Place, int]] | None,
        *,
        count: Callable[[str, str], None] | None = None,
        topics: Sequence[str] = (),
        group: str | None = None,
        own: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        self._topics = list(topics) or [settings.acquisitions]
        self._offsets = offsets
        self._assigned: dict[Place, bool] = {}
        self._next: dict[Place, int] = {}
        self._lag: dict[Place, int] = {}
        self._in_hand: datetime | None = None
        self._handed_out = -math.inf
        self._paused = False
        self._held: frozenset[str] = frozenset()
        self._complaints = Complaints("consumer", count)
        self._consumer: Consumer = made(
            Consumer,
            {
                "bootstrap.servers": settings.servers,
                "group.id": group or settings.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "partition.assignment.strategy": "range",
                "max.partition.fetch.bytes": 4 * MAX_EVENT_BYTES,
                "fetch.max.bytes": 4 * MAX_EVENT_BYTES,
                "queued.max.messages.kbytes": 16_384,
                "topic.metadata.refresh.interval.ms": TOPIC_LOOK_MS,
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                **QUIET,
                **settings.options,
                **(own or {}),
                "error_cb": self._complaints,
            },
        )
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        known = self._committed(partitions) if self._offsets is None else self._offsets()
        for part in partitions:
            place = (part.topic, part.partition)
            part.offset = OFFSET_STORED if known is None else known.get(place, OFFSET_BEGINNING)
            self._assigned[place] = False
            self._next[place] = part.offset
        consumer.assign(partitions)
        # one that went away while it was paused comes back paused
        still = [p for p in partitions if self._paused or p.topic in self._held]
        consumer.pause(still)
        consumer.resume([p for p in partitions if p not in still])
        self._complaints.over()
        log.info(
            "partitions_assigned",
            partitions=[p.partition for p in partitions if p.topic == self._topics[0]],
        )

    def _committed(self, partitions: list[TopicPartition]) -> dict[Place, int] | None:
        """The broker's record of the group; None where it does not say, and is to be asked again by
        the client itself."""
        try:
            found = self._consumer.committed(partitions, timeout=ASSIGN_SECONDS)
        except KafkaException as error:
            log.warning("positions_unknown", error=str(error))
            return None
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            self._assigned.pop((part.topic, part.partition), None)
            self._next.pop((part.topic, part.partition), None)

    def next(self, timeout: float) -> Message | None:
        """The next record, or None."""
        self._resume()
        record = self._consumer.poll(timeout)
        return None if record is None else self._message(record)

    def hold(self, topics: Iterable[str]) -> None:
        """Hand out nothing of some topics until asked otherwise; the others go on."""
        held = frozenset(topics)
        if held == self._held:
            return
        places = self._consumer.assignment()
        self._consumer.pause([p for p in places if p.topic in held])
        self._consumer.resume([p for p in places if p.topic in self._held - held])
        self._held = held

    def _message(self, record: KafkaRecord) -> Message | None:
        error = record.error()
        if error is not None:
            self._note(error, record)
            return None
        self._complaints.over()
        place = _place(record)
        if place.topic in self._held:  # fetched before
            self._back_to(place)
            return None
        origin = Origin(
            source="kafka", topic=place.topic, partition=place.partition, offset=place.offset
        )
        value = _bytes(record.value())
        self._assigned[place.topic, place.partition] = False
        kind, milliseconds = record.timestamp()
        known = kind != TIMESTAMP_NOT_AVAILABLE
        self._in_hand = datetime.fromtimestamp(milliseconds / 1000, UTC) if known else None
        self._handed_out = monotonic()
        return Message(
            value,
            _headers(record),
            origin,
            len(value),
            sent=self._in_hand,
            key=_bytes(record.key()).decode("utf-8", "replace"),
        )

    def _note(self, error: KafkaError, record: KafkaRecord) -> None:
        """What comes instead of a record: the end of a partition, or a complaint."""
        if error.code() == KafkaError._PARTITION_EOF:
            self._complaints.over()
            end = _place(record)
            if (end.topic, end.partition) in self._assigned:
                self._assigned[end.topic, end.partition] = True
                self._passed((end.topic, end.partition), end.offset)
        elif error.fatal():
            raise SourceError(f"Kafka gave up: {error.str()}; check the broker and restart.")
        else:
            self._complaints(error)

    def heartbeat(self) -> None:
        """Poll with everything paused, where work has become long: keeps the membership, hands out
        nothing."""
        if monotonic() - self._handed_out < PAUSE_AFTER_SECONDS:
            return
        if not self._paused:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        record = self._consumer.poll(BEAT_SECONDS)
        if record is None:
            return
        error = record.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._note(error, record)
        elif error is None:
            self._back_to(_place(record))

    def _back_to(self, place: TopicPartition) -> None:
        """Go back to a record fetched before a pause took hold; it comes again."""
        try:
            self._consumer.seek(place)
        except KafkaException as error:  # the partition went elsewhere: the store knows the place
            log.info("partition_lost", partition=place.partition, error=str(error))

    def _resume(self) -> None:
        if self._paused:
            places = self._consumer.assignment()
            self._consumer.resume([p for p in places if p.topic not in self._held])
            self._paused = False

    def done(self, message: Message, *, failed: bool) -> None:
        """Tell the broker how far the store is."""
        origin = message.origin
        if origin.offset is None:
            return
        self._in_hand = None
        self._passed((origin.topic, origin.partition), origin.offset + 1)
        try:
            self._consumer.commit(
                offsets=[TopicPartition(origin.topic, origin.partition, origin.offset + 1)],
                asynchronous=True,
            )
        except KafkaException as error:
            log.warning("offset_commit_failed", error=str(error), failed=failed)

    def drained(self) -> bool:
        """True when every assigned partition has been read to its end."""
        return bool(self._assigned) and all(self._assigned.values())

    def _passed(self, place: Place, offset: int) -> None:
        if place in self._next:
            self._next[place] = offset

    def backlog(self) -> Backlog:
        """The broker's end of each partition less where the store is; the last answer where the
        broker does not give one. The client's own copy of the end stands still while a message is
        worked on, so the broker is asked."""
        behind: dict[Place, int] = {}
        for (topic, partition), offset in sorted(self._next.items()):
            place = TopicPartition(topic, partition)
            try:
                ends = self._consumer.get_watermark_offsets(place, timeout=END_SECONDS)
            except KafkaException as error:
                log.warning("lag_unknown", partition=partition, error=str(error))
                break
            if ends is None:  # in time
                break
            behind[topic, partition] = max(0, ends[1] - max(ends[0], offset))
        self._lag = {n: behind.get(n, self._lag.get(n, 0)) for n in self._next}
        return Backlog({self._label(place): n for place, n in self._lag.items()}, self._in_hand)

    def _label(self, place: Place) -> str:
        """A partition's number, with its topic where there are several."""
        return str(place[1]) if len(self._topics) == 1 else f"{place[0]}/{place[1]}"

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


def _place(record: KafkaRecord) -> TopicPartition:
    """Topic, partition and offset of a delivered record."""
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    if topic is None or partition is None or offset is None:
        raise SourceError("Kafka handed out a record without a place; restart the service.")
    return TopicPartition(topic, partition, offset)


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _headers(record: KafkaRecord) -> dict[str, bytes]:
    found = record.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return {str(name): _bytes(value) for name, value in pairs}
