"""The running service: one source, one pipeline, a relay, a scheduler and an HTTP server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from time import monotonic
from types import FrameType
from typing import Protocol

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from daemon import tracing
from daemon.acquire.round import Acquirer
from daemon.acquire.sources import close_all, ground_of, schedule
from daemon.backups import Backups
from daemon.config import Settings
from daemon.http import HttpServer, application
from daemon.inbox_source import InboxSource
from daemon.jobs.jobs import Exports
from daemon.jobs.records import Shelf
from daemon.kafka_channel import KafkaChannel
from daemon.kafka_source import KafkaSource
from daemon.mail import MailCarrier
from daemon.metrics import Metrics
from daemon.pictures import Drawer
from daemon.pipeline import Interrupted, Outcome, Pipeline
from daemon.relay import Channel, FolderCarrier, FolderChannel, relay_once
from daemon.sources import Message, Source
from daemon.submit import Intake
from daemon.subscribers import Carrier, SubscriberRelay
from daemon.supervisor import Supervisor
from daemon.watch import Watch
from daemon.webhook import WebhookCarrier
from detectors.types import Progress
from schemas.errors import UsageError
from schemas.subscription import ChannelKind
from updater import faults, outbox
from updater.errors import StoreError
from updater.reads import next_offsets
from updater.store import Store

log = structlog.get_logger()

POLL_SECONDS = 0.5
"""Longest wait for a message, so that a stop request is seen at once."""
ALIVE_SECONDS = 60.0
"""A main loop that has not turned for this long counts as hung (it turns four times a second even
while a detection runs)."""
TURN_SECONDS = 0.25
"""Wait for an event before the source is kept alive: most small ones are done by then, and a
consumer that pauses drops what it has fetched ahead."""
FRESHNESS_SECONDS = 15.0
"""Between two looks at files, backlogs and progress: Prometheus' usual scrape interval."""


class Handler(Protocol):
    """What the messages of a source are given to."""

    counts: dict[Outcome, int]

    def handle(self, message: Message) -> Outcome:
        """Take one message all the way."""
        ...

    def left_over(self) -> Iterable[Message]:
        """Messages to handle before the source is read."""
        ...

    def rest(self) -> bool:
        """Nothing came; True where nothing is under way."""
        ...

    def leave(self) -> None:
        """Nothing more will come."""
        ...


