"""Sentinel-2 through the service: a history in files, and early alerts that looks make surer."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import box

from daemon.announce import event_bytes, item_of
from daemon.bench.alerts import STATES, Told, alerts_told, held_against
from daemon.bench.parcels import Truth
from daemon.bench.spectra import BANDS
from daemon.config import Settings
from daemon.metrics import Metrics
from daemon.pipeline import Outcome, Pipeline, mark_of
from daemon.series import folder_of, joined
from daemon.sources import Message
from daemon.suspects import SUSPECT_AFTER
from detectors import series_state
from detectors.types import Region
from schemas.alert import AlertKind, AlertState
from schemas.dead_letter import Origin
from schemas.envelope import parse_event
from schemas.policy import Sensor
from updater.commit import add_image
from updater.errors import StoreError
from updater.faults import VARIABLE
from updater.importer import load
from updater.reads import ImageRecord, alerts_now, current_in, series_file
from updater.review import dead_letters
from updater.store import Store
from updater.types import MapPolygon
from updater.verify import verify

WEST, NORTH, SIDE = 501_000.0, 6_300_000.0, 60
START = datetime(2023, 1, 3, 10, 50, tzinfo=UTC)
GREEN = np.array([300, 600, 380, 3600, 2100, 1050], np.float32)
DULL = np.array([500, 750, 800, 2300, 2500, 1600], np.float32)
BUILT = np.array([2100, 2300, 2450, 2600, 2750, 2600], np.float32)
HOLE = (slice(20, 26), slice(30, 36))
"""Six pixels a side: 3 600 m²."""


YEAR = range(34)
"""Acquisitions before anything happens: thirteen months."""


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """A block of 64 pixels instead of 512: the ground of these tests is 60 wide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_state, "BLOCK", 64)
        yield


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A store with a year of history, closed."""
    folder = tmp_path_factory.mktemp("watched")
    made = Store.create(folder / "D032.duckdb", territory="D032", crs="EPSG:2154", millesime=2022)
    half, south = WEST + 300, NORTH - 600
    fields = [
        MapPolygon("M", "CS2.2.1", "US1.1", 2022, box(WEST, south, half, NORTH)),
        MapPolygon("N", "CS2.2.1", "US6.6", 2022, box(half, south, WEST + 600, NORTH)),
    ]
    with made:
        load(made, fields, [], millesime=2022)
        fed(Pipeline([made], Settings(db=[made.path]), Metrics()), folder, YEAR)
        assert alerts_now(made) == []
    return folder


@pytest.fixture
def store(watched, tmp_path):
    shutil.copytree(watched, tmp_path / "watched")
    with Store.open(tmp_path / "watched" / "D032.duckdb") as opened:
        yield opened


@pytest.fixture
def pipeline(store):
    return Pipeline([store], Settings(db=[store.path]), Metrics())


def scene(folder, number, *, built=False, clouded=False):
    """One acquisition every twelve days: a meadow through the seasons, and a yard on it."""
    acquired = START + timedelta(days=12 * number)
    rng = np.random.default_rng(number)
    green = 0.5 - 0.5 * np.cos(2 * np.pi * (acquired.timetuple().tm_yday - 15) / 365.25)
    ground = (DULL + green * (GREEN - DULL))[:, None, None] * np.ones((1, SIDE, SIDE))
    if built:
        ground[(slice(None), *HOLE)] = BUILT[:, None, None]
    image = ground * (1 + 0.02 * rng.standard_normal(ground.shape))
    if clouded:
        image[(slice(None), *HOLE)] = 0
    path = folder / f"s2-{number:02d}.tif"
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 6,
        "height": SIDE,
        "width": SIDE,
        "crs": "EPSG:2154",
        "transform": from_origin(WEST, NORTH, 10, 10),
        "nodata": 0,
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.clip(image, 0, 65535).astype(np.uint16))
        target.descriptions = BANDS
    _, body = event_bytes(item_of(path, acquired=acquired, sensor=Sensor.SENTINEL_2))
    origin = Origin(source="kafka", topic="t", partition=0, offset=number, path=None)
    return Message(value=body, headers={}, origin=origin, size=len(body))


def fed(pipeline, folder, numbers, **how):
    for number in numbers:
        assert pipeline.handle(scene(folder, number, **how)) is Outcome.PROCESSED


def test_a_yard_is_first_provisional_and_confirmed_in_three_clear_looks(store, pipeline, tmp_path):
    before = [(p.id, p.geometry.wkb) for p in current_in(store, (WEST, 0, WEST + 600, NORTH))]
    seen = []
    for number in (34, 35, 36):
        fed(pipeline, tmp_path, [number], built=True)
        (alert,) = alerts_now(store)
        seen.append(alert.state)
    assert seen == list(STATES)
    assert alert.kind is AlertKind.ARTIFICIALISATION and alert.looks == 3
    hole = box(WEST + 300, NORTH - 260, WEST + 360, NORTH - 200)
    assert alert.geometry.intersection(hole).area > 0.8 * alert.geometry.union(hole).area
    assert alert.reference is None and alert.detector == "series/1"
    fed(pipeline, tmp_path, [37], built=True, clouded=True)  # a masked look says nothing
    (after,) = alerts_now(store)
    assert after.sequence == alert.sequence
    # a coarse image never moves a line
    assert before == [
        (p.id, p.geometry.wkb) for p in current_in(store, (WEST, 0, WEST + 600, NORTH))
    ]
    blocks = list(folder_of(store).iterdir())
    assert all(len(list(block.iterdir())) == 1 for block in blocks)  # older ones are tidied away


def test_an_image_that_ends_its_processes_is_a_dead_letter_and_the_next_is_looked_at(
    store, pipeline, tmp_path, monkeypatch
):
    bad = scene(tmp_path, 34)
    before = {path.name for path in folder_of(store).rglob("*.safetensors")}
    key = parse_event(bad.value, {}).key
    mark_of(store).write_text(json.dumps({"key": key, "begun": SUSPECT_AFTER}))
    monkeypatch.setenv(VARIABLE, "in-detect")  # the process apart gets there first
    assert pipeline.handle(bad) is Outcome.DEAD_LETTERED
    (letter,) = dead_letters(store)
    assert letter.reason == "detector-died" and "SIGKILL" in letter.message
    assert {path.name for path in folder_of(store).rglob("*.safetensors")} == before
    monkeypatch.delenv(VARIABLE)
    fed(pipeline, tmp_path, [35])
    assert not mark_of(store).exists()


def test_two_clean_looks_cancel_what_was_no_change(store, pipeline, tmp_path):
    fed(pipeline, tmp_path, [34], built=True)
    fed(pipeline, tmp_path, [35, 36])
    (alert,) = alerts_now(store)
    assert alert.state is AlertState.REJECTED and alert.reason == "seen clean by sentinel-2"
    fed(pipeline, tmp_path, range(37, 41), built=True)
    (alert,) = alerts_now(store)
    assert alert.state is AlertState.REJECTED  # it rests
    fed(pipeline, tmp_path, range(41, 45), built=True)
    (alert,) = alerts_now(store)
    assert alert.state is AlertState.CONFIRMED  # what is built there later is found all the same


def aerial(folder, name, acquired):
    """200 m of meadow around the yard at 0.5 m, and the event that tells of it."""
    rng = np.random.default_rng(int(acquired.timestamp()) % 1000)
    pixels = rng.normal(110, 4, (3, 400, 400)) + np.array([0, 25, -20])[:, None, None]
    path = folder / f"{name}.tif"
    corner = from_origin(WEST + 230, NORTH - 130, 0.5, 0.5)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 400, "width": 400}
    with rasterio.open(path, "w", crs="EPSG:2154", transform=corner, **profile) as target:
        target.write(np.clip(pixels, 1, 255).astype(np.uint8))
    _, body = event_bytes(item_of(path, acquired=acquired, sensor=Sensor.PVA))
    origin = Origin(source="inbox", topic="t", path=f"{name}.json")
    return path, Message(value=body, headers={}, origin=origin, size=len(body))


@pytest.mark.parametrize("detector", ["cva", None])
def test_an_aerial_image_without_the_change_rejects_it_unless_it_could_not_be_judged(
    store, tmp_path, detector
):
    """Of one cover alone the map-guided detector can tell nothing: then it says nothing."""
    pipeline = Pipeline([store], Settings(db=[store.path], detector=detector), Metrics())
    fed(pipeline, tmp_path, [34, 35], built=True)
    (early,) = alerts_now(store)
    assert early.state is AlertState.PROVISIONAL
    flown = START - timedelta(days=200)
    path, _ = aerial(tmp_path, "before", flown)
    ground = box(WEST + 230, NORTH - 330, WEST + 430, NORTH - 130)
    add_image(store, ImageRecord("ref", path, Sensor.PVA, flown, 0.5, ground))
    _, message = aerial(tmp_path, "after", START + timedelta(days=500))
    assert pipeline.handle(message) is Outcome.PROCESSED
    (judged,) = alerts_now(store)
    if detector is None:
        assert judged == early
    else:
        assert judged.state is AlertState.REJECTED and judged.reason == "seen clean by pva"


def test_an_event_that_died_before_its_commit_is_taken_once(store, tmp_path, monkeypatch):
    """The file of a history may be there without its commit; the same event writes it again."""
    from daemon import pipeline as room

    carried = Pipeline([store], Settings(db=[store.path]), Metrics())
    name = next(folder_of(store).iterdir()).name + ".safetensors"
    known = series_file(store, name)
    whole = room.commit.commit

    def dies(*_):
        raise duckdb.IOException("killed")

    message = scene(tmp_path, 34)
    monkeypatch.setattr(room.commit, "commit", dies)
    with pytest.raises(StoreError):
        carried.handle(message)
    assert series_file(store, name) == known
    monkeypatch.setattr(room.commit, "commit", whole)
    assert carried.handle(message) is Outcome.PROCESSED
    assert carried.handle(message) is Outcome.DUPLICATE
    (left,) = (folder_of(store) / name.removesuffix(".safetensors")).iterdir()
    assert left.name == series_file(store, name).file != known.file


def test_a_damaged_history_is_a_dead_letter_that_names_the_file(store, pipeline, tmp_path):
    (path,) = next(folder_of(store).iterdir()).iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert pipeline.handle(scene(tmp_path, 34)) is Outcome.DEAD_LETTERED
    row = store.execute("SELECT reason, message FROM dead_letters").fetchone()
    assert row[0] == "damaged-state" and path.name in row[1]
    path.unlink()  # as it says
    assert pipeline.handle(scene(tmp_path, 35)) is Outcome.PROCESSED
    assert verify(store, deep=True).valid


def test_parts_of_a_region_in_two_blocks_are_one():
    parts = [
        Region(box(0, 0, 50, 30), None, "CS1.1.1.2", 0.9, 0.5),
        Region(box(50, 0, 60, 30), None, "CS1.1.1.2", 0.6, 0.5),
        Region(box(60, 0, 90, 30), None, "CS1.1.2.1", 0.7, 0.5),
    ]
    one, other = joined(parts)
    assert one.geometry.area == 1800 and one.probability == pytest.approx(0.85)
    assert other.to_cs == "CS1.1.2.1"


def test_the_bench_counts_what_is_true_found_and_late(store, pipeline, tmp_path):
    fed(pipeline, tmp_path, range(34, 38), built=True)
    (told,) = alerts_told(store)
    days = [START + timedelta(days=12 * n) for n in range(38)]
    site = box(WEST + 300, NORTH - 260, WEST + 360, NORTH - 200)
    begins = days[33] + timedelta(days=1)
    truth = [
        Truth("built", True, site, begins, begins, None),
        Truth("built", True, box(WEST, NORTH - 60, WEST + 60, NORTH), begins, begins, None),
        Truth("plough", False, site, begins, None, None),
    ]
    found = held_against([told], truth, truth[:2], [days, days])
    assert found["recall"] == 0.5 and found["precision"] == 1.0 and found["delay_looks"] == 3
    assert [row["alerts"] for row in found["states"]] == [1, 1, 1]
    early = [Told(told.record, {s: begins - timedelta(days=5) for s in STATES})]
    found = held_against(early, truth, truth[:2], [days, days])
    assert found["recall"] == 0.0 and found["precision"] == 0.0  # raised before the works began
    assert found["false_by_cause"] == {"built": 1}
