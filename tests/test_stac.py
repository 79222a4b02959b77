"""The STAC API over a real socket: read by pystac-client, items held against STAC's own schemas."""

import json
from urllib.parse import quote, urlencode

import pystac
import pytest
from pyproj import Transformer
from pystac.validation import JsonSchemaSTACValidator
from pystac_client import Client
from shapely.geometry import box, mapping, shape

from daemon.config import Scope
from daemon.stac.query import DEFAULT
from tests.served import api, known
from tests.standards import EAST, NORTH, lambert_store, with_images
from updater.commit import add_image
from updater.store import Store

COUNT = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = lambert_store(tmp_path_factory.mktemp("stac") / "D032.duckdb", cells=30)
    yield made
    made.close()


@pytest.fixture(scope="module")
def images(store, tmp_path_factory):
    return with_images(store, tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def call(store, images):
    tokens = {
        "reader": known(Scope.READ, token="reader"),
        "boss": known(Scope.ADMIN, token="boss"),
        "town": known(Scope.SUBSCRIBE, token="town"),
    }
    with api([store], tokens) as client:
        yield client


@pytest.fixture(scope="module")
def client(call):
    return Client.open(f"{call.url}/stac")


def ids(answer):
    return [feature["id"] for feature in answer.json["features"]]


def core_faults(document, kind):
    """What STAC's core schemas, which come with pystac, do not allow."""
    try:
        JsonSchemaSTACValidator().validate_core(document, kind, "1.1.0")
    except pystac.errors.STACValidationError as error:
        return [str(error)]
    return []


NEWEST = [f"image-{n}" for n in reversed(range(COUNT))]


def test_documents_are_stac(call):
    landing = call("GET", "/stac").json
    assert core_faults(landing, pystac.STACObjectType.CATALOG) == []
    for found in call("GET", "/stac/collections").json["collections"]:
        assert core_faults(found, pystac.STACObjectType.COLLECTION) == []
        assert found == call("GET", f"/stac/collections/{found['id']}").json
    for token in (None, "boss"):
        for found in call("GET", "/stac/search", token=token).json["features"]:
            assert core_faults(found, pystac.STACObjectType.ITEM) == []
            broken = {k: v for k, v in found.items() if k != "bbox"}
            assert core_faults(broken, pystac.STACObjectType.ITEM)
            place = f"/stac/collections/{found['collection']}/items/{found['id']}"
            assert call("GET", place, token=token).json == found
            for link in found["links"]:
                path = link["href"].removeprefix(call.url)
                assert call("GET", path, token=token).status == 200


def test_pystac_client_reads_it(client, images):
    assert [c.id for c in client.get_collections()] == ["pva", "spot"]
    assert len(client.get_conforms_to()) >= 4
    found = list(client.search(limit=2).items())
    assert [item.id for item in found] == NEWEST
    by_id = {image.item: image for image in images}
    for item in found:
        image = by_id[item.id]
        assert item.datetime == image.acquired and item.properties["gsd"] == image.gsd
        assert item.collection_id == image.sensor.value == item.properties["millesimed:sensor"]
        outline = shape(item.geometry)
        forth = Transformer.from_crs(2154, 4326, always_xy=True)
        x, y = forth.transform(image.footprint.centroid.x, image.footprint.centroid.y)
        assert abs(outline.centroid.x - x) < 1e-5 and abs(outline.centroid.y - y) < 1e-5
        assert list(outline.bounds) == item.bbox
        assert item.assets == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_searches_of_pystac_client(client, images, method):
    def found(**asked):
        search = client.search(method=method, limit=2, **asked)
        pages = list(search.pages_as_dicts())
        assert all(len(page["features"]) <= 2 for page in pages)
        return [feature["id"] for page in pages for feature in page["features"]]

    forth = Transformer.from_crs(2154, 4326, always_xy=True)
    x, y = forth.transform(EAST + 250, NORTH + 100)
    near = box(x - 1e-4, y - 1e-4, x + 1e-4, y + 1e-4)
    assert found(bbox=near.bounds) == found(intersects=mapping(near)) == ["image-2"]
    assert found(intersects=mapping(near.centroid)) == ["image-2"]
    assert found(bbox=(-180, -90, 180, 90)) == NEWEST
    assert found(bbox=(2, 48, 3, 49)) == []
    assert found(collections=["spot"]) == ["image-6", "image-3", "image-0"]
    assert found(collections=["spot", "pva"]) == NEWEST
    assert found(collections=["nothing"]) == []
    assert found(ids=["image-3", "image-1", "x"]) == ["image-3", "image-1"]
    assert found(datetime="2021-06-03/2021-06-05") == ["image-4", "image-3", "image-2"]
    assert found(datetime="2021-06-03T10:00:00Z") == ["image-2"]
    assert found(datetime="../2021-06-02T12:00:00Z") == ["image-1", "image-0"]
    assert found(collections=["pva"], datetime="2021-06-05/..") == ["image-5", "image-4"]


def test_the_items_of_a_collection(call, client):
    assert ids(call("GET", "/stac/collections/spot/items")) == ["image-6", "image-3", "image-0"]
    assert [i.id for i in client.get_collection("spot").get_items()] == [
        *("image-6", "image-3", "image-0")
    ]
    page = call("GET", "/stac/collections/pva/items?limit=3&datetime=2021-06-01/2021-06-06")
    assert ids(page) == ["image-5", "image-4", "image-2"]
    (link,) = [x["href"] for x in page.json["links"] if x["rel"] == "next"]
    assert ids(call("GET", link.removeprefix(call.url))) == ["image-1"]
    assert call("GET", "/stac/collections/spot/items?collections=pva").status == 400
    assert ids(call("GET", "/stac/collections/spot/items?ids=image-0")) == ["image-0"]
    for path in ("pleiades", "pleiades/items", "spot/items/image-1", "spot/items/x"):
        assert call("GET", f"/stac/collections/{path}").status == 404


def test_the_grid_of_an_image_is_told_where_it_can_be_read(call):
    found = {f["id"]: f for f in call("GET", "/stac/search").json["features"]}
    for name, item in found.items():
        properties = item["properties"]
        if name == "image-2":  # its file is gone
            assert "proj:code" not in properties and item["stac_extensions"] == []
            continue
        number = int(name.partition("-")[2])
        assert properties["proj:code"] == "EPSG:2154" and properties["proj:shape"] == [100, 50]
        assert properties["proj:transform"][:3] == [2.0, 0.0, EAST + 100 * number]
        assert len(item["stac_extensions"]) == 1


def test_where_files_lie_is_told_to_known_readers_only(call, images):
    folder = str(images[0].path.parent)
    for token in (None, "town"):
        for answer in (
            call("GET", "/stac/search", token=token),
            call("POST", "/stac/search", {}, token=token),
            call("GET", "/stac/collections/pva/items", token=token),
            call("GET", "/stac/collections/pva/items/image-1", token=token),
            call("GET", "/stac/collections/pva", token=token),
        ):
            assert folder not in answer.body.decode() and "file:" not in answer.body.decode()
    for token in ("reader", "boss"):
        assets = call("GET", "/stac/collections/pva/items/image-1", token=token).json["assets"]
        assert assets["image"]["href"] == images[1].path.as_uri()
        assert assets["elevation"]["href"] == images[1].elevation.as_uri()
        assert assets["image"]["type"].startswith("image/tiff")
    answer = call("GET", "/stac/search")
    assert answer.headers["Vary"] == "Authorization"


def test_an_image_of_two_departements_is_one_item(tmp_path, store, images):
    with Store.create(
        tmp_path / "D031.duckdb", territory="D031", crs="EPSG:2154", millesime=2021
    ) as other:
        for image in images[:3]:
            add_image(other, image)
        with api([other, store], {}) as call:
            found = [i.id for i in Client.open(f"{call.url}/stac").search(limit=2).items()]
            assert found == NEWEST
            assert ids(call("GET", "/stac/search?bbox=0,43,1,44")) == NEWEST


def test_a_service_without_images(tmp_path):
    with (
        Store.create(
            tmp_path / "D031.duckdb", territory="D031", crs="EPSG:2154", millesime=2021
        ) as empty,
        api([empty], {}) as call,
    ):
        client = Client.open(f"{call.url}/stac")
        assert list(client.get_collections()) == [] and list(client.search().items()) == []
        assert ids(call("GET", "/stac/search?bbox=0,43,1,44")) == []


@pytest.mark.parametrize(
    "asked",
    [
        *({"limit": 0}, {"limit": "x"}, {"limit": 1.5}, {"bbox": [1, 2]}, {"bbox": "1"}),
        *({"datetime": 3}, {"datetime": "x"}, {"ids": "a"}, {"ids": [1]}, {"collections": {}}),
        *({"token": "x"}, {"token": "[1]"}, {"token": '["a", 1]'}, {"query": {}}, {"sortby": []}),
        *({"intersects": 1}, {"intersects": {"type": "Point"}}, {"intersects": {}}),
        {"intersects": {"type": "Point", "coordinates": []}},
        {
            "intersects": {
                "type": "Polygon",
                "coordinates": [[[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]],
            }
        },
        {"intersects": {"type": "Point", "coordinates": [0, 0]}, "bbox": [0, 0, 1, 1]},
        {"bbox": ["a", 1, 2, 3]},
    ],
    ids=json.dumps,
)
def test_what_is_not_understood_is_refused(call, asked):
    answer = call("POST", "/stac/search", asked)
    assert answer.status == 400 and answer.json["detail"].endswith(".")


def test_bodies_and_parameters_that_are_none(call):
    assert call("POST", "/stac/search", []).status == 422
    assert call("POST", "/stac/search", b"{", Content_Type="application/json").status == 422
    for query in ("limit=x", "limit=0", "x=1", "ids=a&ids=b", "intersects={", "f=html", "bbox=1"):
        assert call("GET", f"/stac/search?{quote(query, safe='=&')}").status == 400
    assert call("GET", "/stac", Accept="text/html").status == 406
    point = {"type": "Point", "coordinates": [0.0, 0.0]}
    query = urlencode({"intersects": json.dumps(point), "limit": DEFAULT})
    assert ids(call("GET", f"/stac/search?{query}")) == []
