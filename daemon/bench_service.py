"""``millesimed bench service``: thousands of small acquisitions through the real service.

The service runs in a process of its own with a real store, inbox or broker, relay and HTTP; the
sender in another (``daemon.bench_load``). This one watches both from outside and keeps the account:
what was sent has been processed, recognised as a duplicate or made a dead letter, and the map is
still valid.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from daemon.bench_broker import broker, free_port
from daemon.bench_load import DETECTOR, CvaCover, make_ground, run_sender
from daemon.config import HttpSettings, KafkaSettings, Settings
from daemon.pipeline import Outcome
from daemon.service import Service, handled
from daemon.sources import Source
from detectors.registry import DETECTORS, Entry
from detectors.types import Progress
from schemas.errors import MillesimedError
from updater import outbox
from updater.store import Store
from updater.verify import verify

POLYGONS: Final = 2_500
WARM: Final = 100
"""Events before the clock starts: they load what is loaded once, and say how fast it is."""
LOAD: Final = 0.6
"""Part of that speed at which events then come, in the mean."""
SAMPLE_SECONDS: Final = 1.0
PARTS: Final = 10
QUIET_SECONDS: Final = 300.0
"""Longest wait without an event finished before the run counts as hung."""
SourceName = Literal["inbox", "kafka"]


class BenchFailed(MillesimedError):
    """The bench could not be run to its end."""

    reason = "bench"


class Timed(Service):
    """The service, with the seconds of each event."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.seconds: list[float] = []

    def _carry(self, work: Future[Outcome], source: Source) -> Outcome | None:
        started = time.perf_counter()
        outcome = super()._carry(work, source)
        self.seconds.append(time.perf_counter() - started)
        return outcome


def _serve(settings: Settings, orders: Any) -> None:  # noqa: ANN401 - a pipe's end
    """The service's process: runs until told to stop, then says what it did."""
    import torch

    from daemon.logs import configure

    configure(as_json=False, level="error")
    torch.set_num_threads(1)  # images this small are judged faster by one
    DETECTORS[DETECTOR] = Entry(CvaCover, "cva with covers, for benches", "this project")
    service = Timed(settings)

    def listen() -> None:
        orders.recv()
        service.stop()

    threading.Thread(target=listen, daemon=True).start()
    service.run()
    orders.send({**handled(service), "seconds": service.seconds})


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one instant: seconds since the start, messages handled, bytes, handles."""

    at: float
    handled: int
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
        log_file = self._db.with_name(self._db.name + ".wal")
        sample = Sample(
            at=time.monotonic() - self._began,
            handled=self._handled(),
            rss=self._process.memory_info().rss,
            handles=self._process.num_fds(),
            store_bytes=self._db.stat().st_size,
            wal_bytes=log_file.stat().st_size if log_file.exists() else 0,
        )
        self.samples.append(sample)
        return sample

    def _handled(self) -> int:
        text = self._http.get("/metrics").text
        return int(
            sum(
                sample.value
                for family in text_string_to_metric_families(text)
                if family.name == "millesimed_events"
                for sample in family.samples
                if sample.name == "millesimed_events_total"
            )
        )

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


@contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[tuple[BaseProcess, Any]]:  # noqa: ANN401
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        if process.is_alive():
            process.terminate()
        process.join()


def _heard(pipe: Any, who: str) -> Any:  # noqa: ANN401
    try:
        return pipe.recv()
    except EOFError:
        raise BenchFailed(f"The {who} ended before its time; its output says why.") from None


def bench_service(
    *,
    events: int,
    soak_minutes: float = 0.0,
    source: SourceName = "inbox",
    polygons: int = POLYGONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of a run of so many events, or so many minutes; see ``figures``.

    Raises:
        BenchFailed: a process ended or hung.
        UsageError: no broker is installed.
    """
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        folder = Path(name)
        with _process(_make, folder, polygons, seed) as (_, pipe):
            _heard(pipe, "maker of the map")
        with broker(folder) if source == "kafka" else nullcontext() as servers:
            return _run(folder, events, soak_minutes, servers, (polygons, seed), progress)


