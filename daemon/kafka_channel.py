"""The outbox to Kafka: CloudEvents in binary mode, in order, each until the broker has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer

from daemon.config import KafkaSettings
from daemon.kafka_errors import QUIET, Complaints, made
from daemon.relay import Answer, event_of
from schemas.envelope import TOPIC_ALERTS, TOPIC_CHANGES, TOPIC_DEAD_LETTERS, to_kafka
from updater.outbox import Pending
from updater.store import Store

FLUSH_SECONDS = 10.0
"""How long a delivery may take before the round is given up and tried again."""
LARGEST_BYTES: Final = 4_000_000
"""Largest message offered, before compression: coordinates shrink to a third, which a broker with
Kafka's own limit of 1 MB then just takes."""
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
        }
        self._complaints = Complaints("producer", count)
        self._producer: Producer = made(
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
                "error_cb": self._complaints,
            },
        )

    def send(self, store: Store, rows: Sequence[Pending]) -> Answer:
        """Produce the messages and wait; those the broker did not take come again.

        A message that is refused for good has been refused once more alone, for a broker answers
        for a whole batch.
        """
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

    def close(self) -> None:
        """Nothing is buffered between two rounds."""
        self._producer.flush(FLUSH_SECONDS)


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
