"""The planner keeps the coverage whole, whatever the regions."""

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
from schemas.change import Operation
from schemas.policy import SENSOR_POLICY, Sensor, minimum_unit
from tests.coverages import random_coverage, random_region
from updater.planner import plan
from updater.types import MapPolygon, Rules

RULES = Rules(
    event="urn:test#1",
    acquired=datetime(2024, 6, 18, tzinfo=UTC),
    sensor=Sensor.PVA,
    policy=SENSOR_POLICY[Sensor.PVA],
    detector="test/1",
    gsd=0.5,
)
TOWN = replace(RULES, zone_construite=box(-1000, -1000, 2000, 2000))


def field(**changes) -> MapPolygon:
    base = MapPolygon("F", "CS2.2.1", "US1.1", 2021, box(0, 0, 100, 100), version=1)
    return replace(base, **changes)


def region(shape, to_cs="CS1.1.1.1", probability=0.9, **changes) -> Region:
    return Region(shape, "CS2.2.1", to_cs, probability, 0.8, **changes)


def apply(before, patch):
    gone = {id(p) for p in patch.retired}
    return [p for p in before if id(p) not in gone] + list(patch.created)


def within_rings(polygons, grounds, *, rings):
    """Ids of the polygons some ground touches, and of so many rings of neighbours around."""
    tree = shapely.STRtree([p.geometry for p in polygons])
    reached = set(tree.query(grounds, predicate="intersects")[1].tolist())
    for _ in range(rings):
        shapes = np.array([polygons[i].geometry for i in reached], dtype=object)
        reached |= set(tree.query(shapes, predicate="intersects")[1].tolist())
    return {polygons[i].id for i in reached}


def in_zone(polygon, rules):
    zone = rules.zone_construite
    return zone is not None and zone.intersects(polygon.geometry.point_on_surface())


@pytest.mark.parametrize("town", [True, False], ids=["town", "country"])
@pytest.mark.parametrize("road", [True, False], ids=["road", "no road"])
@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 10**6), regions=st.integers(1, 6))
@example(seed=21069, regions=1)  # a host that was below its unit itself
@example(seed=678, regions=1)  # a repaired outline with a line beside its ground
def test_a_valid_coverage_stays_one_and_nothing_else_moves(town, road, seed, regions):
    rng = np.random.default_rng(seed)
    before = random_coverage(rng, ossature=road)
    rules = TOWN if town else RULES
    given_regions = [random_region(rng) for _ in range(regions)]
    patch = plan(before, given_regions, rules)
    after = apply(before, patch)
    near = within_rings(before, [r.geometry for r in given_regions], rings=3)
    assert {p.id for p in patch.retired} <= near  # what lies further keeps its id and its bytes
    shapes = [p.geometry for p in after]
    assert shapely.coverage_is_valid(shapes)
    area = sum(p.geometry.area for p in before)
    assert abs(shapely.area(shapes).sum() - area) <= 1e-6 * area
    assert len({p.id for p in after}) == len(after)
    old = {p.id: p for p in before}
    for polygon in patch.created:
        if polygon.id not in old:  # a new id: the minimum unit holds
            unit = minimum_unit(polygon.code_cs or "", inside_built_zone=in_zone(polygon, rules))
            assert polygon.geometry.area >= unit
    for polygon in before:
        if polygon.ossature:
            now = next(p for p in after if p.id == polygon.id)
            assert now.code_cs == polygon.code_cs
            assert now.geometry.symmetric_difference(polygon.geometry).area < 0.05
    children = {link.child for link in patch.lineage}
    parents = {link.parent for link in patch.lineage}
    assert children == {p.id for p in patch.created}
    assert parents <= set(old)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_regions_and_polygons_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    before = random_coverage(rng)
    regions = [random_region(rng) for _ in range(4)]
    one, other = plan(before, regions, TOWN), plan(before[::-1], regions[::-1], TOWN)
    assert {p.id for p in one.created} == {p.id for p in other.created}
    assert {p.id for p in one.retired} == {p.id for p in other.retired}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_same_change_seen_again_changes_nothing_new(seed):
    rng = np.random.default_rng(seed)
    before = random_coverage(rng)
    one = random_region(rng)
    after = apply(before, plan(before, [one], TOWN))
    again = plan(after, [one], TOWN)
    assert sum(p.geometry.area for p in again.pieces) <= 0.02 * one.geometry.area


def test_a_house_in_a_field_splits_it_and_raises_an_alert():
    patch = plan([field()], [region(box(40, 40, 55, 60))], RULES)
    assert sorted(p.code_cs for p in patch.created) == ["CS1.1.1.1", "CS2.2.1"]
    house = next(p for p in patch.created if p.code_cs == "CS1.1.1.1")
    assert house.geometry.area == pytest.approx(300, rel=0.02)
    assert house.millesime == 2024 and house.source.startswith("millesimed")
    assert [p.id for p in patch.retired] == ["F"]
    assert {link.operation for link in patch.lineage} == {Operation.SPLIT}
    (sighting,) = patch.sightings
    assert sighting.kind is AlertKind.ARTIFICIALISATION
    assert sighting.polygons == (house.id,)


def test_a_small_yard_in_a_meadow_is_no_artificialisation_by_the_threshold():
    wide = field(geometry=box(0, 0, 400, 400))
    yard = region(box(100, 100, 145, 145), to_cs="CS1.1.2.1")
    (small,) = plan([wide], [yard], TOWN).sightings
    assert small.kind is AlertKind.OTHER and small.after.by_threshold
    yard = region(box(100, 100, 160, 160), to_cs="CS1.1.2.1")
    (large,) = plan([wide], [yard], TOWN).sightings
    assert large.kind is AlertKind.ARTIFICIALISATION and not large.after.by_threshold


