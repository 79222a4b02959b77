"""The roles a service can be split into, over Kafka: update, detect, relay.

``update`` owns stores and everything ``all`` does but the judging of pixels; a second one of the
same stores waits for their locks. ``detect`` has no store; any number of them share the tasks.
``relay`` empties the outboxes of stores nobody holds: DuckDB lets one process open a store, so
whoever holds it is the one that relays.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import Any, Final

import structlog

from daemon import tracing
from daemon.config import KafkaSettings, Settings
from daemon.detect_worker import Detecting
from daemon.exchange import Exchange
from daemon.http import HttpServer, application
from daemon.kafka_channel import JudgementChannel
from daemon.kafka_source import KafkaSource
from daemon.outcomes import Outcome
from daemon.relay import relay_once
from daemon.service import FRESHNESS_SECONDS, POLL_SECONDS, Handler, Service, offer_again
from daemon.sources import Message, Place, Source
from daemon.submit import Intake
from daemon.update import Updating
from schemas.errors import UsageError
from updater.errors import StoreLocked
from updater.reads import next_offsets
from updater.store import Store

log = structlog.get_logger()

STANDBY_SECONDS: Final = 1.0
"""Between two tries to open what another process holds."""
AT_REST_SECONDS: Final = 30.0
"""Between two rounds over stores nobody holds, each of which opens and closes them."""
LONGEST_GROUP: Final = 120
"""Characters of territories in a group's name; more of them become a checksum."""


class UpdateService(Service):
    """Owns stores: asks for judgements and applies them."""

    def _check(self, settings: Settings) -> None:
        super()._check(settings)
        kafka_of(settings, "update")

    @property
    def _kafka(self) -> KafkaSettings:
        return kafka_of(self.settings, "update")

    def _stores(self, stack: ExitStack) -> list[Store]:
        """The stores, once nobody else holds one of them; meanwhile HTTP says "not ready"."""
        with ExitStack() as waiting:
            said = False
            while not self._stop.is_set():
                self._turn()
                try:
                    return _all_opened(self.settings, stack)
                except StoreLocked as error:
                    if not said:
                        said = True
                        log.info("standby", why=str(error))
                        if self.settings.http.enabled and not self._once:
                            waiting.enter_context(_health(self))
                self._stop.wait(STANDBY_SECONDS)
        return []

    def _pipeline(self, stores: Sequence[Store]) -> Handler:
        exchange = Exchange(self.settings.exchange_folder())
        exchange.prepare()
        pipeline = Updating(
            stores,
            self.settings,
            self.metrics,
            kafka=self._kafka,
            exchange=exchange,
            stopping=self._stop.is_set,
            progress=self._progress,
        )
        pipeline.begin()
        return pipeline

    def _source(self, stores: Sequence[Store]) -> Source:
        kafka = self._kafka
        group = update_group(kafka.group, [store.territory for store in stores])
        return KafkaSource(
            kafka,
            lambda: least_offsets(stores),
            count=self._kafka_error,
            topics=[kafka.acquisitions, kafka.judgements],
            group=group,
            # the locks say who reads: the successor has the partitions at once
            own={"group.instance.id": group},
        )

    def _intake(self) -> Intake:
        return Intake.of(self.settings, always_kafka=True)

    def _next(self, source: Source, pipeline: Handler) -> Message | None:
        if isinstance(source, KafkaSource) and isinstance(pipeline, Updating):
            source.hold([self._kafka.acquisitions] if pipeline.full() else [])
        return super()._next(source, pipeline)


