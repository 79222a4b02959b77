"""Exports square by square say what the whole map says: the same rows, once, whatever the squares;
rasters show the polygon under the middle of each pixel."""

import io
import json

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from typer.testing import CliRunner

from daemon.cli import app as cli
from schemas.change import ChangeKind
from schemas.errors import UsageError
from schemas.export import ExportTheme
from schemas.legal import LegalStatus
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE
from tests.exported import COMMUNE, WEST, exported_store, wanted
from updater import export_plan
from updater.artificialisation import statuses
from updater.diff import differential
from updater.diff_files import changelog_frame, correction_frame, differential_frame
from updater.errors import ExportFailed
from updater.export import frame_of
from updater.export_plan import plan_of
from updater.export_raster import ARTIFICIAL_RGB
from updater.export_rows import parts, received, send
from updater.export_write import write_export
from updater.reads import as_of, end_of
from updater.territories import find_territory

VECTOR = ("gpkg", "shp", "fgb", "geoparquet")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = exported_store(tmp_path_factory.mktemp("export"))
    yield made
    made.close()


@pytest.fixture(params=[5000.0, 130.0], ids=["one square", "25 squares"])
def squares(request, monkeypatch):
    monkeypatch.setattr(export_plan, "SQUARE_M", request.param)


def written(store, folder, request):
    """The file, and the progress told."""
    place = find_territory(store, request.territory) if request.territory else None
    plan = plan_of(store, request, place)
    told = []
    path, rows = write_export(plan, parts(store, plan), folder, told.append)
    return path, rows, sum(told), plan


def opened(path, layer=None):
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    return gpd.read_file(f"/vsizip/{path}" if path.suffix == ".zip" else path, layer=layer)


