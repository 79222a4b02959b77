"""Incremental deliveries: applied to the old state they give the new one, value for value."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import box

from tests.coverages import random_coverage
from tests.entrepot import Table, apply
from tests.map_store import building, made_store, patched
from updater.deliveries import TABLE, batch, fingerprint, frame_at, kept, write_changes, write_whole
from updater.increments import increment
from updater.reads import end_of
from updater.revert import revert


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """What a store knew at several instants, patches and an undoing in between."""
    store, _ = made_store(tmp_path_factory.mktemp("increments") / "D032.duckdb", seed=4)
    rng = np.random.default_rng(7)
    found = [frame_at(store, end_of(2021)), frame_at(store, end_of(2024))]
    for number in range(1, 5):
        places = rng.uniform(60, 540, (rng.integers(1, 4), 2))
        patched(store, number, [building(x, y, 40, 30) for x, y in places], days=number)
        found.append(frame_at(store, end_of(2024)))
    revert(store, "bench-4", reason="a tent")
    found.append(frame_at(store, end_of(2024)))
    store.close()
    return found


def received(folder):
    """The table a platform has after a delivery, as the server of the tests keeps it."""
    tables = {TABLE: Table("id", gpd.GeoDataFrame())}
    return tables, lambda: apply(tables, sorted(folder.iterdir()), {"update": True, "delete": True})


def assert_same(table, state):
    a = table.sort_values("id", ignore_index=True)
    b = state.sort_values("id", ignore_index=True)
    assert set(a.columns) == set(b.columns)
    assert shapely.equals_identical(a.geometry.to_numpy(), b.geometry.to_numpy()).all()
    for name in b.columns.drop("geometry"):
        both = a[name].isna() & b[name].isna()
        assert (both | (a[name] == b[name])).all(), name


@pytest.mark.parametrize("outlines", [True, False])
def test_delete_update_insert_turn_any_state_into_any_other(tmp_path, states, outlines):
    seen = {"delete": 0, "update": 0, "gpkg": 0}
    for first, old in enumerate(states):
        for last, new in enumerate(states):
            folder = tmp_path / f"{first}-{last}"
            folder.mkdir()
            found = increment(old, new, outlines=outlines)
            write_changes(folder, found)
            for path in folder.iterdir():
                seen[path.suffix[1:]] += 1
            tables, arrive = received(folder)
            tables[TABLE].frame = old.copy()
            arrive()
            assert_same(tables[TABLE].frame, new)
            assert bool(found.rows) == (fingerprint(old) != fingerprint(new))
    assert seen["delete"] > 10 and seen["gpkg"] > 10 and (seen["update"] > 10 or not outlines), seen


def test_a_patch_of_a_few_polygons_is_a_small_delivery(tmp_path, states):
    found = increment(states[1], states[2])
    assert 0 < found.rows < len(states[1]) / 2
    write_changes(tmp_path, found)
    lines = (tmp_path / f"{TABLE}.update").read_text().splitlines()
    assert lines[0].startswith("id,") and lines[0].endswith(",geom") and "POLYGON" in lines[1]
    assert (tmp_path / f"{TABLE}.delete").read_text().splitlines()[0] == "id"
    assert not increment(states[1], states[1]).rows


def test_a_value_that_becomes_null_is_not_told_by_an_update():
    polygons = random_coverage(np.random.default_rng(1), cells=6, side=100.0)
    frame = gpd.GeoDataFrame(
        {
            "id": [p.id for p in polygons],
            "code_cs": ["CS1.1"] * len(polygons),
            "id_origine": ["a"] * len(polygons),
        },
        geometry=[p.geometry for p in polygons],
        crs=2154,
    )
    new = frame.copy()
    new.loc[0, "id_origine"] = None
    new.loc[1, "code_cs"] = 'CS"2,\n1'
    found = increment(frame, new)
    assert found.deleted == [frame.loc[0, "id"]] == found.inserted["id"].tolist()
    assert found.updated.columns.tolist() == ["code_cs"] and len(found.updated) == 1


def test_the_same_state_makes_the_same_bytes_and_a_damaged_folder_is_made_again(tmp_path, states):
    zones = gpd.GeoDataFrame({"id": ["ZC1"]}, geometry=[box(0, 0, 9, 9)], crs=2154)
    made = [
        batch(tmp_path / name, lambda to: write_whole(to, states[3], zones)) for name in ("a", "b")
    ]
    assert made[0].parts == made[1].parts and made[0].content == made[1].content
    assert kept(tmp_path / "a") == made[0]

    def fails(to):
        raise AssertionError("the folder is there already")

    assert batch(tmp_path / "a", fails) == made[0]
    path = tmp_path / "a" / f"{TABLE}.gpkg"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert kept(tmp_path / "a") is None
    again = batch(tmp_path / "a", lambda to: write_whole(to, states[3], zones))
    assert again.parts == made[1].parts
    read = gpd.read_file(path, layer=TABLE)
    assert_same(pd.DataFrame(read).pipe(gpd.GeoDataFrame, crs=2154), states[3])
