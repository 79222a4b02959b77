"""A service killed at every step and at any instant ends up with what an uninterrupted one has."""

from __future__ import annotations

import json
import random
import signal

import pyogrio
import pytest

from schemas.subscription import ChannelKind, Wish
from tests.faults.campaign import REACHED_SECONDS, STEPS, campaign, killed, places
from tests.faults.outcome import without_clocks
from tests.faults.processes import Cold
from tests.faults.rig import Rig
from tests.faults.tally import tally
from tests.faults.world import made_world, poison
from tests.integration.broker import available, broker
from tests.map_store import content
from tests.receivers import Receiver
from updater.reads import as_of, end_of
from updater.store import Store
from updater.subscriptions import accepted, save
from updater.verify import verify

pytestmark = pytest.mark.timeout(1200, method="thread")  # also where the database hangs
needs_broker = pytest.mark.skipif(not available(), reason="noida-db is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made_world(tmp_path_factory.mktemp("world"), events=12)


@needs_broker
def test_kills_at_every_step_between_kafka_and_kafka(small, starter, tmp_path):
    with broker(tmp_path) as server:
        rig = Rig(tmp_path / "killed", small, server)
        whole = Rig(tmp_path / "whole", small, server)
        assert campaign(rig, whole, starter, places(14, at_random=6)) >= 11


def test_kills_at_every_step_between_inbox_and_folder(small, starter, tmp_path):
    rig, whole = Rig(tmp_path / "killed", small), Rig(tmp_path / "whole", small)
    assert campaign(rig, whole, starter, [*STEPS]) >= 9


def test_a_process_of_its_own_dies_at_its_step_too(small, tmp_path):
    rig = Rig(tmp_path / "killed", small)
    rig.send([small.events[0]])
    assert rig.start(Cold(), once=True, fault="in-transaction").wait(REACHED_SECONDS) == -9
    with Store.open(rig.store) as store:
        assert store.execute("SELECT count(*) FROM events").fetchone() == (0,)
    rig.drain(Cold())
    with Store.open(rig.store) as store:
        assert store.execute("SELECT count(*) FROM events").fetchone() == (1,)
        assert verify(store, deep=True).valid


@needs_broker
def test_what_can_have_no_effect_is_kept_once_wherever_the_service_is_killed(
    small, starter, tmp_path
):
    steps = ("after-read", "in-transaction", "after-commit", "before-offset-commit", "in-relay:2")
    with broker(tmp_path) as server:
        rig = Rig(tmp_path / "killed", small, server)
        for number, step in enumerate(steps):
            rig.send([poison(small, number), b"another %d" % number])
            assert killed(rig, starter, step, random.Random(number))
        rig.drain(starter)
        found = rig.outcome()
    kept = [row[0] for row in found.history["dead letters"]]
    told = [id_ for id_, _ in found.published["dead_letters"]]
    lost, doubled = 2 * len(steps) - len(kept), len(kept) - len(set(kept))
    tally(
        "kill -9 while a dead letter is kept (Kafka)",
        tried=len(steps),
        lost=max(0, lost) + len(set(kept) - set(told)),
        doubled=max(0, -lost) + doubled,
    )
    assert lost == doubled == 0
    assert sorted(told) == sorted(kept)


@needs_broker
def test_an_event_on_two_maps_that_is_killed_between_them_has_its_effect_on_both(
    small, starter, tmp_path
):
    document = json.loads(small.events[0])
    document["data"]["properties"]["millesimed:departement"] = None  # the footprint decides
    with broker(tmp_path) as server:
        rig = Rig(tmp_path / "killed", small, server, stores=("D032", "D031"))
        rig.send([json.dumps(document).encode(), b"poison"])
        process = rig.start(starter, once=True, fault="after-commit")
        assert process.wait(REACHED_SECONDS) == -signal.SIGKILL
        rig.drain(starter)
    counts = []
    for territory in rig.stores:
        with Store.open(rig.folder / f"{territory}.duckdb") as store:
            assert verify(store, deep=True).valid
            counts.append(store.execute("SELECT count(*), sum(changed) FROM events").fetchone())
    effects = sum(n for n, _ in counts)
    tally(
        "kill -9 between the two maps of an event",
        tried=1,
        lost=max(0, 2 - effects),
        doubled=max(0, effects - 2),
    )
    assert counts[0] == counts[1] and counts[0][0] == 1 and counts[0][1] > 0


def test_an_import_that_is_killed_leaves_no_store_and_can_be_made_again(small, starter, tmp_path):
    db, log = tmp_path / "D032.duckdb", tmp_path / "log.txt"
    command = ["init", "--db", str(db), "--millesime", "2021", "--territory", "D032"]
    command.append(str(small.map))
    ended = starter.start(command, log=log, fault="in-import").wait(REACHED_SECONDS)
    assert ended == -signal.SIGKILL, log.read_text()
    assert not db.exists()
    assert starter.start(command, log=log).wait(REACHED_SECONDS) == 0, log.read_text()
    maps = []
    for path in (db, small.store):
        with Store.open(path) as store:
            assert verify(store).valid
            maps.append(content(as_of(store, valid_at=end_of(2021))))
    lost = int(maps[0] != maps[1])
    tally("kill -9 in-import (command)", tried=1, lost=lost)
    assert not lost


def called(rig, starter, steps):
    """What a webhook got of three events from a service killed at some steps in turn, first copies
    in order, and how many more copies came."""
    receiver, deaths = Receiver(), 0
    try:
        with Store.open(rig.store) as store:
            save(store, accepted(Wish(name="A", channel=ChannelKind.WEBHOOK, url=receiver.url)))
        for body in rig.world.events[:3]:
            rig.send([body])
            for step in steps:
                ended = rig.start(starter, once=True, fault=step).wait(REACHED_SECONDS)
                deaths += ended == -signal.SIGKILL
                assert not any(rig.look().values())
        rig.drain(starter)
    finally:
        receiver.close()
    first = {}
    for _, headers, body in receiver.got:
        assert first.setdefault(headers["webhook-id"], body) == body
    told = [(id_, without_clocks(json.loads(body)["data"])) for id_, body in first.items()]
    return told, len(receiver.got) - len(first), deaths


def test_a_webhook_called_before_a_kill_is_called_again_with_the_same_id(small, starter, tmp_path):
    networks = 'webhook_networks = ["127.0.0.0/8"]'
    rig = Rig(tmp_path / "killed", small, extra=networks)
    whole = Rig(tmp_path / "whole", small, extra=networks)
    found, again, deaths = called(rig, starter, ("in-call", "in-call:2", "in-call"))
    wanted, twice, _ = called(whole, starter, ())
    missing = sum(told not in found for told in wanted)
    surplus = sum(told not in wanted for told in found)
    tally("kill -9 in-call (webhook)", tried=deaths, lost=missing, doubled=surplus)
    assert found == wanted and len(wanted) >= 3 and not twice
    assert deaths >= 5 and again >= 2  # called, then killed


@pytest.mark.parametrize("kind", ["gpkg", "cog"])
def test_an_export_that_is_killed_leaves_what_was_there(small, starter, tmp_path, kind):
    target, log = tmp_path / f"map.{kind}", tmp_path / "log.txt"
    target.write_bytes(b"the export before")
    command = ["export", "--db", str(small.store), "--millesime", "2021"]
    command += ["--format", kind, "--out", str(target)]
    ended = starter.start(command, log=log, fault="in-export").wait(REACHED_SECONDS)
    assert ended == -signal.SIGKILL, log.read_text()
    whole = target.read_bytes() == b"the export before"
    tally("kill -9 in-export (command)", tried=1, lost=int(not whole))
    assert whole
    assert len(leftovers(tmp_path)) == 1
    assert starter.start(command, log=log).wait(REACHED_SECONDS) == 0, log.read_text()
    assert target.stat().st_size > 4096 and not leftovers(tmp_path)


def leftovers(folder):
    """Folders in which exports were made."""
    return list(folder.glob(".export-*"))


@pytest.mark.parametrize("step", ["in-export", "between-parts", "between-parts:3"])
def test_a_shapefile_that_is_killed_is_the_one_before_or_none(small, starter, tmp_path, step):
    target, log = tmp_path / "map.shp", tmp_path / "log.txt"
    command = ["export", "--db", str(small.store), "--millesime", "2021"]
    command += ["--format", "shp", "--out", str(target)]
    assert starter.start(command, log=log).wait(REACHED_SECONDS) == 0, log.read_text()
    before = {p.name: p.read_bytes() for p in tmp_path.glob("map.*")}
    ended = starter.start(command, log=log, fault=step).wait(REACHED_SECONDS)
    assert ended == -signal.SIGKILL, log.read_text()
    after = {p.name: p.read_bytes() for p in tmp_path.glob("map.*")}
    whole = after == before if step == "in-export" else not target.exists()
    tally("kill -9 between-parts (command)", tried=1, lost=int(not whole))
    assert whole and len(leftovers(tmp_path)) == 1
    assert starter.start(command, log=log).wait(REACHED_SECONDS) == 0, log.read_text()
    assert set(before) == {p.name for p in tmp_path.glob("map.*")} and not leftovers(tmp_path)
    assert len(pyogrio.read_dataframe(target)) > 0


@needs_broker
@pytest.mark.faults
@pytest.mark.timeout(3600, method="thread")
def test_a_hundred_and_thirty_kills_between_kafka_and_kafka(starter, tmp_path):
    world = made_world(tmp_path / "world", events=105)
    with broker(tmp_path) as server:
        rig = Rig(tmp_path / "killed", world, server)
        whole = Rig(tmp_path / "whole", world, server)
        assert campaign(rig, whole, starter, places(150, at_random=3)) >= 130


@pytest.mark.faults
@pytest.mark.timeout(3600, method="thread")
def test_seventy_kills_between_inbox_and_folder(starter, tmp_path):
    world = made_world(tmp_path / "world", events=56)
    rig, whole = Rig(tmp_path / "killed", world), Rig(tmp_path / "whole", world)
    assert campaign(rig, whole, starter, places(80, at_random=4)) >= 70
