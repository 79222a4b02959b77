"""What people say has its effect once, wherever the service is killed that it was told to."""

from __future__ import annotations

import math
import random
import signal
import time

import pytest
import requests

from daemon.bench.broker import free_port
from daemon.config import Scope
from tests.faults.campaign import campaign, places
from tests.faults.processes import kill
from tests.faults.rig import Rig
from tests.faults.tally import tally
from tests.faults.world import made_world, submission, with_corrections, yard
from tests.integration.broker import available, broker
from tests.served import known
from updater.store import Store
from updater.verify import verify

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(3600, method="thread"),
    pytest.mark.skipif(not available(), reason="noida-db is not installed"),
]
TOKEN = "auch-reviews"
GIVE_UP_SECONDS = 240.0


@pytest.mark.faults
def test_corrections_among_acquisitions_survive_sixty_kills(starter, tmp_path):
    world = with_corrections(made_world(tmp_path / "world", events=45))
    with broker(tmp_path) as server:
        rig, whole = Rig(tmp_path / "killed", world, server), Rig(tmp_path / "whole", world, server)
        kills = campaign(rig, whole, starter, places(64, at_random=3))
        found = rig.outcome()
    sent = sum(b'"assets"' not in body for body in world.events)
    drawn = {row[1] for row in found.history["corrections"]}
    tally("correction sent to a service that is killed", tried=sent, lost=sent - len(drawn))
    assert kills >= 55 and len(drawn) == sent == 15


class Commune:
    """Somebody who sends batches over HTTP and, as told, sends again what had no answer."""

    def __init__(self, rig):
        self.rig, self.again = rig, 0

    def post(self, batch):
        """Send a batch until it is taken; gives the event's id."""
        until = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            try:
                answer = requests.post(
                    f"http://127.0.0.1:{self.rig.port}/corrections",
                    json=batch,
                    headers={"Authorization": f"Bearer {TOKEN}"},
                    timeout=30,
                )
            except requests.RequestException:
                answer = None
            if answer is not None and answer.status_code == 202:
                return answer.json()["id"]
            assert answer is None or answer.status_code == 503, answer.text
            self.again += 1
            time.sleep(0.05)
        raise AssertionError(self.rig.log.read_text()[-3000:])


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.faults)])
def test_a_batch_that_was_taken_over_http_is_never_lost(starter, tmp_path, kills):
    batches = 2 * kills
    world = made_world(tmp_path / "world", events=batches)
    across = math.ceil(batches**0.5)
    reviewer = known(Scope.REVIEW, token=TOKEN)
    tokens = f'tokens.auch = {{ sha256 = "{reviewer.sha256}", scopes = ["review"] }}'
    chance = random.Random(kills)
    with broker(tmp_path) as server:
        rig = Rig(tmp_path / "rig", world, server, port=free_port(), http=tokens)
        commune, ids, process = Commune(rig), [], rig.start(starter, once=False)
        for number in range(batches):
            if number % 2:  # while it starts, takes, hands over, reads, patches or tells
                time.sleep(chance.uniform(0.0, 0.6))
                assert kill(process) == -signal.SIGKILL
                assert not any(rig.look().values())
                process = rig.start(starter, once=False)
            ids.append(
                commune.post(submission(yard(number, across=across), comment=f"no. {number}"))
            )
        kill(process)
        rig.drain(starter)
        found = rig.outcome()
    taken = [row[1] for row in found.history["events"]]
    with Store.open(rig.store) as store:
        invalid = int(not verify(store, deep=True).valid)
    lost, doubled = len(set(ids) - set(taken)), len(taken) - len(set(taken))
    tally("kill -9 while a batch is sent over HTTP", tried=kills, lost=lost, doubled=doubled,
          invalid=invalid)  # fmt: skip
    assert (lost, doubled, invalid) == (0, 0, 0)
    assert len(set(ids)) == batches and set(taken) == set(ids)
    assert sum(row[7] > 0 for row in found.history["events"]) >= 0.7 * batches
