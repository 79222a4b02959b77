"""Import repairs what must be, reports it, and leaves the rest alone."""

from zipfile import ZipFile

import geopandas as gpd
import pytest
import shapely
from shapely.geometry import MultiPolygon, Polygon, box

from updater.errors import ImportFailed
from updater.importer import create_store, prepare
from updater.store import Store
from updater.verify import verify


def delivered(path, rows, crs="EPSG:2154", **columns):
    frame = gpd.GeoDataFrame(
        {
            "id": [r[0] for r in rows],
            "code_cs": [r[1] for r in rows],
            "code_us": [r[2] for r in rows],
        }
        | columns,
        geometry=[r[3] for r in rows],
        crs=crs,
    )
    frame.to_file(path)
    return path


GOOD = [
    ("A", "CS2.2.1", "US1.1", box(0, 0, 100, 100).difference(box(20, 20, 40, 40))),
    ("B", "CS1.1.1.1", "US5", box(20, 20, 40, 40)),
    ("ISLAND", "CS2.1.1.1", "US1.2", box(500, 500, 600, 600).difference(box(540, 540, 560, 560))),
]


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb", "geojson"])
def test_holes_and_islands_are_fine_in_every_format(tmp_path, suffix):
    polygons, report = prepare(delivered(tmp_path / f"m.{suffix}", GOOD), millesime=2021)
    assert report.valid and not report.repaired and report.polygons == 3
    assert report.area == pytest.approx(100 * 100 + 100 * 100 - 400)
    assert {p.id for p in polygons} == {"A", "B", "ISLAND"}


def test_an_overlap_goes_to_the_smaller_polygon_and_is_reported(tmp_path):
    rows = [("REST", "CS2.2.1", "US1.1", box(0, 0, 100, 100)), GOOD[1]]
    polygons, report = prepare(delivered(tmp_path / "m.gpkg", rows), millesime=2021)
    assert report.valid and report.repaired["overlap"] == 1
    assert ("overlap", "REST × B") in report.details
    areas = {p.id: p.geometry.area for p in polygons}
    assert areas == {"REST": pytest.approx(9600), "B": pytest.approx(400)}


def test_each_planted_defect_is_repaired_and_named(tmp_path):
    bowtie = Polygon([(200, 0), (300, 100), (300, 0), (200, 100)])
    rows = [
        *GOOD,
        ("BOW", "CS2.2.1", "US1.1", bowtie),
        ("MULTI", "CS1.2.2", "US6.3", MultiPolygon([box(700, 0, 800, 90), box(900, 0, 990, 90)])),
        ("TWICE", "CS1.1.1.1", "US5", GOOD[1][3]),
        ("NULL", None, "US1.1", box(1000, 0, 1100, 100)),
        ("ODD", "CS9.9", "US1.1", box(1200, 0, 1300, 100)),
        ("A", "CS2.1.2", "US6.3", box(1400, 0, 1500, 100)),
    ]
    polygons, report = prepare(delivered(tmp_path / "m.gpkg", rows), millesime=2021)
    assert report.valid
    assert dict(report.repaired) == {
        "invalid": 1,
        "multi-part": 2,
        "duplicate": 1,
        "null-code": 1,
        "unknown-code": 1,
        "duplicate-id": 1,
    }
    assert len({p.id for p in polygons}) == len(polygons)
    assert shapely.area([p.geometry for p in polygons]).min() > 1


def test_older_and_upper_case_columns_are_found(tmp_path):
    frame = gpd.GeoDataFrame(
        {"COUVERTURE": ["CS2.2.1"], "USAGE": ["US1.1"]}, geometry=[box(0, 0, 9, 9)], crs=2154
    )
    frame.to_file(tmp_path / "old.shp")
    (polygon,), report = prepare(tmp_path / "old.shp", millesime=2014)
    assert (polygon.code_cs, polygon.code_us) == ("CS2.2.1", "US1.1") and report.crs == "EPSG:2154"


@pytest.mark.parametrize("epsg", [2154, 5490, 2972, 2975, 4471])
def test_every_crs_of_the_product_is_kept(tmp_path, epsg):
    _, report = prepare(delivered(tmp_path / "m.gpkg", GOOD, crs=epsg), millesime=2021)
    assert report.crs == f"EPSG:{epsg}"


