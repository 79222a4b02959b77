"""Feeds against what their standards say: RFC 4287 and RFC 5005 for Atom, RFC 7946 for GeoJSON.

Each check also refuses a feed that is broken on purpose, one rule at a time.
"""

import copy
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from geojson_pydantic import FeatureCollection
from lxml import etree
from shapely.geometry import LinearRing, box
from shapely.geometry import shape as shape_of

from daemon import feeds
from schemas.alert import AlertKind, AlertState
from schemas.subscription import Subscription
from tests.map_store import building, made_store, patched
from tests.served import api
from updater.crs import to_geojson
from updater.reads import alerts_now
from updater.review import reject_alert
from updater.subscriptions import new_id, save

ATOM = "{http://www.w3.org/2005/Atom}"
GRAMMAR = etree.RelaxNG(etree.parse(Path(__file__).parent / "schemas" / "atom.rng"))
PLACES = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]
ODD = "Ville d'Auch & <Gers>\x0b, 100 %"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made, _ = made_store(tmp_path_factory.mktemp("schemas") / "D032.duckdb", seed=9)
    patched(made, 1, [building(x, y, 20 + i, 20) for i, (x, y) in enumerate(PLACES)])
    reject_alert(made, alerts_now(made)[0].id, reason="tent")
    yield made
    made.close()


@pytest.fixture(scope="module")
def subscription(store):
    wanted = Subscription(
        id=new_id(), name=ODD, channel="feed", kinds=list(AlertKind), states=list(AlertState)
    )
    save(store, wanted)
    return wanted


@pytest.fixture(scope="module")
def call(store):
    with api([store], {}) as client:
        yield client


def atom_faults(body):
    """What RFC 4287 and RFC 5005 do not allow of a feed."""
    root = etree.fromstring(body)
    faults = [] if GRAMMAR.validate(root) else [str(e.message) for e in GRAMMAR.error_log]
    ids = [e.findtext(f"{ATOM}id") for e in root.iterfind(f"{ATOM}entry")]
    if len(set(ids)) < len(ids) or root.findtext(f"{ATOM}id") in ids:
        faults.append("ids are not unique")
    for entry in root.iterfind(f"{ATOM}entry"):
        rels = [link.get("rel", "alternate") for link in entry.iterfind(f"{ATOM}link")]
        if entry.find(f"{ATOM}content") is None and "alternate" not in rels:
            faults.append("an entry without content has no alternate link")
    rels = [link.get("rel", "alternate") for link in root.iterfind(f"{ATOM}link")]
    if rels.count("self") != 1 or len(set(rels)) < len(rels):
        faults.append("a feed has one link of each relation, self among them")
    for link in root.iter(f"{ATOM}link"):
        if not (urlsplit(link.get("href") or "").scheme and urlsplit(link.get("href")).netloc):
            faults.append("links are absolute")
    return faults


def geojson_faults(document):
    """What RFC 7946 does not allow of a feature collection."""
    faults = []
    try:
        FeatureCollection.model_validate(document)
    except ValueError as error:
        faults.append(str(error))
        return faults
    if "crs" in document or any(key in document for key in ("coordinates", "geometry")):
        faults.append("members of other GeoJSON objects")
    ids = [feature.get("id") for feature in document["features"]]
    if None in ids or len(set(ids)) < len(ids):
        faults.append("ids are not unique")
    for feature in document["features"]:
        geometry = feature["geometry"]
        parts = geometry["coordinates"]
        for outer, *inner in [parts] if geometry["type"] == "Polygon" else parts:
            turns = [_is_ccw(outer), *(not _is_ccw(ring) for ring in inner)]
            if not all(turns):
                faults.append("a ring turns the wrong way")
            if any(not (-180 <= x <= 180 and -90 <= y <= 90) for x, y, *_ in outer):
                faults.append("coordinates are longitude, latitude")
    return faults


def _is_ccw(ring):
    return LinearRing(ring).is_ccw


QUERIES = [
    *("", "?lang=en", "?state=rejected", "?kind=artificialisation&kind=other&lang=en"),
    *("?state=first", "?page=2", "?page=99"),
]


@pytest.mark.parametrize("query", QUERIES)
def test_every_atom_feed_is_valid(call, subscription, query, monkeypatch):
    monkeypatch.setattr(feeds, "PAGE", 5)
    seen = set()
    for name in ("alerts-D032", "territories/D032", f"subscriptions/{subscription.id}"):
        answer = call("GET", f"/feed/{name}.atom{query}")
        assert answer.status == 200 and atom_faults(answer.body) == []
        seen.add(etree.fromstring(answer.body).findtext(f"{ATOM}id"))
    assert len(seen) == 3  # each feed has an id of its own


@pytest.mark.parametrize("query", QUERIES)
def test_every_geojson_feed_is_valid(call, subscription, query, monkeypatch):
    monkeypatch.setattr(feeds, "PAGE", 5)
    for name in ("alerts-D032", "territories/D032", f"subscriptions/{subscription.id}"):
        answer = call("GET", f"/feed/{name}.geojson{query}")
        assert answer.status == 200 and geojson_faults(answer.json) == []
        assert all(urlsplit(link["href"]).netloc for link in answer.json["links"])