class DetectService(Service):
    """Judges what update processes ask for."""

    worker: type[Detecting] = Detecting

    def _check(self, settings: Settings) -> None:
        kafka_of(settings, "detect")
        settings.exchange_folder()

    def run(self) -> None:
        """Read tasks, send judgements.

        Raises:
            StoreError, SourceError, UsageError: what keeps the worker from running.
        """
        kafka = kafka_of(self.settings, "detect")
        exchange = Exchange(self.settings.exchange_folder())
        exchange.prepare()
        with ExitStack() as stack:
            self._heed_signals(stack)
            stack.callback(tracing.start(self.settings.otlp_endpoint))
            answers = JudgementChannel(kafka, self._kafka_error)
            stack.callback(answers.close)
            source = KafkaSource(
                kafka,
                None,
                count=self._kafka_error,
                topics=[kafka.tasks],
                group=f"{kafka.group}-detect",
            )
            stack.callback(source.close)
            if self.settings.http.enabled and not self._once:
                stack.enter_context(_health(self))
            watching = threading.Thread(target=self._watch, args=(source,), daemon=True)
            watching.start()
            stack.callback(watching.join)
            stack.callback(self._stop.set)
            worker = self.worker(
                self.settings,
                self.metrics,
                exchange=exchange,
                answers=answers,
                stopping=self._stop.is_set,
            )
            self._ready = True
            self._supervisor.ready()
            log.info("running", role="detect", once=self._once)
            self._loop(source, worker)
            self._ready = False

    def _watch(self, source: KafkaSource) -> None:
        """Keep the gauges of the tasks that wait fresh."""
        known: set[str] = set()
        while not self._stop.wait(FRESHNESS_SECONDS):
            lag = source.backlog().lag
            for partition, count in lag.items():
                self.metrics.source_lag.labels(partition).set(count)
            for partition in known - lag.keys():
                self.metrics.source_lag.remove(partition)
            known = set(lag)


class RelayService(Service):
    """Empties the outboxes of stores at rest."""

    published = 0

    def run(self) -> None:
        """Round after round until told to stop, or one (``once``).

        Raises:
            StoreError: a store cannot be opened, other than because somebody holds it.
        """
        with ExitStack() as stack:
            self._heed_signals(stack)
            if self.settings.http.enabled and not self._once:
                stack.enter_context(_health(self))
            self._ready = True
            self._supervisor.ready()
            while not self._stop.is_set():
                self.published += self._round()
                if self._once:
                    return
                self._idle(AT_REST_SECONDS)

    def _idle(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / POLL_SECONDS))):
            self._turn()
            if self._stop.wait(POLL_SECONDS):
                return

    def _round(self) -> int:
        """Every store nobody holds, each open no longer than it takes."""
        total = 0
        for path in self.settings.db:
            self._turn()
            try:
                with Store.open(path, memory=self.settings.store_memory) as store:
                    total += self._empty(store)
            except StoreLocked:
                if self._once:
                    raise
                log.info("store_held", store=path.name)  # by who relays it
        return total

    def _empty(self, store: Store) -> int:
        with ExitStack() as stack:
            channels = self.channels()
            for channel in channels:
                stack.callback(channel.close)
                offer_again([store], channel)
            subscribers = self.subscribers()
            stack.callback(subscribers.close)
            called = sum(subscribers.once(store).values())
            return called + relay_once([store], channels, self.metrics)


def kafka_of(settings: Settings, role: str) -> KafkaSettings:
    """The settings of Kafka, which a role needs.

    Raises:
        UsageError: there are none.
    """
    if settings.kafka is None or settings.inbox is not None:
        raise UsageError(
            f"The role {role} reads from Kafka; give --kafka or `[kafka]` and no inbox, or run the "
            "role all."
        )
    return settings.kafka


def update_group(group: str, territories: Sequence[str]) -> str:
    """The consumer group of an update process: every set of stores reads everything."""
    names = "-".join(sorted(territories))
    if len(names) > LONGEST_GROUP:
        names = sha256(names.encode()).hexdigest()[:16]
    return f"{group}-update-{names}"


def least_offsets(stores: Sequence[Store]) -> dict[Place, int]:
    """The next offset that some store has not had: what others had before is recognised."""
    known = [next_offsets(store) for store in stores]
    shared = set.intersection(*(set(places) for places in known))
    return {place: min(places[place] for places in known) for place in shared}


def updated(service: Service) -> dict[str, int]:
    """What a run of a role did, as ``--json`` gives it."""
    return {"received": service.received} | {
        outcome.value.replace("-", "_"): service.counts[outcome] for outcome in Outcome
    }


def _all_opened(settings: Settings, stack: ExitStack) -> list[Store]:
    """All stores, or none.

    Raises:
        StoreLocked: somebody holds one.
    """
    for path in settings.db:
        if Store.held(path):
            raise StoreLocked(f"The store {path.name} is in use by another process.")
    with ExitStack() as trying:
        stores = [
            trying.enter_context(Store.open(path, memory=settings.store_memory))
            for path in settings.db
        ]
        stack.push(trying.pop_all())
    return stores


def _health(service: Service) -> Any:  # noqa: ANN401 - a context manager
    """HTTP with health and metrics alone, while there is no store."""
    server = HttpServer(application(service, [], service.settings.http), service.settings.http)
    stack = ExitStack()
    server.start()
    stack.callback(server.stop)
    return stack
