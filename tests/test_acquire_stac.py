"""A STAC API: paging, overlap, duplicates, updates, sensors, bands; over a real socket."""

import hashlib
import io
from datetime import timedelta

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from shapely.geometry import box

from daemon.acquire.items import acquired_of, parts_of, sensor_of
from daemon.acquire.settings import StacSource
from daemon.acquire.watcher import AcquireError
from schemas.policy import Sensor
from tests.acquiring import NOW, image_of, inbox, look, state
from tests.sites import Held, Reply, as_json, site

SEARCH = "https://api.stacspec.org/v1.0.0/item-search"
BANDS = ("blue", "green", "red", "nir", "swir16")


def geotiff(pixels, *, gsd=10.0, crs="EPSG:32631", west=300_000.0, north=4_850_000.0):
    """Bytes of a small image, ``(band, row, col)``."""
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=pixels.shape[1],
            width=pixels.shape[2],
            count=pixels.shape[0],
            dtype=pixels.dtype,
            crs=crs,
            transform=from_origin(west, north, gsd, gsd),
        ) as out:
            out.write(pixels)
        return memory.read()


def band(seed, size=32, value=None):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1200, 4000, (1, size, size)).astype("uint16")
    pixels[0, 0, 0] = 0
    if value is not None:
        pixels[:] = value
    return pixels


class Api:
    """A STAC API as the specification has it: POST search, paging by next links."""

    def __init__(self, site, page=2):
        self.site, self.page, self.items = site, page, []
        site.on("/", lambda _: as_json(self.landing()))
        site.on("/search", self.search)
        self.requests = []

    def landing(self):
        url = self.site.url
        return {
            "type": "Catalog",
            "id": "test",
            "description": "test",
            "stac_version": "1.0.0",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/core", SEARCH],
            "links": [
                {"rel": "self", "href": url + "/"},
                {"rel": "root", "href": url + "/"},
                *(
                    {
                        "rel": "search",
                        "href": f"{url}/search",
                        "method": m,
                        "type": "application/geo+json",
                    }
                    for m in ("GET", "POST")
                ),
            ],
        }

    def search(self, request):
        import json

        asked = json.loads(request.body) if request.method == "POST" else dict(request.query)
        self.requests.append(asked)
        begin = asked["datetime"].partition("/")[0].replace("Z", "+00:00")
        from datetime import datetime

        fitting = [
            i
            for i in self.items
            if datetime.fromisoformat(i["properties"]["datetime"]) >= datetime.fromisoformat(begin)
        ]
        first = int(asked.get("token", 0))
        links = []
        if first + self.page < len(fitting):
            following = {**asked, "token": str(first + self.page)}
            href = f"{self.site.url}/search"
            if request.method == "POST":
                links = [{"rel": "next", "href": href, "method": "POST", "body": following}]
            else:
                from urllib.parse import urlencode

                links = [{"rel": "next", "href": f"{href}?{urlencode(following)}"}]
        features = fitting[first : first + self.page]
        return as_json({"type": "FeatureCollection", "features": features, "links": links})

    def add(self, id_, when, assets, **properties):
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": id_,
            "geometry": {"type": "Point", "coordinates": [0, 0]},
            "bbox": [0, 0, 0, 0],
            "properties": {"datetime": when, **properties},
            "assets": assets,
            "links": [],
            "collection": "ortho",
        }
        self.items.append(item)
        return item

    def asset(self, path, body, **more):
        self.site.on(path, Held(body))
        return {
            "href": self.site.url + path,
            "type": "image/tiff; application=geotiff",
            "roles": ["data"],
            "file:checksum": "1220" + hashlib.sha256(body).hexdigest(),
            "file:size": len(body),
            **more,
        }


@pytest.fixture
def api():
    with site() as found:
        yield Api(found)


