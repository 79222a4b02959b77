"""A watched folder: complete deliveries only, dated by their graph, archives and all."""

import os
import time
from datetime import date

import pytest

from daemon.acquire.settings import FolderSource
from tests.acquiring import NOW, image_of, inbox, look, state
from tests.ortho import (
    LEFT,
    delivery,
    graph,
    ground,
    md5,
    sevenzipped,
    tile,
    tile_name,
    volumes,
    zipped,
)


@pytest.fixture
def drop_off(tmp_path):
    folder = tmp_path / "deliveries"
    folder.mkdir()
    return folder


@pytest.fixture
def source(drop_off):
    return FolderSource(name="ign", kind="folder", folder=drop_off, quiet_seconds=30)


def age(folder, seconds=60):
    """As if it had been put there so long ago."""
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def test_a_delivery_is_announced_once_it_has_stopped_changing(tmp_path, drop_off, source):
    made = delivery(drop_off / "BDORTHO_D032_2022", tiles=2)
    assert look(tmp_path, source).events == []  # never seen before
    assert look(tmp_path, source).events == []  # unchanged, but seconds old
    age(made)
    assert look(tmp_path, source).events == []  # its times changed
    with (made / tile_name()).open("ab") as stream:  # still being copied, with the original's time
        stream.write(b"\0")
    os.utime(made / tile_name(), (time.time() - 60,) * 2)
    assert look(tmp_path, source).events == []
    tally = look(tmp_path, source)
    assert len(tally.events) == 2 and tally.error is None and tally.failed == 0
    items = inbox(tmp_path)
    assert {item.acquired.date() for item in items.values()} == {date(2022, 6, 15)}
    assert {image_of(item) for item in items.values()} == set(made.glob("*.tif"))
    assert {item.properties.departement for item in items.values()} == {"D032"}
    assert look(tmp_path, source).events == []  # announced


def test_md5_makes_a_delivery_complete_at_once(tmp_path, drop_off, source):
    made = delivery(drop_off / "livraison")
    (made / "md5sum.txt.md5").write_text(f"{md5(made / tile_name())}  {tile_name()}\n")
    assert len(look(tmp_path, source).events) == 1


def test_a_wrong_md5_waits_while_it_may_still_come_right_and_is_owed_then(
    tmp_path, drop_off, source
):
    made = delivery(drop_off / "livraison")
    (made / f"{tile_name()}.md5").write_text("0" * 32)
    assert look(tmp_path, source).failed == 0
    age(made)
    look(tmp_path, source)
    tally = look(tmp_path, source)
    assert (tally.failed, tally.owed, tally.events) == (1, 1, []) and tally.error is None
    (debt,) = state(tmp_path, source).owed.values()
    assert "MD5" in debt.why
    (made / f"{tile_name()}.md5").write_text(md5(made / tile_name()))
    tally = look(tmp_path, source)  # the delivery changed: it is looked at anew, and complete
    assert len(tally.events) == 1
    tally = look(tmp_path, source, retry_all=True)
    assert tally.owed == 0 and tally.error is None


def test_tiles_of_several_flights_and_infrared_ones(tmp_path, drop_off, source):
    made = drop_off / "livraison"
    tile(made), tile(made, irc=True)
    left, bottom, right, top = ground().bounds
    from shapely.geometry import box

    middle = (left + right) / 2
    west, east = box(left, bottom, middle, top), box(middle, bottom, right, top)
    graph(made, [(west, "2022-06-15"), (east, "2022-09-03")])
    age(made)
    look(tmp_path, source)
    (event,) = look(tmp_path, source).events
    item = inbox(tmp_path)[event]
    assert item.acquired.date() == date(2022, 9, 3)
    assert item.properties.start_datetime == "2022-06-15T00:00:00Z"


@pytest.mark.parametrize("kind", ["zip", "7z", "volumes"])
def test_archives_are_unpacked_and_dated_by_a_graph_delivered_apart(
    tmp_path, drop_off, source, kind
):
    made = tmp_path / "made"
    tile(made)
    name = "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D032_2022-01-01"
    archive = drop_off / f"{name}.{'zip' if kind == 'zip' else '7z'}"
    (zipped if kind == "zip" else sevenzipped)(made, archive)
    if kind == "volumes":
        volumes(archive, 4_000)
    other = tmp_path / "graph"
    graph(other, [(ground(), "2022-06-15")])
    zipped(other, drop_off / "BDORTHO_2-0_GRAPHE-MOSAIQUAGE_SHP_LAMB93_D032_2022-01-01.zip")
    older = tmp_path / "older"
    graph(older, [(ground(), "2019-07-01")])
    zipped(older, drop_off / "BDORTHO_2-0_GRAPHE-MOSAIQUAGE_SHP_LAMB93_D032_2019-01-01.zip")
    age(drop_off)
    look(tmp_path, source)
    (event,) = look(tmp_path, source).events
    item = inbox(tmp_path)[event]
    assert item.acquired.date() == date(2022, 6, 15)
    image = image_of(item)
    assert image.name == tile_name() and (tmp_path / "acquired") in image.parents
    assert image.read_bytes() == (made / tile_name()).read_bytes()


def test_an_archive_with_its_md5_beside_it_is_taken_at_once(tmp_path, drop_off, source):
    made = delivery(tmp_path / "made")
    archive = sevenzipped(made, drop_off / "BDORTHO_D032_2022.7z")
    (drop_off / "BDORTHO_D032_2022.md5").write_text(f"{md5(archive)}  {archive.name}\n")
    assert len(look(tmp_path, source).events) == 1


def test_a_delivery_without_dates_is_owed_and_holds_up_nothing(tmp_path, drop_off, source):
    tile(drop_off / "a-undated")
    delivery(drop_off / "b-dated", tiles=1)
    age(drop_off)
    look(tmp_path, source)
    tally = look(tmp_path, source)
    assert len(tally.events) == 1 and tally.owed == 1
    (debt,) = state(tmp_path, source).owed.values()
    assert debt.label == "a-undated" and "mosaic graph" in debt.why


def test_loose_tiles_are_a_delivery_too(tmp_path, drop_off, source):
    tile(drop_off), graph(drop_off, [(ground(), "2022-06-15")])
    tile(drop_off / "another", LEFT + 3)
    age(drop_off)
    look(tmp_path, source)
    tally = look(tmp_path, source)
    assert len(tally.events) == 1 and tally.owed == 1


def test_a_folder_that_is_not_mounted_is_an_error_and_forgets_nothing(tmp_path, drop_off, source):
    made = delivery(drop_off / "livraison")
    age(made)
    look(tmp_path, source)
    assert len(look(tmp_path, source).events) == 1
    drop_off.rename(tmp_path / "away")
    tally = look(tmp_path, source)
    assert tally.error is not None and "mount" in tally.error
    (tmp_path / "away").rename(drop_off)
    tally = look(tmp_path, source)
    assert (tally.error, tally.events) == (None, [])
    assert state(tmp_path, source).success == NOW.isoformat()
