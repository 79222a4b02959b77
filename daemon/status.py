"""How it goes: what a running service says over HTTP, or what its stores say where none runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from daemon.config import Settings
from daemon.families import OUTCOMES, STAGES
from daemon.samples import Samples
from schemas.errors import MillesimedError

READY: Final = "ready"
NOT_RUNNING: Final = "not running"
HOUR: Final = 3600.0
ANSWER_SECONDS: Final = 5.0
"""A service that takes longer for its metrics hangs."""
STORES: Final = "millesimed_map_timestamp_seconds", "departement"
SOURCES: Final = "millesimed_acquire_owed", "source"
DETECTORS: Final = "millesimed_flagged_ratio", "detector"
GPUS: Final = "millesimed_gpu_memory_total_bytes", "gpu"
"""Series that are there for each of them, and the label it is called by."""
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - nothing is bound
"""Addresses a service listens on everywhere, and the one to ask on this machine."""


class NoAnswer(MillesimedError):
    """No service answers at an address."""

    reason = "no-answer"


@dataclass(slots=True)
class Status:
    """Everything at one moment; times are UTC, what nobody knows is None or absent. ``trouble``:
    one sentence where the service is not well."""

    taken: datetime
    url: str | None
    state: str
    trouble: str | None = None
    version: str | None = None
    up_seconds: float | None = None
    events: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    lag: dict[str, float] = field(default_factory=dict)
    waiting_seconds: float | None = None
    outbox: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: dict[str, float] = field(default_factory=dict)
    stores: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    detectors: list[dict[str, Any]] = field(default_factory=list)
    gpus: list[dict[str, Any]] = field(default_factory=list)
    export_jobs: dict[str, float] = field(default_factory=dict)
    exports: list[dict[str, Any]] = field(default_factory=list)
    publications: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As ``--json`` gives it."""
        return asdict(self) | {"healthy": self.trouble is None}


def address(settings: Settings) -> str:
    """Where the configured service answers, asked from this machine."""
    host = settings.http.host
    return f"http://{ANYWHERE.get(host, host)}:{settings.http.port}"


def asked(url: str) -> Status:
    """What the service at an address says.

    Raises:
        NoAnswer: nothing answers there, or something else does.
    """
    try:
        with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as client:
            metrics, ready, alive = (client.get(p) for p in ("/metrics", "/readyz", "/healthz"))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(
            f"No service answers at {url} ({type(error).__name__}); start it, or give its --url."
        ) from None
    samples = Samples.of(metrics.text) if metrics.is_success else None
    if samples is None or not samples.labels("millesimed_build_info", "version"):
        raise NoAnswer(f"What answers at {url} is not millesimed; give its address as --url.")
    found = said(samples, url)
    if not alive.is_success:
        found.state = alive.text.strip()
        found.trouble = "The main loop has not turned for a minute; restart the service."
    elif not ready.is_success:
        found.state = ready.text.strip()
        found.trouble = f"The service runs and is not ready ({found.state}); see its log."
    return found


def with_sources(found: Status, settings: Settings) -> Status:
    """The same, with what the state files of the configured sources say: cursor, debts."""
    from daemon.acquire.sources import standing

    known = {row["source"]: row for row in found.sources}
    for source in settings.acquire:
        row = known.setdefault(source.name, {"source": source.name})
        try:
            state = standing(settings, source)
        except MillesimedError as error:
            row["trouble"] = str(error)
            continue
        row |= {"kind": source.kind, "last_success": state["last_success"]}
        row |= {"cursor": state["cursor"], "owed": len(state["owed"])}
        row["given_up"] = len(state["given_up"])
    found.sources = list(known.values())
    return found


def said(samples: Samples, url: str) -> Status:
    """The status a service's metrics amount to."""
    now = datetime.now(UTC)
    started = samples.one("process_start_time_seconds")
    up = now.timestamp() - started if started is not None else None
    return Status(
        taken=now,
        url=url,
        state=READY,
        version=next(iter(samples.labels("millesimed_build_info", "version"))),
        up_seconds=up,
        events=_events(samples, up),
        stages=[_stage(samples, name) for name in STAGES],
        lag=samples.by("millesimed_source_lag", "partition"),
        waiting_seconds=samples.one("millesimed_source_waiting_seconds"),
        outbox=_outbox(samples),
        dead_letters=_positive(samples.by("millesimed_dead_letters_total", "reason")),
        stores=[_store(samples, name) for name in samples.labels(*STORES)],
        sources=[_source(samples, name) for name in samples.labels(*SOURCES)],
        detectors=[_detector(samples, name) for name in samples.labels(*DETECTORS)],
        gpus=[_gpu(samples, name) for name in samples.labels(*GPUS)],
        export_jobs=_positive(samples.by("millesimed_export_jobs", "state")),
    )


