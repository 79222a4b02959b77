"""The arithmetic of a national plan."""

from dataclasses import replace

import pytest

from daemon.bench.needs import (
    DAY,
    PLANNED,
    YEAR_DAYS,
    Costs,
    Load,
    Machine,
    france,
    needs,
    plan,
    predict,
)

COSTS = Costs(
    decode_mpx=8.0,
    prepare_mpx=3.0,
    judge_mpx=100.0,
    judged_on="a card",
    series_mpx=1.25,
    events=20.0,
    changes=150.0,
    event_cores=0.06,
    change_cores=0.008,
    base_cores=0.05,
    store_cores=0.001,
    change_bytes=5_000.0,
    event_bytes=2_000.0,
    message_bytes=2_500.0,
    change_message_bytes=1_500.0,
    state_bytes=145.0,
)
MACHINE = Machine(cores=16, cards=1)


def of(programme, stage):
    return next(n for n in needs(programme, COSTS) if n.stage == stage)


def test_a_campaign_of_three_years_is_an_eighth_of_a_megapixel_a_second():
    aerial, _ = france()
    pixels = 550_000 * 1e6 / 0.2**2 / 1e6
    assert of(aerial, "judge").mean == pytest.approx(pixels / (3 * YEAR_DAYS * DAY))
    assert of(aerial, "decode").mean == 2 * of(aerial, "judge").mean  # both dates


def test_a_delivery_is_one_departement_in_one_day():
    aerial, _ = france()
    assert of(aerial, "judge").burst == pytest.approx(5_500 * 25 / DAY)
    assert of(aerial, "patch").burst == pytest.approx(5_500 * 3 / DAY)


def test_sentinel_2_looks_everywhere_every_five_days_and_patches_nothing():
    _, sentinel = france()
    assert of(sentinel, "observe").mean == pytest.approx(550_000 * 0.01 / (5 * DAY))
    assert {n.stage for n in needs(sentinel, COSTS)} == {"event", "carry", "observe"}


def test_units_leave_room():
    aerial, _ = france()
    need = of(aerial, "judge")
    assert need.units(need.burst) == pytest.approx(need.burst / 100.0 / PLANNED)


def test_a_slower_card_means_more_of_them_and_no_more_cores():
    fast, slow = plan(france(), COSTS, MACHINE), plan(france(), _judging(0.5), MACHINE)
    assert (fast.cards, slow.cards) == (1, 5)
    assert slow.cores == fast.cores
    assert slow.partitions > fast.partitions


def _judging(rate):
    return replace(COSTS, judge_mpx=rate)


@pytest.mark.parametrize(
    ("costs", "machine", "bottleneck"),
    [
        (COSTS, MACHINE, "aerial prepare"),
        (_judging(0.5), MACHINE, "aerial judge"),
        (replace(COSTS, changes=0.1), MACHINE, "aerial patch"),
        (replace(COSTS, series_mpx=0.01), MACHINE, "sentinel-2 observe"),
        (replace(COSTS, decode_mpx=0.5), MACHINE, "aerial decode"),
    ],
)
def test_the_bottleneck_is_what_fills_a_machine_first(costs, machine, bottleneck):
    found = plan(france(), costs, machine)
    assert found.bottleneck == bottleneck
    have = {"core": machine.cores, "card": machine.cards, "writer": 1}
    shares = {f"{n.programme} {n.stage}": n.units(n.burst) / have[n.resource] for n in found.needs}
    assert found.bottleneck_share == max(shares.values()) == shares[bottleneck]


def test_bytes_follow_pixels_looks_and_changes():
    found = plan(france(), COSTS, MACHINE).bytes_per_year
    assert found["histories"] == pytest.approx(5.5e9 * 145)
    pixels = 550_000 * 25e6 / 3 * 0.3 + 5.5e9 * 6.6 * YEAR_DAYS / 5
    assert found["images"] == pytest.approx(pixels)
    twice = plan(france(area_km2=1_100_000), COSTS, MACHINE).bytes_per_year
    assert twice["images"] == pytest.approx(2 * found["images"])
    assert twice["stores"] > found["stores"]


def test_messages_of_changes_fill_topics_too():
    with_changes = plan(france(), COSTS, MACHINE).bytes_per_year["topics"]
    without = plan(france(), replace(COSTS, change_message_bytes=0.0), MACHINE).bytes_per_year
    assert with_changes - without["topics"] == pytest.approx(550_000 / 3 * 3 * 1_500)


def test_what_is_open_takes_cores_though_nothing_comes():
    few, many = (plan(france(), COSTS, MACHINE, stores=n).mean["core"] for n in (0, 100))
    assert many - few == pytest.approx(100 * 0.001)
    assert few > 0.05


LOAD = Load(events=1_000, changes=3_000, stores=100, writers=2, largest_share=0.5)


def test_a_load_takes_as_long_as_the_resource_that_has_most_of_it():
    found = predict(LOAD, COSTS, Machine(cores=2, cards=0))
    core = (1_000 * 0.06 + 3_000 * 0.008) / (2 - 0.05 - 100 * 0.001)
    writer = 0.5 * (1_000 / 20 + 3_000 / 150) / (1 - 50 * 0.001)
    assert found.by_resource == {"core": pytest.approx(core), "writer": pytest.approx(writer)}
    assert (found.bottleneck, found.seconds) == ("core", pytest.approx(core))


def test_with_cores_to_spare_the_writers_are_what_is_waited_for():
    found = predict(LOAD, COSTS, MACHINE)
    assert found.bottleneck == "writer" and found.seconds == found.by_resource["writer"]
    lopsided = predict(replace(LOAD, largest_share=1.0), COSTS, MACHINE)
    assert lopsided.seconds == pytest.approx(2 * found.seconds)


def test_stores_that_take_every_core_leave_nothing_to_predict():
    with pytest.raises(ValueError, match="nothing is left"):
        predict(LOAD, replace(COSTS, store_cores=0.03), Machine(cores=2, cards=0))