class Service:
    """Runs until told to stop, or until the source is drained (``once``)."""

    def __init__(
        self, settings: Settings, *, once: bool = False, progress: Progress | None = None
    ) -> None:
        self._check(settings)
        self.settings = settings
        self.metrics = Metrics()
        self.counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.received = 0
        self._once = once
        self._stop = threading.Event()
        self._relaying = threading.Lock()
        self._calling = threading.Lock()
        self._at_rest = False
        self._drawer = Drawer(
            settings.outbox_folder() / "chips", self._stop.is_set, lambda: not self._at_rest
        )
        self._beat = monotonic()
        self._supervisor = Supervisor()
        self._progress = progress
        self._ready = False
        folder = settings.backup_folder
        self._backups = None if folder is None else Backups(folder, settings.backups_kept)
        self._failure: StoreError | None = None

    def _check(self, settings: Settings) -> None:
        if not settings.db:
            raise UsageError("No store is configured; give --db FILE or `db` in millesimed.toml.")

    def stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Ask for a clean stop: the event in hand is given up between two tiles, uncommitted."""
        log.info("stopping", signal=signum)
        self._supervisor.stopping()
        self._stop.set()

    @property
    def alive(self) -> bool:
        """The main loop turns."""
        return monotonic() - self._beat < ALIVE_SECONDS

    @property
    def ready(self) -> bool:
        """Stores are open and the source is being read."""
        return self._ready and not self._stop.is_set()

    def run(self) -> None:
        """Open everything, carry messages, close everything.

        Raises:
            StoreError, SourceError, UsageError: what keeps the service from running.
        """
        with ExitStack() as stack:
            self._heed_signals(stack)
            stack.callback(tracing.start(self.settings.otlp_endpoint))
            stores = self._stores(stack)
            if not stores:  # asked to stop before there were any
                return
            pipeline = self._pipeline(stores)
            channels = self.channels()
            for channel in channels:
                stack.callback(channel.close)
                offer_again(stores, channel)
            source = self._source(stores)
            stack.callback(source.close)
            subscribers = self.subscribers()
            stack.callback(subscribers.close)
            watch = Watch(self.metrics, self.settings, stores, channels, source)
            sources: list[Acquirer] = []
            stack.callback(close_all, sources)
            scheduler = self._schedule(stores, channels, subscribers, watch)
            stack.callback(scheduler.shutdown, wait=True)
            stack.callback(self._stop.set)  # a download ends with the service, however that ends
            if not self._once:
                ground = ground_of(stores)
                sources += schedule(
                    scheduler, self.settings, metrics=self.metrics, ground=ground, stop=self._stop
                )
            if self.settings.http.enabled and not self._once:
                networks = self.settings.webhook_networks
                exports = self._exports(stores)
                stack.callback(exports.stop)
                exports.start()
                http, intake = self.settings.http, self._intake()
                app = application(self, stores, http, networks, self._backups, exports, intake)
                server = HttpServer(app, self.settings.http)
                server.start()
                stack.callback(server.stop)
            self._ready = True
            self._supervisor.ready()
            log.info("running", stores=[s.territory for s in stores], once=self._once)
            self._loop(source, pipeline)
            self._ready = False
            if self._failure is not None:
                raise self._failure
            self._relay(stores, channels)
            self._call(stores, subscribers)
            self._drawer.everything(stores)

    def _exports(self, stores: Sequence[Store]) -> Exports:
        shelf = Shelf(self.settings.exports_folder())
        return Exports(self.settings.exports, shelf, stores, self.metrics)

    def _heed_signals(self, stack: ExitStack) -> None:
        """Stop when asked to, for as long as the stack lasts; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                stack.callback(signal.signal, number, signal.signal(number, self.stop))

    def _stores(self, stack: ExitStack) -> list[Store]:
        """The stores, opened; none where the service was asked to stop before."""
        memory = self.settings.store_memory
        return [stack.enter_context(Store.open(path, memory=memory)) for path in self.settings.db]

    def _pipeline(self, stores: Sequence[Store]) -> Handler:
        return Pipeline(
            stores,
            self.settings,
            self.metrics,
            stopping=self._stop.is_set,
            progress=self._progress,
        )

    def _next(self, source: Source, pipeline: Handler) -> Message | None:
        return source.next(POLL_SECONDS)

    def _loop(self, source: Source, pipeline: Handler) -> None:
        self.counts = pipeline.counts
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="event") as worker:
            self._read(source, pipeline, worker)
            worker.submit(pipeline.leave).result()

    def _read(self, source: Source, pipeline: Handler, worker: ThreadPoolExecutor) -> None:
        """Give everything that comes to the pipeline."""
        for left in pipeline.left_over():
            if self._carry(worker.submit(pipeline.handle, left), source) is None:
                return
        while not self._stop.is_set():
            self._turn()
            message = self._next(source, pipeline)
            if message is None:
                self._at_rest = worker.submit(pipeline.rest).result()
                if self._once and self._at_rest and source.drained():
                    return
                continue
            self._at_rest = False
            faults.reached("after-read")
            self.received += 1
            outcome = self._carry(worker.submit(pipeline.handle, message), source)
            if outcome is None:
                return
            faults.reached("before-offset-commit")
            source.done(message, failed=outcome is Outcome.DEAD_LETTERED)

    def _carry(self, work: Future[Outcome], source: Source) -> Outcome | None:
        """Wait for an event, keeping the source alive; None when it was interrupted."""
        while not wait([work], TURN_SECONDS).done:
            self._turn()
            source.heartbeat()
        try:
            return work.result()
        except Interrupted:
            return None

    def _turn(self) -> None:
        self._beat = monotonic()
        self._supervisor.alive()
        self.metrics.loop.set_to_current_time()

    def _source(self, stores: Sequence[Store]) -> Source:
        if self.settings.kafka is not None and self.settings.inbox is None:
            return KafkaSource(
                self.settings.kafka,
                lambda: _merged_offsets(stores),
                count=self._kafka_error,
            )
        return InboxSource(self.settings.inbox_folder())

    def _intake(self) -> Intake:
        """Where what comes in over HTTP goes: where the source reads."""
        return Intake.of(self.settings)

    def channels(self) -> list[Channel]:
        """Everywhere messages go, by the settings."""
        channels: list[Channel] = [FolderChannel(self.settings.outbox_folder())]
        if self.settings.kafka is not None:
            channels.append(KafkaChannel(self.settings.kafka, self._kafka_error))
        return channels

    def _kafka_error(self, client: str, code: str) -> None:
        self.metrics.kafka_errors.labels(client, code).inc()

    def subscribers(self) -> SubscriberRelay:
        """Everyone who is told, by the settings."""
        carriers: dict[ChannelKind, Carrier] = {
            ChannelKind.WEBHOOK: WebhookCarrier(self.settings.webhook_networks),
            ChannelKind.FOLDER: FolderCarrier(self.settings.outbox_folder() / "subscriptions"),
        }
        if self.settings.smtp is not None:
            public_url = self.settings.http.public_url
            carriers[ChannelKind.MAIL] = MailCarrier(self.settings.smtp, public_url)
        return SubscriberRelay(carriers, digest_hour=self.settings.digest_hour)

    def _schedule(
        self,
        stores: Sequence[Store],
        channels: Sequence[Channel],
        subscribers: SubscriberRelay,
        watch: Watch,
    ) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1}
        )
        every = self.settings
        scheduler.add_job(
            self._relay, "interval", (stores, channels), seconds=every.retry_seconds, id="outbox"
        )
        scheduler.add_job(  # apart, for a receiver that hangs must hold up nobody else
            self._call,
            "interval",
            (stores, subscribers),
            seconds=every.retry_seconds,
            id="subscribers",
        )
        scheduler.add_job(
            self._drawer.some, "interval", (stores,), seconds=every.retry_seconds, id="pictures"
        )
        scheduler.add_job(
            self._checkpoint,
            "interval",
            (watch,),
            seconds=every.checkpoint_seconds,
            id="checkpoint",
        )
        if self._backups is not None:
            scheduler.add_job(
                self._backups.round,
                "interval",
                (stores,),
                hours=every.backup_hours,
                next_run_time=self._backups.due(stores, every.backup_hours),
                misfire_grace_time=None,  # late is better than a day later
                id="backups",
            )
        scheduler.add_job(watch.look, "interval", seconds=FRESHNESS_SECONDS, id="freshness")
        watch.begin()
        scheduler.start()
        return scheduler

    def _relay(self, stores: Sequence[Store], channels: Sequence[Channel]) -> None:
        with self._relaying:
            relay_once(stores, channels, self.metrics)

    def _call(self, stores: Sequence[Store], subscribers: SubscriberRelay) -> None:
        with self._calling:
            for store in stores:
                for channel, count in subscribers.once(store).items():
                    self.metrics.delivered.labels(channel.value).inc(count)

    def _checkpoint(self, watch: Watch) -> None:
        """Fold the logs in; a store that cannot is closed to everybody, so the service ends."""
        try:
            watch.checkpoint()
        except StoreError as error:
            self._failure = error
            self._stop.set()


def offer_again(stores: Sequence[Store], channel: Channel) -> None:
    """What a channel refused before is offered once more: a limit may have been raised."""
    for store in stores:
        outbox.offer_again(store, channel.name)


def _merged_offsets(stores: Sequence[Store]) -> dict[tuple[str, int], int]:
    """The furthest offset any store has taken in: this process handles a partition in order."""
    merged: dict[tuple[str, int], int] = {}
    for store in stores:
        for place, offset in next_offsets(store).items():
            merged[place] = max(offset, merged.get(place, 0))
    return merged


def handled(service: Service) -> dict[str, int]:
    """Events of a run by outcome, as ``--json`` gives them."""
    return {
        "received": service.received,
        "processed": service.counts[Outcome.PROCESSED],
        "duplicates": service.counts[Outcome.DUPLICATE],
        "dead_lettered": service.counts[Outcome.DEAD_LETTERED],
    }
