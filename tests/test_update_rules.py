"""Whose a message is, what waits for what, and where reading goes on."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from shapely.geometry import box

import daemon.roles
from daemon.config import KafkaSettings, Settings
from daemon.roles import DetectService, UpdateService, least_offsets, update_group
from daemon.update_rules import departement_of, must_wait
from schemas.errors import UsageError
from schemas.policy import CONTEXT_M
from updater.asked import Rival

TILE = box(0, 0, 1_000, 1_000)
BEFORE, SINCE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
DRAWN = datetime(2021, 12, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ground", "acquired", "waits"),
    [
        (box(0, 0, 1_000, 1_000), SINCE, True),
        (box(900, 0, 1_900, 1_000), SINCE, True),
        (box(1_000, 0, 2_000, 1_000), SINCE, False),  # adjoins
        (box(999, 0, 2_000, 1_000), SINCE, False),  # so do tiles that overlap by a few pixels
        (box(1_100, 0, 2_000, 1_000), BEFORE, True),  # alters the map this one is compared with
        (box(1_100, 0, 2_000, 1_000), SINCE, False),
        (box(1_100 + CONTEXT_M, 0, 9_000, 1_000), BEFORE, False),
    ],
)
def test_what_must_wait_for_an_earlier_acquisition(ground, acquired, waits):
    assert must_wait(TILE, DRAWN, [Rival(acquired, ground)]) is waits
    assert not must_wait(TILE, DRAWN, [])


@pytest.mark.parametrize(
    ("key", "departement"),
    [("D032/0.1,43.2", "D032"), ("D02A", "D02A"), ("FR/1,2", None), ("", None), ("D9/x", None)],
)
def test_a_key_names_a_departement_or_none(key, departement):
    assert departement_of(key) == departement


def test_a_group_is_named_after_its_stores_in_any_order():
    assert update_group("m", ["D032", "D031"]) == update_group("m", ["D031", "D032"])
    many = update_group("m", [f"D{n:03}" for n in range(1, 96)])
    assert len(many) < 40 and many != update_group("m", [f"D{n:03}" for n in range(1, 95)])


def test_reading_goes_on_where_the_store_furthest_behind_is(monkeypatch):
    known = [
        {("a", 0): 7, ("a", 1): 2},
        {("a", 0): 5},
    ]
    stores = [SimpleNamespace(known=offsets) for offsets in known]
    monkeypatch.setattr(daemon.roles, "next_offsets", lambda store: store.known)
    assert least_offsets(stores) == {("a", 0): 5}  # the second one never had the other partition


@pytest.mark.parametrize("role", [UpdateService, DetectService])
def test_roles_want_kafka_and_say_so(tmp_path, role):
    with pytest.raises(UsageError, match="reads from Kafka"):
        role(Settings(db=[tmp_path / "a.duckdb"]))
    kafka = KafkaSettings(servers="127.0.0.1:1")
    with pytest.raises(UsageError, match="no inbox"):
        role(Settings(db=[tmp_path / "a.duckdb"], inbox=tmp_path, kafka=kafka))


def test_a_worker_wants_to_know_the_exchange_folder():
    with pytest.raises(UsageError, match="exchange"):
        DetectService(Settings(kafka=KafkaSettings(servers="127.0.0.1:1")))
