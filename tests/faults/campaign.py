"""Kill a service again and again while it is fed, and hold what is left against one left alone."""

from __future__ import annotations

import json
import random
import signal
import time

from tests.faults.outcome import Outcome
from tests.faults.processes import Starter, kill
from tests.faults.rig import Rig
from tests.faults.tally import tally
from tests.faults.world import stream
from updater.store import Store
from updater.verify import verify

REACHED_SECONDS = 300.0
"""Only a hang takes that long, however busy the machine."""
LATEST_KILL = 2.5
"""Seconds after the start: by then a few events have gone all the way."""
STEPS = (
    "after-read",
    "after-detect",
    "in-transaction",
    "after-commit",
    "in-repair:2",  # of what the kill before has left in the log
    "in-repair:3",  # and of the half-made repair
    "before-offset-commit",
    "in-relay",
    "in-relay:2",
    "in-call",
    "in-checkpoint",
    "in-checkpoint:2",
)


def places(kills: int, *, at_random: int) -> list[str | None]:
    """Where each kill comes: at the steps in turn, every ``at_random``-th at any instant (None)."""
    plan: list[str | None] = []
    step = 0
    for number in range(kills):
        if number % at_random == at_random - 1:
            plan.append(None)
        else:
            plan.append(STEPS[step % len(STEPS)])
            step += 1
    return plan


def killed(rig: Rig, starter: Starter, place: str | None, chance: random.Random) -> bool:
    """Start the service and have it killed; False where it never came to that step."""
    if place is None:
        process = rig.start(starter, once=False)
        time.sleep(chance.uniform(0.05, LATEST_KILL))
        ended = kill(process)
    else:
        ended = rig.start(starter, once=True, fault=place).wait(REACHED_SECONDS)
    assert ended in {0, -signal.SIGKILL}, rig.log.read_text()[-3000:]
    found = rig.look()
    died = ended == -signal.SIGKILL
    if died:
        name = "at a random instant" if place is None else place.partition(":")[0]
        tally(f"kill -9 {name} ({way(rig)})", tried=1, **found)
    assert not any(found.values()), f"{place}: {found}"
    return died


def way(rig: Rig) -> str:
    """Where events come from and messages go to."""
    return "inbox" if rig.server is None else "Kafka"


def campaign(rig: Rig, whole: Rig, starter: Starter, plan: list[str | None]) -> int:
    """Feed, kill, feed, kill; in the end both services have the same to show. Gives the kills."""
    chance = random.Random(len(plan))
    waiting = stream(rig.world)
    died = {True: 0, False: 0}
    for number, place in enumerate(plan):
        due = -(-len(rig.world.events) * (number + 1) // len(plan))  # one at least
        while len(rig.world.events) - len(waiting) < due:
            rig.send(waiting.pop(0))
        died[place is not None] += killed(rig, starter, place, chance)
    for portion in waiting:
        rig.send(portion)
    rig.drain(starter)
    if whole.server is None:
        for portion in stream(rig.world):
            whole.send(portion)
    whole.drain(starter)
    found, wanted = rig.outcome(), whole.outcome()
    with Store.open(rig.store) as store:
        invalid = int(not verify(store, deep=True).valid)
    tally(
        f"a service killed {sum(died.values())} times and one left alone ({way(rig)})",
        tried=1,
        lost=found.lost(wanted),
        doubled=found.surplus(wanted),
        invalid=invalid,
    )
    assert not invalid
    assert not sum(wanted.doubled.values())
    assert found.history == wanted.history
    assert found.map == wanted.map
    assert found.published == wanted.published
    assert_worth_it(rig, wanted)
    # steps are reached nearly always: what has nothing to repair or to tell passes by
    assert died[True] >= 0.8 * sum(place is not None for place in plan)
    return sum(died.values())


def assert_worth_it(rig: Rig, wanted: Outcome) -> None:
    """Events did something, and every one sent has its effect or its dead letter."""
    history = wanted.history
    assert len(history["events"]) == len(rig.world.events)
    assert history["dead letters"] and history["lineage"]
    valid = {json.loads(body)["id"] for body in rig.world.events}
    assert not valid & {row[1] for row in history["dead letters"]}
    assert sum(row[7] > 0 for row in history["events"]) >= 0.7 * len(rig.world.events)
    told = [id_ for id_, _ in wanted.published["alerts/*.json"]]
    assert {f"{row[0]}.{row[1]}" for row in history["alerts"]} == set(told)
    subscribed = {id_ for id_, _ in wanted.published["subscription"]}
    assert subscribed and subscribed <= {id_.split(".")[0] for id_ in told}
    if rig.server is not None:
        assert sorted(told) == sorted(id_ for id_, _ in wanted.published["alerts"])
