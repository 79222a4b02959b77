"""Exports in another CRS: every vertex moved by itself, so that a coverage stays one; areas those
of the map; rasters on the grid of the CRS asked for, each pixel the class under its middle."""

import json
import subprocess
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from shapely.affinity import translate
from typer.testing import CliRunner

from daemon.cli import app as cli
from detectors.types import DEGREE_M
from schemas.errors import UsageError
from schemas.nomenclature import CS_INDEX
from tests.coverages import random_coverage
from tests.exported import exported_store, store_of, wanted, written_to
from updater import export_plan
from updater.export_write import export_to
from updater.reads import map_now

GERS = (500_000.0, 6_280_000.0)
REUNION = (340_000.0, 7_660_000.0)
WORLD = ("EPSG:4326", "EPSG:3857")
YEAR = {"millesime": 2021}


def coverage(corner, seed=4):
    found = random_coverage(np.random.default_rng(seed), cells=150, side=1500.0)
    return [replace(p, geometry=translate(p.geometry, *corner)) for p in found]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with store_of(tmp_path_factory.mktemp("crs") / "D032.duckdb", coverage(GERS)) as made:
        yield made


def ogr(tool, *words):
    try:
        done = subprocess.run([tool, *words], capture_output=True, check=True, text=True)
    except FileNotFoundError:
        pytest.skip("gdal-bin is not installed")
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("crs", WORLD)
@pytest.mark.parametrize("format_", ["gpkg", "shp", "fgb", "geoparquet"])
def test_a_coverage_stays_one_in_another_crs(store, tmp_path, monkeypatch, crs, format_):
    monkeypatch.setattr(export_plan, "SQUARE_M", 400.0)
    path, rows = written_to(store, tmp_path, wanted("map", format_, crs=crs, **YEAR))
    assert f"_{crs.replace(':', '')}_D032_" in path.name
    name = f"/vsizip/{path}" if format_ == "shp" else str(path)
    found = gpd.read_parquet(path) if format_ == "geoparquet" else gpd.read_file(name)
    assert found.crs.to_epsg() == int(crs[5:]) and len(found) == rows
    found = found.set_index("id").sort_index()
    move = Transformer.from_crs(store.crs, crs, always_xy=True).transform
    polygons = sorted(map_now(store), key=lambda p: p.id)
    moved = shapely.transform([p.geometry for p in polygons], move, interleaved=False)
    shapes = found.geometry.to_numpy()
    assert shapely.equals_identical(shapely.normalize(shapes), shapely.normalize(moved)).all()
    assert shapely.coverage_is_valid(shapes) and shapely.is_valid(shapes).all()
    assert found["aire"].to_list() == pytest.approx([p.geometry.area for p in polygons])
    if format_ == "geoparquet":
        about = json.loads(pq_metadata(path)[b"geo"])["columns"]["geometry"]
        assert about["bbox"] == pytest.approx(found.total_bounds.tolist())
        return
    shown = ogr("ogrinfo", "-ro", "-so", "-al", name)
    assert f'ID["EPSG",{crs[5:]}]' in shown and f"Feature Count: {rows}" in shown
    if format_ == "gpkg":
        said = path.with_suffix(".xml").read_text()
        assert crs in said and "43.5" in said  # north of the map, degrees


def pq_metadata(path):
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.metadata


@pytest.mark.parametrize("product", ["differential", "corrective", "changelog"])
def test_every_product_is_given_in_another_crs(tmp_path, product):
    with exported_store(tmp_path) as made:
        (tmp_path / "own").mkdir()
        own, _ = written_to(made, tmp_path / "own", wanted(product, "gpkg"))
        there, _ = written_to(made, tmp_path, wanted(product, "gpkg", crs="EPSG:3857"))
    a, b = (gpd.read_file(path, layer=0) for path in (own, there))
    assert b.crs.to_epsg() == 3857 and "_EPSG3857_" in there.name
    assert a.drop(columns="geometry").equals(b.drop(columns="geometry"))
    assert shapely.equals_exact(
        b.geometry.to_numpy(), a.to_crs(3857).geometry.to_numpy(), 1e-6
    ).all()


