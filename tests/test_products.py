"""Products: cut to a territory, named and styled as IGN's, read by GDAL, imported back the same."""

import subprocess
import zipfile
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from shapely.geometry import box

from schemas.nomenclature import COUVERTURE, CS_LEAVES
from schemas.territory import TerritoryKind
from tests.exported import wanted, written_to
from tests.map_store import building, made_store, patched
from updater.errors import ImportFailed, NotFound
from updater.export import LAYER
from updater.importer import create_store
from updater.product import GMD, SUFFIXES, qml
from updater.reads import as_of, end_of
from updater.store import Store
from updater.territories import add_territories, find_territory, territories

COMMUNES = {"32013": box(0, 0, 250, 600), "32107": box(250, 0, 600, 600)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    made, _ = made_store(folder / "D032.duckdb", seed=5)
    patched(made, 1, [building(120, 150), building(250, 420), building(480, 200)])
    frame = gpd.GeoDataFrame(
        {"INSEE_COM": list(COMMUNES), "NOM": ["Auch", "Condom"]},
        geometry=list(COMMUNES.values()),
        crs=2154,
    )
    frame.to_crs(4326).to_file(folder / "communes.geojson")
    assert add_territories(made, folder / "communes.geojson", TerritoryKind.COMMUNE) == 2
    yield made
    made.close()


@pytest.fixture(scope="module")
def now(store):
    return as_of(store, valid_at=end_of(2024))


@pytest.mark.parametrize("format_", list(SUFFIXES))
def test_a_folder_receives_the_products_own_name_and_metadata(tmp_path, store, now, format_):
    raster = format_ == "cog"
    path, count = written_to(store, tmp_path, wanted("raster" if raster else "map", format_))
    token = {"geoparquet": "PARQUET", "cog": "TIFF"}.get(format_, format_.upper())
    kind = "_COUVERTURE_2M" if raster else ""
    assert path.name == f"OCS-GE_2-0{kind}__{token}_LAMB93_D032_2024-01-01{SUFFIXES[format_]}"
    assert count == (300 * 300 if raster else len(now))
    text = (
        zipfile.ZipFile(path).read(f"{path.stem}.xml").decode()
        if format_ == "shp"
        else path.with_suffix(".xml").read_text()
    )
    root = ET.fromstring(text)
    assert root.find(f".//{{{GMD}}}title")[0].text == "OCS GE 2024, D032 (D032)"
    held = "300 × 300 pixels (couverture)" if raster else f"{len(now)} polygones"
    assert held in root.find(f".//{{{GMD}}}abstract")[0].text
    west = float(root.find(f".//{{{GMD}}}westBoundLongitude")[0].text)
    assert -5.5 < west < 0  # the false origin of Lambert-93 lies west of France


@pytest.mark.parametrize("format_", ["gpkg", "shp", "fgb"])
def test_gdal_opens_every_format_without_a_warning(tmp_path, store, now, format_):
    path, _ = written_to(store, tmp_path, wanted("map", format_))
    name = f"/vsizip/{path}" if format_ == "shp" else str(path)
    shown = subprocess.run(
        ["ogrinfo", "-ro", "-so", "-al", name], capture_output=True, check=True, text=True
    )
    assert shown.stderr == ""
    assert f"Feature Count: {len(now)}" in shown.stdout
    assert ("ZONE_CONSTRUITE" in shown.stdout) == (format_ == "gpkg")
    assert "RGF93 v1 / Lambert-93" in shown.stdout
    if format_ == "shp":
        names = zipfile.ZipFile(path).namelist()
        assert {n.rpartition(".")[2] for n in names} >= {"shp", "shx", "dbf", "prj", "cpg", "xml"}


@pytest.mark.parametrize("format_", ["gpkg", "shp", "fgb", "geoparquet"])
def test_export_import_export_is_identical(tmp_path, store, format_):
    first, _ = written_to(store, tmp_path / "a.x", wanted("map", "geoparquet"))
    suffix = SUFFIXES[format_]
    there, _ = written_to(store, tmp_path / f"b{suffix}", wanted("map", format_))
    source = there
    if format_ == "shp":
        zipfile.ZipFile(there).extractall(tmp_path / "shp")
        source = tmp_path / "shp"
    db = tmp_path / "again.duckdb"
    report = create_store(db, source, territory="D032", millesime=2024)
    kinds = set(report.repaired)
    assert kinds <= {"other-year"}  # what was not touched is of the older millésime
    with Store.open(db) as back:
        second, _ = written_to(back, tmp_path / "c.x", wanted("map", "geoparquet"))
    a = gpd.read_parquet(first).sort_values("id", ignore_index=True)
    b = gpd.read_parquet(second).sort_values("id", ignore_index=True)
    assert shapely.equals_identical(
        shapely.normalize(a.geometry.to_numpy()), shapely.normalize(b.geometry.to_numpy())
    ).all()
    for column in a.columns.drop("geometry"):
        if column == "aire":  # summed from another starting vertex
            assert np.allclose(a[column], b[column], rtol=0, atol=1e-6)
        elif column == "millesime":
            assert set(b[column]) == {"2024"}
        else:
            assert a[column].equals(b[column]), column


def test_qgis_finds_the_official_colours(tmp_path, store):
    path, _ = written_to(store, tmp_path / "m.gpkg", wanted("map", "gpkg"))
    rows = pyogrio.read_dataframe(path, layer="layer_styles", read_geometry=False)
    cover = rows[rows["useAsDefault"].astype(bool)].iloc[0]
    assert cover["f_table_name"] == LAYER and cover["styleName"] == "Couverture"
    root = ET.fromstring(cover["styleQML"].partition("\n")[2])
    categories = {c.get("value"): c.get("symbol") for c in root.iter("category")}
    assert set(categories) == set(CS_LEAVES)
    house = categories["CS1.1.1.1"]
    symbol = next(s for s in root.iter("symbol") if s.get("name") == house)
    colour = next(o.get("value") for o in symbol.iter("Option") if o.get("name") == "color")
    assert tuple(map(int, colour.split(",")[:3])) == COUVERTURE["CS1.1.1.1"].rgb
    assert "Zones bâties" in qml("code_cs", COUVERTURE)


def test_two_communes_make_the_whole(tmp_path, store):
    frames = []
    for code in COMMUNES:
        place = find_territory(store, code)
        path, _ = written_to(store, tmp_path, wanted("map", "gpkg"), place)
        assert f"_D032_{code}_2024" in path.name
        frames.append(gpd.read_file(path, layer=LAYER))
        zone = gpd.read_file(path, layer="ZONE_CONSTRUITE")
        assert zone.area.sum() == pytest.approx(place.geometry.area, rel=1e-4)
    assert sum(f["aire"].sum() for f in frames) == pytest.approx(600 * 600, rel=1e-6)
    # a legal status does not depend on where the map is cut
    whole, _ = written_to(store, tmp_path / "w.parquet", wanted("map", "geoparquet"))
    status = gpd.read_parquet(whole).set_index("id")["artif"]
    for frame in frames:
        for row in frame.itertuples():
            assert row.artif == status[row.id.rpartition("-")[0] or row.id]


def test_a_file_is_a_territory_too_and_an_unknown_one_is_named(tmp_path, store):
    gpd.GeoDataFrame({"a": [1]}, geometry=[box(10, 10, 50, 50)], crs=2154).to_file(
        tmp_path / "square.gpkg"
    )
    place = find_territory(store, str(tmp_path / "square.gpkg"))
    assert place.geometry.area == pytest.approx(1600) and place.code == "square"
    assert find_territory(store, "D032") is None
    assert [t.name for t in territories(store, TerritoryKind.COMMUNE)] == ["Auch", "Condom"]
    with pytest.raises(NotFound, match="territory add"):
        find_territory(store, "99999")
    gpd.GeoDataFrame({"a": [1]}, geometry=[box(0, 0, 1, 1)], crs=2154).to_file(
        tmp_path / "nocode.gpkg"
    )
    with pytest.raises(ImportFailed, match="code column"):
        add_territories(store, tmp_path / "nocode.gpkg", TerritoryKind.OTHER)
