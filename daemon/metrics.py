"""Prometheus metrics of one service, made from the catalogue (``daemon.catalogue``).

The client library makes classic histograms only: it has a value type for native ones, but no
instrument that fills it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Lock
from time import perf_counter
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from daemon import journey
from daemon.catalogue import CATALOGUE
from daemon.families import STAGES, Family, Kind
from daemon.gpu import GpuCollector

__all__ = ["STAGES", "Metrics"]

REMEMBERED: Final = 10_000
"""Messages whose event's arrival is kept until they are published; the largest event has a few
thousand alerts."""


BROKERS_AWAY: Final = "_ALL_BROKERS_DOWN"
"""The complaint of a Kafka client that is counted from 0 on: the one everybody meets."""


class Metrics:
    """The metrics of one service, on a registry of its own; attributes as in the catalogue."""

    events: Counter
    last_event: Gauge
    dead_letters: Counter
    source_lag: Gauge
    source_waiting: Gauge
    asked: Gauge
    asked_waiting: Gauge
    kafka_errors: Counter
    acquired_images: Counter
    acquired_bytes: Counter
    acquire_failures: Counter
    acquire_success: Gauge
    acquire_owed: Gauge
    stage_started: Counter
    stage_in_progress: Gauge
    stage_finished: Counter
    stage_failures: Counter
    stage_seconds: Histogram
    newest_acquisition: Gauge
    loop: Gauge
    acquisition_to_patch: Histogram
    event_to_alert: Histogram
    event_to_publish: Histogram
    outbox_depth: Gauge
    outbox_age: Gauge
    published: Counter
    delivered: Counter
    subscription_backlog: Gauge
    subscription_waiting: Gauge
    parked: Gauge
    map_timestamp: Gauge
    map_area: Gauge
    covered: Gauge
    departement_info: Gauge
    patched_polygons: Counter
    patched_area: Counter
    changed_area: Counter
    transition_area: Counter
    transition_polygons: Counter
    alerts: Counter
    regions_ignored: Counter
    export_jobs: Gauge
    exports: Counter
    export_seconds: Histogram
    export_bytes: Gauge
    publications: Gauge
    export_written: Counter
    corrections: Counter
    scenes: Counter
    flagged: Gauge
    flagged_drift: Gauge
    confidence: Histogram
    residual: Histogram
    throughput: Gauge
    store_bytes: Gauge
    wal_bytes: Gauge
    free_bytes: Gauge
    checkpoint_seconds: Histogram
    checkpoint_at: Gauge
    build: Gauge

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for attribute, family in CATALOGUE.items():
            if not family.only:
                setattr(self, attribute, _made(family, self.registry))
        self._begin()
        self._begin(code=BROKERS_AWAY)
        for stage in STAGES:
            self.stage_in_progress.labels(stage).set(0)
        self.build.labels(*CATALOGUE["build"].labels["version"]).set(1)
        GpuCollector(self.registry)
        ProcessCollector(registry=self.registry)
        self._newest: dict[tuple[Gauge, str], datetime] = {}
        self._arrivals: OrderedDict[str, datetime] = OrderedDict()
        self._lock = Lock()

    def departement(self, code: str) -> None:
        """Begin a département's series at 0."""
        self._begin(departement=code)

    def source(self, kind: str, name: str) -> None:
        """Begin the series of a place images come from at 0."""
        self._begin(kind=kind, source=name)

    def _begin(self, **values: str) -> None:
        """Counters and histograms whose labels are all known, given some values; a gauge is not 0
        before anybody looked."""
        for attribute, family in CATALOGUE.items():
            if family.kind is not Kind.GAUGE and values.keys() <= family.labels.keys():
                for labels in family.series(**values) if family.labels else ():
                    getattr(self, attribute).labels(**labels)

    @contextmanager
    def stage(self, name: str, *, acquired: datetime | None = None) -> Iterator[None]:
        """Count an event through one stage: in, in progress, seconds, out, failures; logs and
        traces name it meanwhile."""
        self.stage_started.labels(name).inc()
        self.stage_in_progress.labels(name).inc()
        started = perf_counter()
        try:
            with journey.stage(name):
                yield
        except BaseException:
            self.stage_failures.labels(name).inc()
            raise
        finally:
            self.stage_in_progress.labels(name).dec()
            self.stage_seconds.labels(name).observe(perf_counter() - started)
        self.stage_finished.labels(name).inc()
        if acquired is not None:
            self.acquired(name, acquired)

    def acquired(self, stage: str, when: datetime) -> None:
        """A stage has finished an image of that date; an older one moves nothing back."""
        self._advance(self.newest_acquisition, stage, when)

    def newest(self, stage: str) -> datetime | None:
        """The newest image a stage has finished; None before the first."""
        return self._newest.get((self.newest_acquisition, stage))

    def shown(self, departement: str, when: datetime) -> None:
        """The map has taken in an image of that date; an older one moves nothing back."""
        self._advance(self.map_timestamp, departement, when)

    def _advance(self, gauge: Gauge, label: str, when: datetime) -> None:
        with self._lock:
            known = self._newest.get((gauge, label))
            if known is None or when > known:
                self._newest[gauge, label] = when
                gauge.labels(label).set(when.timestamp())

    def expect(self, messages: Iterable[str], arrived: datetime) -> None:
        """Messages that an event which arrived then will publish."""
        with self._lock:
            for message in messages:
                self._arrivals[message] = arrived
            while len(self._arrivals) > REMEMBERED:
                self._arrivals.popitem(last=False)

    def told(self, channel: str, message: str, now: datetime) -> None:
        """A message went out on a channel: observed where its event's arrival is known."""
        with self._lock:
            arrived = self._arrivals.get(message)
        if arrived is not None:
            seconds = max(0.0, (now - arrived).total_seconds())
            self.event_to_alert.labels(channel).observe(seconds)

    def text(self) -> bytes:
        """The exposition text of ``/metrics``."""
        return generate_latest(self.registry)


def _made(family: Family, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = tuple(family.labels)
    if family.kind is Kind.COUNTER:
        return Counter(family.name, family.help, labels, registry=registry)
    if family.kind is Kind.GAUGE:
        return Gauge(family.name, family.help, labels, registry=registry)
    return Histogram(family.name, family.help, labels, buckets=family.buckets, registry=registry)
