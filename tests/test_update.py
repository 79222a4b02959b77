"""Update and detect together draw what one process alone draws, whoever answers when."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from shapely.geometry import box, mapping, shape

from daemon.announce import event_bytes, item_of, when
from daemon.config import Settings
from daemon.exchange import Exchange
from daemon.metrics import Metrics
from daemon.outcomes import Outcome
from daemon.pipeline import Pipeline
from daemon.submit import event_of
from schemas.correction import Submission
from schemas.envelope import TASK_TYPE, to_structured
from schemas.policy import Sensor
from schemas.task import CONTEXT_MISSING, Judgement
from tests.faults.outcome import store_outcome
from tests.faults.world import made_world, poison, stream
from tests.rolled import KAFKA, Loop, message, settings_of
from updater import asked
from updater.reads import next_offsets
from updater.store import Store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return made_world(tmp_path_factory.mktemp("world"), events=5)


@pytest.fixture(scope="module")
def bodies(world):
    """Valid events, some twice, and poison that only shows when its pixels are looked at."""
    again = [world.events[1], poison(world, 3)]
    return [body for portion in stream(world) for body in portion] + [poison(world, 3), *again]


@pytest.fixture(scope="module")
def alone(world, bodies, tmp_path_factory):
    """What the role `all` makes of them."""
    return by_one_process(tmp_path_factory.mktemp("alone"), world.store, bodies)


def by_one_process(folder, store, bodies):
    path = folder / store.name
    shutil.copy(store, path)
    with Store.open(path) as opened:
        pipeline = Pipeline([opened], settings_of(folder, path), Metrics())
        counts = [pipeline.handle(message(n, body)) for n, body in enumerate(bodies)]
    assert Outcome.PROCESSED in counts
    return drawn(path)


def drawn(path):
    """Map and history, but for the tasks."""
    map_, history = store_outcome(path)
    history["outbox"] = [row for row in history["outbox"] if row[1] != TASK_TYPE]
    return map_, history


@pytest.mark.parametrize("seed", [1, 2])
def test_answers_in_any_order_draw_the_same_map(world, bodies, alone, tmp_path, seed):
    chance = random.Random(seed)
    with Loop(tmp_path, world.store) as loop:
        out = []
        for body in bodies:
            loop.arrive(body)
            out += loop.tasks()
            if out and chance.random() < 0.3:
                loop.answer(loop.judge(out.pop(chance.randrange(len(out)))))
            if chance.random() < 0.2:
                loop.reopen()
        chance.shuffle(out)
        said = [loop.judge(task) for task in out]
        for judgement in [*said, *said]:
            loop.answer(judgement)
        loop.work_off()
        assert asked.waiting(loop.store)[0] == 0
        counts, path = dict(loop.update.counts), loop.paths[0]
        assert next_offsets(loop.store)[KAFKA.acquisitions, 0] == len(bodies)
        left = list(loop.exchange.folder.rglob("*.arrow"))
    assert drawn(path) == alone
    assert counts[Outcome.DUPLICATE] >= len(said)
    assert not left


def later(world, tmp_path, number, year):
    """An acquisition of a later campaign on the ground of one of the world's."""
    image = tmp_path / f"later-{year}.tif"
    shutil.copy(world.folder / f"before-{number:03}.tif", image)
    item = item_of(image, acquired=when(f"{year}-06-18"), sensor=Sensor.PVA, departement="D032")
    return event_bytes(item)[1]


def test_an_acquisition_waits_for_an_earlier_one_of_its_ground(world, tmp_path):
    bodies = [world.events[0], world.events[1], later(world, tmp_path, 0, 2028)]
    (tmp_path / "alone").mkdir()
    wanted = by_one_process(tmp_path / "alone", world.store, bodies)
    with Loop(tmp_path / "roles", world.store) as loop:
        for body in bodies:
            assert loop.arrive(body) is Outcome.ASKED
        first, second = loop.tasks()  # the third is held back
        loop.answer(loop.judge(second))
        assert not loop.tasks() and loop.update.counts[Outcome.PROCESSED] == 0
        loop.answer(loop.judge(first))
        assert loop.update.counts[Outcome.PROCESSED] == 2
        loop.work_off()
        assert loop.update.counts[Outcome.PROCESSED] == 3
        path = loop.paths[0]
    assert drawn(path) == wanted
    # it was compared with what the first brought, or this test shows nothing
    references = [json.loads(row[4])["reference"] for row in wanted[1]["alerts"]]
    assert len(set(references)) > 1