def test_the_links_of_an_entry_and_of_a_page_lead_somewhere(call, monkeypatch):
    monkeypatch.setattr(feeds, "PAGE", 2)
    root = etree.fromstring(call("GET", "/feed/alerts-D032.atom?kind=artificialisation").body)
    links = {link.get("rel"): link.get("href") for link in root.iterfind(f"{ATOM}link")}
    for rel in ("self", "next"):
        answer = call("GET", links[rel].removeprefix(call.url))
        again = etree.fromstring(answer.body)
        assert again.findtext(f"{ATOM}id") == root.findtext(f"{ATOM}id")
        kinds = {c.get("term") for c in again.iter(f"{ATOM}category")}
        assert kinds & set(AlertKind) == {"artificialisation"}
    for entry in root.iterfind(f"{ATOM}entry"):
        (link,) = entry.iterfind(f"{ATOM}link")
        story = call("GET", link.get("href").removeprefix(call.url)).json
        assert entry.findtext(f"{ATOM}id").endswith(story["alert"]["id"])


def test_filters_and_languages(call, store, subscription):
    every = call("GET", "/feed/alerts-D032.geojson").json["features"]
    rejected = call("GET", "/feed/alerts-D032.geojson?state=rejected").json["features"]
    assert [f["id"] for f in rejected] == [
        f["id"] for f in every if f["properties"]["state"] == "rejected"
    ]
    assert 0 < len(rejected) < len(every)
    english = call("GET", f"/feed/subscriptions/{subscription.id}.atom?lang=en").body.decode()
    french = call("GET", f"/feed/subscriptions/{subscription.id}.atom").body.decode()
    assert "Alerts of artificialisation" in english and "Alertes d'artificialisation" in french
    assert "Ville d'Auch &amp; &lt;Gers&gt; , 100 %" in french
    for query in ("lang=de", "state=lost", "kind=x", "page=0"):
        assert call("GET", f"/feed/alerts-D032.atom?{query}").status == 422
    save(store, subscription.model_copy(update={"active": False}))
    assert call("GET", f"/feed/subscriptions/{subscription.id}.atom").status == 404
    save(store, subscription)


def first_entry(root):
    return root.find(f"{ATOM}entry")


def drop(parent, name):
    parent.remove(parent.find(f"{ATOM}{name}"))


BREAKS = {
    "no id": lambda r: drop(r, "id"),
    "no title": lambda r: drop(r, "title"),
    "no author": lambda r: drop(r, "author"),
    "two ids": lambda r: r.append(copy.deepcopy(r.find(f"{ATOM}id"))),
    "an id that is no IRI": lambda r: r.find(f"{ATOM}id").__setattr__("text", "Ville d'Auch"),
    "a date without zone": lambda r: r.find(f"{ATOM}updated").__setattr__(
        "text", "2026-01-02T03:04:05"
    ),
    "a date that is none": lambda r: r.find(f"{ATOM}updated").__setattr__(
        "text", "2026-13-02T03:04:05Z"
    ),
    "a date in words": lambda r: r.find(f"{ATOM}updated").__setattr__("text", "today"),
    "an entry without updated": lambda r: drop(first_entry(r), "updated"),
    "an entry without alternate": lambda r: drop(first_entry(r), "link"),
    "an entry twice": lambda r: r.append(copy.deepcopy(first_entry(r))),
    "no self": lambda r: drop(r, "link"),
    "a link to nowhere": lambda r: r.find(f"{ATOM}link").attrib.pop("href"),
    "a relative link": lambda r: r.find(f"{ATOM}link").set("href", "?page=2"),
    "a type without slash": lambda r: r.find(f"{ATOM}link").set("type", "atom"),
    "a category without term": lambda r: first_entry(r).find(f"{ATOM}category").attrib.clear(),
    "an unknown element": lambda r: etree.SubElement(r, f"{ATOM}colour"),
    "an unknown attribute": lambda r: r.find(f"{ATOM}link").set("colour", "red"),
    "markup in a summary": lambda r: etree.SubElement(
        first_entry(r).find(f"{ATOM}summary"), "{http://www.w3.org/1999/xhtml}b"
    ),
}


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_broken_atom_feed_is_refused(call, name):
    body = call("GET", "/feed/alerts-D032.atom").body
    assert atom_faults(body) == []
    root = etree.fromstring(body)
    BREAKS[name](root)
    assert atom_faults(etree.tostring(root))


def test_a_broken_geojson_feed_is_refused(call):
    good = call("GET", "/feed/alerts-D032.geojson").json

    def broken(change):
        document = json.loads(json.dumps(good))
        change(document, document["features"][0])
        return geojson_faults(document)

    assert broken(lambda d, f: None) == []
    assert broken(lambda d, f: d.pop("features"))
    assert broken(lambda d, f: d.update(type="Features"))
    assert broken(lambda d, f: d.update(crs={"type": "name"}))
    assert broken(lambda d, f: f.pop("geometry"))
    assert broken(lambda d, f: f.pop("properties"))
    assert broken(lambda d, f: f.update(id=d["features"][1]["id"]))
    assert broken(lambda d, f: f["geometry"]["coordinates"][0].reverse())
    assert broken(lambda d, f: f["geometry"]["coordinates"][0].pop())
    assert broken(lambda d, f: f["geometry"].update(type="Square"))


def test_rings_turn_the_right_way_whatever_the_store_has():
    clockwise = box(500_000, 6_270_000, 500_100, 6_270_100, ccw=False)
    pierced = clockwise.difference(box(500_040, 6_270_040, 500_060, 6_270_060))
    for ground in (clockwise, pierced, pierced.reverse()):
        outer, *inner = to_geojson(ground, "EPSG:2154").model_dump()["coordinates"]
        assert _is_ccw(outer) and not any(_is_ccw(ring) for ring in inner)
        assert shape_of({"type": "Polygon", "coordinates": [outer, *inner]}).is_valid
