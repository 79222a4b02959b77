"""Feeds over a real socket: valid Atom and GeoJSON, paged, with ETags, in two languages."""

import json
import socket
import urllib.error
import urllib.request
from xml.etree import ElementTree as ET

import geopandas as gpd
import pytest
from shapely.geometry import box, shape

from daemon import feeds
from daemon.config import HttpSettings
from daemon.http import HttpServer, application
from daemon.metrics import Metrics
from schemas.alert import AlertKind, AlertState
from schemas.subscription import Subscription
from schemas.territory import TerritoryKind
from tests.map_store import building, made_store, patched
from updater.subscriptions import save
from updater.territories import add_territories

A = f"{{{feeds.ATOM}}}"
MINE = "SU0123456789ABCDEF0123"


class Running:
    """The little that HTTP knows of a service."""

    def __init__(self):
        self.metrics, self.alive, self.ready = Metrics(), True, True


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feeds")
    made, _ = made_store(folder / "D032.duckdb", seed=9)
    places = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]
    patched(made, 1, [building(x, y, 20 + i, 20) for i, (x, y) in enumerate(places)])
    frame = gpd.GeoDataFrame(
        {"code_insee": ["32013"], "nom": ["Auch"]}, geometry=[box(0, 0, 300, 600)], crs=2154
    )
    frame.to_file(folder / "communes.gpkg")
    add_territories(made, folder / "communes.gpkg", TerritoryKind.COMMUNE)
    wanted = Subscription(
        id=MINE,
        name="Auch",
        channel="feed",
        territories=["32013"],
        kinds=list(AlertKind),
        language="en",
        min_area=450,
    )
    save(made, wanted)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(store):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = HttpServer(application(Running(), [store]), HttpSettings(host="127.0.0.1", port=port))
    server.start()
    yield f"http://127.0.0.1:{port}/feed"
    server.stop()


def get(url, **headers):
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), error.read()


def test_atom_has_what_rfc_4287_asks_for(store, url):
    status, headers, body = get(f"{url}/alerts-D032.atom")
    assert status == 200 and headers["content-type"].startswith("application/atom+xml")
    root = ET.fromstring(body)
    assert root.tag == f"{A}feed"
    for name in ("id", "title", "updated"):  # exactly one of each
        assert len(root.findall(f"{A}{name}")) == 1
    assert root.find(f"{A}author/{A}name").text
    (own,) = [link for link in root.findall(f"{A}link") if link.get("rel") == "self"]
    assert own.get("href").startswith(url)
    entries = root.findall(f"{A}entry")
    alerts = feeds.alerts_of(store)
    assert len(entries) == len(alerts) > 5
    assert len({e.find(f"{A}id").text for e in entries}) == len(entries)
    for entry, alert in zip(entries, alerts, strict=True):
        assert entry.find(f"{A}updated").text == alert.known_at.isoformat()
        assert alert.after.code_cs in entry.find(f"{A}summary").text
        numbers = entry.find(f"{{{feeds.GEORSS}}}polygon").text.split()
        assert len(numbers) % 2 == 0 and numbers[:2] == numbers[-2:]
        assert 40 < float(numbers[0]) < 52 or float(numbers[0]) < 0  # latitude first
    ranks = [a.rank for a in alerts]
    assert ranks == sorted(ranks, reverse=True)


def test_geojson_is_what_rfc_7946_asks_for(store, url):
    _, headers, body = get(f"{url}/alerts-D032.geojson")
    document = json.loads(body)
    assert headers["content-type"].startswith("application/geo+json")
    assert document["type"] == "FeatureCollection" and "crs" not in document
    for feature in document["features"]:
        assert feature["type"] == "Feature" and feature["id"] == feature["properties"]["id"]
        assert shape(feature["geometry"]).is_valid


def test_a_reader_that_has_it_gets_304_until_something_changes(store, url):
    _, headers, body = get(f"{url}/alerts-D032.geojson")
    status, _, again = get(f"{url}/alerts-D032.geojson", **{"If-None-Match": headers["etag"]})
    assert status == 304 and again == b""
    status, _, _ = get(f"{url}/alerts-D032.geojson", **{"If-None-Match": '"other"'})
    assert status == 200 and body


def test_pages_follow_each_other_and_lose_nothing(store, url, monkeypatch):
    monkeypatch.setattr(feeds, "PAGE", 5)
    names, link = [], f"{url}/alerts-D032.geojson"
    while link:
        document = json.loads(get(link)[2])
        assert len(document["features"]) <= 5
        names += [f["id"] for f in document["features"]]
        link = next((x["href"] for x in document["links"] if x["rel"] == "next"), None)
    assert names == [a.id for a in feeds.alerts_of(store)]
    last = json.loads(get(f"{url}/alerts-D032.geojson?page=2")[2])
    assert {x["rel"] for x in last["links"]} >= {"self", "previous"}
    assert json.loads(get(f"{url}/alerts-D032.geojson?page=99")[2])["features"] == []
    assert get(f"{url}/alerts-D032.geojson?page=x")[0] == 422


def test_territories_and_subscriptions_have_feeds_of_their_own(store, url):
    whole = {a.id: a for a in feeds.alerts_of(store)}
    commune = json.loads(get(f"{url}/territories/32013.geojson")[2])["features"]
    assert 0 < len(commune) < len(whole)
    mine = json.loads(get(f"{url}/subscriptions/{MINE}.geojson")[2])["features"]
    assert {f["id"] for f in mine} == {f["id"] for f in commune if f["properties"]["area"] >= 450}
    assert 0 < len(mine) < len(commune)
    english = get(f"{url}/subscriptions/{MINE}.atom")[2].decode()
    assert "Alerts of artificialisation" in english and 'xml:lang="en"' in english
    for path in ("territories/99999.atom", "subscriptions/SU0.atom", "alerts-D099.atom"):
        assert get(f"{url}/{path}")[0] == 404
    assert get(f"{url}/alerts-D032.pdf")[0] == 422


@pytest.mark.parametrize("language", ["fr", "en"])
def test_every_kind_and_state_has_its_words(language):
    words = feeds.WORDS[language]
    assert {*AlertKind, *AlertState} <= set(words)
