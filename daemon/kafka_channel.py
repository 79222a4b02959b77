"""The outbox to Kafka: CloudEvents in binary mode, in order, each until the broker has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cloudevents.core.bindings.kafka import KafkaMessage
from confluent_kafka import KafkaError, KafkaException, Producer

from daemon.config import KafkaSettings
from daemon.kafka_errors import QUIET, Complaints, made
from daemon.outcomes import Interrupted
from daemon.relay import Answer, event_of
from daemon.sources import SourceError
from schemas.envelope import (
    JUDGEMENT_TYPE,
    TASK_TYPE,
    TOPIC_ALERTS,
    TOPIC_CHANGES,
    TOPIC_DEAD_LETTERS,
    TOPIC_TASKS,
    cloud_event,
    to_kafka,
)
from schemas.task import Judgement
from updater.outbox import Pending
from updater.store import Store

FLUSH_SECONDS = 10.0
"""How long a delivery may take before the round is given up and tried again."""
LARGEST_BYTES: Final = 4_000_000
"""Largest message offered, before compression: coordinates shrink to a third, which a broker with
Kafka's own limit of 1 MB then just takes."""
DETECT_SOURCE: Final = "urn:millesimed:detect"
PARTITION_UA: Final = -1
"""librdkafka's word for "by the key"."""
NEVER: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
    }
)
"""Answers that stay the same however often a message is offered."""


class KafkaChannel:
    """Messages as CloudEvents in Kafka binary mode."""

    name = "kafka"

    def __init__(
        self, settings: KafkaSettings, count: Callable[[str, str], None] | None = None
    ) -> None:
        self._topics = {
            TOPIC_CHANGES: settings.changes,
            TOPIC_ALERTS: settings.alerts,
            TOPIC_DEAD_LETTERS: settings.dead_letters,
            TOPIC_TASKS: settings.tasks,
        }
        self._dealt = 0
        self._partitions: int | None = None
        self._complaints = Complaints("producer", count)
        self._producer = producer(settings, self._complaints)

    def send(self, store: Store, rows: Sequence[Pending]) -> Answer:
        """Produce the messages and wait; those the broker did not take come again.

        A message that is refused for good has been refused once more alone, for a broker answers
        for a whole batch.
        """
        self._partitions = None  # looked up once a round
        answers = self._offer(store, rows)
        for row in [row for row in rows if _is_final(answers.get(row.seq))]:
            del answers[row.seq]
            answers |= self._offer(store, [row])
        refused = {
            row.seq: error.str()
            for row in rows
            if (error := answers.get(row.seq)) is not None and _is_final(error)
        }
        taken = {row.seq for row in rows if row.seq in answers and answers[row.seq] is None}
        if taken:
            self._complaints.over()
        return Answer(_in_order(rows, taken, refused), refused)

    def _offer(self, store: Store, rows: Sequence[Pending]) -> dict[int, KafkaError | None]:
        """The broker's answer to each message, None where it has it; none where it said nothing."""
        answers: dict[int, KafkaError | None] = {}
        for row in rows:
            record = to_kafka(event_of(store, row))

            def answered(error: KafkaError | None, _: object, seq: int = row.seq) -> None:
                answers[seq] = error

            try:
                self._producer.produce(
                    self._topics.get(row.topic, row.topic),
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers.items()),
                    partition=self._partition(row),
                    on_delivery=answered,
                )
            except BufferError:
                break  # what is queued goes out first
            except KafkaException as error:
                answers[row.seq] = error.args[0]
        if self._producer.flush(FLUSH_SECONDS):
            self._producer.purge()  # else the next round's copies would queue behind these
            self._producer.flush(FLUSH_SECONDS)
        for problem in {e.code(): e for e in answers.values() if e is not None}.values():
            self._complaints(problem)
        return answers

    def _partition(self, row: Pending) -> int:
        """Tasks are dealt out in turn: whoever judges them, the answer is the same, and by their
        keys one worker would have twice what another has. The others go by their keys."""
        if row.type != TASK_TYPE:
            return PARTITION_UA
        if self._partitions is None:
            self._partitions = self._counted(self._topics[TOPIC_TASKS])
        self._dealt += 1
        return self._dealt % self._partitions if self._partitions else PARTITION_UA

    def _counted(self, topic: str) -> int:
        """Partitions of a topic, 0 where the broker does not say."""
        try:
            found = self._producer.list_topics(topic, FLUSH_SECONDS).topics.get(topic)
        except KafkaException:
            return 0
        return len(found.partitions) if found is not None else 0

    def close(self) -> None:
        """Nothing is buffered between two rounds."""
        self._producer.flush(FLUSH_SECONDS)


