"""What a person corrected is not overwritten by a later image without evidence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from detectors.types import Region
from schemas.alert import AlertKind
from schemas.policy import CORRECTED_PROBABILITY, DRAWN_GSD_M, DRAWN_POLICY, SENSOR_POLICY, Sensor
from tests.coverages import random_coverage, random_region
from tests.test_planner import TOWN, apply, field, region
from updater.planner import plan
from updater.protection import may_overwrite, standing
from updater.types import Corrected, Drawn, Seen

OBSERVED = datetime(2024, 5, 2, 12, tzinfo=UTC)
LATER = replace(TOWN, acquired=OBSERVED + timedelta(days=400))
HAND = replace(TOWN, sensor=None, policy=DRAWN_POLICY, gsd=DRAWN_GSD_M, acquired=OBSERVED)
POND = Drawn(box(20, 20, 70, 70), None, "CS1.2.2", 1.0, 0.0, to_us="US6.3")
HOUSE = region(box(40, 40, 60, 60), probability=CORRECTED_PROBABILITY - 0.05)


def kept(patch, before, ground, codes):
    """Ground still under the codes it had."""
    after = apply(before, patch)
    same = [p.geometry for p in after if (p.code_cs, p.code_us) == codes]
    return float(shapely.intersection(shapely.union_all(same), ground).area)


def corrected(observed=OBSERVED):
    """A field with a pond a person drew, and the rules of a later image."""
    bare = [field()]
    before = apply(bare, plan(bare, [POND], HAND))
    rules = replace(
        LATER, corrected=standing([Corrected(POND.geometry, observed, "CS1.2.2")], before)
    )
    return before, rules


def test_what_a_person_draws_is_drawn_as_drawn_under_the_usage_given_and_raises_no_alert():
    crooked = shapely.Polygon([(20, 20), (71, 23), (64, 70), (35, 55)])
    drawn = replace(POND, geometry=crooked, to_us="US1.4")
    patch = plan([field()], [drawn], HAND)
    (pond,) = [p for p in patch.created if p.code_cs == "CS1.2.2"]
    assert pond.geometry.symmetric_difference(crooked).area < 0.1
    assert pond.code_us == "US1.4" and pond.source == f"correction {HAND.detector}"
    assert not patch.sightings and not patch.left_out


def test_a_usage_alone_can_be_corrected():
    drawn = Drawn(box(0, 0, 100, 100), None, "CS2.2.1", 1.0, 0.0, to_us="US6.6")
    (made,) = plan([field()], [drawn], HAND).created
    assert (made.code_cs, made.code_us, made.id) == ("CS2.2.1", "US6.6", "F")


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (replace(POND, geometry=box(80, 80, 90, 90)), "below-minimum-unit"),
        (replace(POND, geometry=box(500, 500, 600, 600)), "outside-the-map"),
        (Drawn(box(75, 10, 95, 90), None, "CS2.2.1", 1, 0, to_us="US1.1"), "no-new-cover"),
    ],
)
def test_what_comes_of_each_piece_is_said(drawn, reason):
    patch = plan([field()], [POND, drawn], HAND)
    assert patch.left_out == {1: reason}


def test_a_correction_of_an_older_date_leaves_what_a_later_campaign_drew():
    drawn_later = field(valid_from=OBSERVED + timedelta(days=90))
    assert plan([drawn_later], [POND], HAND).left_out == {0: "older-than-the-map"}


def test_a_later_image_without_evidence_leaves_it_and_warns():
    before, rules = corrected()
    patch = plan(before, [HOUSE], rules)
    assert patch.is_empty and patch.ignored == {"corrected": 1}
    (warned,) = patch.sightings
    assert warned.after.code_cs == "CS1.1.1.1" and warned.geometry.area == pytest.approx(400)
    assert AlertKind.CONSTRUCTION in warned.kinds


def test_a_very_sure_later_image_redraws_it():
    before, rules = corrected()
    patch = plan(before, [replace(HOUSE, probability=CORRECTED_PROBABILITY)], rules)
    assert [p.code_cs for p in patch.created].count("CS1.1.1.1") == 1


@pytest.mark.parametrize("days", [0, -400])
def test_an_image_of_the_same_day_or_before_never_does_nor_warns(days):
    before, rules = corrected()
    early = replace(rules, acquired=OBSERVED.replace(hour=23) + timedelta(days=days))
    patch = plan(before, [replace(HOUSE, probability=1.0)], early)
    assert patch.is_empty and not patch.sightings


def test_a_second_later_image_that_agrees_redraws_it():
    before, rules = corrected()
    first = Seen(HOUSE.geometry, "CS1.1.1.1", OBSERVED + timedelta(days=200))
    assert not plan(before, [HOUSE], replace(rules, seen=(first,))).is_empty
    for other in (
        replace(first, acquired=OBSERVED),
        replace(first, to_cs="CS2.1.1.1"),
        replace(first, geometry=box(62, 62, 69, 69)),
    ):
        assert plan(before, [HOUSE], replace(rules, seen=(other,))).is_empty


def test_only_the_part_on_corrected_ground_is_left_out():
    before, rules = corrected()
    patch = plan(before, [region(box(50, 30, 95, 60), probability=0.9)], rules)
    (house,) = [p for p in patch.created if p.code_cs == "CS1.1.1.1"]
    assert house.geometry.bounds[0] == pytest.approx(70, abs=0.1)
    assert patch.ignored == {"corrected": 1}


def test_ground_redrawn_since_with_evidence_is_no_longer_held():
    before, rules = corrected()
    since = apply(before, plan(before, [replace(HOUSE, probability=0.99)], rules))
    (left,) = standing([Corrected(POND.geometry, OBSERVED, "CS1.2.2")], since)
    assert left.geometry.area == pytest.approx(2500 - 400, abs=5)


def test_an_image_that_may_only_warn_warns_of_later_ground_alone():
    series = replace(LATER, sensor=Sensor.SENTINEL_2, policy=SENSOR_POLICY[Sensor.SENTINEL_2])
    large = region(POND.geometry, "CS1.1.2.1", 0.6)
    one = Corrected(POND.geometry, OBSERVED, "CS1.2.2")
    assert may_overwrite(one, large, series)
    assert not may_overwrite(one, large, replace(series, acquired=OBSERVED))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), days=st.integers(-100, 800), regions=st.integers(1, 4))
@example(seed=48, days=0, regions=1)  # a rest that joined a neighbour beyond the region
def test_whatever_images_say_without_evidence_corrected_ground_keeps_its_codes(seed, days, regions):
    rng = np.random.default_rng(seed)
    before = random_coverage(rng, ossature=False)
    x, y = rng.uniform(40, 320, 2)
    shape = shapely.affinity.rotate(box(x, y, x + 40, y + 30), rng.uniform(0, 90))
    drawn = Drawn(shape, None, "CS1.2.2", 1.0, 0.0, to_us="US6.3")
    hand = plan(before, [drawn], HAND)
    drew = apply(before, hand)
    held = standing([Corrected(shape, OBSERVED, "CS1.2.2")], drew)
    rules = replace(TOWN, acquired=OBSERVED + timedelta(days=days), corrected=held)
    found = [replace(random_region(rng), probability=0.94) for _ in range(regions)]
    found.append(Region(shape.buffer(6), "CS1.2.2", "CS1.1.1.1", 0.9, 0.8))
    patch = plan(drew, found, rules)
    ground = shapely.union_all([c.geometry for c in held]) if held else box(0, 0, 0, 0)
    assert kept(patch, drew, ground, ("CS1.2.2", "US6.3")) >= ground.area - 4.0
    assert shapely.coverage_is_valid([p.geometry for p in apply(drew, patch)])
