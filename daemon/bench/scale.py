"""``millesimed bench scale``: one update process and a growing number of detect processes.

Every process is a real one, over a broker process and real files. Each detect process has one
thread of torch and one of GDAL, so that what grows is their number. What is measured is read from
the store afterwards: from the first task that went out to the last judgement that was committed.
Beside it stands what the machine itself allows (``daemon.bench.ceiling``), and the CPU time of each
kind of process, which tells a queue from cores that run out.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from confluent_kafka import Producer
from shapely.geometry import box

from daemon.announce import event_bytes, item_of, when
from daemon.bench.broker import Broker, brittle_broker, create_topics, free_port
from daemon.bench.ceiling import judging_alone
from daemon.bench.patch import CELL_M, CORNER, CRS, make_map
from daemon.bench.process import cpu_seconds
from daemon.demo.render import write_geotiff
from detectors.types import Progress
from schemas.envelope import TASK_TYPE
from schemas.errors import MillesimedError
from schemas.policy import Sensor
from updater.commit import add_image
from updater.crs import reproject
from updater.importer import create_store
from updater.reads import ImageRecord
from updater.store import Store
from updater.verify import verify

SIDE: Final = 512
"""Pixels: one tile, so that a process has nothing to read ahead and keeps to its core."""
GSD_M: Final = 0.4
STEP_M: Final = 230.0
"""Between two images: no ground is shared, all tasks may be out at once."""
MARGIN_M: Final = 100.0
PAIRS: Final = 4
"""Different pairs of images; each is laid on many places."""
WARM: Final = 2
"""Events for each worker before the clock starts: they load networks and compile kernels."""
PARTITIONS: Final = 8
"""Of the topic of tasks."""
FLOWN: Final = ("2021-07-02", "2024-06-18")
QUIET_SECONDS: Final = 300.0
"""Longest wait without an event finished before the run counts as hung."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at how far they are; each is an answer of some hundred metrics."""
_PROCESSED: Final = 'millesimed_events_total{outcome="processed"}'
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GDAL_NUM_THREADS": "1"}


class BenchFailed(MillesimedError):
    """The bench could not be run to its end."""

    reason = "bench"


@dataclass(frozen=True, slots=True)
class Ground:
    """A store with reference images, and the events that come to it."""

    store: Path
    events: Sequence[bytes]


