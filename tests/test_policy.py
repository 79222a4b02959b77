"""The policy: minimum units, usages of new covers, what a sensor may do."""

import pytest

from schemas.nomenclature import CS_LEAVES, US_CODES
from schemas.policy import (
    SENSOR_POLICY,
    Sensor,
    minimum_unit,
    new_usage,
    transition_plausibility,
)


def test_every_sensor_has_a_policy_and_ten_metres_never_patch():
    assert set(SENSOR_POLICY) == set(Sensor)
    assert not SENSOR_POLICY[Sensor.SENTINEL_2].patches
    assert SENSOR_POLICY[Sensor.SENTINEL_2].confirms_alone > 1


def test_minimum_units_are_the_products():
    assert minimum_unit("CS1.1.1.1", inside_built_zone=False) == 200
    assert minimum_unit("CS2.2.1", inside_built_zone=True) == 500
    assert minimum_unit("CS2.2.1", inside_built_zone=False) == 2500


@pytest.mark.parametrize("to_cs", CS_LEAVES)
@pytest.mark.parametrize("from_us", [*US_CODES, None])
def test_a_new_usage_is_always_an_accepted_code(to_cs, from_us):
    for near in (frozenset(), frozenset({"US5"}), frozenset({"US1.3", "US4.1.1", "US2", "US3"})):
        assert new_usage(to_cs=to_cs, from_us=from_us, neighbour_uses=near) in US_CODES


def test_bare_ground_beside_a_quarry_is_quarry_and_elsewhere_in_transition():
    assert new_usage(to_cs="CS1.1.2.1", from_us="US1.1", neighbour_uses=frozenset({"US1.3"})) == (
        "US1.3"
    )
    assert new_usage(to_cs="CS1.1.2.1", from_us="US1.1") == "US6.1"


def test_plausibility_is_a_share_and_nothing_becomes_itself():
    for a in CS_LEAVES:
        for b in CS_LEAVES:
            assert 0 <= transition_plausibility(a, b) <= 1
        assert transition_plausibility(a, a) == 0
    assert transition_plausibility("CS2.2.1", "CS1.1.1.1") > transition_plausibility(
        "CS2.2.1", "CS2.1.1.1"
    )