def _make(folder: Path, polygons: int, seed: int, answer: Any) -> None:  # noqa: ANN401
    make_ground(folder, polygons, seed)
    answer.send(True)


def _run(
    folder: Path,
    events: int,
    minutes: float,
    servers: str | None,
    ground: tuple[int, int],
    progress: Progress | None,
) -> dict[str, Any]:
    db, port = folder / "store.duckdb", free_port()
    settings = Settings(
        db=[db],
        inbox=None if servers else folder / "inbox",
        outbox=folder / "outbox",
        kafka=KafkaSettings(servers=servers) if servers else None,
        http=HttpSettings(port=port),
        detector=DETECTOR,
        device="cpu",
    )
    with (
        _process(_serve, settings) as (process, service),
        _process(run_sender, folder, *ground, servers) as (_, sender),
    ):
        watcher = Watcher(process, db, port)
        watcher.wait_ready()
        sender.send((1e3, WARM, 0.0))  # all at once
        warm = _heard(sender, "sender")
        first = sum(warm[k] for k in ("events", "again", "poison"))
        watcher.wait_for(first)
        rate = LOAD * first / watcher.samples[-1].at
        before = len(watcher.samples)
        sender.send((rate, 0 if minutes else events, minutes * 60))
        sent = _watch_sending(sender, watcher, first, progress)
        total = first + sum(sent[k] for k in ("events", "again", "poison"))
        watcher.wait_for(total, progress)
        sender.send(None)
        service.send(None)
        done = _heard(service, "service")
    account = {k: warm[k] + sent[k] for k in ("events", "again", "poison")}
    found = figures(watcher.samples[before:], done["seconds"][first:], first)
    return {
        "source": "kafka" if servers else "inbox",
        "rate": rate,
        **found,
        **_account(db, account, done, settings),
    }


def _watch_sending(
    sender: Any,  # noqa: ANN401
    watcher: Watcher,
    first: int,
    progress: Progress | None,
) -> dict[str, Any]:
    while not sender.poll(SAMPLE_SECONDS):
        sample = watcher.look()
        if progress is not None:
            progress("messages", sample.handled - first, sample.handled)
    found: dict[str, Any] = _heard(sender, "sender")
    return found


def _account(
    db: Path, sent: dict[str, int], done: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    """Every message accounted for, and what the store says of it."""
    with Store.open(db) as store:
        (known,) = store.execute("SELECT count(*) FROM events").fetchone() or (0,)
        (letters,) = store.execute("SELECT count(*) FROM dead_letters").fetchone() or (0,)
        (versions,) = store.execute("SELECT count(*) FROM polygons").fetchone() or (0,)
        (alerts,) = store.execute("SELECT count(DISTINCT id) FROM alerts").fetchone() or (0,)
        names = ["folder", *(["kafka"] if settings.kafka else [])]
        unpublished = sum(outbox.depth(store, name)[0] for name in names)
        verdict = verify(store, deep=True)
    lost = sent["events"] - known
    exact = (
        lost == 0
        and letters == sent["poison"]
        and (done["processed"], done["duplicates"], done["dead_lettered"])
        == (sent["events"], sent["again"], sent["poison"])
    )
    return {
        "sent": sent,
        "processed": done["processed"],
        "duplicates": done["duplicates"],
        "dead_lettered": done["dead_lettered"],
        "accounted_for": exact,
        "lost": lost,
        "unpublished": unpublished,
        "versions": versions,
        "alerts": alerts,
        "valid": verdict.valid,
    }


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
        "peak_rss_mb": max(s.rss for s in samples) / 1e6,
        "peak_wal_mb": max(s.wal_bytes for s in samples) / 1e6,
        "samples": [asdict(s) for s in samples[:: max(1, len(samples) // 100)]],
    }