def bench_scale(
    *,
    events: int,
    workers: Sequence[int] = (1, 2),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Events per second with each number of detect processes, and the last over the first.

    Raises:
        BenchFailed: a process ended or hung.
        UsageError: no broker is installed.
    """
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        folder = Path(name)
        ground = make_ground(folder, events + WARM * max(workers), seed)
        runs, maps = [], set()
        alone = [judging_alone(ground.store, ground.events, count) for count in workers]
        with brittle_broker(folder) as server:
            for number, count in enumerate(workers, start=1):
                figures, map_ = _run(folder, ground, server, count, events)
                runs.append(figures)
                maps.add(map_)
                if progress is not None:
                    progress("runs", number, len(workers))
    speed = [run["events_per_second"] for run in runs]
    return {
        "runs": runs,
        "speedup": speed[-1] / speed[0],
        "judging_alone": {"events_per_second": alone, "speedup": alone[-1] / alone[0]},
        "same_map": len(maps) == 1,
        "pixels_per_event": SIDE * SIDE,
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": before,
        "versions": {
            name: version(name)
            for name in ("millesimed", "torch", "duckdb", "confluent-kafka", "noida-db")
        }
        | {"python": platform.python_version()},
    }


def make_ground(folder: Path, count: int, seed: int) -> Ground:
    """A map, and for each event a reference image and an acquisition on ground of its own."""
    from detectors.synthetic import make_pair

    across = int(np.ceil(count**0.5))
    plots = int(np.ceil((across * STEP_M + 2 * MARGIN_M) / CELL_M))
    db = folder / "fresh.duckdb"
    make_map(folder / "map.gpkg", polygons=plots**2, seed=seed)
    create_store(db, folder / "map.gpkg", territory="D032", millesime=2021)
    pairs = [make_pair(np.random.default_rng([seed, n]), size=SIDE) for n in range(PAIRS)]
    bodies = []
    with Store.open(db) as store:
        for number in range(count):
            row, col = divmod(number, across)
            west, south = CORNER + MARGIN_M + STEP_M * np.array([col, row])
            bounds = (west, south, west + SIDE * GSD_M, south + SIDE * GSD_M)
            before, after = (folder / f"{date}-{number:04}.tif" for date in ("before", "after"))
            write_geotiff(before, pairs[number % PAIRS].before, bounds)
            write_geotiff(after, pairs[number % PAIRS].after, bounds)
            acquired = [when(date) for date in FLOWN]
            known = item_of(before, acquired=acquired[0], sensor=Sensor.PVA)
            lies = reproject(box(*bounds), CRS, store.crs)
            add_image(store, ImageRecord(known.id, before, Sensor.PVA, acquired[0], GSD_M, lies))
            item = item_of(after, acquired=acquired[1], sensor=Sensor.PVA, departement="D032")
            bodies.append(event_bytes(item)[1])
    return Ground(db, bodies)


def _run(
    folder: Path, ground: Ground, broker: Broker, workers: int, events: int
) -> tuple[dict[str, Any], str]:
    """Figures of one number of workers, and a checksum of the map they end up with."""
    place = folder / f"workers-{workers}"
    place.mkdir()
    server, db = broker.server, place / "D032.duckdb"
    shutil.copy(ground.store, db)
    topics = {
        kind: f"{place.name}.{kind.replace('_', '-')}"
        for kind in (
            "acquisitions",
            "changes",
            "alerts",
            "dead_letters",
            "tasks",
            "judgements",
        )
    }
    counts = {name: PARTITIONS if kind == "tasks" else 1 for kind, name in topics.items()}
    create_topics(server, counts)
    warm, rest = ground.events[: WARM * workers], ground.events[WARM * workers :][:events]
    with ExitStack() as stack:
        ports, of_kind = {}, {"broker": broker.pids, "update": [], "detect": []}
        for number in range(workers + 1):
            role = "detect" if number else "update"
            port = free_port()
            config = place / f"{role}-{number}.toml"
            config.write_text(_settings(db, server, topics, place.name, port, len(rest)))
            ports[port] = process = stack.enter_context(_process(config, role))
            of_kind[role].append(process.pid)
        update = next(iter(ports))
        for port, process in ports.items():
            _until_ready(port, process)
        _send(server, topics["acquisitions"], warm)
        _until_processed(update, len(warm), ports.values())
        _send(server, topics["acquisitions"], rest)
        load, before = os.getloadavg(), _core_seconds(of_kind)
        _until_processed(update, len(warm) + len(rest), ports.values())
        taken = {kind: after - before[kind] for kind, after in _core_seconds(of_kind).items()}
    with Store.open(db) as store:
        found = _figures(store, len(rest))
        valid = verify(store).valid
        rows = store.execute(
            "SELECT id, code_cs, code_us, ST_AsHEXWKB(geom) FROM map_now ORDER BY ALL"
        ).fetchall()
    map_ = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    figures = {"workers": workers, **found, "core_seconds": taken, "valid": valid}
    return figures | {"load_average": load}, map_


def _core_seconds(of_kind: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """CPU seconds of processes up to now, by their kind."""
    return {kind: cpu_seconds(pids) for kind, pids in of_kind.items()}


def _settings(
    db: Path, server: str, topics: Mapping[str, str], group: str, port: int, events: int
) -> str:
    """The configuration of a process; JSON strings are TOML strings."""
    lines = [
        f"db = {json.dumps(str(db))}",
        f"exchange = {json.dumps(str(db.parent / 'exchange'))}",
        'detector = "siamese"',
        'device = "cpu"',
        f"asked_at_once = {events + 1}",
        "[http]",
        f"port = {port}",
        "[kafka]",
        f"servers = {json.dumps(server)}",
        f"group = {json.dumps(group)}",
        *(f"{kind} = {json.dumps(topic)}" for kind, topic in topics.items()),
    ]
    return "\n".join(lines) + "\n"


@contextmanager
def _process(config: Path, role: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "daemon.cli", "run", "--config", str(config), "--role", role]
    with config.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this program itself
            command, env=os.environ | ONE_THREAD, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + QUIET_SECONDS
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            raise BenchFailed("A process did not come up; run the role alone to see why.")
        time.sleep(0.1)


def _until_processed(
    port: int, wanted: int, processes: Collection[subprocess.Popen[bytes]]
) -> None:
    last, since = -1, time.monotonic()
    while True:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        line = next(x for x in text.splitlines() if x.startswith(_PROCESSED))
        done = int(float(line.rsplit(" ", 1)[1]))
        if done >= wanted:
            return
        if done != last:
            last, since = done, time.monotonic()
        if any(process.poll() is not None for process in processes):
            raise BenchFailed("A process ended before its time; run the role alone to see why.")
        if time.monotonic() - since > QUIET_SECONDS:
            raise BenchFailed(f"The processes stand at {done} of {wanted} events.")
        time.sleep(LOOK_SECONDS)


def _send(server: str, topic: str, bodies: Sequence[bytes]) -> None:
    producer = Producer({"bootstrap.servers": server, "log_level": 2})
    for body in bodies:
        producer.produce(topic, body, key=b"D032/bench")
    if producer.flush(60):
        raise BenchFailed("The broker did not take the events; see whether it runs.")


def _figures(store: Store, events: int) -> dict[str, Any]:
    """Seconds from the first of the last so many tasks to the last commit, and how many were out at
    a time."""
    out = store.execute(
        "SELECT created FROM outbox WHERE type = ? ORDER BY seq DESC LIMIT ?", [TASK_TYPE, events]
    ).fetchall()
    done = store.execute(
        "SELECT recorded, changed FROM events ORDER BY recorded DESC LIMIT ?", [events]
    ).fetchall()
    begun, ended = min(row[0] for row in out), max(row[0] for row in done)
    steps = sorted([(row[0], 1) for row in out] + [(row[0], -1) for row in done])
    seconds = (ended - begun).total_seconds()
    return {
        "events": len(done),
        "changed_polygons": sum(row[1] for row in done),
        "seconds": seconds,
        "events_per_second": events / seconds,
        "largest_backlog": max(accumulate(step for _, step in steps)),
    }