@pytest.mark.parametrize("crs", WORLD)
@pytest.mark.parametrize("format_", ["cog", "geotiff"])
def test_a_raster_lies_on_the_grid_of_its_crs(store, tmp_path, monkeypatch, crs, format_):
    monkeypatch.setattr(export_plan, "SQUARE_M", 400.0)
    told = []
    plan = export_plan.plan_of(
        store, wanted("raster", format_, crs=crs, resolution=4, **YEAR), None
    )
    path, rows = export_to(store, plan, tmp_path, told.append)
    pixel = 4 / DEGREE_M if crs == "EPSG:4326" else 4.0
    with rasterio.open(path) as image:
        classes, transform = image.read(1), image.transform
        assert image.crs.to_epsg() == int(crs[5:]) and image.res == pytest.approx((pixel, pixel))
        assert image.colormap(1)[1][3] == 255 and image.tags(1)["1"] == "CS1.1.1.1"
    for edge in (transform.c, transform.f):
        assert edge / pixel == pytest.approx(round(edge / pixel), abs=1e-6)
    assert rows == classes.size and sum(told) == plan.total
    back = Transformer.from_crs(crs, store.crs, always_xy=True)
    polygons = map_now(store)
    tree = shapely.STRtree([p.geometry for p in polygons])
    lines = shapely.union_all([p.geometry.boundary for p in polygons])
    rng, checked = np.random.default_rng(0), 0
    for row, column in zip(
        rng.integers(0, classes.shape[0], 900), rng.integers(0, classes.shape[1], 900), strict=True
    ):
        place = shapely.Point(back.transform(*(transform @ (column + 0.5, row + 0.5))))
        if lines.distance(place) < 4.0:  # the class of the pixel it lies in, some way off
            continue
        hits = tree.query(place, predicate="within")
        checked += 1
        code = polygons[hits[0]].code_cs if len(hits) else None
        assert classes[row, column] == CS_INDEX.get(code, 0)
    assert checked > 500
    shown = ogr("gdalinfo", str(path))
    assert f'ID["EPSG",{crs[5:]}]' in shown and "Type=Byte" in shown


def test_an_overseas_map_is_given_in_its_own_crs_and_those_of_the_world(tmp_path):
    with store_of(tmp_path / "D974.duckdb", coverage(REUNION), territory="D974") as made:
        own, rows = written_to(made, tmp_path, wanted("map", "fgb", crs="EPSG:2975", **YEAR))
        assert "_RGR92UTM40S_D974_" in own.name and rows > 100
        there, _ = written_to(made, tmp_path, wanted("map", "fgb", crs="EPSG:4326", **YEAR))
        west, south, east, north = gpd.read_file(there).total_bounds
        assert 55.4 < west < east < 55.6 and -21.3 < south < north < -21.1
        with pytest.raises(UsageError, match="EPSG:2975, EPSG:4326, EPSG:3857"):
            written_to(made, tmp_path, wanted("map", "fgb", crs="EPSG:2154", **YEAR))


def test_the_command_takes_a_crs_and_refuses_what_is_not_given(tmp_path):
    with exported_store(tmp_path):
        pass
    flags = ["export", "--db", str(tmp_path / "D032.duckdb"), "--millesime", "2024"]
    flags += ["--format", "fgb", "--out", str(tmp_path / "m.fgb"), "--json"]
    done = CliRunner().invoke(cli, [*flags, "--crs", "EPSG:3857"])
    assert done.exit_code == 0, done.output
    assert gpd.read_file(tmp_path / "m.fgb").crs.to_epsg() == 3857
    for crs, words in (
        ("EPSG:27572", "take one of EPSG:2154, EPSG:4326, EPSG:3857"),
        ("WGS84", "--crs takes a code"),
    ):
        wrong = CliRunner().invoke(cli, [*flags, "--crs", crs])
        assert isinstance(wrong.exception, UsageError) and words in str(wrong.exception)
