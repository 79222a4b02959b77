"""OGC API - Features over a real socket; every answer is held against both descriptions."""

from urllib.parse import quote, urlencode

import httpx
import jsonschema
import pytest
import shapely
from geojson_pydantic import FeatureCollection
from openapi_spec_validator import validate
from pyproj import Transformer
from shapely.geometry import box, shape

from daemon.config import Scope
from daemon.ogc import addresses as ogc
from daemon.ogc.addresses import CLASSES
from daemon.ogc.crs import CRS84, EPSG, ground_of, offered, presented
from daemon.ogc.query import MOST
from schemas.alert import AlertState
from tests.map_store import FIRST, building, patched
from tests.served import api, known
from tests.standards import EAST, NORTH, SIDE, lambert_store
from updater.diff import differential
from updater.diff_files import differential_frame
from updater.export import frame_of
from updater.reads import alerts_now, as_of, end_of
from updater.review import reject_alert

L93, LATLON, MERCATOR = f"{EPSG}2154", f"{EPSG}4326", f"{EPSG}3857"
MAP = "/ogc/collections/ocsge-D032-2024"
OLD = "/ogc/collections/ocsge-D032-2021"
DIFF = "/ogc/collections/differentiel-D032-2021-2024"
ALERTS = "/ogc/collections/alertes-D032"
SQUARE_METRE = 1.1e-10
"""In square degrees."""
NAMES = [path.rpartition("/")[2] for path in (OLD, MAP, DIFF, ALERTS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = lambert_store(tmp_path_factory.mktemp("ogc") / "D032.duckdb")
    yield made
    made.close()


@pytest.fixture(scope="module")
def call(store):
    with api([store], {"town": known(Scope.READ, token="town")}) as client:
        client.oas30 = client("GET", "/ogc/api").json
        yield Held(client)


class Held:
    """A client that holds answers against the OpenAPI 3.0 document too."""

    def __init__(self, client):
        self.client, self.url = client, client.url

    def __call__(self, method, path, *args, **more):
        answer = self.client(method, path, *args, **more)
        described = self.client.oas30["paths"]
        place = path.partition("?")[0].removeprefix("/ogc") or "/"
        head, items, feature = place.partition("/items/")
        place = f"{head}{items}{{featureId}}" if feature else place
        if place in described:
            announced = described[place]["get"]["responses"]
            response = announced.get(str(answer.status)) or announced["default"]
            if "$ref" in response:
                response = self.client.oas30["components"]["responses"]["problem"]
            schema = response["content"][answer.headers.get_content_type()]["schema"]
            root = {**schema, "components": self.client.oas30["components"]}
            jsonschema.Draft4Validator(root).validate(answer.json)
        return answer

    def pages(self, path, **asked):
        """Every page of a collection."""
        return self.pages_from(f"{path}/items?{urlencode(asked)}")

    def pages_from(self, address):
        """A page and all after it."""
        found = [self("GET", address.removeprefix(self.url)).json]
        while links := [x["href"] for x in found[-1]["links"] if x["rel"] == "next"]:
            found.append(self("GET", links[0].removeprefix(self.url)).json)
        return found

    def features(self, path, **asked):
        """Its features."""
        return [f for page in self.pages(path, **asked) for f in page["features"]]


def rows(features):
    return sorted(features, key=lambda f: f["id"])


def exported(frame, *names):
    """Rows of an exported frame as properties, by id."""
    plain = frame.drop(columns="geometry").to_dict("records")
    return sorted(plain, key=lambda row: [row[name] for name in names])


def test_the_way_in(call):
    landing = call("GET", "/ogc")
    assert landing.json == httpx.get(f"{call.url}/ogc/").json()
    links = {link["rel"]: link for link in landing.json["links"]}
    assert {"self", "service-desc", "conformance", "data"} <= set(links)
    assert links["service-desc"]["type"] == "application/vnd.oai.openapi+json;version=3.0"
    for rel in ("self", "service-desc", "conformance", "data"):
        assert call("GET", links[rel]["href"].removeprefix(call.url)).status == 200
    assert call("GET", "/ogc/conformance").json["conformsTo"] == list(CLASSES)
    assert any(name.endswith("features-2/1.0/conf/crs") for name in CLASSES)


def test_the_description_is_openapi_3_0_and_names_every_collection(call):
    answer = call("GET", "/ogc/api")
    assert answer.headers["Content-Type"] == "application/vnd.oai.openapi+json;version=3.0"
    validate(answer.json)
    assert answer.json["openapi"].startswith("3.0.")
    paths = answer.json["paths"]
    for name in NAMES:
        asked = paths[f"/collections/{name}/items"]["get"]["parameters"]
        names = {p.get("name") or p["$ref"].rpartition("/")[2] for p in asked}
        queryable = call("GET", f"/ogc/collections/{name}/queryables").json["properties"]
        assert {"bbox", "limit", "datetime", "crs", "bbox-crs", *queryable} <= names


def test_collections(call):
    listed = call("GET", "/ogc/collections").json["collections"]
    assert [c["id"] for c in listed] == NAMES
    for found in listed:
        assert found == call("GET", f"/ogc/collections/{found['id']}").json
        assert found["crs"] == [CRS84, LATLON, MERCATOR, L93] and found["storageCrs"] == L93
        west, south, east, north = found["extent"]["spatial"]["bbox"][0]
        back = Transformer.from_crs(4326, 2154, always_xy=True)
        x, y = back.transform((west + east) / 2, (south + north) / 2)
        assert abs(x - EAST - SIDE / 2) < 20 and abs(y - NORTH - SIDE / 2) < 20
        for link in found["links"]:
            assert call("GET", link["href"].removeprefix(call.url)).status == 200
    for name in ("ocsge-D032-2022", "ocsge-D031-2021", "differentiel-D032-2024-2021", "x", "é"):
        answer = call("GET", f"/ogc/collections/{quote(name)}")
        assert answer.status == 404 and "/ogc/collections lists" in answer.json["detail"]


@pytest.mark.parametrize(("path", "year"), [(OLD, 2021), (MAP, 2024)])
@pytest.mark.parametrize("limit", [7, 50, 10_000])
def test_a_millesime_is_the_export(call, store, path, year, limit):
    polygons = as_of(store, valid_at=end_of(year))
    expected = exported(frame_of(polygons, store.crs), "id")
    pages = call.pages(path, limit=limit, crs=L93)
    found = rows(f for page in pages for f in page["features"])
    assert [f["properties"] for f in found] == expected
    assert len(pages) == -(-len(polygons) // min(limit, MOST))
    assert all(page["numberMatched"] == len(polygons) for page in pages)
    assert all(page["numberReturned"] == len(page["features"]) for page in pages)
    outlines = {p.id: p.geometry for p in polygons}
    for feature in found:
        assert shape(feature["geometry"]).equals(outlines[feature["id"]])


def test_a_differential_is_the_export(call, store):
    whole = differential(store, end_of(2021), end_of(2024))
    expected = exported(differential_frame(whole, store.crs), "id_avant", "id_apres")
    found = call.features(DIFF, limit=5, crs=L93)
    plain = sorted((f["properties"] for f in found), key=lambda p: [p["id_avant"], p["id_apres"]])
    assert plain == expected and len({f["id"] for f in found}) == len(found)
    assert sum(shape(f["geometry"]).area for f in found) == pytest.approx(
        sum(p.geometry.area for p in whole.pieces),
        rel=1e-5,  # centimetres
    )
    gained = call.features(DIFF, artificialisation=1, limit=2)
    assert rows(gained) == rows(
        f for f in call.features(DIFF) if f["properties"]["artificialisation"] == 1
    )
    assert 0 < len(gained) < len(found)


def test_alerts(call, store):
    expected = {r.id: r for r in alerts_now(store)}
    found = call.features(ALERTS, limit=5, crs=L93)
    assert {f["id"] for f in found} == set(expected)
    for feature in found:
        record = expected[feature["id"]]
        assert feature["properties"]["cs_apres"] == record.after.code_cs
        assert shape(feature["geometry"]).equals(record.geometry)
        story = call("GET", f"/alerts/{feature['id']}").json["alert"]
        for name in ("kind", "state", "looks", "rank", "probability", "seen_first"):
            assert feature["properties"][name] == story[name]


def test_one_feature(call):
    for path in (OLD, MAP, DIFF, ALERTS):
        for feature in call.features(path, limit=2000)[:4]:
            answer = call("GET", f"{path}/items/{quote(feature['id'])}")
            links = {link["rel"]: link["href"] for link in answer.json.pop("links")}
            assert {k: v for k, v in answer.json.items() if k != "links"} == feature
            assert call("GET", links["self"].removeprefix(call.url)).status == 200
            assert answer.headers["Content-Crs"] == f"<{CRS84}>"
        assert call("GET", f"{path}/items/nothing").status == 404
        assert call("GET", f"{path}/items/a~b?crs={quote(L93)}").status == 404


def test_features_are_geojson_in_degrees(call):
    for path in (MAP, DIFF, ALERTS):
        (page,) = call.pages(path, limit=2000)
        FeatureCollection.model_validate(page)
        for feature in page["features"]:
            found = shape(feature["geometry"])
            assert box(0.5, 43.4, 0.6, 43.6).contains(found)
            for part in getattr(found, "geoms", [found]):
                assert part.exterior.is_ccw or part.area < SQUARE_METRE  # a sliver, rounded


@pytest.mark.parametrize("uri", [CRS84, LATLON, MERCATOR, L93])
def test_coordinates_are_those_of_pyproj_in_the_order_of_the_crs(call, store, uri):
    name = "OGC:CRS84" if uri == CRS84 else uri.rpartition("/")[2]
    change = Transformer.from_crs("EPSG:2154", name if uri == CRS84 else f"EPSG:{name}")
    answer = call("GET", f"{MAP}/items?limit=5&crs={quote(uri)}")
    assert answer.headers["Content-Crs"] == f"<{uri}>"
    outlines = {p.id: p.geometry for p in as_of(store, valid_at=end_of(2024))}
    for feature in answer.json["features"]:
        expected = shapely.transform(outlines[feature["id"]], change.transform, interleaved=False)
        found = shape(feature["geometry"])
        assert found.hausdorff_distance(expected) < (1e-7 if uri in {CRS84, LATLON} else 2e-3)


def test_axes_of_overseas_and_orientation():
    square = box(500_000, 1_600_000, 500_100, 1_600_100)
    assert offered("EPSG:5490")[-1] == f"{EPSG}5490"
    (found,) = presented([square], "EPSG:5490", LATLON)
    assert found.bounds[0] < 15 and found.bounds[1] < -60  # latitude first
    (plain,) = presented([square], "EPSG:5490", CRS84)
    assert plain.exterior.is_ccw and not found.exterior.is_ccw
    assert offered("PROJCRS[…]") == [CRS84, LATLON, MERCATOR]


@pytest.mark.parametrize("uri", [None, CRS84, LATLON, MERCATOR, L93])
def test_a_rectangle_gives_what_it_touches(call, store, uri):
    window = box(EAST + 200, NORTH + 150, EAST + 500, NORTH + 420)
    name = "OGC:CRS84" if uri in {None, CRS84} else f"EPSG:{uri.rpartition('/')[2]}"
    change = Transformer.from_crs("EPSG:2154", name)
    bbox = shapely.transform(window, change.transform, interleaved=False).bounds
    asked = {"bbox": ",".join(map(str, bbox)), "limit": 9, "crs": L93}
    asked |= {"bbox-crs": uri} if uri else {}
    found = {f["id"] for f in call.features(MAP, **asked)}
    dense = shapely.segmentize(box(*bbox), (bbox[2] - bbox[0]) / 500)
    ground = shapely.transform(
        dense, Transformer.from_crs(name, "EPSG:2154").transform, interleaved=False
    )
    every = as_of(store, valid_at=end_of(2024))
    sure = {p.id for p in every if p.geometry.intersects(ground.buffer(-0.05))}
    maybe = {p.id for p in every if p.geometry.intersects(ground.buffer(0.05))}
    assert sure <= found <= maybe and 5 < len(found) < len(every)
    for path in (DIFF, ALERTS):
        part = call.features(path, **asked)
        rest = [f for f in call.features(path, crs=L93) if f not in part]
        assert part and all(shape(f["geometry"]).intersects(ground.buffer(0.05)) for f in part)
        assert not any(shape(f["geometry"]).intersects(ground.buffer(-0.05)) for f in rest)


def test_rectangles_at_the_ends_of_the_world(call, store):
    everything = len(call.features(MAP, limit=2000))
    for bbox in ("-180,-90,180,90", "-180,-90,0,180,90,9000", "-1e300,-1e300,1e300,1e300"):
        assert len(call.features(MAP, limit=2000, bbox=bbox)) == everything
    assert len(call.features(MAP, bbox="170,-90,1,90", limit=2000)) == everything
    for bbox in ("170,-90,-170,90", "2,48,3,49", "5,44,4,43"):
        assert call.features(MAP, bbox=bbox) == []
    extent = (EAST, NORTH, EAST + SIDE, NORTH + SIDE)
    ground = ground_of((-90, -180, 90, 180), LATLON, store.crs, extent)
    assert ground.contains(box(*extent))


def test_time(call, store):
    every = {f["id"] for f in call.features(MAP, limit=2000)}
    born = {p.id for p in as_of(store, valid_at=end_of(2024)) if p.valid_from >= FIRST}
    for text in ("../2024-06-18T09:59:59Z", "2022-01-01", "2022-01-01T00:00:00Z/2024-06-17"):
        assert {f["id"] for f in call.features(MAP, datetime=text, limit=2000)} == every - born
    for text in ("2024-06-18/..", "2024-06-18", "2024-06-18T10:00:00Z", "2020-01-01/2030-01-01"):
        assert {f["id"] for f in call.features(MAP, datetime=text, limit=2000)} == every
    kept = {f["id"] for f in call.features(OLD, datetime="2024-06-18T10:00:01Z", limit=2000)}
    assert kept == every - born
    assert call.features(ALERTS, datetime="2023-01-01/2024-01-01") == []
    assert call.features(ALERTS, datetime="2024-06-18") == call.features(ALERTS)
    assert call.features(DIFF, datetime="2024-06-19/..") == []
    assert call.features(DIFF, datetime="2024-01-01/..") == call.features(DIFF)


def test_columns(call):
    every = call.features(MAP, limit=2000)
    for name, value in (
        ("code_cs", "CS1.1.1.1"),
        ("code_us", "US1.1"),
        ("millesime", "2024"),
        ("ossature", "1"),
        ("source", "calcul"),
        ("id", every[3]["id"]),
    ):
        found = call.features(MAP, limit=11, **{name: value})
        assert found and rows(found) == rows(
            f for f in every if str(f["properties"][name]) == value
        )
        assert call.pages(MAP, limit=11, **{name: value})[0]["numberMatched"] == len(found)
    assert call.features(MAP, code_cs="CS9", code_us="US1.1") == []
    built = call.features(DIFF, cs_apres="CS1.1.1.1", limit=3)
    assert built and {f["properties"]["cs_apres"] for f in built} == {"CS1.1.1.1"}


@pytest.mark.parametrize(
    "query",
    [
        *(
            "limit=0",
            "limit=-1",
            "limit=x",
            "limit=1.5",
            "limit=",
            "limit=1&limit=2",
            "limit=%C2%B2",
        ),
        *("bbox=1,2,3", "bbox=a,b,c,d", "bbox=nan,0,1,1", "bbox=", "bbox=0,0,1,inf"),
        *("crs=EPSG:2154", f"crs={EPSG}32631", f"bbox=0,0,1,1&bbox-crs={EPSG}1"),
        *("datetime=yesterday", "datetime=../..", "datetime=2024-01-01/2023-01-01", "datetime="),
        *("datetime=2024-01-01T00:00:00", "datetime=2024-01-01/2025-01-01/2026-01-01"),
        *("colour=red", "aire=3", "artif=artif", "f=html", "ossature=x", "offset=3"),
        *("after=1", "after=[-1]", 'after=["a"]', "after=[1.5]", "after=[true]", "after=[[[["),
        *("as-of=x", "after=[1,2]", "after=[99999999999999999999]"),
    ],
)
def test_what_is_not_understood_is_refused(call, query):
    answer = call("GET", f"{MAP}/items?{quote(query, safe='=&:/%')}")
    assert answer.status == 400, answer.body
    assert answer.headers.get_content_type() == "application/problem+json"
    assert answer.json["detail"].endswith(".")


def test_other_addresses_refuse_parameters_and_media_too(call):
    for path in ("/ogc", "/ogc/conformance", "/ogc/collections", MAP, f"{MAP}/queryables"):
        assert call("GET", f"{path}?x=1").status == 400
        assert call("GET", f"{path}?f=json").status == 200
        assert call("GET", path, Accept="text/html,*/*;q=0.8").status == 200
    for path in ("/ogc", MAP, f"{MAP}/items", "/ogc/api", f"{MAP}/items/P00001"):
        answer = call("GET", path, Accept="text/html, image/png")
        assert answer.status == 406 and "json" in answer.json["detail"]
    assert call("GET", f"{MAP}/items", Accept="application/geo+json;q=0.9").status == 200
    assert call("GET", f"{MAP}/items/x?limit=3").status == 400


def test_a_chain_of_pages_is_one_state_of_the_map(tmp_path):
    with (
        lambert_store(tmp_path / "D032.duckdb", seed=4, cells=60) as store,
        api([store], {}) as one,
    ):
        one.oas30 = one("GET", "/ogc/api").json
        call = Held(one)
        before = {path: call.features(path, limit=2000) for path in (MAP, DIFF, ALERTS)}
        chains = {path: call.pages(path, limit=10)[0] for path in before}
        patched(store, 2, [building(EAST + 200, NORTH + 250), building(EAST + 600, NORTH + 550)])
        reject_alert(store, alerts_now(store)[-1].id, reason="tent")
        for path, first in chains.items():
            found = first["features"]
            (link,) = [x["href"] for x in first["links"] if x["rel"] == "next"]
            for page in call.pages_from(link):
                found = found + page["features"]
            assert found == before[path]
            assert call.features(path, limit=10) != before[path]
        states = {f["properties"]["state"] for f in call.features(ALERTS)}
        assert AlertState.REJECTED.value in states


def test_a_page_holds_no_more_than_it_may(call, monkeypatch):
    monkeypatch.setattr("daemon.ogc.query.MOST", 20)
    pages = call.pages(MAP, limit=5000)
    assert len(pages) > 5 and max(page["numberReturned"] for page in pages) == 20


def test_a_known_token_passes_and_an_unknown_one_does_not(call):
    assert call("GET", "/ogc/collections", token="town").status == 200
    assert call.client("GET", "/ogc/collections", token="nobody").status == 401


def test_too_many_at_once_are_told_to_come_again(call):
    taken = 0
    while ogc.waiting.acquire(blocking=False):
        taken += 1
    try:
        answer = call("GET", f"{MAP}/items?limit=1")
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
        assert call("GET", "/ogc/collections").status == 200
    finally:
        for _ in range(taken):
            ogc.waiting.release()
    assert taken == ogc.AT_ONCE + ogc.MOST_WAITING
    assert call("GET", f"{MAP}/items?limit=1").status == 200
