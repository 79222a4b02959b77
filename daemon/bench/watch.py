"""A service under load, seen from outside: memory, handles, files, latency, and growth."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from detectors.types import Progress
from schemas.errors import MillesimedError
from updater.store import log_bytes

SAMPLE_SECONDS: Final = 1.0
PARTS: Final = 10
QUIET_SECONDS: Final = 300.0
"""Longest wait without an event finished before the run counts as hung."""


class BenchFailed(MillesimedError):
    """The bench could not be run to its end."""

    reason = "bench"


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one instant: seconds since the start, messages handled, messages that wait and
    how long the oldest has (both as of the service's last look), bytes, handles."""

    at: float
    handled: int
    waiting: int
    waited: float
    rss: int
    handles: int
    store_bytes: int
    wal_bytes: int


class Watcher:
    """Looks at a running service from outside."""

    def __init__(self, process: BaseProcess, db: Path, port: int) -> None:
        self._process = psutil.Process(process.pid)
        self._db = db
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0)
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    def look(self) -> Sample:
        """One sample, kept."""
        told = self._told()
        sample = Sample(
            at=time.monotonic() - self._began,
            handled=int(told["millesimed_events_total"]),
            waiting=int(told["millesimed_source_lag"]),
            waited=told["millesimed_source_waiting_seconds"],
            rss=self._process.memory_info().rss,
            handles=self._process.num_fds(),
            store_bytes=self._db.stat().st_size,
            wal_bytes=log_bytes(self._db),
        )
        self.samples.append(sample)
        return sample

    def _told(self) -> dict[str, float]:
        """The metrics, summed over their labels."""
        found: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(self._http.get("/metrics").text):
            for sample in family.samples:
                found[sample.name] += int(sample.value)
        return found

    def wait_ready(self) -> None:
        """Until the service reads its source.

        Raises:
            BenchFailed: it ended instead.
        """
        while True:
            if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
                raise BenchFailed("The service ended at once; run it alone to see why.")
            try:
                if self._http.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)

    def wait_for(self, messages: int, progress: Progress | None = None) -> None:
        """Until so many messages are handled.

        Raises:
            BenchFailed: it stands still.
        """
        last, since = -1, time.monotonic()
        while True:
            sample = self.look()
            if progress is not None:
                progress("messages", min(sample.handled, messages), messages)
            if sample.handled >= messages:
                return
            if sample.handled != last:
                last, since = sample.handled, time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                raise BenchFailed(f"The service stands at {last} of {messages} messages.")
            time.sleep(SAMPLE_SECONDS)


def figures(samples: Sequence[Sample], seconds: Sequence[float], first: int) -> dict[str, Any]:
    """What a run came to: each tenth of it (by messages) with its latency, ms, and the largest of
    what was seen during it; growth of the last tenth against the second.

    ``samples``: by time; ``seconds``: of each message; ``first``: messages before either.
    """
    count = len(seconds)
    edges = np.linspace(0, count, PARTS + 1).astype(int)
    parts = []
    for low, high in pairwise(edges):
        here = [s for s in samples if low <= s.handled - first <= high] or [samples[-1]]
        p50, p95, p99 = np.percentile(np.array(seconds[low:high]) * 1e3, [50, 95, 99])
        parts.append(
            {
                "messages": int(high - low),
                "p50_ms": float(p50),
                "p95_ms": float(p95),
                "p99_ms": float(p99),
                "rss_mb": max(s.rss for s in here) / 1e6,
                "handles": max(s.handles for s in here),
                "waiting": max(s.waiting for s in here),
                "waited_s": max(s.waited for s in here),
                "store_mb": max(s.store_bytes for s in here) / 1e6,
                "wal_mb": max(s.wal_bytes for s in here) / 1e6,
            }
        )
    taken = samples[-1].at - samples[0].at
    busy = sum(seconds)
    return {
        "messages": count,
        "seconds": taken,
        "messages_per_second": count / taken,
        "messages_per_busy_second": count / busy,
        "parts": parts,
        "latency_growth": parts[-1]["p50_ms"] / parts[1]["p50_ms"],
        "rss_growth_mb": parts[-1]["rss_mb"] - parts[1]["rss_mb"],
        "handles_growth": parts[-1]["handles"] - parts[1]["handles"],
        "peak_waiting": max(s.waiting for s in samples),
        "peak_waited_s": max(s.waited for s in samples),
        "peak_rss_mb": max(s.rss for s in samples) / 1e6,
        "peak_wal_mb": max(s.wal_bytes for s in samples) / 1e6,
        "samples": [asdict(s) for s in samples[:: max(1, len(samples) // 100)]],
    }
