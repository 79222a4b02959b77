"""Exports are read back by GDAL, with the columns of the product and the official colours."""

import subprocess

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import box

from schemas.nomenclature import COUVERTURE, CS_INDEX
from tests.exported import store_of, wanted, written_to
from updater.types import MapPolygon

MAP = [
    MapPolygon("A", "CS2.2.1", "US1.1", 2021, box(0, 0, 100, 60).difference(box(20, 20, 50, 50))),
    MapPolygon("B", "CS1.1.1.1", "US5", 2021, box(20, 20, 50, 50), id_origine="OLD"),
    MapPolygon("C", None, None, 2021, box(100, 0, 130, 60), ossature=True),
]
COLUMNS = "id code_cs code_us millesime source ossature id_origine code_or aire artif crit_seuil"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with store_of(tmp_path_factory.mktemp("three") / "D032.duckdb", MAP) as made:
        yield made


@pytest.mark.parametrize("format_", ["gpkg", "shp", "fgb", "geoparquet"])
def test_a_vector_export_reads_back_whole(store, tmp_path, format_):
    path = tmp_path / "out" / f"map.{'parquet' if format_ == 'geoparquet' else format_}"
    assert written_to(store, path, wanted("map", format_, millesime=2021)) == (path, len(MAP))
    frame = gpd.read_parquet(path) if format_ == "geoparquet" else gpd.read_file(path)
    assert set(COLUMNS.split()) <= set(frame.columns) and frame.crs.to_epsg() == 2154
    frame = frame.set_index("id")
    for polygon in MAP:
        row = frame.loc[polygon.id]
        assert row.geometry.equals(polygon.geometry)
        assert row["aire"] == pytest.approx(polygon.geometry.area)
    assert frame.loc["B", "artif"] == "artif" and frame.loc["B", "id_origine"] == "OLD"
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_gdal_itself_reads_the_geopackage(store, tmp_path):
    written_to(store, tmp_path / "m.gpkg", wanted("map", "gpkg", millesime=2021))
    try:
        shown = subprocess.run(
            ["ogrinfo", "-so", "-al", str(tmp_path / "m.gpkg")],
            capture_output=True,
            check=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("gdal-bin is not installed")
    assert "Layer name: OCCUPATION_SOL" in shown.stdout
    assert f"Feature Count: {len(MAP)}" in shown.stdout


def test_a_cog_carries_classes_and_official_colours(store, tmp_path):
    asked = wanted("raster", "cog", millesime=2021, resolution=1)
    written_to(store, tmp_path / "m.tif", asked)
    with rasterio.open(tmp_path / "m.tif") as image:
        classes, colours = image.read(1), image.colormap(1)
        assert image.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert image.crs.to_epsg() == 2154 and image.nodata == 0
    values, counts = np.unique(classes, return_counts=True)
    area = dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert area == {0: 1800, CS_INDEX["CS2.2.1"]: 5100, CS_INDEX["CS1.1.1.1"]: 900}
    house = CS_INDEX["CS1.1.1.1"]
    assert colours[house][:3] == COUVERTURE["CS1.1.1.1"].rgb