def source(api, **more):
    values = {
        "name": "stac",
        "kind": "stac",
        "url": api.site.url + "/",
        "collections": ["ortho"],
        "since": "2024-06-01T00:00:00Z",
        "overlap_days": 5,
        "sensor": "pva",
        "bbox": (-1, 43, 1, 45),
        "calls_per_second": 100,
    }
    return StacSource(**{**values, **more})


def aerial(api, number, when):
    pixels = np.random.default_rng(number).integers(1, 255, (3, 16, 16)).astype("uint8")
    image = geotiff(pixels, gsd=0.2, crs="EPSG:2154", west=500_000, north=6_280_000)
    return api.add(f"ortho-{number}", when, {"image": api.asset(f"/{number}.tif", image)})


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_every_page_is_announced_once(api, tmp_path, method):
    for number in range(5):
        aerial(api, number, f"2024-06-{10 + number}T10:00:00+00:00")
    wanted = source(api, method=method)
    tally = look(tmp_path, wanted)
    assert tally.error is None and len(set(tally.events)) == 5 and len(api.requests) == 3
    items = inbox(tmp_path)
    for item in items.values():
        with rasterio.open(image_of(item)) as image:
            assert image.shape == (16, 16)
        assert item.properties.sensor is Sensor.PVA and item.properties.title.startswith("ortho-")
    assert api.requests[0]["datetime"] == "2024-05-27T00:00:00Z/.."
    assert look(tmp_path, wanted).events == []
    assert api.requests[-1]["datetime"] == "2024-06-09T10:00:00Z/.."  # the newest, less the overlap


def test_what_comes_late_is_found_within_the_overlap_and_an_update_is_fetched_anew(api, tmp_path):
    aerial(api, 1, "2024-06-20T10:00:00+00:00")
    look(tmp_path, source(api))
    aerial(api, 2, "2024-06-17T10:00:00+00:00")  # older, published later
    aerial(api, 3, "2024-06-02T10:00:00+00:00")  # too late even for that
    assert [inbox(tmp_path)[e].properties.title for e in look(tmp_path, source(api)).events] == [
        "ortho-2"
    ]
    pixels = np.full((3, 16, 16), 9, "uint8")
    image = geotiff(pixels, gsd=0.2, crs="EPSG:2154", west=500_000, north=6_280_000)
    api.items[0]["assets"]["image"] = api.asset("/1b.tif", image)
    api.items[0]["properties"]["updated"] = "2024-06-25T00:00:00Z"
    (event,) = look(tmp_path, source(api)).events
    with rasterio.open(image_of(inbox(tmp_path)[event])) as found:
        assert (found.read() == 9).all()
    api.items[0]["properties"]["updated"] = "2024-06-26T00:00:00Z"  # other words, same image
    assert look(tmp_path, source(api)).events == [event]


def test_sentinel_2_is_put_together_and_its_offset_taken_out(api, tmp_path):
    pixels = {name: band(n, 16 if name == "swir16" else 32) for n, name in enumerate(BANDS)}
    assets = {
        f"asset-{name}": api.asset(
            f"/{name}.tif",
            geotiff(body, gsd=20.0 if name == "swir16" else 10.0),
            **{
                "eo:bands": [{"name": f"B{n}", "common_name": name}],
                "raster:bands": [{"scale": 0.0001, "offset": -0.1}],
            },
        )
        for n, (name, body) in enumerate(pixels.items())
    }
    assets["preview"] = api.asset("/p.tif", geotiff(band(9)), roles=["overview"])
    api.add("S2A_T31TCJ", "2024-06-11T10:56:21+00:00", assets, platform="sentinel-2a", gsd=10)
    tally = look(tmp_path, source(api, sensor=None))
    (event,) = tally.events
    item = inbox(tmp_path)[event]
    assert item.properties.sensor is Sensor.SENTINEL_2 and item.properties.gsd == 10
    with rasterio.open(image_of(item)) as image:
        assert image.descriptions == BANDS and image.nodata == 0
        blue, swir = image.read(1), image.read(5)
    expected = np.where(pixels["blue"][0] == 0, 0, pixels["blue"][0].astype(int) - 1000)
    assert (blue == expected).all() and blue[0, 0] == 0
    fine = np.kron(pixels["swir16"][0].astype(int), np.ones((2, 2))) - 1000
    inner = (slice(6, -6), slice(6, -6))
    assert abs(float(swir[inner].mean()) - fine[inner].mean()) < 60