def corrected(world, number):
    """A person says that most of what an acquisition shows is a building."""
    item = json.loads(world.events[number])["data"]
    ground = shape(item["geometry"]).buffer(-0.0001)
    submission = Submission(
        type="FeatureCollection",
        features=[
            {
                "type": "Feature",
                "geometry": mapping(ground),
                "properties": {"code_cs": "CS1.1.1.1", "code_us": "US5"},
            }
        ],
        observed="2024-07-01T12:00:00Z",
        source="OCS communale",
        departement="D032",
    )
    return to_structured(event_of(submission, "auch"))


def test_a_correction_waits_for_earlier_images_and_later_ones_of_its_ground_for_it(world, tmp_path):
    bodies = [
        world.events[0],
        corrected(world, 0),
        world.events[1],
        later(world, tmp_path, 0, 2028),
        corrected(world, 3),
    ]
    (tmp_path / "alone").mkdir()
    wanted = by_one_process(tmp_path / "alone", world.store, bodies)
    with Loop(tmp_path / "roles", world.store) as loop:
        came = [loop.arrive(body) for body in bodies]
        assert came == 5 * [Outcome.ASKED]  # it draws, and so in its turn
        first, second = loop.tasks()
        loop.answer(loop.judge(second))
        loop.reopen()
        assert loop.update.counts[Outcome.PROCESSED] == 0
        loop.answer(loop.judge(first))
        assert loop.update.counts[Outcome.PROCESSED] == 3  # both images and the correction
        loop.work_off()
        assert loop.arrive(corrected(world, 3)) is Outcome.DUPLICATE
        path = loop.paths[0]
    assert drawn(path) == wanted
    assert {row[6] for row in wanted[1]["corrections"]} == {"applied"}


def test_a_worker_that_cannot_read_the_context_has_it_given_out_again_a_few_times(world, tmp_path):
    with Loop(tmp_path, world.store) as loop:
        loop.arrive(world.events[0])
        (task,) = loop.tasks()
        for path in loop.exchange.folder.rglob("*.context.arrow"):
            path.write_bytes(b"altered")
        first = loop.judge(task)
        assert first.reason == CONTEXT_MISSING
        assert loop.answer(first) is Outcome.JUDGED
        assert loop.answer(first) is Outcome.DUPLICATE  # it counts for its attempt
        (task,) = loop.tasks()
        assert loop.answer(loop.judge(task)) is Outcome.JUDGED
        assert loop.update.counts[Outcome.PROCESSED] == 1

        loop.arrive(world.events[1])
        loop.exchange.get = Exchange(tmp_path / "another").get  # a folder that is not shared
        loop.work_off()
        assert loop.update.counts[Outcome.DEAD_LETTERED] == 1
        (text,) = loop.store.execute("SELECT message FROM dead_letters").fetchone()
        assert "same folder in every role" in text


def test_a_judgement_whose_file_is_lost_is_asked_for_again(world, tmp_path):
    with Loop(tmp_path, world.store) as loop:
        loop.arrive(world.events[0])
        (task,) = loop.tasks()
        judgement = loop.judge(task)
        loop.exchange.discard("D032", judgement.result)
        loop.answer(judgement)
        assert loop.update.counts[Outcome.PROCESSED] == 0
        loop.work_off()
        assert loop.update.counts[Outcome.PROCESSED] == 1


def test_a_task_that_waits_long_is_given_out_again_at_the_next_start(world, tmp_path):
    with Loop(tmp_path, world.store) as loop:
        loop.arrive(world.events[0])
        assert len(loop.tasks()) == 1
        loop.reopen()
        assert not loop.tasks()  # it is not old
        assert not list(loop.update.left_over())  # nor is it forgotten
        with loop.store.transaction() as cursor:
            cursor.execute("UPDATE asked SET offered = offered - INTERVAL 1 HOUR")
        loop.reopen()
        (task,) = loop.tasks()
        assert loop.answer(loop.judge(task)) is Outcome.JUDGED
        assert loop.update.counts[Outcome.PROCESSED] == 1


def test_the_role_all_does_itself_what_was_asked_of_others(world, tmp_path):
    (tmp_path / "alone").mkdir()
    wanted = by_one_process(tmp_path / "alone", world.store, world.events[:3])
    with Loop(tmp_path / "roles", world.store) as loop:
        for body in world.events[:3]:
            loop.arrive(body)
        pipeline = Pipeline(loop.stores, loop.settings, Metrics())
        for left in pipeline.left_over():
            assert pipeline.handle(left) is Outcome.PROCESSED
        assert asked.waiting(loop.store)[0] == 0
        assert next_offsets(loop.store)[KAFKA.acquisitions, 0] == 3
        path = loop.paths[0]
    assert drawn(path) == wanted