def test_a_map_in_degrees_is_projected_and_that_is_said(tmp_path):
    rows = [("A", "CS2.2.1", "US1.1", box(0.5, 43.5, 0.51, 43.51))]
    _, report = prepare(delivered(tmp_path / "m.geojson", rows, crs=4326), millesime=2021)
    assert report.crs == "EPSG:2154" and report.repaired["reprojected"] == 1


def test_what_is_no_map_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ImportFailed, match="no file"):
        prepare(tmp_path / "none.gpkg", millesime=2021)
    junk = tmp_path / "junk.gpkg"
    junk.write_bytes(b"\0" * 4096)
    with pytest.raises(ImportFailed, match="cannot be read"):
        prepare(junk, millesime=2021)
    gpd.GeoDataFrame({"name": ["x"]}, geometry=[box(0, 0, 1, 1)], crs=2154).to_file(
        tmp_path / "names.gpkg"
    )
    with pytest.raises(ImportFailed, match="cover column"):
        prepare(tmp_path / "names.gpkg", millesime=2021)


def test_a_store_made_from_a_map_verifies(tmp_path):
    source = delivered(tmp_path / "m.gpkg", GOOD)
    report = create_store(tmp_path / "a.duckdb", source, territory="D032", millesime=2021)
    with Store.open(tmp_path / "a.duckdb") as store:
        verdict = verify(store, deep=True)
        assert verdict.valid and verdict.polygons == report.polygons == 3
        assert verdict.area == pytest.approx(report.area)
        assert (store.territory, store.crs, store.millesime) == ("D032", "EPSG:2154", 2021)


PIPELINE = (
    '{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read %s ! write x"}'
)
VIRTUAL = (
    '<OGRVRTDataSource><OGRVRTLayer name="OCCUPATION_SOL"><SrcDataSource>%s</SrcDataSource>'
    "<SrcLayer>m</SrcLayer></OGRVRTLayer></OGRVRTDataSource>"
)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb", "geojson", "json", "vrt", "sqlite"])
@pytest.mark.parametrize("text", [PIPELINE, VIRTUAL])
def test_a_file_that_points_elsewhere_or_runs_something_stays_closed(tmp_path, suffix, text):
    good = delivered(tmp_path / "m.gpkg", GOOD)
    path = tmp_path / "in" / f"points.{suffix}"
    path.parent.mkdir()
    path.write_text(text % good)
    for chosen in (path, path.parent):
        with pytest.raises(ImportFailed):
            prepare(chosen, millesime=2021)


def test_a_shapefile_is_not_opened_under_another_suffix_nor_inside_an_archive(tmp_path):
    delivered(tmp_path / "m.shp", GOOD)
    renamed = (tmp_path / "m.shp").rename(tmp_path / "m.gpkg")
    with pytest.raises(ImportFailed, match="does not begin like one"):
        prepare(renamed, millesime=2021)
    with ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(delivered(tmp_path / "n.gpkg", GOOD), "n.gpkg")
    with pytest.raises(ImportFailed):
        prepare(tmp_path / "m.zip", millesime=2021)


@pytest.mark.parametrize(
    ("name", "limit", "word"),
    [("MAX_POLYGON_VERTICES", 9, "10 vertices"), ("MAX_MAP_POLYGONS", 2, "3 rows")],
)
@pytest.mark.parametrize("suffix", ["gpkg", "parquet"])
def test_a_map_beyond_the_limits_is_refused(tmp_path, monkeypatch, name, limit, word, suffix):
    path = delivered(tmp_path / "m.gpkg", GOOD)
    if suffix == "parquet":
        path = tmp_path / "m.parquet"
        gpd.read_file(tmp_path / "m.gpkg").to_parquet(path)
    monkeypatch.setattr(f"updater.vector_io.{name}", limit)
    with pytest.raises(ImportFailed, match=word):
        prepare(path, millesime=2021)


def test_an_outline_that_is_nowhere_on_earth_is_left_out_and_named(tmp_path):
    rows = [*GOOD, ("FAR", "CS2.2.1", "US1.1", box(1e300, 0, 1.1e300, 100))]
    _, report = prepare(delivered(tmp_path / "m.gpkg", rows), millesime=2021)
    assert report.valid and report.polygons == 3
    assert ("off-the-earth", "FAR") in report.details
