"""Processes of the roles, killed at work: the others go on, and the map is what one would draw."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace

import pytest

from schemas.envelope import TASK_TYPE
from tests.faults.processes import kill
from tests.faults.rig import DRAIN_SECONDS, Rig, send
from tests.faults.tally import tally
from tests.faults.world import made_world, stream
from tests.integration.broker import available, broker
from updater import asked
from updater.store import Store
from updater.verify import verify

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not available(), reason="noida-db is not installed"),
]
ENDED_SECONDS = 240.0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made_world(tmp_path_factory.mktemp("world"), events=6)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory, small):
    """A broker that has the events."""
    with broker(tmp_path_factory.mktemp("kafka")) as server:
        send(server, [body for portion in stream(small) for body in portion])
        yield server


@pytest.fixture(scope="module")
def wanted(tmp_path_factory, small, kafka, starter):
    """What one process that nobody kills makes of them."""
    rig = Rig(tmp_path_factory.mktemp("whole") / "whole", small, kafka)
    rig.drain(starter)
    return rig.outcome()


def stop(processes, *, as_they_start=False):
    """Ask processes to end, and see that they end well: one that has not begun to listen to
    signals, as the system ends it."""
    well = {0, -signal.SIGTERM} if as_they_start else {0}
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    for process in processes:
        assert process.wait(ENDED_SECONDS) in well


def in_any_order(published):
    """What was published, but for the order of dead letters: one whose image is unreadable comes
    when a worker has found that out, and others do not wait for it."""
    return published | {"dead_letters": sorted(published["dead_letters"])}


def assert_as_wanted(rig, wanted, *, fault, tried):
    """Map, history and messages are those of the process that nobody killed."""
    found = rig.outcome()
    history = dict(found.history)
    history["outbox"] = [row for row in history["outbox"] if row[1] != TASK_TYPE]
    found = replace(found, history=history)
    with Store.open(rig.store) as store:
        invalid = int(not verify(store, deep=True).valid)
        left = asked.waiting(store)[0]
    lost, doubled = found.lost(wanted) + left, found.surplus(wanted)
    tally(fault, tried=tried, lost=lost, doubled=doubled, invalid=invalid)
    assert (lost, doubled, invalid) == (0, 0, 0)
    assert found.map == wanted.map
    assert found.history == wanted.history
    assert in_any_order(found.published) == in_any_order(wanted.published)
    assert not list((rig.folder / "exchange" / "D032").glob("*.arrow"))


def test_workers_that_are_killed_at_their_second_task_lose_and_double_nothing(
    small, kafka, wanted, starter, tmp_path
):
    rig = Rig(tmp_path / "worker", small, kafka, roles=True)
    update = rig.start(starter, once=True, role="update")
    steps = ("after-detect", "before-answer")
    workers = [
        rig.start(starter, once=False, role=f"detect-{place}", fault=f"{step}:2")
        for place, step in enumerate(steps)
    ]
    died, until = [], time.monotonic() + ENDED_SECONDS
    while update.wait(0.1) is None and time.monotonic() < until:
        for place, worker in enumerate(workers):
            if worker.wait(0) is not None:
                assert worker.wait(0) == -signal.SIGKILL
                died.append(f"kill -9 {steps[place]} (detect worker)")
                workers[place] = rig.start(starter, once=False, role=f"detect-{place}")
    assert update.wait(0) == 0, rig.log.read_text()[-3000:]
    assert died  # whichever had two tasks
    stop(workers)
    said = [line for line in rig.log.read_text().splitlines() if "task_judged" in line]
    assert said and all(
        f"{what}=" in line for line in said for what in ("event_id", "item", "task")
    )
    assert all("store=D032" in line and "stage=detect" in line for line in said)
    for fault in died[1:]:
        tally(fault, tried=1)
    assert_as_wanted(rig, wanted, fault=died[0], tried=1)


@pytest.mark.parametrize(
    "step",
    [
        "in-transaction:4",
        "in-relay",
        *(
            pytest.param(step, marks=pytest.mark.faults)
            for step in ("in-transaction:9", "after-commit:9", "in-relay:3", "in-checkpoint:4")
        ),
    ],
)
def test_an_update_process_that_is_killed_is_replaced_by_the_one_that_waits(
    small, kafka, wanted, starter, tmp_path, step
):
    rig = Rig(tmp_path / step.replace(":", "-"), small, kafka, roles=True)
    first = rig.start(starter, once=False, role="update", fault=step)
    until = time.monotonic() + ENDED_SECONDS
    while "running" not in (rig.log.read_text() if rig.log.exists() else ""):
        assert first.wait(0.1) in {None, -signal.SIGKILL} and time.monotonic() < until
        if first.wait(0) is not None:
            break
    second = rig.start(starter, once=True, role="update")
    workers = [rig.start(starter, once=False, role="detect-0")]
    assert first.wait(ENDED_SECONDS) == -signal.SIGKILL
    workers.append(rig.start(starter, once=False, role="detect-1"))  # joins at work
    assert second.wait(DRAIN_SECONDS) == 0, rig.log.read_text()[-3000:]
    stop(workers)
    assert_as_wanted(rig, wanted, fault="kill -9 of an update process", tried=1)


@pytest.mark.faults
def test_a_worker_that_is_asked_to_leave_at_work_hands_its_tasks_to_the_other(
    small, kafka, wanted, starter, tmp_path
):
    rig = Rig(tmp_path / "leaving", small, kafka, roles=True, named=False)
    update = rig.start(starter, once=True, role="update")
    workers = [rig.start(starter, once=False, role=f"detect-{place}") for place in range(2)]
    until = time.monotonic() + ENDED_SECONDS
    while not rig.log.exists() or rig.log.read_text().count("task_begun") < 2:
        assert time.monotonic() < until, rig.log.read_text()
        time.sleep(0.05)
    stop(workers[:1])
    assert update.wait(DRAIN_SECONDS) == 0, rig.log.read_text()[-3000:]
    stop(workers[1:])
    assert_as_wanted(rig, wanted, fault="detect worker that leaves at work", tried=1)


def test_who_waits_for_a_store_says_so_once_and_is_alive_but_not_ready(
    small, kafka, starter, tmp_path
):
    from tests.integration.broker import free_port

    rig = Rig(tmp_path / "standby", small, kafka, roles=True, port=free_port())
    with Store.open(rig.store):
        process = rig.start(starter, once=False, role="update")
        rig.until("millesimed_loop_timestamp_seconds", 1.0)
        assert rig.status("/healthz") == 200 and rig.status("/readyz") == 503
        time.sleep(2.5)
        assert rig.log.read_text().count("standby") == 1
    until = time.monotonic() + ENDED_SECONDS
    while rig.status("/readyz") != 200:
        assert time.monotonic() < until, rig.log.read_text()
        time.sleep(0.1)
    kill(process)


class Crowd:
    """An update process, one that waits, and workers; a killed one is replaced at once."""

    def __init__(self, rig, starter, *, workers):
        self.rig, self.starter = rig, starter
        roles = ["update", "update", *(f"detect-{n}" for n in range(workers))]
        self.running = [(role, self._start(role)) for role in roles]

    def _start(self, role):
        return self.rig.start(self.starter, once=False, role=role)

    def lose(self, place):
        role, process = self.running[place]
        kill(process)
        self.running[place] = (role, self._start(role))
        return role.partition("-")[0]

    def end(self):
        stop([process for _, process in self.running], as_they_start=True)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_random_processes_are_killed_and_replaced_under_load(starter, tmp_path):
    world = made_world(tmp_path / "world", events=48)
    chance = random.Random(9)
    with broker(tmp_path) as server:
        whole = Rig(tmp_path / "whole", world, server)
        rig = Rig(tmp_path / "killed", world, server, roles=True)
        crowd = Crowd(rig, starter, workers=3)
        died = {"update": 0, "detect": 0}
        for portion in stream(world):
            rig.send(portion)
            time.sleep(chance.uniform(0.1, 2.0))
            died[crowd.lose(chance.randrange(len(crowd.running)))] += 1
        crowd.end()
        update = rig.start(starter, once=True, role="update")
        workers = [rig.start(starter, once=False, role=f"detect-{n}") for n in range(3)]
        assert update.wait(DRAIN_SECONDS) == 0, rig.log.read_text()[-3000:]
        stop(workers)
        whole.drain(starter)
        wanted = whole.outcome()
        tally("kill -9 of a random update process under load", tried=died["update"])
        assert_as_wanted(
            rig, wanted, fault="kill -9 of a random detect worker under load", tried=died["detect"]
        )
    assert min(died.values()) >= 10
