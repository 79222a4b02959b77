"""Products: cut to a territory, named and styled as IGN's, read by GDAL, imported back the same."""

import subprocess
import zipfile
from dataclasses import replace
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from shapely.geometry import box

from schemas.nomenclature import COUVERTURE, CS_LEAVES
from schemas.territory import TerritoryKind
from tests.map_store import building, made_store, patched
from updater.errors import ImportFailed, NotFound
from updater.export import LAYER, write_product
from updater.importer import prepare
from updater.product import GMD, SUFFIXES, Product, qml
from updater.reads import as_of, end_of, zone_construite_parts
from updater.territories import add_territories, find_territory, territories

PRODUCT = Product("D032", "D032", "Gers", 2024, "EPSG:2154")
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
    path, count = write_product(
        now, tmp_path, PRODUCT, format_=format_, zones=zone_construite_parts(store)
    )
    token = {"geoparquet": "PARQUET", "cog": "TIFF"}.get(format_, format_.upper())
    assert path.name == f"OCS-GE_2-0__{token}_LAMB93_D032_2024-01-01{SUFFIXES[format_]}"
    assert count == len(now)
    text = (
        zipfile.ZipFile(path).read(f"{path.stem}.xml").decode()
        if format_ == "shp"
        else path.with_suffix(".xml").read_text()
    )
    root = ET.fromstring(text)
    assert root.find(f".//{{{GMD}}}title")[0].text == "OCS GE 2024, Gers (D032)"
    west = float(root.find(f".//{{{GMD}}}westBoundLongitude")[0].text)
    assert -5.5 < west < 0  # the false origin of Lambert-93 lies west of France


@pytest.mark.parametrize("format_", ["gpkg", "shp", "fgb"])
def test_gdal_opens_every_format_without_a_warning(tmp_path, store, now, format_):
    path, _ = write_product(
        now, tmp_path, PRODUCT, format_=format_, zones=zone_construite_parts(store)
    )
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
def test_export_import_export_is_identical(tmp_path, now, format_):
    first, _ = write_product(now, tmp_path / "a.x", PRODUCT, format_="geoparquet")
    suffix = SUFFIXES[format_]
    there, _ = write_product(now, tmp_path / f"b{suffix}", PRODUCT, format_=format_)
    source = there
    if format_ == "shp":
        zipfile.ZipFile(there).extractall(tmp_path / "shp")
        source = tmp_path / "shp"
    back, report = prepare(source, millesime=2024)
    kinds = set(report.repaired)
    assert kinds <= {"other-year"}  # what was not touched is of the older millésime
    years = {p.id: p.millesime for p in now}
    again = sorted((replace(p, millesime=years[p.id]) for p in back), key=lambda p: p.id)
    second, _ = write_product(again, tmp_path / "c.x", PRODUCT, format_="geoparquet")
    a = gpd.read_parquet(first).sort_values("id", ignore_index=True)
    b = gpd.read_parquet(second).sort_values("id", ignore_index=True)
    assert shapely.equals_identical(
        shapely.normalize(a.geometry.to_numpy()), shapely.normalize(b.geometry.to_numpy())
    ).all()
    for column in a.columns.drop("geometry"):
        if column == "aire":  # summed from another starting vertex
            assert np.allclose(a[column], b[column], rtol=0, atol=1e-6)
        else:
            assert a[column].equals(b[column]), column


def test_qgis_finds_the_official_colours(tmp_path, now):
    path, _ = write_product(now, tmp_path / "m.gpkg", PRODUCT, format_="gpkg")
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


def test_two_communes_make_the_whole(tmp_path, store, now):
    frames = []
    for code in COMMUNES:
        place = find_territory(store, code)
        product = Product("D032", code, place.name, 2024, "EPSG:2154")
        path, _ = write_product(
            now,
            tmp_path,
            product,
            format_="gpkg",
            ground=place.geometry,
            zones=zone_construite_parts(store),
        )
        assert f"_D032_{code}_2024" in path.name
        frames.append(gpd.read_file(path, layer=LAYER))
        zone = gpd.read_file(path, layer="ZONE_CONSTRUITE")
        assert zone.area.sum() == pytest.approx(place.geometry.area, rel=1e-4)
    assert sum(f["aire"].sum() for f in frames) == pytest.approx(600 * 600, rel=1e-6)
    # a legal status does not depend on where the map is cut
    whole, _ = write_product(now, tmp_path / "w.parquet", PRODUCT, format_="geoparquet")
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
