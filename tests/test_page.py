"""The map page's own addresses over a real socket; every answer is held against /openapi.json."""

import gzip
import io
import json
import re
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.resources import files

import pytest
from PIL import Image

from daemon.config import Scope
from daemon.page import atlas as atlas_module
from daemon.page.pages import assets, build, language_of, words
from schemas.alert import AlertState, FalseAlarm
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES
from tests.page_scene import COMMUNE, page_scene
from tests.served import api, known
from tests.test_tiles import tile_at
from updater.reads import alerts_now, map_now
from updater.review import reject_alert

REVIEWER = "token-reviewer"
WEB = files("daemon").joinpath("web")


@pytest.fixture(scope="module")
def scene(tmp_path_factory, small_scene):
    made = page_scene(tmp_path_factory.mktemp("page"), small_scene)
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def call(scene):
    tokens = {"reviewer": known(Scope.REVIEW, token=REVIEWER)}
    with api([scene.store], tokens) as client:
        yield client


@pytest.fixture(scope="module")
def middle(small_scene):
    west, south, east, north = small_scene.bounds
    return (west + east) / 2, (south + north) / 2


def test_both_languages_say_the_same_things():
    found = {
        language: json.loads(WEB.joinpath(f"{language}.json").read_text())
        for language in ("fr", "en")
    }
    assert list(found["fr"]) == list(found["en"]) == sorted(found["fr"])
    for key in found["fr"]:
        holes = [set(re.findall(r"\{(\w+)\}", found[language][key])) for language in ("fr", "en")]
        assert holes[0] == holes[1], key
        assert found["fr"][key].strip() and found["en"][key].strip(), key


def test_every_word_a_script_or_a_page_asks_for_is_there():
    said = set(words("fr"))
    for file in WEB.iterdir():
        text = file.read_text(encoding="utf-8")
        if file.name.endswith(".js"):
            wanted = set(re.findall(r"""\bt\("([\w. -]+)\"""", text))
            families = re.findall(r"""\bt\(`([\w.]+)\.\$""", text)
            assert all(any(key.startswith(f"{family}.") for key in said) for family in families)
        elif file.name.endswith(".html"):
            fixed = {"lang", "build", "version", "words", "other", "preload"}
            wanted = set(re.findall(r"\{\{([\w.-]+)\}\}", text)) - fixed
        else:
            continue
        assert wanted <= said, (file.name, wanted - said)


def test_what_a_state_or_kind_is_called_is_there():
    from schemas.alert import AlertKind
    from schemas.change import Operation
    from schemas.policy import Sensor

    said = set(words("en"))
    assert {f"cause.{c.value}" for c in FalseAlarm} <= said
    assert {f"state.{s.value}" for s in AlertState} <= said
    assert {f"kind.{k.value}" for k in AlertKind} <= said
    assert {f"operation.{o.value}" for o in Operation} <= said
    assert {f"sensor.{s.value}" for s in Sensor} <= said


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "fr"), ("en", "en"), ("en-GB,en;q=0.9,fr;q=0.8", "en"), ("de,fr;q=0.5,en;q=0.7", "en"),
        ("en;q=0,de", "fr"), ("*;q=oops,;,,en;q=", "en"), ("zh", "fr"), ("fr-CA,en", "fr"),
    ],
)  # fmt: skip
def test_the_language_is_the_first_known_one_a_browser_names(accepted, language):
    assert language_of(accepted) == language


def test_the_page_asks_no_other_host_and_runs_no_inline_script(call):
    for path in ("/", "/figures"):
        answer = call("GET", path, Accept_Language="en-GB,en;q=0.8")
        text = answer.body.decode()
        assert answer.status == 200 and '<html lang="en">' in text
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert not re.search(r"""(?:src|href)="(?:https?:)?//""", text)
        assert not re.search(r"<script(?![^>]*(?:src=|application/json))", text)
        assert not re.search(r"\son\w+=|\sstyle=", text) and "{{" not in text
        for name in re.findall(rf'"assets/{build()}/([\w.-]+)"', text):
            assert call("GET", f"/assets/{build()}/{name}").status == 200
    assert '<link rel="preload" href="map/state"' in call("GET", "/").body.decode()
    assert '<html lang="fr">' in call("GET", "/?lang=fr", Accept_Language="en").body.decode()
    assert call("GET", "/?lang=de").status == 422


def test_where_reading_takes_a_token_nothing_is_asked_without_one(scene):
    with api([scene.store], {}, public_read=False) as call:
        assert "map/state" not in call("GET", "/").body.decode()


def test_assets_are_kept_by_their_hash_and_come_compressed(call):
    found = call("GET", f"/assets/{build()}/maplibre-gl.js", Accept_Encoding="gzip")
    assert found.headers["Content-Encoding"] == "gzip" and len(found.body) < 300_000
    assert "immutable" in found.headers["Cache-Control"]
    assert gzip.decompress(found.body) == assets()["maplibre-gl.js"].content
    assert call("GET", "/assets/000000000000/map.js").headers["Cache-Control"] == "no-cache"
    for name in ("http.py", "..%2Fhttp.py", "missing.js"):
        assert call("GET", f"/assets/{build()}/{name}").status == 404


