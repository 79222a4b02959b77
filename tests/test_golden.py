"""The golden extract imports with exactly the planted defects reported, from every format."""

import geopandas as gpd
import pytest
import shapely
from shapely.geometry import box

from daemon.bench.patch import CORNER
from tests.golden import delivery
from updater.importer import create_store, prepare
from updater.reads import as_of, end_of, zone_construite_parts
from updater.store import Store
from updater.verify import verify


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "fgb", "shp"])
def test_exactly_the_planted_defects_are_reported(tmp_path, suffix):
    frame, expected = delivery(tmp_path)
    path = tmp_path / f"couche_du_departement.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:  # an index of FlatGeobuf has no place for a row without geometry
        frame.to_file(path, **({"SPATIAL_INDEX": "NO"} if suffix == "fgb" else {}))
    polygons, report = prepare(path, millesime=2021)
    assert dict(report.repaired) == dict(expected), report.details
    assert len(report.details) == sum(expected.values())
    assert report.valid and shapely.coverage_is_valid([p.geometry for p in polygons])
    assert {("overlap", "OCS000000260 × INSIDE"), ("duplicate", "TWICE")} <= set(report.details)


def test_a_clean_delivery_is_left_alone_to_the_byte(tmp_path):
    frame, _ = delivery(tmp_path, defects=False)
    frame.to_file(tmp_path / "m.gpkg")
    polygons, report = prepare(tmp_path / "m.gpkg", millesime=2021)
    assert not report.repaired
    given = dict(zip(frame["ID"], frame.geometry, strict=True))
    assert all(shapely.equals_identical(p.geometry, given[p.id]) for p in polygons)


def test_layers_are_found_by_what_they_hold(tmp_path):
    frame, _ = delivery(tmp_path, defects=False)
    zone = gpd.GeoDataFrame(
        {"id": ["Z1"], "millesime": ["2021"]},
        geometry=[box(*CORNER, *(CORNER + 300))],
        crs=frame.crs,
    )
    path = tmp_path / "livraison.gpkg"
    zone.to_file(path, layer="zone_construite_032")  # the first layer is not the map
    frame.to_file(path, layer="oso_2021_diif")
    db = tmp_path / "D032.duckdb"
    create_store(db, path, territory="D032", millesime=2021)
    with Store.open(db) as store:
        assert len(as_of(store, valid_at=end_of(2021))) == len(frame)
        (found,) = zone_construite_parts(store)
        assert found.area == pytest.approx(90_000)
        assert verify(store, deep=True).valid


def test_an_unpacked_folder_of_shapefiles_is_a_delivery(tmp_path):
    frame, _ = delivery(tmp_path, defects=False)
    folder = tmp_path / "OCS-GE_2-0__SHP_LAMB93_D032_2021-01-01"
    folder.mkdir()
    frame.to_file(folder / "OCCUPATION_SOL.shp")
    gpd.GeoDataFrame({"ID": ["Z"]}, geometry=[box(*CORNER, *(CORNER + 9))], crs=2154).to_file(
        folder / "ZONE_CONSTRUITE.shp"
    )
    db = tmp_path / "D032.duckdb"
    report = create_store(db, folder, territory="D032", millesime=2021)
    assert report.polygons == len(frame)
    with Store.open(db) as store:
        assert len(zone_construite_parts(store)) == 1
