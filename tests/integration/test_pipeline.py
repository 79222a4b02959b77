"""The whole way of one event on real files: patched once, told once, refused with a sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from daemon.announce import event_bytes, item_of, when
from daemon.service import Service, handled
from schemas.envelope import ALERT_TYPE, CHANGE_TYPE
from schemas.policy import Sensor
from tests.scenes import announced, prepared
from updater.diff import differential
from updater.reads import alerts_now, as_of, end_of
from updater.review import dead_letters, reject_alert
from updater.store import Store
from updater.verify import verify


def run(settings):
    service = Service(settings, once=True)
    service.run()
    return handled(service), service


@pytest.fixture(scope="module")
def patched(tmp_path_factory, small_scene):
    """One event processed, and its duplicate."""
    folder = tmp_path_factory.mktemp("patched")
    settings = prepared(folder, small_scene)
    announced(settings.inbox, small_scene.after)
    announced(settings.inbox, small_scene.after, name="zz-again")
    counts, service = run(settings)
    return settings, counts, service


def test_an_event_patches_the_map_and_its_duplicate_changes_nothing(patched, small_scene):
    settings, counts, service = patched
    assert counts == {"received": 2, "processed": 1, "duplicates": 1, "dead_lettered": 0}
    with Store.open(settings.db[0]) as store:
        verdict = verify(store, deep=True)
        assert verdict.valid
        found = differential(store, end_of(2021), end_of(2024))
        ground = shapely.union_all([p.geometry for p in found.pieces])
        truth = small_scene.truth.union_all()
        assert ground.intersection(truth).area > 0.5 * truth.area
        assert ground.intersection(truth).area > 0.5 * ground.area
        assert store.execute("SELECT count(*) FROM events").fetchone() == (1,)
        assert {p.millesime for p in as_of(store, valid_at=end_of(2021))} == {2021}
    text = service.metrics.text().decode()
    assert 'millesimed_events_total{outcome="processed"} 1.0' in text
    assert 'millesimed_events_total{outcome="duplicate"} 1.0' in text
    assert "millesimed_patched_polygons_total" in text


def test_everyone_hears_of_it_once_with_stable_ids(patched):
    settings, _, _ = patched
    files = sorted(settings.outbox_folder().rglob("*.json"))
    events = [json.loads(path.read_text()) for path in files]
    kinds = {event["type"] for event in events}
    assert {CHANGE_TYPE, ALERT_TYPE} == kinds
    assert len({event["id"] for event in events}) == len(events)
    (change,) = (event["data"] for event in events if event["type"] == CHANGE_TYPE)
    assert change["departement"] == "D032" and change["millesime"] == 2024 and change["pieces"]
    feed = json.loads((settings.outbox_folder() / "feed" / "alerts-D032.geojson").read_text())
    ranks = [f["properties"]["rank"] for f in feed["features"]]
    assert ranks == sorted(ranks, reverse=True) and ranks
    first = feed["features"][0]["properties"]
    assert first["seen_first"] == "2024-06-18" and first["known_at"] and first["before"]["status"]


def test_the_same_image_announced_under_another_date_of_the_campaign_is_no_new_change(
    patched, small_scene, tmp_path
):
    settings, _, _ = patched
    copy = tmp_path / "copy"
    shutil.copytree(settings.db[0].parent, copy)
    again = settings.model_copy(
        update={"db": [copy / "D032.duckdb"], "inbox": copy / "in2", "outbox": copy / "out2"}
    )
    announced(again.inbox, small_scene.after, acquired="2024-06-25")
    counts, _ = run(again)
    assert counts["processed"] == 1
    with Store.open(again.db[0]) as store:
        assert verify(store, deep=True).valid
        fresh = differential(store, when("2024-06-20"), end_of(2024))
        assert sum(p.geometry.area for p in fresh.pieces) < 300


def test_a_rejected_alert_is_told_and_does_not_come_back(patched, small_scene, tmp_path):
    settings, _, _ = patched
    copy = tmp_path / "copy"
    shutil.copytree(settings.db[0].parent, copy)
    with Store.open(copy / "D032.duckdb") as store:
        chosen = alerts_now(store)[0]
        assert reject_alert(store, chosen.id, reason="temporary tent").sequence == 2
        assert reject_alert(store, chosen.id, reason="again").sequence == 2
    service = settings.model_copy(
        update={"db": [copy / "D032.duckdb"], "inbox": copy / "in2", "outbox": copy / "out2"}
    )
    run(service)
    told = json.loads((copy / "out2" / "alerts" / f"{chosen.id}.2.json").read_text())
    assert told["data"]["state"] == "rejected" and told["data"]["reason"] == "temporary tent"


def image(path: Path, *, bands=3, crs="EPSG:2154", bounds=(500_000, 6_280_000), size=64) -> Path:
    profile = {"driver": "GTiff", "count": bands, "dtype": "uint8", "crs": crs}
    pixels = np.random.default_rng(1).integers(0, 255, (bands, size, size)).astype(np.uint8)
    with rasterio.open(
        path,
        "w",
        width=size,
        height=size,
        transform=from_origin(bounds[0], bounds[1] + size * 0.5, 0.5, 0.5),
        **profile,
    ) as target:
        target.write(pixels)
    return path


def event_for(
    path: Path, inbox: Path, name: str, *, acquired="2024-06-18", change=None, sealed=False
) -> None:
    """Announce a file; unless ``sealed`` without its size and checksum."""
    item = item_of(path, acquired=when(acquired), sensor=Sensor.PVA, departement="D032")
    if not sealed:
        item.assets["image"].extra_fields.clear()
    if change:
        change(item)
    inbox.mkdir(exist_ok=True)
    (inbox / f"{name}.json").write_bytes(event_bytes(item)[1])


def test_every_kind_of_bad_input_is_a_dead_letter_and_the_next_event_is_processed(
    tmp_path, small_scene
):
    settings = prepared(tmp_path, small_scene)
    inbox = settings.inbox
    west, south = small_scene.bounds[:2]
    inside = (west, south)
    data = tmp_path / "data"
    data.mkdir()

    (inbox).mkdir()
    (inbox / "01-not-json.json").write_bytes(b"\x89PNG not json")
    (inbox / "02-schema.json").write_text('{"specversion": "1.0", "id": "x"}')
    with (inbox / "03-zeros.json").open("wb") as zeros:
        zeros.truncate(1 << 30)
    good = image(data / "good.tif", bounds=inside)
    event_for(good, inbox, "04-truncated")
    event_for(image(data / "crs.tif", bounds=inside), inbox, "05-crs")
    image(data / "crs.tif", crs="EPSG:32631", bounds=inside)
    event_for(image(data / "away.tif", bounds=(900_000, 6_800_000)), inbox, "06-outside")
    event_for(image(data / "old.tif", bounds=inside), inbox, "07-old", acquired="2019-06-01")
    event_for(image(data / "gone.tif", bounds=inside), inbox, "08-missing")
    (data / "gone.tif").unlink()
    event_for(image(data / "bands.tif", bounds=inside), inbox, "09-bands")
    image(data / "bands.tif", bands=40, bounds=inside)
    event_for(image(data / "junk.tif", bounds=inside), inbox, "10-junk")
    with (data / "junk.tif").open("wb") as zeros:
        zeros.truncate(1 << 30)
    event_for(
        image(data / "vsi.tif", bounds=inside),
        inbox,
        "11-vsi",
        change=lambda item: setattr(
            item.assets["image"], "href", "/vsicurl/http://127.0.0.1/a.tif"
        ),
    )
    event_for(image(data / "other.tif", bounds=inside), inbox, "12-other", sealed=True)
    image(data / "other.tif", bounds=inside, size=65)
    size = good.stat().st_size
    os.truncate(good, size // 2)
    announced(inbox, small_scene.after, name="99-good")

    counts, _ = run(settings)
    assert counts == {"received": 13, "processed": 1, "duplicates": 0, "dead_lettered": 12}
    with Store.open(settings.db[0]) as store:
        found = {letter.origin.path: letter for letter in dead_letters(store)}
        assert verify(store, deep=True).valid
    reasons = {
        name.split("-", 1)[1].removesuffix(".json"): letter.reason for name, letter in found.items()
    }
    assert reasons == {
        "not-json": "not-json",
        "schema": "schema-invalid",
        "zeros": "event-too-large",
        "truncated": "truncated-image",
        "crs": "wrong-crs",
        "outside": "outside-the-map",
        "old": "older-than-the-map",
        "missing": "asset-missing",
        "bands": "bad-bands",
        "junk": "unreadable-image",
        "vsi": "asset-refused",
        "other": "asset-changed",
    }
    for letter in found.values():
        assert letter.message.endswith(".") and "\n" not in letter.message
    kept = {path.name for path in (inbox / "failed").iterdir()}
    assert kept == set(found)


def test_a_store_without_reference_says_how_to_add_one(tmp_path, small_scene):
    settings = prepared(tmp_path, small_scene)
    with Store.open(settings.db[0]) as store, store.transaction() as cursor:
        cursor.execute("DELETE FROM images")
    announced(settings.inbox, small_scene.after)
    assert run(settings)[0]["dead_lettered"] == 1
    with Store.open(settings.db[0]) as store:
        (letter,) = dead_letters(store)
        assert letter.reason == "reference-missing" and "reference add" in letter.message