def key(frame, names):
    """Rows as a set: some columns and the ground."""
    shapes = shapely.normalize(frame.geometry.to_numpy())
    columns = [frame[name].tolist() for name in names]
    found = list(zip(*columns, shapely.to_wkb(shapes), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize("territory", [None, COMMUNE])
@pytest.mark.parametrize("format_", VECTOR)
def test_a_map_in_squares_is_the_map_at_once(store, tmp_path, squares, format_, territory):
    path, rows, told, plan = written(store, tmp_path, wanted("map", format_, territory=territory))
    found = opened(path, "OCCUPATION_SOL" if format_ == "gpkg" else None)
    everything = as_of(store, valid_at=end_of(2024))
    expected = frame_of(
        everything, store.crs, ground=WEST if territory else None, legal=statuses(everything)
    )
    names = ("id", "code_cs", "code_us", "artif", "id_origine")
    assert key(found, names) == key(expected, names)
    assert rows == len(expected) and told == plan.total and found.crs.to_epsg() == 2154
    assert found["aire"].sum() == pytest.approx(expected.geometry.area.sum())


def test_a_geopackage_has_the_zones_the_styles_and_a_name_of_ign(store, tmp_path):
    path, *_ = written(store, tmp_path, wanted("map", "gpkg", territory=COMMUNE))
    assert path.name == f"OCS-GE_2-0__GPKG_LAMB93_D032_{COMMUNE}_2024-01-01.gpkg"
    layers = {name for name, _ in pyogrio.list_layers(path)}
    assert layers == {"OCCUPATION_SOL", "ZONE_CONSTRUITE", "layer_styles"}
    zones = gpd.read_file(path, layer="ZONE_CONSTRUITE")
    assert zones.area.sum() == pytest.approx(333.3 * 600)
    assert COMMUNE in path.name and "MD_Metadata" in path.with_suffix(".xml").read_text()


@pytest.mark.parametrize("territory", [None, COMMUNE])
@pytest.mark.parametrize("product", ["differential", "corrective"])
@pytest.mark.parametrize("format_", VECTOR)
def test_a_differential_in_squares_is_the_one_of_the_whole(
    store, tmp_path, squares, format_, product, territory
):
    path, rows, told, plan = written(store, tmp_path, wanted(product, format_, territory=territory))
    whole = differential(store, end_of(2021), end_of(2024), territory=WEST if territory else None)
    assert whole.count(ChangeKind.CORRECTION) and whole.count(ChangeKind.EVOLUTION)
    if product == "corrective":
        expected, names = correction_frame(whole, store.crs), ("id", "code_cs", "cs_corr")
        layer = "PATCH_CORR"
    else:
        expected, layer = differential_frame(whole, store.crs), "DIFFERENTIEL"
        names = ("id_avant", "id_apres", "cs_avant", "us_apres", "nature")
    found = opened(path, layer if format_ == "gpkg" else None)
    found.geometry = [
        shapely.multipolygons([g]) if g.geom_type == "Polygon" else g for g in found.geometry
    ]  # fmt: skip - a Shapefile knows no difference
    assert key(found, names) == key(expected, names)
    assert rows == len(expected) and 0 < told == plan.total
    if format_ == "gpkg" and product == "differential":
        layers = {name for name, _ in pyogrio.list_layers(path)}
        assert layers == {"DIFFERENTIEL", "ZAN_EVOL", "PATCH_CORR"}


def test_a_changelog_in_squares_is_the_one_of_the_whole(store, tmp_path, squares):
    path, _, told, plan = written(store, tmp_path, wanted("changelog", "fgb"))
    old, new = (as_of(store, valid_at=end_of(year)) for year in (2021, 2024))
    whole = differential(store, end_of(2021), end_of(2024))
    expected = changelog_frame(old, new, whole.pieces, store.crs)
    names = ("id", "status", "cs_avant", "us_apres")
    assert key(opened(path), names) == key(expected, names) and told == plan.total
    moved = opened(path).set_index("id")["codes_changed"]
    assert moved.to_dict() == pytest.approx(expected.set_index("id")["codes_changed"].to_dict())


@pytest.mark.parametrize("theme", list(ExportTheme))
@pytest.mark.parametrize(("format_", "pixel"), [("cog", 2.0), ("geotiff", 3.7)])
def test_a_pixel_shows_the_polygon_under_its_middle(
    store, tmp_path, squares, format_, pixel, theme
):
    request = wanted("raster", format_, resolution=pixel, theme=theme, territory=COMMUNE)
    path, rows, told, plan = written(store, tmp_path, request)
    assert (
        f"_{theme.value.upper()}_{str(pixel).replace('.0', '').replace('.', '-')}M__" in path.name
    )
    with rasterio.open(path) as image:
        classes, colours = image.read(1), image.colormap(1)
        west, north, band = image.transform.c, image.transform.f, image.tags(1)
        assert image.res == (pixel, pixel) and image.crs.to_epsg() == 2154
        cog = image.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    assert cog == (format_ == "cog") and rows == classes.size == told == plan.total
    polygons = as_of(store, valid_at=end_of(2024))
    legal = statuses(polygons)
    tree = shapely.STRtree([p.geometry for p in polygons])
    near_edge = shapely.union_all([*(p.geometry.boundary for p in polygons), WEST.boundary])
    rng = np.random.default_rng(0)
    checked = 0
    for row, column in zip(
        rng.integers(0, classes.shape[0], 800), rng.integers(0, classes.shape[1], 800), strict=True
    ):
        middle = shapely.Point(west + (column + 0.5) * pixel, north - (row + 0.5) * pixel)
        if near_edge.distance(middle) < 1e-6:
            continue
        hits = tree.query(middle, predicate="within")
        value = classes[row, column]
        if not len(hits) or not WEST.contains(middle):
            assert value == 0
            continue
        checked += 1
        polygon, status = polygons[hits[0]], legal[hits[0]].status
        if theme is ExportTheme.COVER:
            code, rgb = polygon.code_cs, COUVERTURE[polygon.code_cs].rgb
            assert value == CS_LEAVES.index(code) + 1
        elif theme is ExportTheme.USAGE:
            code, rgb = polygon.code_us, USAGE[polygon.code_us].rgb
            assert value == US_CODES.index(code) + 1
        else:
            code, rgb = status.value, ARTIFICIAL_RGB[status is LegalStatus.ARTIF]
        assert band[str(value)] == code and colours[value] == (*rgb, 255)
    assert checked > 500 and len(np.unique(classes)) >= 2


def test_what_a_store_cannot_give_is_said(store):
    with pytest.raises(UsageError, match="first millésime is 2021"):
        plan_of(store, wanted("map", "gpkg", millesime=2019), None)
    limit = export_plan.MOST_PIXELS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_plan, "MOST_PIXELS", 1000)
        with pytest.raises(UsageError, match="coarser resolution"):
            plan_of(store, wanted("raster", "cog"), None)
    assert limit == export_plan.MOST_PIXELS


def test_parts_survive_the_way_to_another_process_and_a_cut_is_noticed(store):
    plan = plan_of(store, wanted("map", "gpkg"), None)
    stream = io.BytesIO()
    send(stream, plan, parts(store, plan))
    whole = stream.getvalue()
    again, given = received(io.BytesIO(whole))
    assert again == plan
    for sent, came in zip(parts(store, plan), given, strict=True):
        assert (sent.kind, sent.square) == (came.kind, came.square)
        assert sent.rows.equals(came.rows.replace_schema_metadata(None))
    for cut in (len(whole) - 1, len(whole) - 8, len(whole) - 300, len(whole) // 2):
        _, given = received(io.BytesIO(whole[:cut]))
        with pytest.raises(ExportFailed, match="ask for it again"):
            list(given)


def test_a_full_disk_is_a_sentence(store):
    with open("/dev/full", "wb"):  # noqa: PTH123 - only to see that it is there
        plan = plan_of(store, wanted("map", "geoparquet"), None)

    class Full(type(plan)):
        @property
        def file_name(self):
            return "full"

    from pathlib import Path

    full = Full.model_validate(plan.model_dump())
    with pytest.raises(ExportFailed.__mro__[1], match="disk is full"):
        write_export(full, parts(store, plan), Path("/dev"), lambda count: None)


def test_the_command_writes_the_same_raster(tmp_path):
    with exported_store(tmp_path) as store:
        plan = plan_of(store, wanted("raster", "geotiff", theme="usage"), None)
        (tmp_path / "own").mkdir()
        path, _ = write_export(plan, parts(store, plan), tmp_path / "own", lambda count: None)
    flags = ["--db", str(tmp_path / "D032.duckdb"), "--millesime", "2024", "--resolution", "2"]
    flags += ["--theme", "usage", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(cli, ["export", *flags, "--format", "geotiff"])
    assert done.exit_code == 0, done.output
    made = tmp_path / path.name
    assert json.loads(done.stdout) == {"pixels": plan.total, "path": str(made)}
    with rasterio.open(path) as own, rasterio.open(made) as image:
        assert (own.read(1) == image.read(1)).all() and image.read(1).any()
    wrong = CliRunner().invoke(cli, ["export", *flags, "--format", "gpkg"])
    assert isinstance(wrong.exception, UsageError)
