"""The real GDAL reads the collections: counts, areas and columns are those of the export."""

import json
import re
import shutil
import subprocess
import sys

import geopandas as gpd
import pyogrio
import pytest
from pyproj import Transformer
from shapely.geometry import box

from tests.served import api
from tests.standards import EAST, NORTH, lambert_store
from updater.diff import differential
from updater.export import frame_of
from updater.reads import as_of, end_of

pytestmark = pytest.mark.skipif(
    shutil.which("ogr2ogr") is None, reason="needs the Debian package gdal-bin"
)
MAP = "ocsge-D032-2024"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = lambert_store(tmp_path_factory.mktemp("gdal") / "D032.duckdb")
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(store):
    with api([store], {}) as client:
        yield f"{client.url}/ogc"


@pytest.fixture(scope="module")
def exported(store):
    return frame_of(as_of(store, valid_at=end_of(2024)), store.crs).set_index("id").sort_index()


def gdal(*command):
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0 and "ERROR" not in told.stderr, told.stderr
    return told.stdout


def test_ogrinfo_lists_every_collection(url, exported):
    told = gdal("ogrinfo", "-al", "-so", f"OAPIF:{url}")
    counts = dict(re.findall(r"Layer name: ([\w-]+)\n.*?Feature Count: (\d+)", told, re.DOTALL))
    assert list(counts) == [
        *("ocsge-D032-2021", MAP, "differentiel-D032-2021-2024", "alertes-D032")
    ]
    assert int(counts[MAP]) == len(exported)
    assert "aire: Real" in told and "crit_seuil: Integer(Boolean)" in told


@pytest.mark.parametrize("size", [7, 1000])
def test_a_round_trip_to_a_geopackage(url, exported, tmp_path, size):
    out = tmp_path / "map.gpkg"
    gdal(
        *("ogr2ogr", "-oo", f"PAGE_SIZE={size}", "-t_srs", "EPSG:2154"),
        *(out, f"OAPIF:{url}", MAP),
    )
    found = pyogrio.read_dataframe(out, fid_as_index=False).set_index("id").sort_index()
    columns = [name for name in exported.columns if name != "geometry"]
    assert list(found.index) == list(exported.index)
    assert found[columns].astype(str).equals(exported[columns].astype(str))
    assert found.crs.to_epsg() == 2154
    assert (found.geometry.area - exported.geometry.area).abs().max() < 1.0
    assert found.geometry.area.sum() == pytest.approx(exported.aire.sum(), rel=1e-5)


def test_a_rectangle_and_a_column(url, exported, store, tmp_path):
    window = box(EAST + 200, NORTH + 150, EAST + 500, NORTH + 420)
    forth = Transformer.from_crs(2154, 4326, always_xy=True)
    west, south = forth.transform(*window.bounds[:2])
    east, north = forth.transform(*window.bounds[2:])
    spat = ("-spat", *map(str, (west, south, east, north)))
    command = ("ogrinfo", "-ro", "-so", *spat, f"OAPIF:{url}", MAP)
    count = int(re.search(r"Feature Count: (\d+)", gdal(*command)).group(1))
    inside = exported.intersects(window.buffer(-3)).sum()
    around = exported.intersects(window.buffer(3)).sum()
    assert 0 < inside <= count <= around < len(exported)
    code = ("-where", "code_cs = 'CS1.1.1.1'")
    told = gdal("ogrinfo", "-ro", "-so", *code, f"OAPIF:{url}", MAP)
    count = int(re.search(r"Feature Count: (\d+)", told).group(1))
    assert count == (exported.code_cs == "CS1.1.1.1").sum() > 0


def test_the_differential(url, store, tmp_path):
    out = tmp_path / "diff.geojson"
    gdal("ogr2ogr", "-oo", "PAGE_SIZE=4", out, f"OAPIF:{url}", "differentiel-D032-2021-2024")
    found = json.loads(out.read_text())["features"]
    whole = differential(store, end_of(2021), end_of(2024)).pieces
    assert len(found) == len(whole)
    assert sum(f["properties"]["surface"] for f in found) == pytest.approx(
        sum(p.geometry.area for p in whole)
    )


READ = """
import sys, pyogrio
url, layer, out, *window = sys.argv[1:]
asked = {"bbox": tuple(map(float, window))} if window else {"PAGE_SIZE": "50"}
pyogrio.read_dataframe(f"OAPIF:{url}", layer=layer, CRS="EPSG:2154", **asked).to_parquet(out)
"""
ST_READ = """
import sys, duckdb, json
from updater.store import load_spatial
connection = duckdb.connect()
load_spatial(connection)
print(json.dumps(connection.execute(sys.argv[1]).fetchall()))
"""


def elsewhere(script, *arguments):
    """A process of its own: GDAL holds the interpreter's lock, which the server here needs."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def read(url, tmp_path, *window):
    out = tmp_path / "read.parquet"
    elsewhere(READ, url, MAP, out, *window)
    return gpd.read_parquet(out)


def test_a_newer_gdal_reads_the_storage_crs(url, exported, tmp_path):
    """pyogrio brings a GDAL that negotiates the CRS (part 2): outlines come exact."""
    found = read(url, tmp_path).set_index("id")
    found = found.sort_index()
    assert found.crs.to_epsg() == 2154 and list(found.index) == list(exported.index)
    assert found.geometry.geom_equals(exported.geometry).all()
    window = (EAST + 200, NORTH + 150, EAST + 500, NORTH + 420)
    part = read(url, tmp_path, *window)
    assert sorted(part.id) == sorted(exported[exported.intersects(box(*window))].index)


def test_duckdb_reads_a_collection(url, exported):
    """The spatial extension brings a GDAL of its own."""
    sql = (
        f"SELECT code_cs, count(*), sum(aire) FROM ST_Read('OAPIF:{url}', layer = '{MAP}') "
        "GROUP BY code_cs"
    )
    rows = json.loads(elsewhere(ST_READ, sql))
    expected = exported.groupby("code_cs").aire.agg(["count", "sum"])
    assert {code: count for code, count, _ in rows} == expected["count"].to_dict()
    for code, _, area in rows:
        assert area == pytest.approx(expected["sum"][code])
