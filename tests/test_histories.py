"""Sentinel-2 histories are part of backups, restores and deep verification of a store."""

import threading
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from detectors.series_state import SeriesState, block_name, load_state, save_state
from detectors.types import Grid
from tests.map_store import building, made_store, patched
from updater.deep import NO_HISTORY
from updater.errors import StoreError
from updater.histories import folder_of
from updater.recovery import backup, compact, restore
from updater.store import Store
from updater.verify import verify

SIDE = 8
GRIDS = [Grid("EPSG:32631", Affine(10, 0, x, 0, -10, 80), (SIDE, SIDE), SIDE) for x in (0, 6000)]


def looked(store, grid, number):
    """One more look at a block: a new file, the commit that names it, and the old one goes."""
    empty = SeriesState.empty(grid)
    count = np.full_like(empty.layers["count"], number)
    block, file = block_name(grid), f"{number}.safetensors"
    folder = folder_of(store.path) / Path(block).stem
    save_state(folder / file, SeriesState(grid, empty.layers | {"count": count}))
    with store.transaction() as cursor:
        values = [block, file, store.clock()]
        cursor.execute("INSERT OR REPLACE INTO series VALUES (?, ?, ?)", values)
    for path in folder.glob("*.safetensors"):
        if path.name != file:
            path.unlink()


def counts(db):
    """Looks of each block, as a store at rest has them."""
    with Store.open(db) as store:
        named = store.execute("SELECT block, file FROM series ORDER BY block").fetchall()
    states = [load_state(folder_of(db) / Path(block).stem / file) for block, file in named]
    return [int(state.layers["count"].max()) for state in states]


@pytest.fixture
def seen(tmp_path):
    """A store whose two blocks were looked at."""
    store, _ = made_store(tmp_path / "D032.duckdb", cells=12)
    with store:
        for number, grid in enumerate(GRIDS, start=1):
            looked(store, grid, number)
        yield store


def test_a_backup_taken_while_histories_are_replaced_has_those_its_table_names(seen, tmp_path):
    done, number = threading.Event(), [2]

    def work():
        while not done.is_set():
            number[0] += 1
            looked(seen, GRIDS[number[0] % 2], number[0])

    worker = threading.Thread(target=work)
    worker.start()
    try:
        made = [backup(seen, tmp_path / "kept" / f"{n}.duckdb") for n in range(4)]
    finally:
        done.set()
        worker.join()
    assert number[0] > 10
    looks = [counts(copied.path) for copied in made]
    assert all(max(pair) - min(pair) == 1 for pair in looks[1:]), looks
    assert sorted(looks, key=max) == looks
    assert not list(tmp_path.rglob(".*"))  # nothing is left over


def test_a_restore_brings_the_histories_and_sets_those_before_aside(seen, tmp_path):
    copied = backup(seen, tmp_path / "kept" / "copy.duckdb")
    looked(seen, GRIDS[0], 7)
    seen.close()
    restored = restore(copied.path, seen.path, force=True)
    assert counts(restored.path) == [1, 2] == counts(copied.path)
    (aside,) = tmp_path.glob("*.series.replaced")
    assert [p.name for p in sorted(aside.rglob("7.*"))] == ["7.safetensors"]
    with Store.open(restored.path) as store:
        looked(store, GRIDS[1], 9)
    assert counts(restored.path) == [1, 9] and counts(copied.path) == [1, 2]


def test_a_restore_to_a_time_begins_later_histories_anew(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", cells=12)
    with store:
        looked(store, GRIDS[0], 1)
        moment = store.clock()
        looked(store, GRIDS[1], 2)
        copied = backup(store, tmp_path / "copy.duckdb")
    restored = restore(copied.path, tmp_path / "then.duckdb", at=moment)
    assert counts(restored.path) == [1]
    assert len(list(folder_of(restored.path).rglob("*.safetensors"))) == 1


def test_compaction_leaves_the_histories_where_they_are(seen):
    patched(seen, 1, [building(90, 90)])
    seen.close()
    before = {p: p.read_bytes() for p in folder_of(seen.path).rglob("*.safetensors")}
    compact(seen.path)
    assert {p: p.read_bytes() for p in folder_of(seen.path).rglob("*.safetensors")} == before
    assert counts(seen.path) == [1, 2]


@pytest.mark.parametrize("harm", ["gone", "cut short", "altered"])
def test_a_history_that_is_missing_or_damaged_is_found_and_not_backed_up(seen, tmp_path, harm):
    path = min(folder_of(seen.path).rglob("*.safetensors"))
    body = path.read_bytes()
    path.unlink()
    if harm != "gone":
        path.write_bytes(body[:-9] if harm == "cut short" else body[:-9] + b"X" * 9)
    assert verify(seen).valid
    verdict = verify(seen, deep=True)
    assert not verdict.valid and verdict.row_errors == {NO_HISTORY: 1}
    with pytest.raises(StoreError, match="does not verify"):
        backup(seen, tmp_path / "kept" / "copy.duckdb")
    assert not list((tmp_path / "kept").iterdir())


def test_a_backup_on_another_disk_is_a_copy(seen, tmp_path, monkeypatch):
    import os

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied = backup(seen, tmp_path / "copy.duckdb")
    assert counts(copied.path) == [1, 2]
    files = folder_of(copied.path).rglob("*.safetensors")
    assert all(path.stat().st_nlink == 1 for path in files)
