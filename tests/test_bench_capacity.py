"""The capacity bench: costs told apart, files of costs, what was measured beside what was said, and
a small country through real processes."""

import json
from dataclasses import asdict, replace

import pytest
from shapely.geometry import box

from daemon.bench.broker import available
from daemon.bench.capacity import assumptions, compared, plan_figures, this_machine
from daemon.bench.costs import GROUPS, Effort, measure_costs, read_costs
from daemon.bench.country import made_apart, made_up_regions, record_of, scenes_of
from daemon.bench.needs import Costs, Machine, france, plan
from daemon.bench.service_costs import RESTING_STORES, costs_of
from daemon.bench.simulate import Simulated, shares, simulate
from schemas.envelope import parse_acquisition
from schemas.errors import UsageError
from tests.test_capacity import COSTS
from updater.store import Store

RUN = Simulated(
    sent=110,
    patched=0,
    events=100,
    changes=0,
    seconds=10.0,
    relayed_seconds=12.0,
    writer_seconds=8.0,
    cpu={"update": 6.0, "detect": 3.6},
    broker_cores=0.5,
    resting_cores=0.05,
    others_cores=0.0,
    store_bytes=1_000,
    topic_bytes=110 * 4_000,
    largest_share=1.0,
    account={"accounted_for": True},
)
FULL = replace(
    RUN,
    patched=440,
    changes=400,
    seconds=14.0,
    relayed_seconds=16.0,
    writer_seconds=12.0,
    cpu={"update": 10.0, "detect": 4.0},
    topic_bytes=110 * 4_000 + 440 * 1_500,
)


def test_what_a_run_with_changes_takes_more_is_the_changes():
    found = costs_of(RUN, FULL, (110 * 2_000, 110 * 2_000 + 440 * 5_000), 0.15)
    assert found["events"] == pytest.approx(100 / 8.0)
    assert found["changes"] == pytest.approx(400 / (12.0 - 8.0))
    assert found["store_cores"] == pytest.approx((0.15 - 0.05) / (RESTING_STORES - 1))
    assert found["event_cores"] == pytest.approx((9.6 - 0.05 * 12.0) / 100)
    assert found["change_cores"] == pytest.approx((14.0 - 0.8 - (9.6 - 0.6)) / 400)
    assert found["event_bytes"] == 2_000 and found["change_bytes"] == 5_000
    assert found["message_bytes"] == 4_000 and found["change_message_bytes"] == 1_500
    assert found["base_cores"] + found["store_cores"] == pytest.approx(0.05)


def test_noise_makes_no_cost_negative():
    quicker = replace(FULL, writer_seconds=7.0, cpu={"update": 5.0, "detect": 3.0})
    found = costs_of(RUN, quicker, (10, 5), 0.0)
    assert all(value >= 0 for value in found.values())
    assert found["changes"] > 0 and found["change_cores"] > 0


def test_a_run_is_held_against_what_the_arithmetic_says():
    machine = Machine(cores=2, cards=0)
    found = compared(FULL, COSTS, machine, stores=10, writers=1)
    said = max((100 / 20 + 400 / 150) / (1 - 0.01), (6.0 + 3.2) / (2 - 0.05 - 0.01))
    assert found["predicted_seconds"] == pytest.approx(said)
    assert found["ratio"] == pytest.approx(14.0 / said)
    assert found["bottleneck"] == "writer"
    assert found["busy"] == {"writer": pytest.approx(12 / 14), "core": pytest.approx(14 / 32)}
    assert found["core_seconds_predicted"] == pytest.approx(6.0 + 3.2 + 0.06 * 16)
    assert found["topic_bytes_per_event_predicted"] == pytest.approx(2_500 + 1_500 * 4)
    json.dumps(found)


