"""Locating: the right store, the right reference, and addresses that stay closed."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shapely.geometry import box, shape

from daemon.announce import event_bytes, item_of, when
from daemon.assets import AssetMissing, AssetRefused, asset_path
from daemon.detection import check_announced
from daemon.locate import locate, stores_of
from detectors.errors import WrongCrs
from schemas.envelope import parse_acquisition
from schemas.policy import Sensor
from updater.commit import add_image
from updater.errors import OlderThanMap, OutsideMap, ReferenceMissing
from updater.reads import ImageRecord, images


def acquisition(path, day="2024-06-18", departement=None):
    item = item_of(path, acquired=when(day), sensor=Sensor.PVA, departement=departement)
    return parse_acquisition(event_bytes(item)[1], {}).item


def pointing_to(item, href):
    asset = item.assets["image"].model_copy(update={"href": href})
    return item.model_copy(update={"assets": {"image": asset}})


def reference(store, name, year, *, gsd=0.5, footprint=None):
    extent = store.execute(
        "SELECT min(ST_XMin(geom)), min(ST_YMin(geom)), max(ST_XMax(geom)), max(ST_YMax(geom)) "
        "FROM map_now"
    ).fetchone()
    acquired = datetime(year, 7, 2, tzinfo=UTC)
    ground = footprint or box(*extent)
    add_image(store, ImageRecord(name, Path(f"/{name}.tif"), Sensor.PVA, acquired, gsd, ground))


def test_the_newest_older_campaign_is_compared_with(store, small_scene):
    for name, year in (("old", 2018), ("newer", 2021), ("same", 2024)):
        reference(store, name, year)
    placed = locate(store, acquisition(small_scene.after))
    assert [r.item for r in placed.references] == ["newer"]
    assert placed.image == small_scene.after


def test_surface_models_are_compared_where_both_dates_have_one(store, small_scene, tmp_path):
    surface = tmp_path / "mns-2024.tif"
    shutil.copy(small_scene.reference, surface)
    item = item_of(
        small_scene.after, acquired=when("2024-06-18"), sensor=Sensor.PVA, elevation=surface
    )
    event = parse_acquisition(event_bytes(item)[1], {}).item
    reference(store, "flat", 2021)
    assert locate(store, event).surfaces is None  # the older date has none
    (image,) = images(store)
    add_image(store, replace(image, elevation=Path("/mns-2021.tif")))
    assert locate(store, event).surfaces == ([Path("/mns-2021.tif")], surface)
    assert locate(store, acquisition(small_scene.after)).surfaces is None
    surface.unlink()
    with pytest.raises(AssetMissing, match="mns-2024"):
        locate(store, event)


def test_a_pixel_of_another_order_is_no_reference(store, small_scene):
    reference(store, "coarse", 2021, gsd=10)
    with pytest.raises(ReferenceMissing, match="reference add"):
        locate(store, acquisition(small_scene.after))


def test_older_than_every_reference_adds_nothing(store, small_scene):
    reference(store, "newer", 2023)
    with pytest.raises(OlderThanMap, match="adds nothing"):
        locate(store, acquisition(small_scene.after, day="2022-01-01"))


def test_outside_every_map_and_in_another_departement(store, small_scene):
    assert stores_of(acquisition(small_scene.after), [store]) == [store]
    with pytest.raises(OutsideMap, match="touches no map"):
        stores_of(acquisition(small_scene.after, departement="D075"), [store])


@pytest.mark.parametrize(
    "href",
    [
        "https://example.org/a.tif",
        "s3://bucket/a.tif",
        "/vsicurl/http://host/a.tif",
        "file://elsewhere/a.tif",
    ],
)
def test_only_local_files_are_opened(small_scene, href):
    item = pointing_to(acquisition(small_scene.after), href)
    with pytest.raises(AssetRefused):
        asset_path(item.image)


def test_a_missing_file_is_told(small_scene):
    item = pointing_to(acquisition(small_scene.after), "file:///none/there.tif")
    with pytest.raises(AssetMissing, match=r"there\.tif is not there"):
        asset_path(item.image)


def lying_at(item, *rings):
    geometry = item.geometry.model_copy(update={"coordinates": [list(ring) for ring in rings]})
    return item.model_copy(update={"geometry": geometry})


def test_a_footprint_beyond_the_maps_crs_or_crossing_itself_is_no_accident(store, small_scene):
    reference(store, "newer", 2021)
    item = acquisition(small_scene.after)
    poles = [(-180.0, -90.0), (180.0, -90.0), (180.0, 90.0), (-180.0, 90.0), (-180.0, -90.0)]
    with pytest.raises(OutsideMap):
        stores_of(lying_at(item, poles), [store])
    with pytest.raises(OutsideMap):
        locate(store, lying_at(item, poles))
    a, b, c, d = box(*shape(item.geometry.model_dump()).bounds).exterior.coords[:4]
    crossing = lying_at(item, [a, c, b, d, a])
    assert stores_of(crossing, [store]) == [store]
    assert locate(store, crossing).footprint.is_valid


def test_a_crs_nobody_knows_is_said(small_scene):
    item = acquisition(small_scene.after)
    odd = item.properties.model_copy(update={"proj_code": "EPSG:999999"})
    with pytest.raises(WrongCrs, match="no CRS"):
        check_announced(small_scene.after, item.model_copy(update={"properties": odd}))