def test_an_item_that_cannot_be_had_is_owed_and_holds_up_nothing(api, tmp_path):
    broken = aerial(api, 1, "2024-06-10T10:00:00+00:00")
    broken["assets"]["image"]["file:checksum"] = "1220" + "0" * 64
    gone = aerial(api, 2, "2024-06-11T10:00:00+00:00")
    gone["assets"]["image"]["href"] = api.site.url + "/nowhere.tif"
    aerial(api, 3, "2024-06-12T10:00:00+00:00")
    tally = look(tmp_path, source(api))
    assert (len(tally.events), tally.failed, tally.owed, tally.error) == (1, 2, 2, None)
    why = {debt.label: debt.why for debt in state(tmp_path, source(api)).owed.values()}
    assert "checksum" in why["ortho-1"] and "404" in why["ortho-2"]
    assert look(tmp_path, source(api)).failed == 0  # not due yet
    api.site.on("/nowhere.tif", api.site.handlers["/2.tif"])
    later = NOW + timedelta(minutes=6)
    tally = look(tmp_path, source(api), now=later)
    assert (len(tally.events), tally.owed) == (1, 1)
    tally = look(tmp_path, source(api), now=NOW + timedelta(days=15))
    assert (tally.owed, tally.given_up) == (0, 1)
    assert look(tmp_path, source(api), now=NOW + timedelta(days=30)).failed == 0
    api.site.on("/1.tif", Held(b"other"))
    assert look(tmp_path, source(api), retry_all=True, now=NOW + timedelta(days=30)).given_up == 1


def test_a_server_that_is_down_keeps_the_cursor_and_goes_on_when_it_is_back(api, tmp_path):
    for number in range(3):
        aerial(api, number, f"2024-06-{10 + number}T10:00:00+00:00")
    api.requests.clear()
    search = api.search

    def dies_on_the_second_page(request):
        if api.requests:
            return Reply(503, b"", {"Retry-After": "100000"})
        return search(request)

    api.site.on("/search", dies_on_the_second_page)
    tally = look(tmp_path, source(api))
    assert len(tally.events) == 2 and "503" in tally.error
    known = state(tmp_path, source(api))
    assert known.success is None and known.cursor["from"].startswith("2024-06-01")
    api.site.on("/search", search)
    tally = look(tmp_path, source(api))
    assert len(tally.events) == 1 and tally.error is None
    assert len(inbox(tmp_path)) == 3


def test_the_maps_own_ground_is_asked_for_where_no_other_is_named(api, tmp_path):
    aerial(api, 1, "2024-06-10T10:00:00+00:00")
    look(tmp_path, source(api, bbox=None), ground=box(0, 43.5, 0.5, 44))
    assert api.requests[0]["intersects"]["type"] == "Polygon" and "bbox" not in api.requests[0]
    area = tmp_path / "area.geojson"
    import geopandas as gpd

    gpd.GeoDataFrame(geometry=[box(500_000, 6_270_000, 510_000, 6_280_000)], crs=2154).to_file(area)
    look(tmp_path, source(api, bbox=None, area=area), ground=box(0, 43.5, 0.5, 44))
    west = api.requests[-1]["intersects"]["coordinates"][0][0][0]
    assert 0.4 < west < 0.7


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Reply(200, b"<html>"), "no STAC"),
        (as_json({"type": "Catalog", "id": "x", "stac_version": "1.0.0", "links": []}), "STAC"),
        (as_json([1, 2]), "STAC"),
        (Reply(404), "404"),
    ],
)
def test_what_is_no_stac_api_says_so(api, tmp_path, answer, said):
    api.site.on("/", answer)
    tally = look(tmp_path, source(api))
    assert tally.error is not None and said in tally.error and tally.events == []


