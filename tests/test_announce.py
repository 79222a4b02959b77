"""Announcing: a STAC Item made from the file, the same event for the same image."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster
from shapely.geometry import box, shape
from typer.testing import CliRunner

from daemon.announce import CannotAnnounce, checksum, drop, event_bytes, item_of, when
from daemon.cli import app
from schemas.envelope import parse_acquisition
from schemas.errors import MillesimedError
from schemas.policy import Sensor
from tests.test_raster import ramp, written
from updater.crs import WGS84, reproject

PLACE = {"west": 500_000.0, "north": 6_280_000.0, "gsd": 0.5}


@pytest.fixture
def image(tmp_path):
    return written(tmp_path / "PVA 2024.tif", ramp(), **PLACE)


def test_an_item_is_stac_and_says_where_the_image_is(image):
    item = item_of(image, acquired=when("2024-06-18"), sensor=Sensor.PVA, departement="D032")
    again = pystac.Item.from_dict(json.loads(json.dumps(item.to_dict())))
    assert again.properties["proj:code"] == "EPSG:2154" and again.properties["gsd"] == 0.5
    expected = reproject(box(500_000, 6_279_968, 500_032, 6_280_000), "EPSG:2154", WGS84)
    assert shape(item.geometry).symmetric_difference(expected).area < 1e-9
    event_id, body = event_bytes(item)
    event = parse_acquisition(body, {})
    assert event.id == event_id == item.id
    assert event.item.image.href.endswith("PVA%202024.tif")


def test_the_same_image_is_the_same_event_and_another_is_not(image, tmp_path):
    def name(path, day="2024-06-18", sensor=Sensor.PVA):
        return item_of(path, acquired=when(day), sensor=sensor).id

    pixels = ramp()
    pixels[0, 0, 0] ^= 1
    other = written(tmp_path / "other.tif", pixels, **PLACE)
    assert name(image) == name(image)
    assert (
        len({name(image), name(other), name(image, "2024-06-19"), name(image, sensor=Sensor.SPOT)})
        == 4
    )


def test_an_image_in_degrees_has_its_pixel_in_metres(tmp_path):
    path = written(tmp_path / "s2.tif", ramp(), west=2.0, north=48.0, gsd=1e-4, crs="EPSG:4326")
    item = item_of(path, acquired=when("2024-06-18"), sensor=Sensor.SENTINEL_2)
    assert item.properties["gsd"] == pytest.approx(7.45, abs=0.1)


def test_dates_are_noon_utc_unless_said_otherwise():
    assert when("2024-06-18") == datetime(2024, 6, 18, 12, tzinfo=UTC)
    assert when("2024-06-18T09:30:00+02:00") == datetime(2024, 6, 18, 7, 30, tzinfo=UTC)
    with pytest.raises(CannotAnnounce, match="2024-06-15"):
        when("last summer")


def test_what_cannot_be_announced_says_why(tmp_path):
    junk = tmp_path / "junk.tif"
    junk.write_bytes(b"\0" * 100)
    with pytest.raises(CannotAnnounce, match="neither TIFF"):
        item_of(junk, acquired=when("2024-06-18"), sensor=Sensor.PVA)
    good = written(tmp_path / "good.tif", ramp(), **PLACE)
    with pytest.raises(CannotAnnounce, match=r"surface model is none.*neither TIFF"):
        item_of(good, acquired=when("2024-06-18"), sensor=Sensor.PVA, elevation=junk)
    with pytest.raises(CannotAnnounce, match="no CRS"):
        item_of(
            written(tmp_path / "bare.tif", ramp(), crs=None),
            acquired=when("2024-06-18"),
            sensor=Sensor.PVA,
        )


def test_what_points_elsewhere_is_no_image(tmp_path):
    """The service would not open it, and what a person announces may have come from somebody."""
    good = written(tmp_path / "good.tif", ramp(), **PLACE)
    vrt = tmp_path / "points.vrt"
    with rasterio.open(good) as source:
        copy_raster(source, vrt, driver="VRT")
    with rasterio.open(vrt) as source:  # GDAL itself follows it
        assert source.crs is not None
    renamed = tmp_path / "points.tif"
    renamed.write_bytes(vrt.read_bytes())
    words = ["--acquired", "2024-06-18", "--sensor", "pva"]
    for path in (vrt, renamed, Path(f"/vsizip/{good}"), Path("/vsicurl/http://127.0.0.1:9/a.tif")):
        with pytest.raises(CannotAnnounce):
            item_of(path, acquired=when("2024-06-18"), sensor=Sensor.PVA)
        for command in (
            ["announce", str(path), *words, "--inbox", str(tmp_path / "inbox")],
            ["detect", str(path), str(good), "--out", str(tmp_path / "out")],
            ["detect", str(good), str(path), "--out", str(tmp_path / "out")],
        ):
            done = CliRunner().invoke(app, command)
            assert isinstance(done.exception, MillesimedError), (command, done.output)
    assert not (tmp_path / "inbox").exists()


def test_a_reference_that_points_elsewhere_is_refused(tmp_path, store):
    store.close()
    vrt = tmp_path / "points.tif"
    with rasterio.open(written(tmp_path / "good.tif", ramp(), **PLACE)) as source:
        copy_raster(source, vrt, driver="VRT")
    command = ["reference", "add", str(vrt), "--acquired", "2021-06-15", "--sensor", "pva"]
    done = CliRunner().invoke(app, [*command, "--db", str(store.path)])
    assert isinstance(done.exception, CannotAnnounce)
    pair = tmp_path / "pairs" / "one"
    pair.mkdir(parents=True)
    for name in ("before.tif", "after.tif", "change.tif"):
        (pair / name).write_bytes(vrt.read_bytes())
    done = CliRunner().invoke(app, ["evaluate", str(pair.parent)])
    assert isinstance(done.exception, MillesimedError)


def test_a_drop_leaves_one_whole_file(tmp_path):
    path = drop(tmp_path / "inbox", "event-1", b"{}")
    assert [p.name for p in path.parent.iterdir()] == ["event-1.json"]
    assert path.read_bytes() == b"{}"


def test_the_checksum_is_a_sha2_256_multihash(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert checksum(tmp_path / "a").startswith("1220e3b0c44298fc1c14")
    assert np.char.str_len(checksum(tmp_path / "a")) == 68
