"""Prometheus metrics, in one catalogue. Conventions: prefix, base units, ``_total``, no label
whose values have no bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from daemon import __version__

STAGES = ("validate", "locate", "detect", "plan", "commit", "publish")
"""The way of one event, in order."""

_STAGE_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600, 3600)
"""Seconds: validating takes a millisecond, detecting a 5 km tile at 0.2 m minutes."""
_LATENCY_BUCKETS = (1, 10, 60, 600, 3600, 86400, 7 * 86400, 30 * 86400, 180 * 86400, 730 * 86400)
"""Seconds: from an embedded run to the two years a millésime takes today."""


class Metrics:
    """The metrics of one service, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.events = Counter(
            "millesimed_events", "Acquisition events by outcome.", ["outcome"], registry=r
        )
        self.dead_letters = Counter(
            "millesimed_dead_letters", "Dead letters by reason.", ["reason"], registry=r
        )
        self.stage_in_progress = Gauge(
            "millesimed_stage_in_progress", "Events in a stage now.", ["stage"], registry=r
        )
        self.stage_failures = Counter(
            "millesimed_stage_failures", "Events that failed in a stage.", ["stage"], registry=r
        )
        self.stage_seconds = Histogram(
            "millesimed_stage_seconds",
            "Time an event spends in a stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=r,
        )
        self.newest_acquisition = Gauge(
            "millesimed_newest_acquisition_timestamp_seconds",
            "Acquisition time of the newest event a stage has finished.",
            ["stage"],
            registry=r,
        )
        self.acquisition_to_patch = Histogram(
            "millesimed_acquisition_to_patch_seconds",
            "From the acquisition to its patch in the map.",
            buckets=_LATENCY_BUCKETS,
            registry=r,
        )
        self.event_to_publish = Histogram(
            "millesimed_event_to_publish_seconds",
            "From the commit of an event to the publication of its messages.",
            buckets=_STAGE_BUCKETS,
            registry=r,
        )
        self.patched_polygons = Counter(
            "millesimed_patched_polygons", "Polygons opened by patches.", registry=r
        )
        self.changed_area = Counter(
            "millesimed_changed_area_square_meters",
            "Ground whose cover changed, by legal effect.",
            ["kind"],
            registry=r,
        )
        self.alerts = Counter(
            "millesimed_alerts", "Alert states entered.", ["kind", "state"], registry=r
        )
        self.regions_ignored = Counter(
            "millesimed_regions_ignored",
            "Regions without effect, by reason.",
            ["reason"],
            registry=r,
        )
        self.flagged = Gauge(
            "millesimed_flagged_ratio", "Share of the last scene flagged as changed.", registry=r
        )
        self.throughput = Gauge(
            "millesimed_detect_pixels_per_second",
            "Pixels judged per second, last scene.",
            registry=r,
        )
        self.outbox_depth = Gauge(
            "millesimed_outbox_depth", "Messages a channel still lacks.", ["channel"], registry=r
        )
        self.outbox_age = Gauge(
            "millesimed_outbox_age_seconds",
            "Age of the oldest message a channel lacks.",
            ["channel"],
            registry=r,
        )
        self.published = Counter(
            "millesimed_published", "Messages published by channel.", ["channel"], registry=r
        )
        self.store_bytes = Gauge(
            "millesimed_store_bytes", "Size of a store's file.", ["departement"], registry=r
        )
        self.wal_bytes = Gauge(
            "millesimed_store_wal_bytes",
            "Size of its write-ahead log.",
            ["departement"],
            registry=r,
        )
        self.map_timestamp = Gauge(
            "millesimed_map_timestamp_seconds",
            "Newest acquisition the map of a département has taken in.",
            ["departement"],
            registry=r,
        )
        build = Gauge("millesimed_build_info", "Version running.", ["version"], registry=r)
        build.labels(__version__).set(1)
        for stage in STAGES:
            self.stage_in_progress.labels(stage).set(0)

    @contextmanager
    def stage(self, name: str, *, acquired: datetime | None = None) -> Iterator[None]:
        """Count an event through one stage: in progress, seconds, failures, heartbeat."""
        self.stage_in_progress.labels(name).inc()
        started = perf_counter()
        try:
            yield
        except BaseException:
            self.stage_failures.labels(name).inc()
            raise
        finally:
            self.stage_in_progress.labels(name).dec()
            self.stage_seconds.labels(name).observe(perf_counter() - started)
        if acquired is not None:
            self.newest_acquisition.labels(name).set(acquired.timestamp())

    def text(self) -> bytes:
        """The exposition text of ``/metrics``."""
        return generate_latest(self.registry)
