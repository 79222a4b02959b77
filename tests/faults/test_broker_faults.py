"""A broker that goes away, repeats itself, forgets topics, rebalances: the service goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import threading
import time

import pytest
import trustme
from confluent_kafka import Consumer

from schemas.envelope import CHANGE_TYPE, TOPIC_ACQUISITIONS, TOPIC_CHANGES
from tests.faults.gate import gate
from tests.faults.outcome import store_outcome
from tests.faults.rig import TO_TELL, Rig, create_topics, send
from tests.faults.tally import tally
from tests.faults.world import made_world, poison, stream
from tests.integration.broker import available, brittle_broker, broker, free_port
from updater import outbox
from updater.commit import OutboxRow, write_outbox
from updater.store import Store
from updater.verify import verify

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,  # they wait for real time-outs, and a busy machine makes those longer
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not available(), reason="noida-db is not installed"),
]
PROCESSED = 'millesimed_events_total{outcome="processed"}'
DEAD = 'millesimed_events_total{outcome="dead-lettered"}'


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Six events whose grounds share no neighbour."""
    return made_world(tmp_path_factory.mktemp("world"), events=6, step_m=220.0)


def processor_seconds(pid):
    """Processor time a process has used."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()  # noqa: PTH123, SIM115
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_exactly_once(rig, *, fault=None):
    """Every event of the world has its effect once, and everybody was told of it."""
    found = rig.outcome()
    keys = [row[0] for row in found.history["events"]]
    wanted = {json.loads(body)["id"] for body in rig.world.events}
    with Store.open(rig.store) as store:
        invalid = int(not verify(store, deep=True).valid)
        assert outbox.depth(store, "kafka")[0] == 0
    told = {id_ for kind in ("changes", "alerts") for id_, _ in found.published[kind]}
    told |= {id_ for id_, _ in found.published["dead_letters"]}
    to_tell = {row[0] for row in found.history["outbox"]}
    lost = len(wanted - {key.split("#")[1] for key in keys}) + len(to_tell - told)
    doubled = len(keys) - len(set(keys)) + len(told - to_tell)
    if fault is not None:
        tally(fault, tried=1, lost=lost, doubled=doubled, invalid=invalid)
    assert (lost, doubled, invalid) == (0, 0, 0)
    return found


@pytest.mark.parametrize("absence", [0.0, 8.0, 30.0], ids=lambda s: f"{s:g}s")
def test_a_broker_that_goes_away_and_comes_back_finds_the_service_waiting(
    apart, starter, tmp_path, absence
):
    with brittle_broker(tmp_path) as kafka:
        rig = Rig(tmp_path / "rig", apart, kafka.server, port=free_port())
        portions = stream(apart)
        rig.send(portions[0])
        with rig.running(starter) as process:
            rig.until(PROCESSED, 1)
            for portion in portions[1:3]:
                rig.send(portion)
            kafka.stop()  # whatever is under way
            begun = time.monotonic()
            if absence:
                rig.until('millesimed_kafka_errors_total{client="consumer"', 1, seconds=60.0)
                rig.idle()  # what was in hand has its effect
                assert_quiet(rig, process, seconds=5.0)
                log = rig.log.read_text()
                assert "kafka_error" in log and "see whether the broker runs" in log
                time.sleep(max(0.0, begun + absence - time.monotonic()))
            kafka.start()
            for portion in portions[3:]:
                rig.send(portion)
            rig.until(PROCESSED, len(apart.events))
            if absence:
                assert "kafka_answers_again" in rig.log.read_text()
        rig.drain(starter)
        assert_exactly_once(rig, fault=f"the broker is stopped and away for {absence:g} s")


def assert_quiet(rig, process, *, seconds):
    """A service that waits for somebody uses little of a processor and says little."""
    used, lines = processor_seconds(process.pid), len(rig.log.read_text().splitlines())
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    assert (processor_seconds(process.pid) - used) / passed < 0.3  # no busy loop
    assert len(rig.log.read_text().splitlines()) - lines < 2 * passed


def test_a_broker_that_is_killed_during_a_detection_gets_what_it_missed(starter, tmp_path):
    slow = made_world(tmp_path / "world", events=3, step_m=300.0, repeat=4)
    with brittle_broker(tmp_path) as kafka:
        rig = Rig(tmp_path / "rig", slow, kafka.server, port=free_port(), extra="tile_size = 64")
        rig.send(slow.events[:1])
        with rig.running(starter) as process:
            rig.until(PROCESSED, 1)
            rig.until_told()
            os.kill(process.pid, signal.SIGSTOP)
            rig.send(slow.events[1:])
            kafka.settle()
            os.kill(process.pid, signal.SIGCONT)
            rig.until('millesimed_stage_in_progress{stage="detect"}', 1)
            kafka.stop(kill=True)
            rig.until(PROCESSED, 2)
            rig.until(TO_TELL, 1)  # with nobody there to be told
            kafka.start()
            rig.until(PROCESSED, 3)
        rig.drain(starter)
        assert_exactly_once(rig, fault="the broker is killed during a detection")


def test_what_comes_twice_and_in_another_order_has_its_effect_once(apart, starter, tmp_path):
    with broker(tmp_path) as server:
        calm = Rig(tmp_path / "calm", apart, server, acquisitions="in-order")
        mixed = Rig(tmp_path / "mixed", apart, server, acquisitions="mixed")
        calm.send(apart.events)
        bodies = [*apart.events, *apart.events, poison(apart, 0), poison(apart, 1), *apart.events]
        random.Random(4).shuffle(bodies)
        mixed.send(bodies)
        for rig in (calm, mixed):
            rig.drain(starter)
        found = assert_exactly_once(mixed, fault="events thrice and in another order")
        wanted = assert_exactly_once(calm)
        assert found.map == wanted.map
        assert len(found.history["dead letters"]) == 2
        for table in ("events", "lineage", "alerts"):
            assert found.history[table] == wanted.history[table]


def test_a_rebalance_in_the_middle_of_a_long_detection(starter, tmp_path):
    slow = made_world(tmp_path / "world", events=1, step_m=400.0, repeat=6)
    with broker(tmp_path, partitions=2) as server:
        rig = Rig(tmp_path / "rig", slow, server, port=free_port(), extra="tile_size = 64")
        rig.send(slow.events)
        with rig.running(starter):
            rig.until('millesimed_stage_in_progress{stage="detect"}', 1)
            got, gone = threading.Event(), threading.Event()
            options = {"bootstrap.servers": server, "group.id": rig.name, "log_level": 2}
            options |= {"session.timeout.ms": 6000, "partition.assignment.strategy": "range"}
            second = Consumer(options)
            second.subscribe(
                [TOPIC_ACQUISITIONS],
                on_assign=lambda *_: got.set(),
                on_revoke=lambda *_: gone.set(),
            )
            until = time.monotonic() + 120
            while not got.is_set() and time.monotonic() < until:
                second.poll(0.2)
            assert got.is_set()
            assert rig.metric('millesimed_stage_in_progress{stage="detect"}') == 1  # still
            second.close()
            assert gone.is_set()
            rig.until(PROCESSED, 1, seconds=400)
            rig.send([b"poison", b"more poison"])  # the partitions have come back
            rig.until(DEAD, 2)
        rig.drain(starter)
        found = assert_exactly_once(rig, fault="a rebalance during a detection")
        assert len(found.history["lineage"]) > 0


def test_messages_over_the_limit_are_kept_aside_and_hold_up_nobody(apart, starter, tmp_path):
    with broker(tmp_path) as server:
        rig = Rig(tmp_path / "rig", apart, server)
        large = json.dumps(
            {"event": "too-large", "data": random.Random(1).randbytes(3_000_000).hex()}
        )
        with Store.open(rig.store) as store, store.transaction() as cursor:
            for id_, body in (("BEFORE", "{}"), ("LARGE", large), ("AFTER", "{}")):
                row = OutboxRow(id_, CHANGE_TYPE, TOPIC_CHANGES, "D032/key", body)
                write_outbox(cursor, [row], store.clock())
        too_large = [b"x" * 1_500_000, b"y" * 12_000_000]
        send(server, [too_large[0], *apart.events, too_large[1]])
        for _ in range(3):
            rig.drain(starter)
        found = rig.outcome()
        ids = [id_ for id_, _ in found.published["changes"]]
        assert ids[:2] == ["BEFORE", "AFTER"] and "LARGE" not in ids
        assert not sum(found.doubled.values())  # nothing behind it is sent again and again
        assert "LARGE" in {id_ for id_, _ in found.published["changes/*.json"]}
        with Store.open(rig.store) as store:
            ((pending, reason),) = outbox.parked(store, "kafka")
            assert pending.id == "LARGE" and "size" in reason.lower()
            reasons = store.execute("SELECT reason FROM dead_letters").fetchall()
        assert reasons == [("event-too-large",)] * len(too_large)
        assert len(found.history["events"]) == len(apart.events)
        log = rig.log.read_text()
        assert log.count("message_parked") == 3  # every start offers it once more
        told = {id_ for id_, _ in found.published["alerts"]}
        alerts = {f"{row[0]}.{row[1]}" for row in found.history["alerts"]}
        tally(
            "a message over the limit, in and out",
            tried=len(too_large) + len({"LARGE"} - set(ids)),
            lost=len(alerts - told) + len(apart.events) - len(found.history["events"]),
            doubled=sum(found.doubled.values()),
        )
        assert alerts and told == alerts


def test_a_topic_that_does_not_exist_is_said_once_and_waited_for(apart, starter, tmp_path):
    with brittle_broker(tmp_path) as kafka:
        rig = Rig(
            tmp_path / "rig",
            apart,
            kafka.server,
            acquisitions="later",
            with_topics=False,
            port=free_port(),
        )
        kafka.create([rig.topics["changes"], rig.topics["alerts"]])  # but none for dead letters
        with rig.running(starter):
            rig.until('millesimed_kafka_errors_total{client="consumer"', 1)
            kafka.create(["later"])
            rig.send([b"poison", *apart.events])
            rig.until(PROCESSED, len(apart.events))
            rig.until('millesimed_published_total{channel="kafka"}', 1)  # held up by nobody
            assert rig.metric(TO_TELL) >= 1  # the dead letter
            kafka.create([rig.topics["dead_letters"]])
            rig.until_told()
        log = rig.log.read_text()
        assert log.count("create the topic") <= 4
        assert_exactly_once(rig, fault="a topic that does not exist")
        assert store_outcome(rig.store)[1]["dead letters"]


def test_a_login_that_is_refused_or_expires_is_said_once_and_tried_again(apart, starter, tmp_path):
    good, other = ("millesimed", "s3cret-word"), ("millesimed", "changed-since")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "sasl.mechanism": "PLAIN",
        "sasl.username": good[0],
        "sasl.password": good[1],
    }
    refusals = 'millesimed_kafka_errors_total{client="consumer",code="_AUTHENTICATION"}'
    with brittle_broker(tmp_path) as kafka, gate(kafka.port, context, None) as before:
        rig = Rig(
            tmp_path / "rig",
            apart,
            f"127.0.0.1:{before.port}",
            options=options,
            with_topics=False,
            port=free_port(),
        )
        create_topics(kafka.server, list(rig.topics.values()))
        portions = stream(apart)
        send(kafka.server, portions[0])
        with rig.running(starter) as process:
            rig.until(refusals, 3)
            said = [line for line in rig.log.read_text().splitlines() if "_AUTHENTICATION" in line]
            assert len(said) == 1 and "sasl.password" in said[0] and "client=consumer" in said[0]
            assert_quiet(rig, process, seconds=3.0)
            before.login = good
            rig.until(PROCESSED, 1)
            before.expire(other)
            refused = rig.metric(refusals)
            for portion in portions[1:]:
                send(kafka.server, portion)
            rig.until(refusals, refused + 1)
            before.login = good
            rig.until(PROCESSED, len(apart.events))
        assert good[1] not in rig.log.read_text()
        assert before.refused >= 3
        rig.drain(starter)
        rig.server = kafka.server  # to read what was published
        assert_exactly_once(rig, fault="a login that is refused or expires")


def test_settings_librdkafka_does_not_know_are_one_sentence(apart, starter, tmp_path):
    rig = Rig(
        tmp_path / "rig",
        apart,
        "127.0.0.1:1",
        options={"sasl.mechanisme": "PLAIN"},
        with_topics=False,
    )
    assert rig.start(starter, once=True).wait(240) == 2
    assert "correct `kafka.options`" in rig.log.read_text().splitlines()[-1]
