"""Deliveries of IGN: names, days, the graph that dates, the index that counts."""

from datetime import UTC, date, datetime

import pandas as pd
import pytest
from shapely.geometry import box

from daemon.acquire.ign import (
    NoDate,
    Tile,
    day_of,
    graph_in,
    images_in,
    missing,
    tile_item,
    tile_of,
)
from daemon.announce import event_bytes
from detectors.errors import UnreadableImage
from schemas.envelope import parse_acquisition
from schemas.policy import Sensor
from tests.ortho import CRS, GSD, LEFT, PIXELS, TOP, delivery, graph, ground, index, tile, tile_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("32-2022-0505-6280-LA93-0M20-E080.jp2", Tile("D032", 2022, 505, 6280, False)),
        ("2A-2021-1180-6120-LA93-IRC-0M20-E080.jp2", Tile("D02A", 2021, 1180, 6120, True)),
        ("971-2022-0635-1800-U20N-0M20-E080.tif", Tile("D971", 2022, 635, 1800, False)),
        ("075-2024-0640-6865-LA93-0M20-E080.jp2", Tile("D075", 2024, 640, 6865, False)),
        ("mosaic.tif", None),
        ("32-22-0505-6280-LA93.tif", None),
    ],
)
def test_a_tile_says_where_it_lies(name, expected):
    assert tile_of(name) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("2022-06-15", "20220615", 20220615, 20220615.0, "2022/06/15", "15/06/2022"),
        *(date(2022, 6, 15), datetime(2022, 6, 15, 9), pd.Timestamp("2022-06-15")),
        "2022-06-15T00:00:00Z",
    ],
)
def test_a_day_is_read_however_it_was_written(value):
    assert day_of(value) == date(2022, 6, 15)


@pytest.mark.parametrize("value", [None, pd.NaT, "", "2022", "juin", 20221340, 0.2, float("nan")])
def test_what_is_no_day_is_none(value):
    assert day_of(value) is None


def half(west=True):
    left, bottom, right, top = ground().bounds
    middle = (left + right) / 2
    return box(left, bottom, middle, top) if west else box(middle, bottom, right, top)


def item_of(folder, path=None):
    path = path or tile(folder)
    return tile_item(path, graph_in([folder]), sensor=Sensor.PVA, departement=None)


def test_the_date_is_that_of_the_flight_not_of_the_millesime(tmp_path):
    delivery(tmp_path, day="2021-08-30")
    item = item_of(tmp_path)
    assert item.datetime == datetime(2021, 8, 30, 12, tzinfo=UTC)
    assert "start_datetime" not in item.properties
    assert item.properties["millesimed:departement"] == "D032"
    event_id, body = event_bytes(item)
    event = parse_acquisition(body, {})
    assert event.item.acquired == item.datetime and event.id == event_id == item.id


def test_several_flights_make_a_range_that_ends_with_the_last(tmp_path):
    graph(tmp_path, [(half(), "2022-09-03"), (half(west=False), "2022-06-15")])
    item = item_of(tmp_path)
    assert item.datetime == datetime(2022, 9, 3, 12, tzinfo=UTC)
    assert item.properties["start_datetime"] == "2022-06-15T00:00:00Z"
    assert item.properties["end_datetime"] == "2022-09-03T23:59:59Z"
    parse_acquisition(event_bytes(item)[1], {})


def test_a_sliver_of_another_flight_does_not_date_an_image(tmp_path):
    left, bottom, _, top = ground().bounds
    sliver = box(left - 100, bottom, left + 0.5, top)  # 32 m²
    graph(tmp_path, [(ground(), "2022-06-15"), (sliver, "2022-09-03")])
    assert item_of(tmp_path).datetime.date() == date(2022, 6, 15)


@pytest.mark.parametrize("column", ["DATE_VOL", "datevol", "date_pva"])
def test_the_column_of_days_goes_by_many_names(tmp_path, column):
    graph(tmp_path, [(ground(), "20220615")], column=column)
    assert item_of(tmp_path).datetime.date() == date(2022, 6, 15)


def test_without_a_date_nothing_is_said(tmp_path):
    path = tile(tmp_path)
    index(tmp_path, [path.name])  # has a DATE_MAJ, which is no flight
    with pytest.raises(NoDate, match="no mosaic graph"):
        item_of(tmp_path, path)
    graph(tmp_path, [(ground(LEFT + 5), "2022-06-15")])
    with pytest.raises(NoDate, match="does not show"):
        item_of(tmp_path, path)


def test_a_graph_in_another_projection_fits_all_the_same(tmp_path):
    import geopandas as gpd

    frame = gpd.GeoDataFrame({"date_vol": ["2022-06-15"]}, geometry=[ground()], crs=CRS)
    frame.to_crs("EPSG:4326").to_file(tmp_path / "graphe.gpkg")
    assert item_of(tmp_path).datetime.date() == date(2022, 6, 15)


def test_what_only_looks_like_an_image_is_not_opened(tmp_path):
    graph(tmp_path, [(ground(), "2022-06-15")])
    path = tmp_path / tile_name()
    path.write_text("<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>")
    with pytest.raises(UnreadableImage):
        item_of(tmp_path, path)


def test_infrared_tiles_are_left_out_and_the_index_counts_the_rest(tmp_path):
    folder = delivery(tmp_path / "a", tiles=2)
    tile(folder, irc=True)
    found = images_in([folder])
    assert [p.name for p in found] == [tile_name(LEFT), tile_name(LEFT + 1)]
    assert len(images_in([folder], infrared=True)) == 3
    assert missing(found, [folder]) == set()
    found[0].unlink()
    assert missing(images_in([folder]), [folder]) == {tile_name(suffix="")}


def test_jpeg_2000_is_read_as_it_is_delivered(tmp_path):
    graph(tmp_path, [(ground(), "2022-06-15")])
    item = item_of(tmp_path, tile(tmp_path, jp2=True))
    assert item.properties["proj:shape"] == [PIXELS, PIXELS] and item.properties["gsd"] == GSD
    assert item.assets["image"].href.endswith(".jp2") and TOP
