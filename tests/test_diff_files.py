"""The differential's files: layers, matrix, changelog; fluxes that account for the stocks."""

import csv
import subprocess
from datetime import UTC, datetime

import geopandas as gpd
import pyogrio
import pytest
import shapely
from PIL import Image
from shapely.geometry import box

from schemas.change import ChangeKind
from tests.map_store import building, content, made_store, patched
from updater.diff import differential
from updater.diff_files import (
    changelog_frame,
    matrix_table,
    write_differential,
    write_matrix_csv,
    write_matrix_png,
)
from updater.export import write_parquet
from updater.reads import as_of, end_of
from updater.revert import revert

WEST, EAST = box(0, 0, 300, 600), box(300, 0, 600, 600)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made, _ = made_store(tmp_path_factory.mktemp("diff") / "D032.duckdb", seed=9)
    patched(made, 1, [building(120, 150), building(300, 420, 60, 40)])
    patched(made, 2, [building(480, 200)], days=30)
    yield made
    made.close()


@pytest.fixture(scope="module")
def found(store):
    return differential(store, end_of(2021), end_of(2024))


def test_the_flux_accounts_for_the_stocks_of_every_territory(store, found):
    assert found.pieces and found.area(artificialisation=1) > 500
    assert abs(found.unexplained) < 1  # m²: a ten-thousandth of a hectare
    parts = [differential(store, end_of(2021), end_of(2024), territory=t) for t in (WEST, EAST)]
    for part in parts:
        assert abs(part.unexplained) < 100  # 0.01 ha
        assert part.stock_after - part.stock_before == pytest.approx(part.flux(), abs=1)
    assert sum(p.flux() for p in parts) == pytest.approx(found.flux(), abs=1)
    assert sum(p.stock_after for p in parts) == pytest.approx(found.stock_after, abs=1)


def test_the_way_back_is_the_opposite(store, found):
    back = differential(store, end_of(2024), end_of(2021))
    assert back.flux() == pytest.approx(-found.flux())
    assert abs(back.unexplained) < 1


def test_a_file_holds_the_three_layers_and_gdal_reads_it(tmp_path, store, found):
    path = tmp_path / "diff.gpkg"
    write_differential(found, path, crs=store.crs, years=("2021", "2024"))
    layers = {name for name, _ in pyogrio.list_layers(path)}
    assert layers == {"DIFFERENTIEL", "ZAN_EVOL", "PATCH_CORR"}
    evolutions = gpd.read_file(path, layer="ZAN_EVOL")
    assert set(evolutions["artificialisation"]) <= {-1, 1}
    assert {"artif_2021", "artif_2024", "surface"} <= set(evolutions.columns)
    signed = (evolutions["artificialisation"] * evolutions["surface"]).sum()
    assert signed == pytest.approx(found.flux(ChangeKind.EVOLUTION))
    shown = subprocess.run(
        ["ogrinfo", "-ro", "-so", "-al", str(path)], capture_output=True, check=True, text=True
    )
    assert shown.stderr == ""


def test_a_correction_goes_to_the_corrective_patch_and_weighs_nothing(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    patched(store, 1, [building(120, 150)])
    known = store.clock()
    revert(store, "bench-1", reason="a tent")
    # what was believed in 2024 against what is known now: the older belief was wrong
    then = differential(store, end_of(2021), end_of(2024), recorded_at=known)
    now = differential(store, end_of(2021), end_of(2024))
    assert then.flux() > 0 and now.flux() == 0 and not now.pieces
    store.close()


def test_the_matrix_is_a_table_and_a_picture(tmp_path, found):
    names, table = matrix_table(found)
    total = sum(p.geometry.area for p in found.pieces) / 10_000
    assert table.sum() == pytest.approx(total, rel=1e-4)
    write_matrix_csv(found, tmp_path / "m.csv")
    rows = list(csv.reader((tmp_path / "m.csv").open()))
    assert rows[0][1:] == names and len(rows) == len(names) + 1
    assert sum(float(v) for row in rows[1:] for v in row[1:]) == pytest.approx(total, abs=0.01)
    write_matrix_png(found, tmp_path / "m.png", title="D032")
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size[0] > 800 and len(picture.convert("L").getcolors(10**6)) > 20


def test_a_reader_can_follow_the_changelog_without_the_store(tmp_path, store, found):
    old, new = as_of(store, valid_at=end_of(2021)), as_of(store, valid_at=end_of(2024))
    frame = changelog_frame(old, new, found.pieces, store.crs)
    write_parquet(frame, tmp_path / "log.parquet")
    log = gpd.read_parquet(tmp_path / "log.parquet")
    state = {p.id: (p.code_cs, p.code_us, p.geometry) for p in old}
    for row in log.itertuples():
        if row.status == "removed":
            del state[row.id]
        elif row.status != "unchanged":
            state[row.id] = (row.cs_apres, row.us_apres, row.geometry)
    assert set(state) == {p.id for p in new}
    for polygon in new:
        cs, us, shape = state[polygon.id]
        assert (cs, us) == (polygon.code_cs, polygon.code_us)
        assert shapely.equals_identical(shape, polygon.geometry)
    counts = log["status"].value_counts()
    assert counts["unchanged"] > counts["added"] > 0 and counts["removed"] > 0


def test_both_axes_of_time_can_be_asked_for(store):
    first = as_of(store, valid_at=end_of(2021))
    imported = store.execute("SELECT max(recorded) FROM polygons WHERE event IS NULL").fetchone()[0]
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    assert as_of(store, valid_at=end_of(2024), recorded_at=long_ago) == []
    then = as_of(store, valid_at=end_of(2024), recorded_at=imported)
    assert content(then) == content(first)
    assert content(as_of(store, valid_at=end_of(2024))) != content(first)