def _events(samples: Samples, up: float | None) -> dict[str, Any]:
    counts = samples.by("millesimed_events_total", "outcome")
    known = {outcome: counts.get(outcome, 0.0) for outcome in (*OUTCOMES, *counts)}
    total = sum(known.values())
    return known | {
        "per_hour": total * HOUR / up if up else None,
        "last": _moment(samples.one("millesimed_last_event_timestamp_seconds")),
    }


def _stage(samples: Samples, name: str) -> dict[str, Any]:
    def of(metric: str) -> float | None:
        return samples.one(f"millesimed_{metric}", stage=name)

    count = of("stage_seconds_count")
    return {
        "stage": name,
        "newest": _moment(of("newest_acquisition_timestamp_seconds")),
        "in_progress": of("stage_in_progress"),
        "finished": of("stage_finished_total"),
        "failed": of("stage_failures_total"),
        "seconds": (of("stage_seconds_sum") or 0.0) / count if count else None,
    }


def _outbox(samples: Samples) -> list[dict[str, Any]]:
    """Channels of the outbox, then ways subscribers are told."""
    ways = [("outbox_depth", "outbox_age_seconds", "published_total")]
    ways += [("subscription_backlog", "subscription_waiting_seconds", "delivered_total")]
    return [
        {
            "channel": channel if depth == "outbox_depth" else f"subscribers by {channel}",
            "depth": samples.one(f"millesimed_{depth}", channel=channel),
            "age_seconds": samples.one(f"millesimed_{age}", channel=channel),
            "sent": samples.one(f"millesimed_{sent}", channel=channel),
            "parked": samples.one("millesimed_parked_messages", channel=channel)
            if depth != "outbox_depth" or channel == "kafka"
            else None,
        }
        for depth, age, sent in ways
        for channel in samples.labels(f"millesimed_{depth}", "channel")
    ]


def _store(samples: Samples, name: str) -> dict[str, Any]:
    def of(metric: str) -> float | None:
        return samples.one(f"millesimed_{metric}", departement=name)

    return {
        "store": name,
        "bytes": of("store_bytes"),
        "log_bytes": of("store_wal_bytes"),
        "free_bytes": of("store_free_bytes"),
        "checkpoint": _moment(of("checkpoint_timestamp_seconds")),
        "map": _moment(of("map_timestamp_seconds")),
    }


def _source(samples: Samples, name: str) -> dict[str, Any]:
    def of(metric: str) -> float | None:
        return samples.one(f"millesimed_{metric}", source=name)

    return {
        "source": name,
        "last_success": _moment(of("acquire_success_timestamp_seconds")),
        "images": of("acquired_images_total"),
        "owed": of("acquire_owed"),
        "failures": of("acquire_failures_total"),
    }


def _detector(samples: Samples, name: str) -> dict[str, Any]:
    def of(metric: str) -> float | None:
        return samples.one(f"millesimed_{metric}", detector=name)

    return {
        "detector": name,
        "scenes": of("scenes_total"),
        "flagged": of("flagged_ratio"),
        "drift_sigmas": of("flagged_drift_sigmas"),
        "pixels_per_second": of("detect_pixels_per_second"),
    }


def _gpu(samples: Samples, name: str) -> dict[str, Any]:
    def of(metric: str) -> float | None:
        return samples.one(f"millesimed_gpu_{metric}", gpu=name)

    return {
        "gpu": name,
        "busy": of("utilization_ratio"),
        "used_bytes": of("memory_used_bytes"),
        "total_bytes": of("memory_total_bytes"),
    }


def _positive(counts: Mapping[str, float]) -> dict[str, float]:
    return {name: count for name, count in counts.items() if count > 0}


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