def test_the_state_names_years_images_territories_and_official_colours(call, scene):
    state = call("GET", "/map/state").json
    (one,) = state["departements"]
    assert one["code"] == "D032" and one["millesimes"] == [2021, 2024]
    assert one["crs"] == ["EPSG:2154", "EPSG:4326", "EPSG:3857"]
    assert [(i["year"], i["sensors"], i["count"]) for i in one["images"]] == [
        (2021, ["pva"], 1),
        (2024, ["pva"], 1),
    ]
    assert [t["code"] for t in one["territories"]] == [COMMUNE]
    west, south, east, north = one["bounds"]
    assert -1 < west < east < 2 and 43 < south < north < 45
    assert [e["code"] for e in state["couverture"]] == list(CS_LEAVES)
    assert {e["colour"] for e in state["couverture"]} == {COUVERTURE[c].colour for c in CS_LEAVES}
    assert [e["code"] for e in state["usage"]] == list(US_CODES)
    assert sum(one["alerts"].values()) == len(alerts_now(scene.store))


def test_tiles_come_compressed_and_once(call, scene, middle):
    tile = tile_at(*middle, 15)
    path = f"/tiles/D032/map/2024/15/{tile.x}/{tile.y}.mvt"
    packed = call("GET", path, Accept_Encoding="gzip")
    assert packed.status == 200 and packed.headers["Content-Encoding"] == "gzip"
    plain = call("GET", path)
    assert gzip.decompress(packed.body) == plain.body
    assert call("GET", path, If_None_Match=plain.headers["ETag"]).status == 304
    assert "no-cache" in plain.headers["Cache-Control"]
    assert "max-age" in call("GET", f"{path}?v=1").headers["Cache-Control"]
    kinds = {
        f"/tiles/D032/overview/usage/2024/11/{tile.x >> 4}/{tile.y >> 4}.png": "PNG",
        f"/tiles/D032/image/2021/15/{tile.x}/{tile.y}.webp": "WEBP",
    }
    for other, form in kinds.items():
        answer = call("GET", other)
        assert answer.status == 200 and Image.open(io.BytesIO(answer.body)).format == form
    for other in ("changes/2021/2024", "alerts"):
        assert call("GET", f"/tiles/D032/{other}/15/{tile.x}/{tile.y}.mvt").status == 200


def test_what_is_no_tile_is_said(call):
    for path, status in {
        "/tiles/D032/map/2024/15/0/0.mvt": 204,
        "/tiles/D032/image/1999/15/0/0.webp": 204,
        "/tiles/D032/map/2024/12/0/0.mvt": 404,
        "/tiles/D032/overview/usage/2024/13/0/0.png": 404,
        "/tiles/D032/map/2024/15/40000/0.mvt": 404,
        "/tiles/D032/map/2024/23/0/0.mvt": 422,
        "/tiles/D099/map/2024/15/0/0.mvt": 422,
        "/tiles/D032/overview/roads/2024/11/0/0.png": 422,
        "/tiles/D032/image/..%2F..%2Fetc/15/0/0.webp": 404,
    }.items():
        assert call("GET", path).status == status, path
    answer = call("GET", "/tiles/D032/map/2024/15/0/0.mvt", token="wrong")
    assert answer.status == 401 and "token" in answer.json["detail"]


def test_after_a_review_the_tile_of_alerts_is_another_and_the_maps_is_not(
    tmp_path, small_scene, middle
):
    made = page_scene(tmp_path, small_scene)
    tile = tile_at(*middle, 13)
    places = {
        name: f"/tiles/D032/{name}/13/{tile.x}/{tile.y}.mvt" for name in ("map/2024", "alerts")
    }
    with api([made.store], {}) as call:
        before = {name: call("GET", path).headers["ETag"] for name, path in places.items()}
        versions = call("GET", "/map/state").json["departements"][0]["versions"]
        first = alerts_now(made.store)[0]
        reject_alert(made.store, first.id, reason="a tarpaulin", cause=FalseAlarm.TEMPORARY)
        after = {name: call("GET", path).headers["ETag"] for name, path in places.items()}
        assert after["map/2024"] == before["map/2024"] and after["alerts"] != before["alerts"]
        now = call("GET", "/map/state").json["departements"][0]["versions"]
        assert now["map"] == versions["map"] and now["alerts"] != versions["alerts"]
        (figures,) = call("GET", "/map/figures").json
        assert figures["false_alarms"] == [
            {"kind": first.kind.value, "cause": "temporary", "count": 1, "share": 1.0}
        ]
    made.store.close()


