"""A service under test: its own copy of a world's store, its configuration, its processes.

``server``: the broker it reads from and writes to, None for an inbox. ``stores``: départements,
each a copy of the world's. ``port``: where it answers over HTTP, None for not at all. ``extra``:
lines of its configuration; ``http``: of that section of it. ``roles``: it is split into several
processes. ``named``: workers keep their name over a restart, so that one that leaves for good is
waited for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.envelope import TOPIC_ACQUISITIONS
from tests.faults.outcome import Outcome, from_folder, from_topics, store_outcome
from tests.faults.processes import Running, Starter, kill
from tests.faults.world import World
from updater.errors import StoreError
from updater.store import Store
from updater.verify import verify

SESSION_MS = 6_000
"""The shortest session a broker takes: a killed member is missed soon."""
DRAIN_SECONDS = 900.0
TASK_PARTITIONS = 4
OUTPUTS = ("changes", "alerts", "dead_letters")
TO_TELL = 'millesimed_outbox_depth{channel="kafka"}'
TOLD = 'millesimed_published_total{{channel="{}"'
COMMITTED = (
    "SELECT 'event', item FROM events UNION ALL SELECT 'letter', id FROM dead_letters "
    "UNION ALL SELECT 'message', id FROM outbox"
)
IN_HAND = [
    f'millesimed_stage_in_progress{{stage="{stage}"}}'
    for stage in ("locate", "detect", "plan", "commit")
]


@dataclass
class Rig:
    """One service."""

    folder: Path
    world: World
    server: str | None = None
    options: dict[str, object] = field(default_factory=dict)
    extra: str = ""
    http: str = ""
    stores: tuple[str, ...] = ("D032",)
    acquisitions: str = TOPIC_ACQUISITIONS
    with_topics: bool = True
    port: int | None = None
    roles: bool = False
    named: bool = True
    sent: int = 0
    seen: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        for territory in self.stores:
            copy = self.folder / f"{territory}.duckdb"
            shutil.copy(self.world.store, copy)
            with Store.open(copy) as store, store.transaction() as cursor:
                cursor.execute("UPDATE meta SET value = ? WHERE key = 'territory'", [territory])
        self.configure()
        if self.server is not None and self.with_topics:
            create_topics(self.server, [self.acquisitions, *self.topics.values()])
            if self.roles:
                create_topics(self.server, [self.between["tasks"]], partitions=TASK_PARTITIONS)
                create_topics(self.server, [self.between["judgements"]])

    @property
    def name(self) -> str:
        """What its topics and its group are called."""
        return self.folder.name

    @property
    def store(self) -> Path:
        """Its store."""
        return self.folder / "D032.duckdb"

    @property
    def log(self) -> Path:
        """What its processes wrote."""
        return self.folder / "log.txt"

    @property
    def topics(self) -> dict[str, str]:
        """Its own topics, by what is in them."""
        return {kind: f"{self.name}.{kind.replace('_', '-')}" for kind in OUTPUTS}

    @property
    def between(self) -> dict[str, str]:
        """Its topics between the roles."""
        return {kind: f"{self.name}.{kind}" for kind in ("tasks", "judgements") if self.roles}

    def configure(self, member: str = "") -> Path:
        """Write its configuration, or that of one of its workers; gives the file.

        The broker used here never misses a member that died, so a worker keeps its name over a
        kill, as one does that is started again by systemd or an orchestrator.
        """
        stores = [f"{territory}.duckdb" for territory in self.stores]
        lines = [f"db = {json.dumps(stores)}", 'outbox = "outbox"', 'detector = "siamese"']
        lines += ['device = "cpu"', "retry_seconds = 0.2", "checkpoint_seconds = 0.2", self.extra]
        if self.server is None:
            lines.append('inbox = "inbox"')
        lines += ["[http]", f"enabled = {json.dumps(self.port is not None)}"]
        if self.port is not None:
            lines += [f"port = {self.port}", self.http]
        if self.server is not None:
            lines += ["[kafka]", f'servers = "{self.server}"', f'group = "{self.name}"']
            lines.append(f'acquisitions = "{self.acquisitions}"')
            lines += [f'{kind} = "{topic}"' for kind, topic in (self.topics | self.between).items()]
            lines.append("[kafka.options]")
            own = {"session.timeout.ms": SESSION_MS, "allow.auto.create.topics": False}
            if self.named and (not self.roles or member):
                own["group.instance.id"] = member or self.name  # comes back at once after a kill
            lines += [f'"{k}" = {json.dumps(v)}' for k, v in (own | self.options).items()]
        path = self.folder / f"{member or 'millesimed'}.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def send(self, bodies: list[bytes]) -> None:
        """Send events: to the topic, or as files named in their order."""
        if self.server is None:
            inbox = self.folder / "inbox"
            inbox.mkdir(exist_ok=True)
            for body in bodies:
                staged = inbox / ".staged.part"
                staged.write_bytes(body)
                staged.rename(inbox / f"{self.sent:05}.json")
                self.sent += 1
            return
        send(self.server, bodies, self.acquisitions)
        self.sent += len(bodies)

    def start(
        self, starter: Starter, *, once: bool, fault: str | None = None, role: str = "all"
    ) -> Running:
        """Start the service, or a process of one role; a worker is ``detect-1``, ``detect-2`` …"""
        role, _, number = role.partition("-")
        config = self.configure(f"{role}-{number}") if number else self.folder / "millesimed.toml"
        arguments = ["run", "--config", str(config), "--role", role]
        return starter.start(arguments + ["--once"] * once, log=self.log, fault=fault)

    def metric(self, name: str) -> float:
        """The sum of the series whose text begins so, as a running service shows them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def status(self, path: str) -> int:
        """What a running service answers; 0 where nobody does."""
        try:
            address = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(address, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def until(self, name: str, least: float, *, seconds: float = 240.0) -> None:
        """Wait until a metric has come to a value."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError):
                if self.metric(name) >= least:
                    return
            assert time.monotonic() < end, f"{name} stays below {least}: {self.log.read_text()}"
            time.sleep(0.1)

    def idle(self, *, seconds: float = 240.0) -> None:
        """Wait until no event is in hand: in no stage for a second."""
        end, since = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() - since < 1.0:
            assert time.monotonic() < end, self.log.read_text()
            if any(self.metric(stage) for stage in IN_HAND):
                since = time.monotonic()
            time.sleep(0.05)

    def until_told(self, *, seconds: float = 240.0) -> None:
        """Wait until the broker has every message the folder has, which is told before."""
        end = time.monotonic() + seconds
        while not 0 < self.metric(TOLD.format("folder")) == self.metric(TOLD.format("kafka")):
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    @contextmanager
    def running(self, starter: Starter) -> Iterator[Running]:
        """The service while it is needed; it must end well when asked to."""
        process = self.start(starter, once=False)
        try:
            yield process
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(240) == 0, self.log.read_text()[-3000:]
        finally:
            if process.wait(0) is None:
                kill(process)

    def drain(self, starter: Starter) -> None:
        """Run until everything sent is done with and told."""
        ended = self.start(starter, once=True).wait(DRAIN_SECONDS)
        assert ended == 0, self.log.read_text()[-3000:]

    def look(self) -> dict[str, int]:
        """Open a copy of what a kill has left, with its log, and see whether it is whole and has
        everything it had when it was looked at before."""
        copy = self.folder / "look"
        copy.mkdir(exist_ok=True)
        for suffix in ("", ".wal"):
            source = self.store.with_name(self.store.name + suffix)
            target = copy / source.name
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copy(source, target)
        try:
            with Store.open(copy / self.store.name) as store:
                rows = Counter(store.execute(COMMITTED).fetchall())
                invalid = int(not verify(store).valid)
        except StoreError:
            return {"lost": 0, "doubled": 0, "invalid": 0, "unopened": 1}
        lost, doubled = len(self.seen - set(rows)), sum(rows.values()) - len(rows)
        self.seen = set(rows)
        return {"lost": lost, "doubled": doubled, "invalid": invalid, "unopened": 0}

    def outcome(self) -> Outcome:
        """What it made of everything, without clocks; each delivery in its first copy."""
        map_, history = store_outcome(self.store)
        published, doubled = from_folder(self.folder / "outbox"), Counter[str]()
        if self.server is not None:
            published |= from_topics(self.server, self.topics, doubled)
        return Outcome(map_, history, published, doubled)


def create_topics(server: str, names: list[str], *, partitions: int = 1) -> None:
    """Topics, of one partition unless said otherwise; those there are left as they are."""
    admin = AdminClient({"bootstrap.servers": server, "log_level": 2})
    known = admin.list_topics(timeout=20).topics
    wanted = [NewTopic(n, num_partitions=partitions) for n in names if n not in known]
    for done in admin.create_topics(wanted).values() if wanted else ():
        done.result(timeout=20)


def send(server: str, bodies: list[bytes], topic: str = TOPIC_ACQUISITIONS) -> None:
    """Produce events in order. Not idempotent: a broker that was killed forgets its producers."""
    producer = Producer(
        {
            "bootstrap.servers": server,
            "max.in.flight.requests.per.connection": 1,
            "message.max.bytes": 50_000_000,
            "compression.type": "gzip",
            "log_level": 2,
        }
    )
    problems: list[object] = []
    for body in bodies:
        producer.produce(topic, body, on_delivery=lambda e, _: problems.append(e) if e else None)
    assert producer.flush(30) == 0 and not problems, problems
