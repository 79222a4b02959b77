"""Partitions that go to another process and come back are read on, whatever was under way."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer

from daemon.config import KafkaSettings
from schemas.envelope import TOPIC_ACQUISITIONS
from tests.integration.broker import available, broker
from tests.integration.test_lag import PARTITIONS, message, produced, source_of

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(not available(), reason="noida-db is not installed"),
]


def test_a_partition_that_leaves_while_it_is_paused_is_read_when_it_comes_back(tmp_path):
    with broker(tmp_path, partitions=PARTITIONS) as server:
        produced(server, {0: 1, 1: 1})
        source = source_of(server)
        first, taken = message(source), []
        group = KafkaSettings(servers=server).group
        options = {"bootstrap.servers": server, "group.id": group, "log_level": 2}
        other = Consumer(options | {"partition.assignment.strategy": "range"})
        try:
            other.subscribe([TOPIC_ACQUISITIONS], on_assign=lambda _, found: taken.extend(found))
            until = time.monotonic() + 60
            while not taken and time.monotonic() < until:
                source.heartbeat()  # a long detection: everything is paused
                other.poll(0.1)
            assert len(taken) == 1
            source.done(first, failed=False)
            source.next(0.5)  # the detection is over, one partition is away
            other.close()
            seen, until = set(), time.monotonic() + 60
            while seen != {0, 1} and time.monotonic() < until:
                found = source.next(0.5)
                seen |= {found.origin.partition} if found else set()
            assert seen == {0, 1}
        finally:
            source.close()
