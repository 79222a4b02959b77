"""Where events come from: an inbox folder or a Kafka topic, behind one protocol.

A source hands out one message at a time, is told when its effect is committed (``done``), and is
kept alive while a long detection runs (``heartbeat``).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

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
from schemas.dead_letter import Origin
from schemas.errors import MillesimedError
from schemas.policy import MAX_EVENT_BYTES

log = structlog.get_logger()

IDLE_SECONDS = 0.2
"""Between two looks at an empty inbox: quick enough for a person, cheap enough for a disk."""
END_SECONDS = 2.0
"""How long a broker may take to say where a partition ends."""
AGAIN_SECONDS = 60.0
"""Between two looks at a file that cannot be read: somebody has to mend its rights first."""
ASSIGN_SECONDS = 10.0
"""How long it may take to say how far a group is, when its partitions are given out."""


TOPIC_LOOK_MS = 10_000
"""Between two looks for the topic, which may be created after the start."""


class SourceError(MillesimedError):
    """The source cannot be read."""

    reason = "source"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: bytes (None where they are too many to read), headers, origin, when
    it was sent, its partition key; ``again``: the store knows already that it was read."""

    value: bytes | None
    headers: Mapping[str, bytes]
    origin: Origin
    size: int
    path: Path | None = None
    sent: datetime | None = None
    key: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a source still holds: messages without effect by partition (the one in hand counts),
    and when the oldest known of them was sent."""

    lag: Mapping[str, int]
    oldest: datetime | None


class Source(Protocol):
    """A stream of messages."""

    def next(self, timeout: float) -> Message | None:
        """The next message, or None when none came in time."""
        ...

    def heartbeat(self) -> None:
        """Say "still here" while a message is being worked on."""
        ...

    def done(self, message: Message, *, failed: bool) -> None:
        """The message's effect (or its dead letter) is committed."""
        ...

    def drained(self) -> bool:
        """True when everything that was there has been handed out."""
        ...

    def backlog(self) -> Backlog:
        """What waits; asked by another thread than the one that reads."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class InboxSource:
    """Events as files in a folder, oldest name first.

    A finished file moves to ``done/``, one that became a dead letter to ``failed/``: the
    original bytes stay whatever their size. A file is only moved after its effect is committed;
    a crash between the two makes the event come again, and the store knows it. What cannot be read
    (rights, a pipe, a link) stays where it is and counts as waiting, holds up nothing else, is said
    once and looked at again later.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._waiting: list[Path] = []
        self._again: dict[str, float] = {}
        """When to look again at what could not be read, by name."""

    def _entries(self) -> list[Path]:
        """Everything that may be an event.

        Raises:
            SourceError: the folder is gone or may not be read.
        """
        try:
            found = [
                path
                for path in self.folder.iterdir()
                if not path.name.startswith(".") and path.suffix != ".part" and not path.is_dir()
            ]
        except OSError as error:
            raise SourceError(
                f"The inbox {self.folder} cannot be listed ({error.strerror}); put it back and "
                "give the service the right to it."
            ) from None
        return sorted(found, key=lambda path: path.name)

    def _list(self) -> list[Path]:
        """What is to be read now."""
        found, now = self._entries(), self._clock()
        names = {path.name for path in found}
        self._again = {name: at for name, at in self._again.items() if name in names}
        return [path for path in found if self._again.get(path.name, now) <= now]

    def next(self, timeout: float) -> Message | None:
        """The next file; waits up to ``timeout`` seconds for one to appear."""
        until = time.monotonic() + timeout
        while not self._waiting:
            self._waiting = self._list()
            if self._waiting:
                break
            if time.monotonic() >= until:
                return None
            time.sleep(min(IDLE_SECONDS, timeout))
        path = self._waiting.pop(0)
        try:
            value, size, written = _plain_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._set_aside(path, error)
            return None
        origin = Origin(source="inbox", topic=_text(self.folder.name), path=_text(path.name))
        return Message(value, {}, origin, size, path, datetime.fromtimestamp(written, UTC))

    def _set_aside(self, path: Path, error: OSError) -> None:
        if path.name not in self._again:
            log.warning(
                "inbox_file_unreadable",
                file=_text(path.name),
                error=error.strerror,
                advice="give the service the right to read it, or put a plain file there",
            )
        self._again[path.name] = self._clock() + AGAIN_SECONDS

    def heartbeat(self) -> None:
        """A folder needs none."""

    def done(self, message: Message, *, failed: bool) -> None:
        """Move the file out of the way, beside those of the same name that came before.

        Raises:
            SourceError: the folder cannot be written; the event is known when it comes again.
        """
        if message.path is None:
            return
        folder = self.folder / ("failed" if failed else "done")
        try:
            folder.mkdir(exist_ok=True)
            message.path.rename(_free(folder, message.path))
        except FileNotFoundError:
            log.warning("inbox_file_went_away", file=message.origin.path)
        except OSError as error:
            raise SourceError(
                f"The inbox file {message.origin.path} cannot be moved to {folder.name}/ "
                f"({error.strerror}); give the service the right to write there."
            ) from None

    def drained(self) -> bool:
        """True when no file waits that can be read."""
        return not self._waiting and not self._list()

    def backlog(self) -> Backlog:
        """Every file that lies there; one in hand is only moved once it has its effect."""
        times = []
        for path in self._entries():
            with suppress(FileNotFoundError):  # done in the meantime
                times.append(path.lstat().st_mtime)
        oldest = datetime.fromtimestamp(min(times), UTC) if times else None
        return Backlog({"inbox": len(times)}, oldest)

    def close(self) -> None:
        """Nothing to let go of."""


def _plain_file(path: Path) -> tuple[bytes | None, int, float]:
    """Bytes (None where they are too many), size and time of a file, which must be one: a pipe
    would never end, and a link may lead to what its writer could not read.

    Raises:
        OSError: it is none, or may not be read.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link")
    _check_plain(path.lstat())  # first, for opening a pipe wakes who writes to it
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        state = os.fstat(handle)
        _check_plain(state)  # again, for another may have taken its name
        value = stream.read(MAX_EVENT_BYTES + 1)
    fits = len(value) <= MAX_EVENT_BYTES
    return (value if fits else None), max(state.st_size, len(value)), state.st_mtime


def _check_plain(state: os.stat_result) -> None:
    if not S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file")


def _text(name: str) -> str:
    """A file name as text that can be stored, also where its bytes are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _free(folder: Path, path: Path) -> Path:
    """A name in a folder that no file has: the same one, or one with a number."""
    target, number = folder / path.name, 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem}-{number}{path.suffix}"
    return target


Place = tuple[str, int]
"""Topic and partition."""


class KafkaSource:
    """A consumer-group member whose position is the store's, not the broker's.

    On assignment every partition seeks to the offset the store holds; committing to the broker
    afterwards is a courtesy to lag dashboards. Only who has no store (``offsets`` is None) goes on
    where the broker's own record says. While a message is worked on all partitions are paused and
    polling goes on, so that a long detection never looks like a dead consumer.

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
        """Poll with everything paused: keeps the membership, hands out nothing."""
        if not self._paused:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        record = self._consumer.poll(IDLE_SECONDS / 4)
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