def test_the_plan_and_its_assumptions_are_figures():
    document = plan_figures(plan(france(), COSTS, this_machine()))
    json.dumps([document, assumptions()])
    judge = next(n for n in document["needs"] if n["stage"] == "judge")
    assert judge["burst_units"] == pytest.approx(judge["burst"] / (COSTS.judge_mpx * 0.7))
    (aerial, sentinel) = assumptions()["programmes"]
    assert (aerial["gsd_m"], aerial["every_days"]) == (0.2, 3 * 365.25)
    assert (sentinel["every_days"], sentinel["area_km2"]) == (5.0, 550_000)


def test_costs_go_into_a_file_and_come_back(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"costs": asdict(COSTS), "measured_on": {"cores": 2}}))
    given = read_costs(path)
    assert Costs(**given) == COSTS
    # where everything is given nothing is measured
    assert measure_costs(Effort("cpu", 0, given=given), changes_per_scene=3.0) == COSTS


def test_every_cost_comes_from_one_measurement():
    names = [name for group in GROUPS for name in group]
    assert sorted(names) == sorted(asdict(COSTS))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "no JSON"),
        ("[1]", 'no object "costs"'),
        ('{"costs": {"speed": 1}}', "is no cost"),
        ('{"costs": {"decode_mpx": "8"}}', "must be a number"),
        ('{"costs": {"decode_mpx": -8}}', "must be a number"),
        ('{"costs": {"decode_mpx": true}}', "must be a number"),
        ('{"costs": {"judge_mpx": 100}}', "belong together"),
    ],
)
def test_a_file_of_costs_that_is_none_is_refused_with_a_sentence(tmp_path, text, says):
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_costs(path)
    with pytest.raises(UsageError, match="no file"):
        read_costs(tmp_path / "none.json")


def test_stores_are_dealt_out_whole():
    assert shares(["D001", "D002", "D003"], 2) == [["D001", "D003"], ["D002"]]


def test_a_scene_promises_the_buildings_that_are_then_found(tmp_path):
    (scene, *_) = [s for s in scenes_of("D007", scenes=9, changes_per_scene=3, seed=1) if s.changes]
    regions = made_up_regions(scene.name, scene.footprint)
    assert len(regions) == scene.changes
    assert all(scene.footprint.contains(region.geometry) for region in regions)
    assert made_up_regions(scene.name, scene.footprint) == regions
    with pytest.raises(ValueError, match="no scene"):
        made_up_regions("pva-2024", box(0, 0, 1, 1))
    record = record_of(scene, tmp_path / "image.tif")
    event = parse_acquisition(record.value, record.headers)
    assert event.item.id == scene.name and event.item.properties.departement is None
    assert record.key.startswith("D007/")


@pytest.mark.long
@pytest.mark.timeout(900)  # six processes, on a machine that may be busy
@pytest.mark.skipif(not available(), reason="noida-db is not installed")
def test_three_departements_are_accounted_for_through_real_processes(tmp_path):
    country = made_apart(tmp_path / "country", departements=3, scenes=3, seed=0)
    scenes = [
        scene
        for code in country.stores
        for scene in scenes_of(code, scenes=3, changes_per_scene=2.0, seed=5)
    ]
    scenes.sort(key=lambda scene: scene.number)  # the first of each département warms up
    found = simulate(tmp_path / "country", country, scenes, writers=2, warm=3, rest_seconds=1.0)
    assert found.account["accounted_for"] and found.account["invalid_maps"] == 0
    assert (found.sent, found.events) == (9, 6)
    assert found.account["events"] == 9 and found.patched > 0
    assert found.account["messages"]["millesimed.tasks"] == 9
    assert found.largest_share == pytest.approx(2 / 3)  # two stores of three
    assert found.core_seconds > 0 and found.writer_seconds > 0 and found.topic_bytes > 9 * 3_000
    for code, path in country.stores.items():
        with Store.open(path) as store:
            rows = store.execute("SELECT item FROM events ORDER BY item").fetchall()
        assert [row[0] for row in rows] == sorted(s.name for s in scenes if s.departement == code)
