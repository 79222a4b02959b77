"""How far the service is behind a real broker, while it works and when the broker is gone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer

from daemon import kafka_source
from daemon.config import KafkaSettings
from daemon.kafka_source import KafkaSource
from schemas.envelope import TOPIC_ACQUISITIONS
from tests.integration.broker import available, broker

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(not available(), reason="noida-db is not installed"),
]
PARTITIONS = 2


def produced(server, counts):
    producer = Producer({"bootstrap.servers": server})
    for partition, count in counts.items():
        for n in range(count):
            producer.produce(TOPIC_ACQUISITIONS, value=f"{n}".encode(), partition=partition)
    assert producer.flush(20) == 0


def source_of(server, offsets=None):
    options = {"session.timeout.ms": 10_000, "allow.auto.create.topics": False}
    settings = KafkaSettings(servers=server, options=options)
    return KafkaSource(settings, lambda: offsets or {})


def message(source):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = source.next(0.5)
        if found is not None:
            return found
    raise AssertionError("no message came")


def drain(source):
    until = time.monotonic() + 30
    while not source.drained():
        assert time.monotonic() < until
        found = source.next(0.5)
        if found is not None:
            source.done(found, failed=False)


def test_short_work_costs_nothing_that_was_fetched_ahead(tmp_path):
    with broker(tmp_path, partitions=PARTITIONS) as server:
        produced(server, {0: 20})
        source = source_of(server)
        try:
            first = message(source)
            time.sleep(0.3)  # the others are fetched
            source.heartbeat()
            source.done(first, failed=False)
            began = time.monotonic()
            assert source.next(5.0).origin.offset == 1
            assert time.monotonic() - began < 0.05  # no question to the broker lies between
        finally:
            source.close()


def test_the_lag_follows_what_has_its_effect_even_while_a_long_detection_runs(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(kafka_source, "PAUSE_AFTER_SECONDS", 0.0)
    with broker(tmp_path, partitions=PARTITIONS) as server:
        produced(server, {0: 3, 1: 1})
        source = source_of(server)
        try:
            assert source.backlog().lag == {}  # nothing assigned yet
            first = message(source)
            found = source.backlog()
            assert found.lag == {"0": 3, "1": 1}  # the one in hand counts
            assert found.oldest == first.sent
            assert datetime.now(UTC) - first.sent < timedelta(minutes=1)
            source.heartbeat()
            produced(server, {1: 5})  # while the first is worked on and fetching is paused
            source.heartbeat()
            assert sum(source.backlog().lag.values()) == 9
            source.done(first, failed=False)
            assert sum(source.backlog().lag.values()) == 8
            assert source.backlog().oldest is None
            drain(source)
            assert source.backlog().lag == {"0": 0, "1": 0}
        finally:
            source.close()


def test_the_lag_is_counted_from_the_stores_position(tmp_path):
    with broker(tmp_path, partitions=PARTITIONS) as server:
        produced(server, {0: 4, 1: 2})
        source = source_of(server, {(TOPIC_ACQUISITIONS, 0): 3, (TOPIC_ACQUISITIONS, 1): 2})
        try:
            message(source)
            assert source.backlog().lag == {"0": 1, "1": 0}
        finally:
            source.close()


def test_without_the_broker_the_last_answer_stands_and_comes_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_source, "END_SECONDS", 0.5)
    with broker(tmp_path, partitions=PARTITIONS) as server:
        produced(server, {0: 3, 1: 1})
        source = source_of(server)
        message(source)
        assert source.backlog().lag == {"0": 3, "1": 1}
    try:
        begun = time.monotonic()
        assert source.backlog().lag == {"0": 3, "1": 1}
        assert time.monotonic() - begun < 5
    finally:
        source.close()
