"""The life of an alert: every state, every way between two, and what order must not matter to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from detectors.types import Ground
from schemas.alert import AlertKind, AlertState
from schemas.legal import LegalStatus
from schemas.policy import BUILDING, SENSOR_POLICY, Sensor
from updater.alerts import (
    Look,
    follow,
    raised,
    rejected,
    same_ground,
    seen_again,
    seen_clean,
    superseded,
)
from updater.types import Says, Side, Sighting, kinds_of

GROUND = box(0, 0, 40, 30)
DAY = datetime(2024, 6, 1, tzinfo=UTC)
MEADOW = Side("CS2.2.1", "US1.1", LegalStatus.NON_ARTIF)
WOOD = Side("CS2.1.1.1", "US1.2", LegalStatus.NON_ARTIF)
HOUSE = Side(BUILDING, "US5", LegalStatus.ARTIF)
LAWN = Side("CS2.2.1", "US5", LegalStatus.ARTIF)
PVA, S2 = Sensor.PVA, Sensor.SENTINEL_2


def sighting(probability=0.6, geometry=GROUND, before=MEADOW, after=HOUSE, polygons=("P1",)):
    return Sighting(before, after, probability, 0.7, polygons, geometry)


def look(number=1, sensor=PVA, compared_to=None, days=1):
    at = DAY + timedelta(days=number * days)
    known = at + timedelta(hours=3)
    return Look(f"item-{number}", sensor, at, known, "map-guided/1", "ref", compared_to)


def seen(probability, sensors):
    record = raised(sighting(probability), look(0, sensors[0]))
    for number, sensor in enumerate(sensors[1:], start=1):
        record = seen_again(record, sighting(probability), look(number, sensor))
    return record


def clean(record, *numbers, sensor=PVA):
    for number in numbers:
        record = seen_clean(record, look(number, sensor))
    return record


FIRST = seen(0.6, [PVA])
PROVISIONAL = seen(0.6, [PVA] * 2)
CONFIRMED = seen(0.6, [PVA] * 3)
FINISHED = clean(CONFIRMED, 8, 9)
DENIED = clean(FIRST, 8, 9)
REJECTED = rejected(CONFIRMED, reason="tent", at=DAY)
SUPERSEDED = superseded(FIRST, reason="taken over by AL0", at=DAY, by="AL0")
LATE = 6 * 365


def test_every_state_is_reached_and_no_other():
    reached = [FIRST, PROVISIONAL, CONFIRMED, FINISHED, DENIED, REJECTED, SUPERSEDED]
    assert [r.state for r in reached] == [
        AlertState.FIRST,
        AlertState.PROVISIONAL,
        AlertState.CONFIRMED,
        AlertState.FINISHED,
        AlertState.REJECTED,
        AlertState.REJECTED,
        AlertState.SUPERSEDED,
    ]
    assert {r.state for r in reached} == set(AlertState)


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        (FIRST, seen_again(FIRST, sighting(0.6), look(3)), AlertState.PROVISIONAL),
        (FIRST, seen_again(FIRST, sighting(0.9), look(3)), AlertState.CONFIRMED),
        (FIRST, clean(FIRST, 3), AlertState.FIRST),
        (FIRST, clean(FIRST, 3, 4), AlertState.REJECTED),
        (FIRST, rejected(FIRST, reason="no", at=DAY), AlertState.REJECTED),
        (FIRST, superseded(FIRST, reason="r", at=DAY), AlertState.SUPERSEDED),
        (FIRST, seen_again(FIRST, sighting(0.6), look(LATE)), AlertState.FIRST),
        (PROVISIONAL, seen_again(PROVISIONAL, sighting(0.6), look(5)), AlertState.CONFIRMED),
        (PROVISIONAL, clean(PROVISIONAL, 5, 6), AlertState.REJECTED),
        (PROVISIONAL, rejected(PROVISIONAL, reason="no", at=DAY), AlertState.REJECTED),
        (PROVISIONAL, superseded(PROVISIONAL, reason="r", at=DAY), AlertState.SUPERSEDED),
        (PROVISIONAL, seen_again(PROVISIONAL, sighting(0.6), look(LATE)), AlertState.FIRST),
        (CONFIRMED, seen_again(CONFIRMED, sighting(0.5), look(LATE)), AlertState.CONFIRMED),
        (CONFIRMED, clean(CONFIRMED, 5), AlertState.CONFIRMED),
        (CONFIRMED, clean(CONFIRMED, 5, 6), AlertState.FINISHED),
        (CONFIRMED, rejected(CONFIRMED, reason="no", at=DAY), AlertState.REJECTED),
        (CONFIRMED, superseded(CONFIRMED, reason="r", at=DAY), AlertState.SUPERSEDED),
        (FINISHED, seen_again(FINISHED, sighting(0.6), look(20)), AlertState.FIRST),
        (DENIED, seen_again(DENIED, sighting(0.6), look(20)), AlertState.REJECTED),
        (DENIED, seen_again(DENIED, sighting(0.6), look(LATE)), AlertState.FIRST),
        (REJECTED, seen_again(REJECTED, sighting(0.99), look(20)), AlertState.REJECTED),
        (REJECTED, seen_again(REJECTED, sighting(0.99), look(LATE)), AlertState.REJECTED),
        (SUPERSEDED, clean(SUPERSEDED, 20, 21), AlertState.SUPERSEDED),
    ],
)
def test_each_way_between_two_states(before, after, state):
    assert after.state is state
    if after.state is not before.state:
        assert after.sequence > before.sequence and after.id == before.id


def test_a_masked_look_leaves_everything_as_it_was():
    for ground in (None, Ground(0.0, 0.0), Ground(0.79, 0.0)):
        assert follow([FIRST], [], look(9), [ground]) == []


def test_a_half_changed_ground_says_nothing_either():
    assert follow([FIRST], [], look(9), [Ground(1.0, 0.5)]) == []
    (step,) = follow([FIRST], [], look(9), [Ground(1.0, 0.1)])
    assert step.after.clean_looks == 1 and not step.told


def test_a_look_compared_with_an_image_that_shows_the_change_already_says_nothing():
    after = DAY + timedelta(days=2)
    assert follow([FIRST], [], look(9, compared_to=after), [Ground(1.0, 0.0)]) == []
    before = DAY - timedelta(days=2)
    assert follow([FIRST], [], look(9, compared_to=before), [Ground(1.0, 0.0)])


def test_one_sure_pva_confirms_alone_and_one_sentinel_never_does():
    assert seen(0.9, [PVA]).state is AlertState.CONFIRMED
    assert seen(1.0, [S2]).state is AlertState.FIRST
    assert seen(0.8, [S2] * 2).state is AlertState.PROVISIONAL
    assert seen(0.8, [S2] * 3).state is AlertState.CONFIRMED


def test_evidence_grows_with_the_square_of_the_looks():
    one, two, three = (seen(0.5, [S2] * n).evidence for n in (1, 2, 3))
    assert two == pytest.approx(4 * one) and three == pytest.approx(9 * one)


def test_evidence_of_another_sensor_counts_and_the_finer_one_draws_and_names():
    early = raised(sighting(0.6, box(0, 0, 60, 60), after=LAWN), look(0, S2))
    late = seen_again(early, sighting(0.9), look(5, PVA))
    assert late.state is AlertState.CONFIRMED and late.sensors == (S2, PVA)
    assert late.seen_first == early.seen_first < late.seen_last
    assert late.geometry == GROUND and late.after == HOUSE
    coarse = seen_again(FIRST, sighting(0.9, box(0, 0, 60, 60)), look(5, S2))
    assert coarse.geometry is FIRST.geometry


def test_one_clean_aerial_look_decides_against_satellite_evidence_and_never_the_other_way():
    early = seen(0.8, [S2] * 2)
    denied = seen_clean(early, look(9, PVA))
    assert denied.state is AlertState.REJECTED and "pva" in denied.reason
    assert clean(FIRST, 5, 6, 7, sensor=S2).state is AlertState.FIRST


def test_a_change_back_finishes_a_confirmed_alert():
    back = sighting(0.9, before=HOUSE, after=MEADOW)
    assert back.kind is AlertKind.DESARTIFICIALISATION
    steps = {s.after.kind: s.after for s in follow([CONFIRMED], [back], look(40))}
    assert steps[AlertKind.ARTIFICIALISATION].state is AlertState.FINISHED
    assert steps[AlertKind.ARTIFICIALISATION].reason == "seen changed back by pva"
    assert steps[AlertKind.DESARTIFICIALISATION].state is AlertState.CONFIRMED


def test_the_same_acquisition_twice_is_one_look():
    record = raised(sighting(), look(1))
    assert seen_again(record, sighting(), look(1)) is record
    split = seen_again(record, sighting(polygons=("P2",)), look(1))
    assert split.looks == 1 and split.polygons == ("P1", "P2")  # the link is kept


def test_one_more_look_of_a_campaign_at_what_is_confirmed_adds_nothing():
    assert seen_again(CONFIRMED, sighting(), look(4)) is CONFIRMED
    later = seen_again(CONFIRMED, sighting(), look(60))
    assert later.looks == CONFIRMED.looks + 1


def test_the_same_ground_updates_its_alert_and_other_ground_raises_another():
    (known,) = (step.after for step in follow([], [sighting()], look(1)))
    moved = sighting(geometry=box(1, 1, 41, 31))
    (updated,) = follow([known], [moved], look(2))
    assert updated.after.id == known.id and updated.after.looks == 2
    (other,) = follow([known], [sighting(geometry=box(100, 100, 140, 130))], look(2))
    assert other.before is None and other.after.id != known.id
    (kind,) = follow([known], [sighting(before=LAWN)], look(2))
    assert kind.after.kind is AlertKind.CONSTRUCTION and kind.after.id != known.id


def test_two_parts_of_one_alert_feed_it_once_and_a_whole_takes_its_parts_over():
    parts = [sighting(0.6, box(0, 0, 20, 30)), sighting(0.7, box(20, 0, 40, 30))]
    (fed,) = follow([FIRST], parts, look(5))
    assert fed.after.id == FIRST.id and fed.after.looks == 2
    a, b = (step.after for step in follow([], parts, look(1)))
    steps = {s.after.id: s.after for s in follow([a, b], [sighting(0.6)], look(2))}
    states = {steps[a.id].state, steps[b.id].state}
    assert states == {AlertState.PROVISIONAL, AlertState.SUPERSEDED}
    (gone,) = (r for r in steps.values() if r.state is AlertState.SUPERSEDED)
    (stays,) = (r for r in steps.values() if r.state is AlertState.PROVISIONAL)
    assert gone.superseded_by == stays.id
    (again,) = follow(list(steps.values()), parts, look(3))  # the taken over stays so
    assert again.after.id == stays.id


def test_a_confirmed_alert_is_never_taken_over():
    other = replace(CONFIRMED, id="AL1", geometry=box(0, 0, 20, 30))
    steps = follow([CONFIRMED, other], [sighting(0.6)], look(60))
    assert {s.after.state for s in steps} == {AlertState.CONFIRMED}


def test_a_rejected_alert_never_comes_back_for_the_same_ground():
    assert follow([REJECTED], [sighting(0.99)], look(2)) == []
    assert follow([REJECTED], [sighting(0.99)], look(LATE)) == []
    assert follow([REJECTED], [sighting(0.99, box(0, 0, 44, 33))], look(2)) == []


def test_unless_better_evidence_than_the_reviewer_had_shows_it():
    early = rejected(seen(0.8, [S2] * 3), reason="ploughed", at=DAY)
    assert follow([early], [sighting(0.9)], look(9, S2)) == []
    (step,) = follow([early], [sighting(0.9)], look(9, PVA))
    assert step.after.id == early.id and step.after.state is AlertState.CONFIRMED


def test_a_small_rejected_alert_does_not_hold_a_large_change_down():
    (step,) = follow([REJECTED], [sighting(0.9, box(0, 0, 200, 100))], look(2))
    assert step.before is None


def test_a_rerun_of_the_same_event_raises_the_same_alert():
    assert follow([], [sighting()], look(1)) == follow([], [sighting()], look(1))


def test_ground_is_the_same_from_half_of_the_smaller_one():
    assert same_ground(GROUND, box(0, 0, 20, 30))
    assert not same_ground(GROUND, box(35, 0, 75, 30))


def test_only_what_a_subscriber_would_want_to_know_is_told():
    (new,) = follow([], [sighting()], look(1))
    assert new.told
    (agreed,) = follow([CONFIRMED], [sighting()], look(60))
    assert agreed.after.looks == 4 and not agreed.told
    (surer,) = follow([FIRST], [sighting()], look(5))
    assert surer.told


KINDS = [
    (MEADOW, HOUSE, ["artificialisation", "construction"]),
    (WOOD, HOUSE, ["artificialisation", "construction", "clearing"]),
    (HOUSE, MEADOW, ["desartificialisation", "demolition"]),
    (LAWN, HOUSE, ["construction"]),
    (HOUSE, LAWN, ["demolition"]),
    (WOOD, MEADOW, ["clearing"]),
    (MEADOW, Side("CS2.1.3", "US1.1", LegalStatus.NON_ARTIF), ["other"]),
]


@pytest.mark.parametrize(("before", "after", "kinds"), KINDS)
def test_a_change_is_first_what_the_law_says_then_what_the_ground_shows(before, after, kinds):
    assert list(kinds_of(before, after)) == kinds


def test_every_kind_occurs():
    assert {kind for *_, kinds in KINDS for kind in kinds} == set(AlertKind)


LOOKS = st.lists(
    st.tuples(
        st.sampled_from([PVA, S2, Sensor.SPOT]),
        st.sampled_from([None, 0.5, 0.6, 0.7, 0.8]),
        st.integers(1, 2000),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda x: x[2],
)


def told_in(order):
    """The alert after some looks became known in an order; each is (sensor, probability or None
    for a clean one, day)."""
    record = raised(sighting(0.6), look(0))
    for sensor, probability, day in order:
        at = look(day, sensor)
        if probability is None:
            record = seen_clean(record, at)
        else:
            record = seen_again(record, sighting(probability), at)
    return record


@given(LOOKS, st.randoms())
def test_the_state_does_not_depend_on_the_order_looks_become_known_in(looks, chance):
    """Where none of them ended the alert on the way: an ended one takes no further looks."""
    shown = [x for x in looks if x[1] is not None]
    shuffled = list(shown)
    chance.shuffle(shuffled)
    one, other = told_in(sorted(shown, key=lambda x: x[2])), told_in(shuffled)
    assert one.state is other.state
    assert one.seen_first == other.seen_first


@given(LOOKS)
def test_no_look_that_agrees_makes_an_alert_less_sure_within_a_campaign(looks):
    record = raised(sighting(0.6), look(0))
    states = [record.state]
    for sensor, probability, day in sorted(looks, key=lambda x: x[2]):
        if probability is not None and day < 300:
            record = seen_again(record, sighting(probability), look(day, sensor))
            states.append(record.state)
    order = list(AlertState)
    assert all(order.index(a) <= order.index(b) for a, b in pairwise(states))


def test_a_clean_look_that_becomes_known_late_counts_where_it_was_taken():
    late = seen_again(clean(FIRST, 3), sighting(0.6), look(9))
    assert late.state is AlertState.PROVISIONAL and late.clean_looks == 0
    other = seen_clean(seen_again(FIRST, sighting(0.6), look(9)), look(3), Says.CLEAN)
    assert (other.state, other.clean_looks) == (late.state, late.clean_looks)


def test_policy_trusts_no_coarse_sensor_alone():
    assert all(p.confirms_alone > 1 for p in SENSOR_POLICY.values() if not p.patches)