def test_what_lies_elsewhere_is_left_to_its_owner_and_what_is_nobodys_to_one(world, tmp_path):
    modest = KAFKA.model_copy(update={"catch_all": False})
    document = json.loads(world.events[0])
    document["id"] = document["data"]["id"] = "in-the-gironde"
    west, south = -0.6, 44.8
    ground = box(west, south, west + 0.01, south + 0.01)
    document["data"]["geometry"] = json.loads(json.dumps(ground.__geo_interface__))
    document["data"]["properties"]["millesimed:departement"] = None
    unkeyed = json.dumps(document).encode()
    with Loop(tmp_path / "modest", world.store, kafka=modest) as loop:
        assert loop.arrive(b"poison") is Outcome.ELSEWHERE
        assert loop.arrive(b"poison", key="D033/1") is Outcome.ELSEWHERE
        assert loop.arrive(unkeyed, key="FR/1") is Outcome.ELSEWHERE
        assert loop.arrive(b"poison", key="D032/1") is Outcome.DEAD_LETTERED  # the key says whose
        loop.update.rest()
        assert next_offsets(loop.store)[KAFKA.acquisitions, 0] == 4
    with Loop(tmp_path / "catching", world.store) as loop:
        assert loop.arrive(unkeyed, key="FR/1") is Outcome.DEAD_LETTERED
        assert loop.arrive(b"poison", key="D033/1") is Outcome.DEAD_LETTERED  # nobody has it
        card = {"departement": "D033", "bounds": [-1.3, 44.1, 0.4, 45.6]}
        (loop.exchange.folder / "served" / "D033.json").write_text(json.dumps(card))
        loop.reopen()
        assert loop.arrive(unkeyed, key="FR/1") is Outcome.ELSEWHERE
        assert loop.arrive(b"poison", key="D033/1") is Outcome.ELSEWHERE
        assert loop.arrive(b"poison") is Outcome.DEAD_LETTERED


def test_two_maps_are_asked_for_apart_and_neither_is_forgotten(world, tmp_path):
    second = tmp_path / "D031.duckdb"
    shutil.copy(world.store, second)
    with Store.open(second) as store, store.transaction() as cursor:
        cursor.execute("UPDATE meta SET value = 'D031' WHERE key = 'territory'")
    document = json.loads(world.events[0])
    document["data"]["properties"]["millesimed:departement"] = None
    with Loop(tmp_path / "roles", world.store, second) as loop:
        loop.arrive(json.dumps(document).encode())
        loop.reopen()
        loop.work_off()
        done = [s.execute("SELECT count(*) FROM events").fetchone()[0] for s in loop.stores]
    assert done == [1, 1]


def test_something_else_in_the_topics_between_is_said_and_passed(world, tmp_path):
    with Loop(tmp_path, world.store) as loop:
        assert loop.worker.handle(message(0, b"junk", topic=KAFKA.tasks)) is Outcome.REFUSED
        read = message(0, b"junk", topic=KAFKA.judgements)
        assert loop.update.handle(read) is Outcome.REFUSED
        loop.arrive(world.events[0])
        (task,) = loop.tasks()
        stranger = loop.judge(task).model_copy(update={"event": "urn:nobody#1"})
        assert loop.answer(stranger) is Outcome.DUPLICATE
        assert loop.store.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)


def test_no_more_is_asked_for_than_the_settings_allow(world, tmp_path):
    with Loop(tmp_path, world.store) as loop:
        loop.settings.asked_at_once = 2
        loop.arrive(world.events[0])
        assert not loop.update.full()
        loop.arrive(world.events[1])
        assert loop.update.full()
        loop.work_off()
        assert not loop.update.full() and loop.update.rest()


def test_a_worker_opens_only_what_its_own_folders_allow(world, tmp_path):
    with Loop(tmp_path, world.store) as loop:
        loop.arrive(world.events[0])
        (task,) = loop.tasks()
        loop.worker._settings = Settings(
            **loop.settings.model_dump() | {"asset_roots": [tmp_path / "nowhere"]}
        )
        judgement = loop.judge(task)
        assert isinstance(judgement, Judgement) and judgement.reason == "asset-refused"
        loop.answer(judgement)
        (reason,) = loop.store.execute("SELECT reason FROM dead_letters").fetchone()
        assert reason == "asset-refused"
