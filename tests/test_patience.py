"""The front of the broker: an idle consumer costs next to nothing, a message comes at once."""

import struct
import time

import pytest
from confluent_kafka import Consumer, Producer

from daemon.bench.broker import available, brittle_broker
from daemon.bench.patience import fetch_version, has_something, wait_seconds
from daemon.bench.process import cpu_seconds

needs_broker = pytest.mark.skipif(not available(), reason="noida-db is not installed")


def fetch(version, *, wait_ms=500, client=b"rdkafka", key=1):
    """The beginning of a fetch."""
    head = struct.pack(">hhih", key, version, 7, len(client)) + client
    head += b"\0" if version >= 12 else b""
    body = head + struct.pack(">iii", -1, wait_ms, 1)
    return struct.pack(">i", len(body)) + body


def answer(version, sizes, *, error=0, given_up=1):
    """An answer of one topic: bytes of records for each partition; ``given_up``: transactions."""
    flexible = version >= 12

    def count(number, size=4):
        return bytes([number + 1]) if flexible else number.to_bytes(size, "big", signed=True)

    tags = b"\1\5\2ab" if flexible else b""  # one field, of two bytes
    body = struct.pack(">i", 7) + tags + struct.pack(">i", 0)
    body += struct.pack(">hi", 0, 0) if version >= 7 else b""
    body += count(1) + (b"t" * 16 if version >= 13 else count(1, 2) + b"t") + count(len(sizes))
    for number, size in enumerate(sizes):
        body += struct.pack(">ih", number, error) + struct.pack(">qq", 9, 9)
        body += struct.pack(">q", 0) if version >= 5 else b""
        body += count(given_up) + given_up * (struct.pack(">qq", 1, 2) + tags)
        body += struct.pack(">i", -1) if version >= 11 else b""
        body += count(size) + b"r" * max(size, 0) + tags
    body += 2 * tags
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize("version", [4, 11, 12, 13])
def test_a_fetch_says_how_long_it_may_wait(version):
    assert fetch_version(fetch(version)) == version
    assert wait_seconds(fetch(version, wait_ms=250), version) == 0.25
    assert wait_seconds(fetch(version, client=b""), version) == 0.5


def test_only_a_fetch_that_can_be_read_waits():
    assert fetch_version(fetch(11, key=0)) is None
    assert fetch_version(fetch(3)) is None and fetch_version(fetch(17)) is None


@pytest.mark.parametrize("version", [4, 5, 7, 11, 12, 13])
def test_records_and_errors_are_seen_in_every_layout(version):
    assert not has_something(answer(version, [0, 0, 0]), version)
    assert not has_something(answer(version, [-1, 0], given_up=0), version)
    assert has_something(answer(version, [0, 0, 70]), version)
    assert has_something(answer(version, [70, 0]), version)
    assert has_something(answer(version, [0], error=1), version)


@needs_broker
def test_what_a_client_has_thrown_away_comes_again_at_once(tmp_path):
    with brittle_broker(tmp_path) as broker:
        broker.create(["again"])
        producer = Producer({"bootstrap.servers": broker.server})
        for number in range(8):
            producer.produce("again", str(number).encode())
        assert producer.flush(10) == 0
        settings = {"bootstrap.servers": broker.server, "auto.offset.reset": "earliest"}
        few = {"queued.min.messages": 1, "fetch.wait.max.ms": 3_000}  # nothing is asked for ahead
        consumer = Consumer(settings | few | {"group.id": "pausing"})
        consumer.subscribe(["again"])
        assert consumer.poll(20).value() == b"0"
        seconds = []
        for number in range(1, 8):
            for _ in range(2):  # the second time it asks what it has asked before
                time.sleep(0.1)
                consumer.pause(consumer.assignment())
                assert consumer.poll(0.05) is None
                consumer.resume(consumer.assignment())
            began = time.monotonic()
            assert consumer.poll(20).value() == str(number).encode()
            seconds.append(time.monotonic() - began)
        assert min(seconds) < 1.0  # of three that the client would wait
        consumer.close()


@needs_broker
def test_an_idle_consumer_takes_little_and_gets_its_message_soon(tmp_path):
    with brittle_broker(tmp_path) as broker:
        broker.create(["waiting"], partitions=2)
        settings = {"bootstrap.servers": broker.server, "auto.offset.reset": "earliest"}
        consumer = Consumer(settings | {"group.id": "idle"})
        consumer.subscribe(["waiting"])
        producer = Producer({"bootstrap.servers": broker.server, "linger.ms": 0})
        seconds = []
        for number in range(4):
            producer.produce("waiting", str(number).encode(), partition=number % 2)
            assert producer.flush(10) == 0
            sent = time.monotonic()
            record = consumer.poll(20)
            assert record is not None and record.value() == str(number).encode()
            seconds.append(time.monotonic() - sent)
            before, since = cpu_seconds(broker.pids), time.monotonic()
            assert consumer.poll(0.5) is None
            taken = cpu_seconds(broker.pids) - before
            assert taken / (time.monotonic() - since) < 0.3  # 0.02; without the front 0.9
        assert min(seconds[1:]) < 0.25  # of half a second that the client would wait
        consumer.close()
    assert broker.pids == []