class JudgementChannel:
    """What a detect worker says, to the topic of judgements."""

    def __init__(
        self, settings: KafkaSettings, count: Callable[[str, str], None] | None = None
    ) -> None:
        self._topic = settings.judgements
        self._complaints = Complaints("producer", count)
        self._producer = producer(settings, self._complaints)

    def send(self, judgement: Judgement, stopping: Callable[[], bool]) -> None:
        """Send a judgement until the broker has it on all its disks.

        Raises:
            Interrupted: asked to stop; the task must come again.
            SourceError: the broker refuses it for good.
        """
        record = to_kafka(
            cloud_event(
                type_=JUDGEMENT_TYPE,
                id_=f"{judgement.task}.{judgement.attempt}",
                source=f"{DETECT_SOURCE}:{judgement.departement}",
                data=judgement,
                time=judgement.judged,
                key=f"{judgement.departement}/{judgement.task}",
            )
        )
        while True:
            answers = self._offer(record)
            if answers == [None]:
                self._complaints.over()
                return
            for error in answers:
                if error is not None and _is_final(error):
                    raise SourceError(f"Kafka refuses a judgement: {error.str()}; see the broker.")
                if error is not None:
                    self._complaints(error)
            if stopping():
                raise Interrupted

    def _offer(self, record: KafkaMessage) -> list[KafkaError | None]:
        """The broker's answer to a message, None where it has it; none where it said nothing."""
        answers: list[KafkaError | None] = []

        def answered(error: KafkaError | None, _: object) -> None:
            answers.append(error)

        self._producer.produce(
            self._topic,
            value=record.value,
            key=record.key,
            headers=list(record.headers.items()),
            on_delivery=answered,
        )
        if self._producer.flush(FLUSH_SECONDS):
            self._producer.purge()
            self._producer.flush(FLUSH_SECONDS)
        return answers

    def close(self) -> None:
        """Nothing is buffered."""
        self._producer.flush(FLUSH_SECONDS)


def producer(settings: KafkaSettings, complaints: Complaints) -> Producer:
    """A producer whose messages are on all disks before they count as sent."""
    made_: Producer = made(
        Producer,
        {
            "bootstrap.servers": settings.servers,
            "acks": "all",
            "enable.idempotence": False,  # duplicates carry the same id; order per key holds
            "max.in.flight.requests.per.connection": 1,
            "linger.ms": 5,
            "compression.type": "gzip",
            "message.timeout.ms": int(FLUSH_SECONDS * 1000),
            "message.max.bytes": LARGEST_BYTES,
            **QUIET,
            **settings.options,
            "error_cb": complaints,
        },
    )
    return made_


def _is_final(error: KafkaError | None) -> bool:
    return error is not None and error.code() in NEVER


def _in_order(rows: Sequence[Pending], taken: set[int], refused: Mapping[int, str]) -> list[int]:
    """The messages accepted with nothing of their key still waiting before them: the order within
    a key survives a failure, and one key's trouble holds up no other."""
    waiting: set[tuple[str, str]] = set()
    kept = []
    for row in rows:
        place = (row.topic, row.key)
        if row.seq in taken and place not in waiting:
            kept.append(row.seq)
        elif row.seq not in refused:
            waiting.add(place)
    return kept
