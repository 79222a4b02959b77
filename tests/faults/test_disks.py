"""Disks that are full or closed: what was committed stays, what was not comes again, once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio

from daemon.config import HttpSettings, Settings
from daemon.inbox_source import InboxSource
from daemon.service import Service, handled
from daemon.watch import Watch
from tests.exported import wanted, written_to
from tests.faults.inputs import is_sentence
from tests.faults.tally import tally
from tests.faults.test_patching import state
from tests.faults.writer import SIDE, regions_of
from tests.map_store import MILLESIME, made_store, patched
from tests.scenes import announced, prepared
from tests.test_cli import millesimed
from updater.errors import ExportFailed, StoreError
from updater.store import Store
from updater.trouble import NoRoom
from updater.verify import verify

ROOT = Path(__file__).parents[2]
KB = 1024
FORMATS = ("gpkg", "shp", "fgb", "geoparquet", "cog")
EVENTS = 24


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a file system")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, 64 MB at first."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", place)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def resized(disk: Path, kilobytes: int) -> None:
    mount("-o", f"remount,size={kilobytes}k", disk)


def used(disk: Path) -> int:
    """Kilobytes in use."""
    return shutil.disk_usage(disk).used // KB


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "D032.duckdb"
    store, _ = made_store(path, seed=3, cells=600, side=SIDE)
    store.close()
    return path


@pytest.fixture(scope="module")
def whole(fresh, tmp_path_factory):
    """What the store says when nothing goes wrong."""
    path = tmp_path_factory.mktemp("whole") / "D032.duckdb"
    shutil.copy(fresh, path)
    with Store.open(path) as store:
        for number in range(EVENTS):
            patched(store, number, regions_of(number))
    return state(path)


def writes(path: Path, room: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.disks", str(path), str(EVENTS), str(room)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def survives(path: Path, rooms: list[int], whole: object, fault: str) -> None:
    """Fill the disk again and again; then let the rest of the events come."""
    committed, full = 0, 0
    for room in rooms:
        came = writes(path, room)
        if came["said"] is not None:
            full += 1
            assert is_sentence(str(came["said"])) and "start again" in str(came["said"])
        with Store.open(path) as store:
            (found,) = store.execute("SELECT count(*) FROM events").fetchone()
            assert found >= max(committed, came["done"]), "a committed event is lost"
            assert verify(store, deep=True).valid
            committed = found
    assert full, "the disk was never full"
    assert writes(path, -1) == {"done": EVENTS, "said": None}
    assert state(path) == whole
    tally(fault, tried=full)


def test_events_on_a_disk_that_fills_up_have_their_effect_once(fresh, whole, tmp_path):
    path = tmp_path / "D032.duckdb"
    shutil.copy(fresh, path)
    size = path.stat().st_size
    survives(
        path, [0, 15 * KB, 50 * KB, size, size + 60 * KB], whole, "full disk, commit and checkpoint"
    )


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_events_on_many_full_disks_have_their_effect_once(fresh, whole, tmp_path):
    for number in range(4):
        path = tmp_path / f"{number}" / "D032.duckdb"
        path.parent.mkdir()
        shutil.copy(fresh, path)
        rooms = [(number * 997 + step * 4733) % (30 * KB) for step in range(12)]
        survives(path, rooms, whole, "full disk, commit and checkpoint")


@pytest.mark.parametrize("spare", [0, 8, 40, 150])
def test_a_store_on_a_full_file_system_opens_again_when_there_is_room(fresh, whole, disk, spare):
    path = disk / "D032.duckdb"
    shutil.copy(fresh, path)
    store, done = Store.open(path), 0
    resized(disk, used(disk) + 4 + spare)
    with pytest.raises(NoRoom) as caught:
        for number in range(EVENTS):
            patched(store, number, regions_of(number))
            done = number + 1
        store.checkpoint()
    assert is_sentence(str(caught.value))
    store.close()
    try:
        Store.open(path).close()
    except StoreError as error:  # no room to fold the log into the file either
        assert "disk is full" in str(error)
    resized(disk, 64 * KB)
    with Store.open(path) as again:
        (found,) = again.execute("SELECT count(*) FROM events").fetchone()
        assert found >= done and verify(again, deep=True).valid
        for number in range(found, EVENTS):
            patched(again, number, regions_of(number))
    assert state(path) == whole
    tally("full file system, commit and checkpoint", tried=1)


def test_a_checkpoint_on_a_full_file_system_loses_nothing(fresh, disk):
    path = disk / "D032.duckdb"
    shutil.copy(fresh, path)
    store = Store.open(path)
    for number in range(5):
        patched(store, number, regions_of(number))
    resized(disk, used(disk) + 4)
    with pytest.raises(NoRoom):
        store.checkpoint()
    store.close()
    resized(disk, 64 * KB)
    with Store.open(path) as again:
        assert again.execute("SELECT count(*) FROM events").fetchone() == (5,)
        assert verify(again, deep=True).valid
    tally("full file system, checkpoint", tried=1)


def test_a_service_whose_checkpoint_fails_ends_with_the_sentence(fresh, disk, tmp_path):
    path = disk / "D032.duckdb"
    shutil.copy(fresh, path)
    settings = Settings(db=[path], inbox=tmp_path / "in", outbox=tmp_path / "out")
    service = Service(settings.model_copy(update={"http": HttpSettings(enabled=False)}))
    with Store.open(path) as store:
        patched(store, 0, regions_of(0))
        resized(disk, used(disk) + 4)
        service._checkpoint(Watch(service.metrics, settings, [store], [], InboxSource(tmp_path)))
    resized(disk, 64 * KB)
    with pytest.raises(NoRoom, match="disk is full"):
        service.run()
    with Store.open(path) as again:
        assert again.execute("SELECT count(*) FROM events").fetchone() == (1,)


@pytest.fixture(scope="module")
def mapped(fresh, tmp_path_factory):
    path = tmp_path_factory.mktemp("mapped") / "D032.duckdb"
    shutil.copy(fresh, path)
    with Store.open(path) as store:
        yield store


def exported(store: Store, out: Path, format_: str) -> None:
    kind = "raster" if format_ == "cog" else "map"
    more = {"resolution": 1} if format_ == "cog" else {}
    written_to(store, out, wanted(kind, format_, millesime=MILLESIME, **more))


@pytest.mark.parametrize("format_", FORMATS)
def test_an_export_to_a_full_disk_is_whole_or_not_there(mapped, disk, tmp_path, format_):
    suffix = {"geoparquet": "parquet", "cog": "tif"}.get(format_, format_)
    good = tmp_path / f"map.{suffix}"
    exported(mapped, good, format_)
    beside = sum(path.stat().st_size for path in tmp_path.glob("map.*")) // KB
    needed = beside * (2 if format_ == "cog" else 1)  # and its plain raster
    told = 0
    for share in (0.02, 0.4, 0.8, 0.86, 0.9, 0.94, 0.98, 1.0, 1.1):
        resized(disk, max(8, int(needed * share) // 4 * 4))
        out = disk / f"map.{suffix}"
        try:
            exported(mapped, out, format_)
        except (StoreError, ExportFailed) as error:
            assert is_sentence(str(error))
            assert not list(disk.iterdir()), "half a file is left"
            told += 1
            continue
        assert same(good, out), f"with {share:.0%} of the room the file is not whole"
        for path in disk.iterdir():
            path.unlink()
    assert told >= 3
    tally("full disk, export", tried=told)


def same(a: Path, b: Path) -> bool:
    """Two products say the same."""
    if a.suffix == ".tif":
        with rasterio.open(a) as first, rasterio.open(b) as second:
            return first.checksum(1) == second.checksum(1) and first.overviews(1) == (
                second.overviews(1)
            )
    if a.suffix == ".parquet":
        return gpd.read_parquet(a).equals(gpd.read_parquet(b))
    if a.suffix == ".gpkg" and a.stat().st_size != b.stat().st_size:
        return False  # an index is missing
    return gpd.read_file(a).equals(gpd.read_file(b))


def test_a_closed_folder_is_a_sentence_for_store_export_and_command(fresh, mapped, disk):
    path = disk / "D032.duckdb"
    shutil.copy(fresh, path)
    mount("-o", "remount,ro", disk)
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Store.open(path)
    assert is_sentence(str(caught.value)) and "backup" not in str(caught.value)
    for format_ in FORMATS:
        with pytest.raises(StoreError, match="cannot be written"):
            exported(mapped, disk / "out" / "map", format_)
    for arguments in (
        ("verify", "--db", path),
        ("run", "--once", "--db", fresh, "--inbox", disk / "inbox", "--outbox", disk / "outbox"),
    ):
        done = millesimed(*arguments)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
        assert done.stderr.strip().splitlines()[-1].endswith(".")
    mount("-o", "remount,rw", disk)
    with Store.open(path) as store:
        assert verify(store).valid
    tally("folder that may not be written", tried=1 + len(FORMATS) + 2)


def test_a_store_in_use_is_a_sentence_for_the_command(fresh, tmp_path):
    path = tmp_path / "D032.duckdb"
    shutil.copy(fresh, path)
    with Store.open(path):
        done = millesimed("verify", "--db", path)
    assert done.returncode == 1 and "in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
    tally("store held by another process", tried=1)


@pytest.mark.parametrize("kilobytes", [8, 400, 1400])
def test_a_detection_without_room_leaves_the_event_for_later(
    small_scene, disk, tmp_path, monkeypatch, kilobytes
):
    settings = prepared(tmp_path, small_scene)
    announced(settings.inbox, small_scene.after)
    monkeypatch.setattr("detectors.scratch.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    resized(disk, kilobytes)
    with pytest.raises(NoRoom, match="disk is full"):
        Service(settings, once=True).run()
    with Store.open(settings.db[0]) as store:
        for table in ("events", "dead_letters"):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert len(list(settings.inbox.glob("*.json"))) == 1
    resized(disk, 64 * KB)
    service = Service(settings, once=True)
    service.run()
    assert handled(service)["processed"] == 1
    tally("full disk, detection", tried=1)