def test_the_list_is_ranked_filtered_and_paged(call, scene, monkeypatch):
    monkeypatch.setattr("daemon.api.map.ROWS", 3)
    records = alerts_now(scene.store)
    first = call("GET", "/map/alerts").json
    assert first["total"] == len(records) and len(first["alerts"]) == 3
    every = [
        a
        for page in range(1, first["pages"] + 1)
        for a in call("GET", f"/map/alerts?page={page}").json["alerts"]
    ]
    assert sorted(a["id"] for a in every) == sorted(r.id for r in records)
    assert [a["rank"] for a in every] == sorted((a["rank"] for a in every), reverse=True)

    def ids(query):
        return {
            a["id"]
            for page in (1, 2, 3, 4, 5, 6, 7)
            for a in call("GET", f"/map/alerts?{query}&page={page}").json["alerts"]
        }

    inside = {r.id for r in records if any(p.code == COMMUNE for p in r.places)}
    assert ids(f"territory={COMMUNE}") == inside and 0 < len(inside) < len(records)
    area = sorted(r.geometry.area for r in records)[len(records) // 2]
    assert ids(f"min_area={area}") == {r.id for r in records if round(r.geometry.area, 1) >= area}
    kind = records[0].kinds[-1]
    assert ids(f"kind={kind.value}") == {r.id for r in records if kind in r.kinds}
    assert ids("state=rejected") == {r.id for r in records if r.state is AlertState.REJECTED}
    day = records[0].seen_last.date()
    assert ids(f"first={day}&last={day}") == {r.id for r in records if r.seen_last.date() == day}
    assert ids(f"last={date(2000, 1, 1)}") == set()
    largest = call("GET", "/map/alerts?sort=area").json["alerts"][0]
    assert largest["area"] == max(round(float(r.geometry.area), 1) for r in records)
    assert call("GET", "/map/alerts?departement=D099").status == 422
    assert call("GET", "/map/alerts?state=maybe").status == 422


def test_a_polygon_tells_its_versions_and_lineage(call, scene):
    record = alerts_now(scene.store)[0]
    story = call("GET", f"/map/D032/polygons/{record.polygons[0]}").json
    assert story["versions"] and story["versions"][-1]["valid_to"] is None
    assert any(link["child"] == record.polygons[0] for link in story["ancestors"])
    old = story["ancestors"][0]["parent"]
    earlier = call("GET", f"/map/D032/polygons/{old}").json
    assert earlier["descendants"] and earlier["versions"][0]["valid_from"].startswith("2021")
    assert call("GET", "/map/D032/polygons/nobody").status == 404
    outline = call("GET", f"/map/territories/{COMMUNE}.geojson").json
    assert outline["geometry"]["type"] == "Polygon" and outline["properties"]["name"] == "Auch"
    assert call("GET", "/map/territories/99999.geojson").status == 404


def test_the_figures_agree_with_the_map_and_the_differential(call, scene):
    from updater.diff import differential
    from updater.reads import end_of

    (found,) = call("GET", "/map/figures?departement=D032").json
    whole = differential(scene.store, end_of(2021), end_of(2024))
    stocks = {y["year"]: y for y in found["years"]}
    assert stocks[2021]["artificialised"] == pytest.approx(whole.stock_before, abs=0.1)
    assert stocks[2024]["artificialised"] == pytest.approx(whole.stock_after, abs=0.1)
    assert stocks[2024]["area"] == pytest.approx(sum(p.geometry.area for p in map_now(scene.store)))
    (period,) = found["periods"]
    flux = {t["code"]: t for t in period["territories"]}
    assert flux["D032"]["artificialised"] == pytest.approx(whole.area(artificialisation=1), abs=0.1)
    assert 0 < flux[COMMUNE]["artificialised"] < flux["D032"]["artificialised"]
    total = sum(v for row in period["matrix"].values() for v in row.values())
    assert total == pytest.approx(sum(p.geometry.area for p in whole.pieces), abs=0.5)
    assert sum(found["latency"]["counts"]) == 1 and found["latency"]["median_days"] > 0
    assert found["false_alarms"] == []


def test_too_many_waiting_are_told_and_health_still_answers(scene, middle, monkeypatch):
    """A view of tiles that are slow to draw neither starves /healthz nor piles up without end."""
    monkeypatch.setattr(atlas_module, "MOST_WAITING", 4)
    release, drawing = threading.Event(), threading.Semaphore(0)
    real = atlas_module.Atlas._drawn

    def slow(self, sheet, ask):
        drawing.release()
        release.wait(20)
        return real(self, sheet, ask)

    monkeypatch.setattr(atlas_module.Atlas, "_drawn", slow)
    tile = tile_at(*middle, 16)
    with api([scene.store], {}) as call, ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(call, "GET", f"/tiles/D032/map/2024/16/{tile.x + n}/{tile.y}.mvt")
            for n in range(10)
        ]
        assert all(drawing.acquire(timeout=10) for _ in range(atlas_module.AT_ONCE))
        started = time.monotonic()
        with urllib.request.urlopen(f"{call.url}/healthz", timeout=5) as answer:
            assert answer.status == 200
        assert time.monotonic() - started < 2
        while sum(f.done() for f in asked) < 6 and time.monotonic() - started < 10:
            time.sleep(0.02)
        release.set()
        answers = [f.result() for f in asked]
    assert [a.status for a in answers].count(503) == 6
    assert all(a.headers["Retry-After"] == "1" for a in answers if a.status == 503)
    assert {a.status for a in answers} <= {200, 204, 503}
