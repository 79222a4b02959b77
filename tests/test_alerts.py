"""The life of an alert: every state and the ways between them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from schemas.alert import AlertKind, AlertState
from schemas.policy import Sensor
from updater.alerts import Look, follow, raised, rejected, same_ground, seen_again, seen_clean
from updater.types import Sighting

GROUND = box(0, 0, 40, 30)
DAY = datetime(2024, 6, 1, tzinfo=UTC)


def sighting(probability=0.6, geometry=GROUND, kind=AlertKind.ARTIFICIALISATION):
    return Sighting(
        kind, "CS2.2.1", "US1.1", "CS1.1.1.1", "US5", probability, 0.7, ("P1",), geometry
    )


def look(number=1, sensor=Sensor.PVA):
    at = DAY + timedelta(days=number)
    return Look(f"item-{number}", sensor, at, at + timedelta(hours=3), "map-guided/1", "ref")


def seen(probability, sensors):
    record = raised(sighting(probability), look(0, sensors[0]))
    for number, sensor in enumerate(sensors[1:], start=1):
        record = seen_again(record, sighting(probability), look(number, sensor))
    return record


def test_every_state_is_reached_and_no_other():
    first = seen(0.6, [Sensor.PVA])
    provisional = seen(0.6, [Sensor.PVA] * 2)
    confirmed = seen(0.6, [Sensor.PVA] * 3)
    finished = seen_clean(seen_clean(confirmed, look(8)), look(9))
    denied = seen_clean(seen_clean(first, look(8)), look(9))
    superseded = replace(first, state=AlertState.SUPERSEDED)
    states = [r.state for r in (first, provisional, confirmed, finished, denied, superseded)]
    assert states == [
        AlertState.FIRST,
        AlertState.PROVISIONAL,
        AlertState.CONFIRMED,
        AlertState.FINISHED,
        AlertState.REJECTED,
        AlertState.SUPERSEDED,
    ]
    assert set(states) == set(AlertState)


def test_one_sure_pva_confirms_alone_and_one_sentinel_never_does():
    assert seen(0.9, [Sensor.PVA]).state is AlertState.CONFIRMED
    assert seen(1.0, [Sensor.SENTINEL_2]).state is AlertState.FIRST
    assert seen(0.8, [Sensor.SENTINEL_2] * 3).state is AlertState.CONFIRMED


def test_evidence_of_another_sensor_counts():
    early = seen(0.6, [Sensor.SENTINEL_2])
    after = seen_again(early, sighting(0.9), look(5, Sensor.PVA))
    assert after.state is AlertState.CONFIRMED
    assert after.sensors == (Sensor.SENTINEL_2, Sensor.PVA)
    assert after.seen_first == early.seen_first < after.seen_last


def test_the_same_acquisition_twice_is_one_look():
    record = raised(sighting(), look(1))
    assert seen_again(record, sighting(), look(1)) is record


def test_one_clean_look_changes_no_state_and_two_cancel():
    record = raised(sighting(), look(1))
    once = seen_clean(record, look(2))
    assert once.state is AlertState.FIRST and once.sequence == record.sequence
    twice = seen_clean(once, look(3))
    assert twice.state is AlertState.REJECTED and twice.reason


def test_the_same_ground_updates_its_alert_and_other_ground_raises_another():
    known = follow([], [sighting()], look(1))
    moved = sighting(geometry=box(1, 1, 41, 31))
    (updated,) = follow(known, [moved], look(2))
    assert updated.id == known[0].id and updated.sequence == 2 and updated.looks == 2
    (other,) = follow(known, [sighting(geometry=box(100, 100, 140, 130))], look(2))
    assert other.id != known[0].id
    (kind,) = follow(known, [sighting(kind=AlertKind.OTHER)], look(2))
    assert kind.id != known[0].id


def test_a_rejected_alert_never_comes_back_for_the_same_ground():
    (known,) = follow([], [sighting()], look(1))
    gone = rejected(known, reason="tent", at=DAY)
    assert follow([gone], [sighting(0.99)], look(2)) == []


def test_a_rerun_of_the_same_event_raises_the_same_alert():
    assert follow([], [sighting()], look(1)) == follow([], [sighting()], look(1))


def test_ground_is_the_same_from_half_of_the_smaller_one():
    assert same_ground(GROUND, box(0, 0, 20, 30))
    assert not same_ground(GROUND, box(35, 0, 75, 30))


@given(st.permutations(range(4)), st.floats(0.5, 0.84))
def test_looks_of_one_sensor_end_the_same_in_any_order(order, probability):
    record = raised(sighting(probability), look(order[0]))
    for number in order[1:]:
        record = seen_again(record, sighting(probability), look(number))
    assert record.state is AlertState.CONFIRMED
    assert record.looks == 4
    assert record.seen_first == look(0).acquired and record.seen_last == look(3).acquired
