"""``millesimed bench service``: thousands of small acquisitions through the real service.

The service runs in a process of its own with a real store, inbox or broker, relay and HTTP; the
sender in another (``daemon.bench.load``). This one watches both from outside and keeps the account:
what was sent has been processed, recognised as a duplicate or made a dead letter, and the map is
still valid.
"""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Literal

from daemon.bench.broker import broker, free_port
from daemon.bench.load import DETECTOR, CvaCover, make_ground, run_sender
from daemon.bench.process import heard, spawned
from daemon.bench.watch import SAMPLE_SECONDS, Watcher, figures
from daemon.config import HttpSettings, KafkaSettings, Settings
from daemon.pipeline import Outcome
from daemon.service import Service, handled
from daemon.sources import Source
from detectors.registry import DETECTORS, Entry
from detectors.types import Progress
from updater import outbox
from updater.recovery import compact
from updater.store import Store
from updater.verify import verify

POLYGONS: Final = 2_500
WARM: Final = 100
"""Events before the clock starts: they load what is loaded once, and say how fast it is."""
LOAD: Final = 0.6
"""Part of that speed at which events then come, in the mean."""
SourceName = Literal["inbox", "kafka"]


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


def bench_service(
    *,
    events: int,
    soak_minutes: float = 0.0,
    rate: float | None = None,
    source: SourceName = "inbox",
    polygons: int = POLYGONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of a run of so many events, or so many minutes; see ``figures``. ``rate``: events per
    second in the mean, else ``LOAD`` of what the service turned out to manage.

    Raises:
        BenchFailed: a process ended or hung.
        UsageError: no broker is installed.
    """
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        folder = Path(name)
        with spawned(_make, folder, polygons, seed) as (_, pipe):
            heard(pipe, "maker of the map")
        with broker(folder) if source == "kafka" else nullcontext() as servers:
            return _run(folder, events, soak_minutes, rate, servers, (polygons, seed), progress)


def _make(folder: Path, polygons: int, seed: int, answer: Any) -> None:  # noqa: ANN401
    make_ground(folder, polygons, seed)
    answer.send(True)


def _run(
    folder: Path,
    events: int,
    minutes: float,
    rate: float | None,
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
        spawned(_serve, settings) as (process, service),
        spawned(run_sender, folder, *ground, servers) as (_, sender),
    ):
        watcher = Watcher(process, db, port)
        watcher.wait_ready()
        sender.send((1e3, WARM, 0.0))  # all at once
        warm = heard(sender, "sender")
        first = sum(warm[k] for k in ("events", "again", "poison"))
        watcher.wait_for(first)
        rate = rate or LOAD * first / watcher.samples[-1].at
        before = len(watcher.samples)
        sender.send((rate, 0 if minutes else events, minutes * 60))
        sent = _watch_sending(sender, watcher, first, progress)
        total = first + sum(sent[k] for k in ("events", "again", "poison"))
        watcher.wait_for(total, progress)
        sender.send(None)
        service.send(None)
        done = heard(service, "service")
    account = {k: warm[k] + sent[k] for k in ("events", "again", "poison")}
    found = figures(watcher.samples[before:], done["seconds"][first:], first)
    return {
        "source": "kafka" if servers else "inbox",
        "rate": rate,
        **found,
        **_account(db, account, done, settings),
        **_dead_space(db),
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
    found: dict[str, Any] = heard(sender, "sender")
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


def _dead_space(db: Path) -> dict[str, float]:
    """What the file takes, and what its rows need: it compacted, nothing pruned."""
    found = compact(db)
    return {"store_mb": found.before / 1e6, "compact_mb": found.after / 1e6}
