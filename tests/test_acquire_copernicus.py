"""A pull subscription: paging, acknowledging after writing, tokens that end, offsets."""

import hashlib
import io
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio

from daemon.acquire import round as acquire_round
from daemon.acquire.settings import CopernicusSource
from schemas.policy import Sensor
from tests.acquiring import image_of, inbox, look, state
from tests.sites import Held, Reply, as_json, site
from tests.test_acquire_stac import band, geotiff

SUBSCRIPTION = "991c4730-cf6f-432a-9f6c-47be0230ff45"
METADATA = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A">
<n1:General_Info><Product_Image_Characteristics>
<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
</QUANTIFICATION_VALUES_LIST>
<BOA_ADD_OFFSET_VALUES_LIST>%s</BOA_ADD_OFFSET_VALUES_LIST>
</Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>
"""
OFFSETS = "".join(f'<BOA_ADD_OFFSET band_id="{n}">-1000</BOA_ADD_OFFSET>' for n in range(13))


def product(name, *, offset=True, seed=0):
    """A product as the Data Space zips it: bands at several resolutions, metadata, a preview."""
    granule = f"{name}/GRANULE/L2A_T31TCJ/IMG_DATA"
    stem = "T31TCJ_20240611T105621"
    files = {f"{name}/MTD_MSIL2A.xml": (METADATA % (OFFSETS if offset else "")).encode()}
    for number, (key, gsd) in enumerate(
        [("B02", 10), ("B03", 10), ("B04", 10), ("B08", 10), ("B02", 20), ("B11", 20)]
    ):
        pixels = band(seed + number, 32 if gsd == 10 else 16)
        path = f"{granule}/R{gsd}m/{stem}_{key}_{gsd}m.tif"
        files[path] = geotiff(pixels, gsd=float(gsd))
    files[f"{name}/preview.jpg"] = b"\xff\xd8\xff"
    files[f"{granule}/R10m/{stem}_TCI_10m.tif"] = geotiff(band(9))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, body in files.items():
            archive.writestr(zipfile.ZipInfo(path), body)
    return stream.getvalue(), files


class DataSpace:
    """Identity, queue and download, as the documentation of the Data Space describes them."""

    def __init__(self, site):
        self.site, self.queue, self.tokens, self.granted = site, [], set(), []
        self.bodies, self.lasts = {}, 600
        site.on("/token", self.token)
        root = f"/odata/Subscriptions({SUBSCRIPTION})"
        site.on(f"{root}/Read", self.guarded(self.read))
        site.on(f"{root}/Ack", self.guarded(self.ack))
        self.acks, self.events_at_ack = [], []
        self.watch = lambda: None

    def token(self, request):
        form = request.form
        fine = (
            form.get("grant_type") == "client_credentials"
            and form.get("client_id") == "me"
            and form.get("client_secret") == "hush"
        ) or (form.get("grant_type"), form.get("username"), form.get("password")) == (
            "password",
            "ann",
            "hush",
        )
        if not fine:
            return as_json({"error": "invalid_grant"}, 401)
        self.granted.append(form)
        token = f"token-{len(self.granted)}"
        self.tokens = {token}
        return as_json({"access_token": token, "expires_in": self.lasts, "token_type": "Bearer"})

    def guarded(self, answer):
        def handler(request):
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            return answer(request) if token in self.tokens else Reply(401)

        return handler

    def read(self, request):
        top = min(20, int(request.query.get("$top", 1)))
        return as_json(self.queue[:top])

    def ack(self, request):
        assert request.method == "POST"
        id_ = request.query["$ackid"]
        ids = [message["AckId"] for message in self.queue]
        if id_ not in ids:
            return as_json({"AckMessagesNum": 0, "CurrentQueueLength": len(self.queue)})
        count = ids.index(id_) + 1
        del self.queue[:count]
        self.acks.append(id_)
        self.events_at_ack.append(self.watch())
        return as_json({"AckMessagesNum": count, "CurrentQueueLength": len(self.queue)})

    def add(self, number, *, event="created", details=True, checksum=None, **more):
        id_ = f"d2ff986b-0000-0000-0000-{number:012d}"
        name = f"S2A_MSIL2A_20240611T105621_N0510_R094_T31TCJ_{number:05d}.SAFE"
        body, files = product(name, seed=10 * number, **more)
        self.bodies[number] = files
        self.site.on(f"/download/Products({id_})/$value", self.guarded(Held(body)))
        value = {
            "Id": id_,
            "Name": name,
            "ContentLength": len(body),
            "ModificationDate": "2024-06-11T20:00:00.000Z",
            "Online": True,
            "Checksum": [{"Value": checksum or hashlib.md5(body).hexdigest(), "Algorithm": "MD5"}],
            "ContentDate": {"Start": "2024-06-11T10:56:21.024Z", "End": "2024-06-11T10:56:21.024Z"},
        }
        self.site.on(f"/odata/Products({id_})", self.guarded(lambda _: as_json(value)))
        message = {
            "SubscriptionEvent": event,
            "ProductId": id_,
            "SubscriptionId": SUBSCRIPTION,
            "NotificationDate": "2024-06-11T20:00:01.000Z",
            "AckId": f"MTcxMDc1NjcwNjUzMi0w{number}==",
        }
        if details:
            message |= {"ProductName": name, "value": value}
        self.queue.append(message)
        return id_


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.setenv("MILLESIMED_ACQUIRE_CDSE_CLIENT_ID", "me")
    monkeypatch.setenv("MILLESIMED_ACQUIRE_CDSE_CLIENT_SECRET", "hush")
    with site() as found:
        made = DataSpace(found)
        made.watch = lambda: len(inbox(tmp_path))
        yield made


def source(space, **more):
    return CopernicusSource(
        name="cdse",
        kind="copernicus",
        subscription=SUBSCRIPTION,
        catalogue=f"{space.site.url}/odata",
        download=f"{space.site.url}/download",
        token_url=f"{space.site.url}/token",
        calls_per_second=100,
        **more,
    )


def test_products_become_stacks_and_are_acknowledged_once_they_are_announced(space, tmp_path):
    for number in range(3):
        space.add(number)
    space.add(3, event="deleted")
    tally = look(tmp_path, source(space))
    assert tally.error is None and len(tally.events) == 3 and space.queue == []
    assert space.events_at_ack == [3]  # all three were in the inbox when the queue forgot them
    for item in inbox(tmp_path).values():
        assert item.properties.sensor is Sensor.SENTINEL_2
        assert item.acquired == datetime(2024, 6, 11, 10, 56, 21, 24000, tzinfo=UTC)
        with rasterio.open(image_of(item)) as image:
            assert image.descriptions == ("B02", "B03", "B04", "B08", "B11")
            assert image.res == (10.0, 10.0) and image.nodata == 0
    item = next(i for i in inbox(tmp_path).values() if i.properties.title.endswith("00000.SAFE"))
    (path,) = (p for p in space.bodies[0] if p.endswith("B02_10m.tif"))
    with rasterio.MemoryFile(space.bodies[0][path]) as memory, memory.open() as image:
        raw = image.read(1).astype(int)
    with rasterio.open(image_of(item)) as image:
        assert (image.read(1) == np.where(raw == 0, 0, raw - 1000)).all()
    left = [p.name for p in (tmp_path / "acquired" / "cdse").iterdir()]
    assert all(name.endswith(".tif") for name in left)  # archives and bands are gone
    assert look(tmp_path, source(space)).events == []


def test_a_queue_longer_than_an_answer_is_read_to_its_end(space, tmp_path):
    for number in range(43):
        space.queue.append(
            {"SubscriptionEvent": "deleted", "ProductId": f"{number}", "AckId": f"a{number}"}
        )
    space.add(99)
    assert len(look(tmp_path, source(space)).events) == 1
    assert space.acks == ["a19", "a39", "MTcxMDc1NjcwNjUzMi0w99=="]


class Killed(BaseException):
    """What kill -9 looks like from inside."""


def test_killed_between_announcing_and_saving_the_same_events_come_again(
    space, tmp_path, monkeypatch
):
    for number in range(2):
        space.add(number)
    with monkeypatch.context() as patched:

        def dies(*_):
            raise Killed

        patched.setattr(acquire_round.StateFile, "save", dies)
        with pytest.raises(Killed):
            look(tmp_path, source(space))
    first = set(inbox(tmp_path))
    assert len(first) == 2 and len(space.queue) == 2 and space.acks == []
    fetched = len([c for c in space.site.calls if c.path.endswith("$value")])
    tally = look(tmp_path, source(space))
    assert set(tally.events) == first == set(inbox(tmp_path)) and space.queue == []
    assert len([c for c in space.site.calls if c.path.endswith("$value")]) == fetched


def test_killed_between_saving_and_acknowledging_nothing_comes_twice(space, tmp_path):
    space.add(0)
    ack = space.site.handlers[f"/odata/Subscriptions({SUBSCRIPTION})/Ack"]
    space.site.on(f"/odata/Subscriptions({SUBSCRIPTION})/Ack", Reply(403))
    tally = look(tmp_path, source(space))
    assert len(tally.events) == 1 and "403" in tally.error
    space.site.on(f"/odata/Subscriptions({SUBSCRIPTION})/Ack", ack)
    tally = look(tmp_path, source(space))
    assert (tally.events, tally.error, space.queue) == ([], None, [])


def test_tokens_are_renewed_before_they_end_and_when_they_are_refused(space, tmp_path):
    space.lasts = 0  # each has ended as soon as it is had
    space.add(0)
    assert len(look(tmp_path, source(space)).events) == 1
    assert len(space.granted) > 3
    space.lasts, before = 600, len(space.granted)
    space.add(1)
    handler = space.site.handlers[f"/odata/Subscriptions({SUBSCRIPTION})/Read"]

    def revokes(request):
        space.site.on(f"/odata/Subscriptions({SUBSCRIPTION})/Read", handler)
        space.tokens = set()
        return handler(request)

    space.site.on(f"/odata/Subscriptions({SUBSCRIPTION})/Read", revokes)
    assert len(look(tmp_path, source(space)).events) == 1
    assert len(space.granted) == before + 2  # one at first, one after the 401


def test_a_name_and_a_password_do_as_well_and_none_is_said(space, tmp_path, monkeypatch):
    for word in ("CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.delenv(f"MILLESIMED_ACQUIRE_CDSE_{word}")
    assert "MILLESIMED_ACQUIRE_CDSE_USER" in look(tmp_path, source(space)).error
    monkeypatch.setenv("MILLESIMED_ACQUIRE_CDSE_USER", "ann")
    monkeypatch.setenv("MILLESIMED_ACQUIRE_CDSE_PASSWORD", "wrong-one")
    tally = look(tmp_path, source(space))
    assert "401" in tally.error and "wrong-one" not in tally.error
    monkeypatch.setenv("MILLESIMED_ACQUIRE_CDSE_PASSWORD", "hush")
    space.add(0)
    assert len(look(tmp_path, source(space)).events) == 1
    assert space.granted[-1]["client_id"] == "cdse-public"
    state_file = tmp_path / "acquired" / "state" / "cdse.json"
    assert "hush" not in state_file.read_text()


def test_what_is_left_of_a_message_after_three_days_is_looked_up(space, tmp_path):
    space.add(0, details=False)
    (event,) = look(tmp_path, source(space)).events
    assert inbox(tmp_path)[event].acquired.year == 2024


def test_a_bad_product_is_owed_and_the_queue_goes_on(space, tmp_path):
    space.add(0, checksum="0" * 32)
    space.add(1)
    tally = look(tmp_path, source(space))
    assert (len(tally.events), tally.owed, space.queue) == (1, 1, [])
    (debt,) = state(tmp_path, source(space)).owed.values()
    assert "checksum" in debt.why
    tally = look(tmp_path, source(space, verify=False), retry_all=True)
    assert (len(tally.events), tally.owed) == (1, 0) and len(inbox(tmp_path)) == 2


def test_older_products_have_no_offset(space, tmp_path):
    space.add(0, offset=False)
    (event,) = look(tmp_path, source(space)).events
    (path,) = (p for p in space.bodies[0] if p.endswith("B02_10m.tif"))
    with rasterio.MemoryFile(space.bodies[0][path]) as memory, memory.open() as image:
        raw = image.read(1)
    with rasterio.open(image_of(inbox(tmp_path)[event])) as image:
        assert (image.read(1) == raw).all()


def test_a_subscription_that_is_gone_says_so(space, tmp_path):
    space.site.on(f"/odata/Subscriptions({SUBSCRIPTION})/Read", Reply(404))
    assert "404" in look(tmp_path, source(space)).error
