"""Kafka for real: a broker process over TCP, events in and alerts out with kcat."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer

from daemon.announce import event_bytes, item_of, when
from daemon.config import KafkaSettings
from daemon.service import Service, handled
from schemas.envelope import ACQUISITION_TYPE, TOPIC_ACQUISITIONS, TOPIC_ALERTS, TOPIC_CHANGES
from schemas.policy import Sensor
from tests.integration.broker import available, broker
from tests.scenes import FLOWN_AFTER, prepared
from updater.reads import alerts_now, next_offsets
from updater.store import Store
from updater.verify import verify

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(not available(), reason="noida-db is not installed"),
]


@pytest.fixture
def kafka(tmp_path):
    with broker(tmp_path) as server:
        yield server


def kcat(*arguments: str, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["kcat", *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def settings_for(tmp_path: Path, small_scene, server: str):
    made = prepared(tmp_path, small_scene)
    options = {"session.timeout.ms": 10_000, "allow.auto.create.topics": False}
    return made.model_copy(
        update={"inbox": None, "kafka": KafkaSettings(servers=server, options=options)}
    )


def document(small_scene) -> tuple[str, bytes]:
    item = item_of(small_scene.after, acquired=when(FLOWN_AFTER), sensor=Sensor.PVA)
    event_id, body = event_bytes(item)
    return event_id, json.dumps(json.loads(body)["data"]).encode()


def run(settings):
    service = Service(settings, once=True)
    service.run()
    return handled(service)


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_events_produced_with_kcat_patch_the_map_and_kcat_reads_the_alerts(
    tmp_path, small_scene, kafka
):
    settings = settings_for(tmp_path, small_scene, kafka)
    event_id, data = document(small_scene)
    (tmp_path / "event.json").write_bytes(data)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "urn:test:kcat",
        "ce_type": ACQUISITION_TYPE,
        "content-type": "application/json",
    }
    flags = [flag for name, value in headers.items() for flag in ("-H", f"{name}={value}")]
    produce = ["-P", "-b", kafka, "-t", TOPIC_ACQUISITIONS, "-k", "D032/0,0"]
    for _ in range(2):  # the second one is the same event again
        kcat(*produce, *flags, str(tmp_path / "event.json"))
    kcat(*produce, stdin=b"poison")

    assert run(settings) == {"received": 3, "processed": 1, "duplicates": 1, "dead_lettered": 1}

    read = kcat("-C", "-b", kafka, "-t", TOPIC_ALERTS, "-e", "-q", "-J")
    alerts = [json.loads(line) for line in read.splitlines()]
    with Store.open(settings.db[0]) as store:
        known = {f"{r.id}.{r.sequence}" for r in alerts_now(store)}
        assert verify(store, deep=True).valid
        assert next_offsets(store) == {(TOPIC_ACQUISITIONS, 0): 3}
    sent = [dict(zip(a["headers"][::2], a["headers"][1::2], strict=True)) for a in alerts]
    assert known and {h["ce_id"] for h in sent} == known and len(sent) == len(known)
    payload = json.loads(alerts[0]["payload"])
    assert payload["departement"] == "D032" and alerts[0]["key"].startswith("D032/")
    changes = kcat("-C", "-b", kafka, "-t", TOPIC_CHANGES, "-e", "-q")
    assert json.loads(changes.splitlines()[0])["event"] == event_id


def test_the_position_is_the_stores_not_the_brokers(tmp_path, small_scene, kafka):
    settings = settings_for(tmp_path, small_scene, kafka)
    producer = Producer({"bootstrap.servers": kafka})
    for n in range(3):
        producer.produce(TOPIC_ACQUISITIONS, value=f"poison {n}".encode(), key=b"D032")
    producer.flush(20)
    assert run(settings)["dead_lettered"] == 3
    assert run(settings)["received"] == 0

    # another group has no position at the broker, yet the store remembers
    other = settings.kafka.model_copy(update={"group": "other"})
    assert run(settings.model_copy(update={"kafka": other}))["received"] == 0

    # the broker remembers more than the store: the store wins, and ids keep effects single
    with Store.open(settings.db[0]) as store, store.transaction() as cursor:
        cursor.execute("UPDATE offsets SET next_offset = 1")
    assert run(settings)["dead_lettered"] == 2
    with Store.open(settings.db[0]) as store:
        assert store.execute("SELECT count(*) FROM dead_letters").fetchone() == (3,)
