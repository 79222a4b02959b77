"""The front of the broker: an idle consumer costs next to nothing, a message comes at once."""

import struct
import time

import psutil
import pytest
from confluent_kafka import Consumer, Producer

from daemon.bench.broker import Broker, available
from daemon.bench.patience import question, wait_seconds

needs_broker = pytest.mark.skipif(not available(), reason="noida-db is not installed")


def fetch(version, partitions, *, number=7, wait_ms=500, client=b"rdkafka"):
    """A fetch of a flexible version or not; partitions are numbers to be found again."""
    head = struct.pack(">hhih", 1, version, number, len(client)) + client
    if version >= 12:
        head += b"\0"
    if version <= 14:
        head += struct.pack(">i", -1)
    body = (
        head + struct.pack(">ii", wait_ms, 1) + b"".join(struct.pack(">q", p) for p in partitions)
    )
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize("version", [4, 11, 12, 13, 15, 16])
def test_a_fetch_says_how_long_it_may_wait(version):
    assert wait_seconds(fetch(version, [3], wait_ms=250)) == 0.25
    assert wait_seconds(fetch(version, [3], client=b"")) == 0.5


def test_only_a_fetch_waits():
    produce = bytearray(fetch(11, [3]))
    produce[4:6] = b"\0\0"
    assert wait_seconds(bytes(produce)) is None


def test_the_same_question_is_known_by_its_partitions_whatever_their_order():
    asked = question(fetch(13, [3, 4]))
    assert asked == question(fetch(13, [4, 3], number=8))
    assert asked != question(fetch(13, [3, 5])) != question(fetch(13, [3]))


@needs_broker
def test_an_idle_consumer_takes_little_and_gets_its_message_soon(tmp_path):
    broker = Broker(tmp_path)
    broker.start()
    try:
        broker.create(["waiting"], partitions=2)
        settings = {"bootstrap.servers": broker.server, "auto.offset.reset": "earliest"}
        consumer = Consumer(settings | {"group.id": "idle"})
        consumer.subscribe(["waiting"])
        producer = Producer({"bootstrap.servers": broker.server, "linger.ms": 0})
        processes = [psutil.Process(pid) for pid in broker.pids]
        seconds = []
        for number in range(4):
            producer.produce("waiting", str(number).encode(), partition=number % 2)
            assert producer.flush(10) == 0
            sent = time.monotonic()
            record = consumer.poll(20)
            assert record is not None and record.value() == str(number).encode()
            seconds.append(time.monotonic() - sent)
            before, since = sum(sum(p.cpu_times()[:2]) for p in processes), time.monotonic()
            assert consumer.poll(0.5) is None
            taken = sum(sum(p.cpu_times()[:2]) for p in processes) - before
            assert taken / (time.monotonic() - since) < 0.3  # 0.02; without the front 0.9
        assert min(seconds[1:]) < 0.25  # of half a second that the client would wait
        consumer.close()
    finally:
        broker.stop()
    assert broker.pids == []
