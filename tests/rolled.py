"""Update and detect in one process, message by message, with no broker between them."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from daemon.config import HttpSettings, KafkaSettings, Settings
from daemon.detect_worker import Detecting
from daemon.exchange import Exchange
from daemon.metrics import Metrics
from daemon.outcomes import Outcome
from daemon.relay import event_of
from daemon.sources import Message
from daemon.update import Updating
from schemas.dead_letter import Origin
from schemas.envelope import JUDGEMENT_TYPE, TASK_TYPE, cloud_event, to_kafka
from schemas.task import Judgement
from updater import outbox
from updater.store import Store

KAFKA = KafkaSettings(servers="127.0.0.1:1")


def settings_of(folder: Path, *stores: Path, **more: object) -> Settings:
    """Settings of every role."""
    return Settings(
        db=list(stores),
        exchange=folder / "exchange",
        outbox=folder / "outbox",
        http=HttpSettings(enabled=False),
        detector="siamese",
        device="cpu",
        kafka=KAFKA,
        **more,
    )


def message(number: int, body: bytes, *, key: str = "", topic: str = KAFKA.acquisitions) -> Message:
    """An acquisition as Kafka hands it out."""
    return Message(body, {}, Origin(source="kafka", topic=topic, offset=number), len(body), key=key)


class Loop:
    """An update process over copies of a store, and the worker it asks."""

    def __init__(self, folder: Path, *stores: Path, kafka: KafkaSettings = KAFKA) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / path.name for path in stores]
        for path, source in zip(self.paths, stores, strict=True):
            if not path.exists():
                shutil.copy(source, path)
        self.folder = folder
        self.kafka = kafka
        self.settings = settings_of(folder, *self.paths)
        self.exchange = Exchange(self.settings.exchange_folder())
        self.said: list[Judgement] = []
        self.worker = Detecting(self.settings, Metrics(), exchange=self.exchange, answers=self)
        self.sent = 0
        self.answered = 0
        self.seen = 0
        self._open()

    def _open(self) -> None:
        self._stack = ExitStack()
        self.stores = [self._stack.enter_context(Store.open(path)) for path in self.paths]
        self.store = self.stores[0]
        self.exchange.prepare()
        self.update = Updating(
            self.stores, self.settings, Metrics(), kafka=self.kafka, exchange=self.exchange
        )
        self.update.begin()

    def reopen(self) -> None:
        """Another update process takes over."""
        self.close()
        self._open()

    def close(self) -> None:
        """Let go of the stores."""
        self._stack.close()

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, judgement: Judgement, stopping: object = None) -> None:
        """Where the worker's judgements go."""
        self.said.append(judgement)

    def arrive(self, body: bytes, *, key: str = "") -> Outcome:
        """An acquisition is read."""
        self.sent += 1
        return self.update.handle(message(self.sent - 1, body, key=key))

    def tasks(self) -> list[Message]:
        """Tasks that went out since the last look, as a worker reads them."""
        found = []
        for store in self.stores:
            for row in outbox.after(store, 0, type_=TASK_TYPE, limit=10_000):
                record = to_kafka(event_of(store, row))
                origin = Origin(source="kafka", topic=KAFKA.tasks, offset=row.seq)
                found.append(Message(record.value, dict(record.headers), origin, len(record.value)))
        fresh, self.seen = found[self.seen :], len(found)
        return fresh

    def judge(self, task: Message) -> Judgement:
        """The worker judges a task."""
        assert self.worker.handle(task) is Outcome.JUDGED
        return self.said[-1]

    def answer(self, judgement: Judgement) -> Outcome:
        """A judgement is read."""
        record = to_kafka(
            cloud_event(
                type_=JUDGEMENT_TYPE,
                id_=f"{judgement.task}.{judgement.attempt}",
                source="urn:test",
                data=judgement,
                time=judgement.judged,
                key=f"{judgement.departement}/{judgement.task}",
            )
        )
        self.answered += 1
        origin = Origin(source="kafka", topic=KAFKA.judgements, offset=self.answered - 1)
        read = Message(
            record.value,
            dict(record.headers),
            origin,
            len(record.value),
            key=str(record.key),
        )
        return self.update.handle(read)

    def work_off(self) -> None:
        """Judge and answer until nothing is out."""
        while tasks := self.tasks():
            for task in tasks:
                self.answer(self.judge(task))