def test_a_next_link_never_reads_a_file_and_a_token_stays_at_home(api, tmp_path, monkeypatch):
    monkeypatch.setenv("MILLESIMED_ACQUIRE_STAC_TOKEN", "hush")
    aerial(api, 1, "2024-06-10T10:00:00+00:00")
    with site() as elsewhere:
        image = io.BytesIO(geotiff(np.ones((3, 16, 16), "uint8"), gsd=0.2, crs="EPSG:2154"))
        elsewhere.on("/x.tif", Reply(200, image.getvalue()))
        item = aerial(api, 2, "2024-06-11T10:00:00+00:00")
        item["assets"]["image"] = {"href": f"{elsewhere.url}/x.tif", "type": "image/tiff"}
        assert len(look(tmp_path, source(api)).events) == 2
        assert "Authorization" not in elsewhere.calls[0].headers
    assert {call.headers["Authorization"] for call in api.site.calls} == {"Bearer hush"}
    links = [{"rel": "next", "href": "/etc/passwd"}]
    feature = {"features": [api.items[0]], "type": "FeatureCollection", "links": links}
    api.site.on("/search", as_json(feature))
    assert "no address of the web" in look(tmp_path, source(api)).error
    assert "hush" not in state_text(tmp_path)


def state_text(folder):
    return "".join(path.read_text() for path in (folder / "acquired" / "state").glob("*.json"))


ONE = {"href": "https://example.org/a.tif", "type": "image/tiff", "roles": ["data"]}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"platform": "sentinel-2b"}, Sensor.SENTINEL_2),
        ({"constellation": "Sentinel_2"}, Sensor.SENTINEL_2),
        ({"platform": "SPOT-6", "gsd": 1.5}, Sensor.SPOT),
        ({"constellation": "phr", "platform": "PHR1A"}, Sensor.PLEIADES),
    ],
)
def test_platforms_are_families(words, expected):
    assert sensor_of({"properties": words}) is expected


@pytest.mark.parametrize("words", [{}, {"platform": "landsat-8"}, {"platform": "spot-5", "gsd": 5}])
def test_a_platform_nobody_judges_is_refused(words):
    with pytest.raises(AcquireError, match=r"sensor|coarser"):
        sensor_of({"id": "x", "properties": words})


def test_assets_are_chosen_or_the_choice_is_asked_for():
    item = {"id": "x", "assets": {"a": ONE, "b": ONE, "t": {**ONE, "roles": ["thumbnail"]}}}
    with pytest.raises(AcquireError, match="2 images"):
        parts_of(item, [], Sensor.PVA)
    assert [part.name for part in parts_of(item, ["b"], Sensor.PVA)] == ["b"]
    with pytest.raises(AcquireError, match="no asset or band 'c'"):
        parts_of(item, ["c"], Sensor.PVA)
    s3 = {"href": "s3://eodata/a.tif", "type": "image/tiff", "alternate": {"https": ONE}}
    assert parts_of({"assets": {"a": s3}}, [], Sensor.PVA)[0].href == ONE["href"]
    with pytest.raises(AcquireError, match="HTTP"):
        parts_of({"assets": {"a": {"href": "s3://e/a.tif", "type": "image/tiff"}}}, [], Sensor.PVA)


def test_an_item_without_a_time_is_dated_by_the_end_of_its_range():
    properties = {"datetime": None, "start_datetime": "2024-06-01T00:00:00Z"}
    properties |= {"end_datetime": "2024-06-03T00:00:00Z"}
    assert acquired_of({"properties": properties}).day == 3
    with pytest.raises(AcquireError, match="no date"):
        acquired_of({"id": "x", "properties": {}})
