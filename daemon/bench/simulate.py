"""Made-up acquisitions through a real broker, real update and detect processes and real stores.

First the processes are left alone for a while, which tells what they take at rest. A few events
warm them up. Then the clock runs from the first event sent to the last one committed; CPU time is
counted until every outbox is empty. Afterwards the stores and the topics say whether everything is
there, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from confluent_kafka import Producer

from daemon.bench.account import account_for, read_topic
from daemon.bench.broker import Broker, brittle_broker, free_port
from daemon.bench.country import Country, Scene, record_of
from daemon.bench.process import cpu_seconds, heard, spawned
from daemon.bench.roles import run_detect, run_update
from daemon.bench.watch import QUIET_SECONDS, BenchFailed
from daemon.config import HttpSettings, KafkaSettings, Settings
from daemon.outcomes import Outcome
from detectors.types import Progress
from schemas.envelope import MODELS, TOPIC_ACQUISITIONS

PARTITIONS: Final = 8
ASKED_AT_ONCE: Final = 1_000
"""So many that no process waits for the next round of the relay, as one that judges pixels would
not."""
LOOK_SECONDS: Final = 0.25
REST_SECONDS: Final = 16.0
"""One look of the watch, eight rounds of the relay."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a run came to. Seconds and bytes; CPU seconds by kind of process. Bytes and the account
    are of every event ``sent`` and everything ``patched``, the rest of what came after warming."""

    sent: int
    patched: int
    events: int
    changes: int
    seconds: float
    relayed_seconds: float
    writer_seconds: float
    """Wall time in which update processes were not waiting for a message, all of them together."""
    cpu: dict[str, float]
    broker_cores: float
    """Cores the broker took, which is no part of the above."""
    resting_cores: float
    """Cores that all processes together take while nothing comes."""
    others_cores: float
    """Cores that programs which are no part of the run took meanwhile."""
    store_bytes: int
    topic_bytes: int
    largest_share: float
    """Of the events, those of the writer that had most."""
    account: dict[str, Any]

    @property
    def core_seconds(self) -> float:
        """Of all processes."""
        return sum(self.cpu.values())


def simulate(
    folder: Path,
    country: Country,
    scenes: Sequence[Scene],
    *,
    writers: int,
    warm: int,
    rest_seconds: float = REST_SECONDS,
    progress: Progress | None = None,
) -> Simulated:
    """Send the scenes' acquisitions to so many update processes, each with its share of stores; the
    first ``warm`` of them before the clock starts.

    Raises:
        BenchFailed: a process ended or hung.
        UsageError: no broker is installed.
    """
    records = [record_of(scene, country.image) for scene in scenes]
    before = {code: path.stat().st_size for code, path in country.stores.items()}
    with running(folder, country, writers=writers) as roles:
        resting = roles.rest(rest_seconds)
        _send(roles.server, records[:warm])
        roles.wait_processed(warm, len(scenes), progress)
        roles.wait_published()
        began, first = time.monotonic(), roles.look()
        _send(roles.server, records[warm:])
        roles.wait_processed(len(scenes), len(scenes), progress)
        seconds, done = time.monotonic() - began, roles.look()
        roles.wait_published()
        relayed, last = time.monotonic() - began, roles.look()
        topics = {name: read_topic(roles.server, name, PARTITIONS) for name, _ in MODELS.values()}
    waited = sum(b - a for a, b in zip(first.waited, done.waited, strict=True))
    timed = scenes[warm:]
    owned = [set(share) for share in shares(list(country.stores), writers)]
    account = account_for(country, scenes, topics)
    return Simulated(
        sent=len(scenes),
        patched=sum(account.changed.values()),
        events=len(timed),
        changes=sum(account.changed.get(scene.name, 0) for scene in timed),
        seconds=seconds,
        relayed_seconds=relayed,
        writer_seconds=writers * seconds - waited,
        cpu={kind: last.cpu[kind] - first.cpu[kind] for kind in last.cpu},
        broker_cores=(last.broker - first.broker) / relayed,
        resting_cores=resting,
        others_cores=max(0.0, (_others(last) - _others(first)) / relayed),
        store_bytes=sum(p.stat().st_size - before[c] for c, p in country.stores.items()),
        topic_bytes=sum(topic.size for topic in topics.values()),
        largest_share=max(sum(s.departement in own for s in timed) for own in owned) / len(timed),
        account=account.figures,
    )


def shares(codes: Sequence[str], writers: int) -> list[list[str]]:
    """Départements dealt out to writers in turn."""
    return [list(codes[number::writers]) for number in range(writers)]


@dataclass(frozen=True, slots=True)
class Looked:
    """All processes at one instant: events done, seconds each writer waited for messages, CPU
    seconds by kind, of the broker, and of the whole machine."""

    processed: int
    waited: Sequence[float]
    cpu: Mapping[str, float]
    broker: float
    machine: float


@dataclass(slots=True)
class Roles:
    """The processes of a run."""

    server: str
    broker: Sequence[int]
    """Ids of its processes."""
    updates: list[Any]
    detect: Any

    def look(self) -> Looked:
        """Ask every process how far it is."""
        told = [self._ask(pipe, "look") for pipe in self.updates]
        judged = self._ask(self.detect, "look")
        own = psutil.Process().cpu_times()
        machine = psutil.cpu_times()
        return Looked(
            processed=sum(
                t["outcomes"][Outcome.PROCESSED] + t["outcomes"][Outcome.DEAD_LETTERED]
                for t in told
            ),
            waited=[t["waited"] for t in told],
            cpu={
                "update": sum(t["cpu"] for t in told),
                "detect": judged["cpu"],
                "bench": own.user + own.system,
            },
            broker=cpu_seconds(self.broker),
            machine=sum(machine) - machine.idle - getattr(machine, "iowait", 0.0),
        )

    def wait_ready(self) -> None:
        """Until every process reads."""
        for pipe in [*self.updates, self.detect]:
            until = time.monotonic() + QUIET_SECONDS
            while not self._ask(pipe, "look")["ready"]:
                if time.monotonic() > until:
                    raise BenchFailed("A process did not come up; its output says why.")
                time.sleep(LOOK_SECONDS)

    def rest(self, seconds: float) -> float:
        """Leave the processes alone; gives the cores they take all the same."""
        began, before = time.monotonic(), self.look()
        time.sleep(seconds)
        after = self.look()
        taken = sum(after.cpu.values()) - sum(before.cpu.values())
        return taken / (time.monotonic() - began)

    def wait_processed(self, events: int, total: int, progress: Progress | None) -> None:
        """Until so many events of all are committed."""
        last, since = -1, time.monotonic()
        while last < events:
            done = self.look().processed
            if progress is not None:
                progress("events", min(done, total), total)
            if done != last:
                last, since = done, time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                raise BenchFailed(f"The processes stand at {done} of {events} events.")
            if done < events:
                time.sleep(LOOK_SECONDS)

    def wait_published(self) -> None:
        """Until every outbox is empty."""
        until = time.monotonic() + QUIET_SECONDS
        while left := sum(self._ask(pipe, "outbox") for pipe in self.updates):
            if time.monotonic() > until:
                raise BenchFailed(
                    f"{left} messages stay in the outboxes; see whether the broker runs."
                )
            time.sleep(LOOK_SECONDS)

    @staticmethod
    def _ask(pipe: Any, what: str) -> Any:  # noqa: ANN401
        with suppress(OSError):  # it ended, which is heard
            pipe.send(what)
        return heard(pipe, "process of a role")


@contextmanager
def running(folder: Path, country: Country, *, writers: int) -> Iterator[Roles]:
    """A broker, update processes and a detect process, ready; stopped cleanly at the end."""
    with ExitStack() as stack:
        broker: Broker = stack.enter_context(brittle_broker(folder, partitions=PARTITIONS))
        pipes = []
        for number, codes in enumerate(shares(list(country.stores), writers)):
            settings = _settings(folder, broker.server, [country.stores[c] for c in codes], number)
            pipes.append(stack.enter_context(spawned(run_update, settings))[1])
        settings = _settings(folder, broker.server, [], writers)
        pipes.append(stack.enter_context(spawned(run_detect, settings))[1])
        roles = Roles(broker.server, broker.pids, pipes[:-1], pipes[-1])
        roles.wait_ready()
        yield roles
        for pipe in pipes:
            pipe.send(None)
        for pipe in pipes:
            heard(pipe, "process of a role")


def _settings(folder: Path, server: str, stores: list[Path], number: int) -> Settings:
    """The defaults of a service, but for what is this run's own."""
    return Settings(
        db=stores,
        outbox=folder / f"outbox-{number}",
        exchange=folder / "exchange",
        kafka=KafkaSettings(servers=server, catch_all=number == 0),
        http=HttpSettings(port=free_port()),
        device="cpu",
        asked_at_once=ASKED_AT_ONCE,
    )


def _others(looked: Looked) -> float:
    return looked.machine - sum(looked.cpu.values()) - looked.broker


def _send(server: str, records: Sequence[Any]) -> None:
    producer = Producer({"bootstrap.servers": server, "log_level": 2})
    for record in records:
        headers = list(record.headers.items())
        producer.produce(TOPIC_ACQUISITIONS, value=record.value, key=record.key, headers=headers)
        producer.poll(0)
    if producer.flush(60):
        raise BenchFailed("The broker did not take the events; see whether it runs.")