def test_a_polygon_covered_whole_is_relabelled_and_keeps_its_id_and_geometry():
    before = field(geometry=box(0, 0, 20, 15))
    patch = plan([before], [region(box(-0.5, 0.2, 20, 15.3))], RULES)
    (after,) = patch.created
    assert after.id == "F" and after.geometry is before.geometry
    assert [link.operation for link in patch.lineage] == [Operation.RELABEL]


def test_a_building_of_sixty_square_metres_is_drawn_at_the_minimum_unit():
    patch = plan([field()], [region(box(40, 40, 47.5, 48))], RULES)
    house = next(p for p in patch.created if p.code_cs == "CS1.1.1.1")
    assert 200 <= house.geometry.area < 206


def test_a_change_below_the_minimum_unit_is_left_out():
    patch = plan([field()], [region(box(10, 10, 30, 30), to_cs="CS1.1.1.2")], RULES)
    assert patch.is_empty and patch.ignored == {"below-minimum-unit": 1}
    inside = plan([field()], [region(box(10, 10, 35, 35), to_cs="CS1.1.1.2")], TOWN)
    assert not inside.is_empty


def test_what_is_left_below_the_minimum_unit_joins_its_best_neighbour():
    before = [
        field(geometry=box(0, 0, 100, 60)),
        field(id="W", geometry=box(0, 60, 100, 160), code_cs="CS2.1.1.1", code_us="US1.2"),
        field(id="G", geometry=box(100, 0, 200, 60)),
    ]
    patch = plan(before, [region(box(0, 0, 85, 60), to_cs="CS1.1.2.1")], RULES)
    after = apply(before, patch)
    grass = [p for p in after if p.code_cs == "CS2.2.1"]
    assert len(grass) == 1 and grass[0].geometry.area == pytest.approx(6900, rel=0.01)


def test_the_ossature_cuts_a_region_and_does_not_move():
    road = field(id="R", geometry=box(0, 45, 100, 55), code_cs="CS1.1.1.2", ossature=True)
    before = [
        field(geometry=box(0, 0, 100, 45)),
        road,
        field(id="N", geometry=box(0, 55, 100, 100)),
    ]
    patch = plan(before, [region(box(30, 20, 70, 80), to_cs="CS1.1.1.1")], RULES)
    built = [p for p in patch.created if p.code_cs == "CS1.1.1.1"]
    assert len(built) == 2
    kept = next(p for p in apply(before, patch) if p.id == "R")
    assert kept.geometry.equals(road.geometry) and kept.ossature


def test_an_image_too_coarse_to_patch_only_warns():
    rules = replace(
        RULES, sensor=Sensor.SENTINEL_2, policy=SENSOR_POLICY[Sensor.SENTINEL_2], gsd=10.0
    )
    patch = plan([field()], [region(box(20, 20, 60, 60))], rules)
    assert patch.is_empty and len(patch.sightings) == 1
    small = plan([field()], [region(box(20, 20, 40, 40))], rules)
    assert small.ignored == {"below-alert-area": 1}


def test_doubtful_classless_and_stale_regions_are_counted_and_left():
    doubtful = region(box(40, 40, 60, 60), probability=0.3)
    nameless = replace(region(box(40, 40, 60, 60)), to_cs=None)
    assert plan([field()], [doubtful, nameless], RULES).ignored == {
        "probability": 1,
        "class-unknown": 1,
    }
    younger = field(valid_from=RULES.acquired + timedelta(days=400))
    assert plan([younger], [region(box(40, 40, 60, 60))], RULES).ignored == {"no-new-cover": 1}


def test_vegetation_under_a_house_is_desartificialisation_only_by_the_matrix():
    house = field(geometry=box(0, 0, 20, 15), code_cs="CS1.1.1.1", code_us="US1.1")
    patch = plan([house], [region(box(0, 0, 20, 15), to_cs="CS2.2.1")], TOWN)
    assert not patch.pieces or patch.sightings[0].kind is AlertKind.DESARTIFICIALISATION


@pytest.mark.parametrize("to_cs", ["CS1.1.1.1", "CS1.1.1.2", "CS2.1.1.1"])
@pytest.mark.parametrize("second", [(50, 40, 80, 80), (50.1, 40.3, 80, 79.7), (49.7, 40, 80, 80)])
def test_halves_seen_by_two_scenes_meet_without_a_seam(to_cs, second):
    rules = replace(TOWN, gsd=0.2)
    before = [field()]
    first = plan(before, [region(box(20, 40, 50, 80), to_cs=to_cs)], rules)
    half = apply(before, first)
    later = replace(rules, event="urn:test#2")
    after = apply(half, plan(half, [region(box(*second), to_cs=to_cs)], later))
    shapes = [p.geometry for p in after]
    assert shapely.coverage_is_valid(shapes)
    left, right = (p.geometry for p in after if p.code_cs == to_cs)
    beside = left.boundary.intersection(right.buffer(0.02))
    assert beside.length > 35
    rest = next(p.geometry for p in after if p.code_cs == "CS2.2.1")
    slit = rest.difference(rest.buffer(-0.3, join_style="mitre").buffer(0.31, join_style="mitre"))
    assert slit.area < 0.5


def test_ground_narrower_than_the_map_draws_is_left_out():
    lane = box(0, 40, 1000, 44)
    before = [field(geometry=box(0, 0, 1000, 100))]
    patch = plan(before, [region(lane, to_cs="CS2.1.1.1")], replace(RULES, gsd=0.2))
    assert patch.is_empty and patch.ignored == {"below-minimum-width": 1}
    road = plan(before, [region(lane.buffer(1), to_cs="CS1.1.1.2")], replace(RULES, gsd=0.2))
    assert not road.is_empty  # 6 m: roads are drawn from 5 m
