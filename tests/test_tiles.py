"""Tiles: the grid against PROJ, vector tiles read by GDAL, the overview against shapely, images."""

import gzip
import io
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin

from daemon.page.blocks import Overview
from daemon.page.mercator import HALF, WEB, Tile, onto, pixels_of
from daemon.page.overview import OUTSIDE, Place, Theme, covering, drawn, palette
from daemon.page.rasters import first_zoom, image_tile
from daemon.page.tiles import EXTENT, alerts_of, changes_of, drawn_tile, map_tile
from schemas.nomenclature import COUVERTURE, CS_LEAVES, USAGE
from schemas.policy import Sensor
from tests.coverages import random_coverage
from tests.map_store import MILLESIME, building, made_store, patched
from updater import legal_rows
from updater.commit import add_image
from updater.crs import reproject, transformer
from updater.diff import differential, pieces_between
from updater.page_reads import millesimes, stamp, versions_of, view
from updater.reads import ImageRecord, alerts_now, as_of, end_of
from updater.review import reject_alert

SIDE_M = 600.0
CRS = "EPSG:2154"
NOW = 2024


@pytest.fixture(scope="module")
def map_(tmp_path_factory):
    made, _ = made_store(tmp_path_factory.mktemp("map") / "D032.duckdb", seed=9)
    patched(made, 1, [building(80, 80), building(360, 220)])
    patched(made, 2, [building(500, 500, 40, 40)], days=365)
    yield made
    made.close()


def tile_at(x, y, zoom, crs=CRS):
    east, north = transformer(crs, WEB).transform(x, y)
    side = 2 * HALF / 2**zoom
    return Tile(zoom, int((east + HALF) // side), int((HALF - north) // side))


def read(tmp_path, body, tile):
    """A vector tile's layers as GDAL reads them, in EPSG:3857."""
    path = tmp_path / f"{tile.z}-{tile.x}-{tile.y}.mvt"
    path.write_bytes(body)
    place = {"x": tile.x, "y": tile.y, "z": tile.z, "clip": "NO"}
    names = [name for name, _ in pyogrio.list_layers(path)]
    return {name: pyogrio.read_dataframe(path, layer=name, **place) for name in names}


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [
        (CRS, 480_000, 6_250_000),
        ("EPSG:5490", 690_000, 1_620_000),
        ("EPSG:2975", 340_000, 7_660_000),
    ],
)
@pytest.mark.parametrize("zoom", [11, 13, 16])
def test_the_way_onto_a_tile_is_projs(crs, x, y, zoom):
    tile = tile_at(x, y, zoom, crs)
    shares = np.random.default_rng(0).uniform(-0.02, 1.02, (500, 2))
    ground = np.stack(tile.ground(crs, shares[:, 0], shares[:, 1]), axis=1)
    assert np.abs(onto(tile, crs)(ground) - shares).max() * EXTENT < 0.01
    columns, rows = pixels_of(tile, crs, 64)
    middles = (np.arange(64) + 0.5) / 64
    exact = tile.ground(crs, *np.meshgrid(middles, middles))
    assert np.hypot(columns - exact[0], rows - exact[1]).max() < 0.05
    west, south, east, north = tile.window(crs)
    inside = tile.ground(crs, np.clip(shares[:, 0], 0, 1), np.clip(shares[:, 1], 0, 1))
    assert (inside[0] >= west - 0.5).all() and (inside[0] <= east + 0.5).all()
    assert (inside[1] >= south - 0.5).all() and (inside[1] <= north + 0.5).all()


@pytest.mark.parametrize("year", [MILLESIME, NOW, 2026])
def test_a_tile_of_the_map_is_the_map_of_that_year(map_, tmp_path, year):
    tile = tile_at(SIDE_M / 2, SIDE_M / 2, 15)
    layer = read(tmp_path, map_tile(map_, tile, valid_at=end_of(year)), tile)["map"]
    frame = shapely.box(*tile.bounds)
    held = as_of(map_, valid_at=end_of(year))
    shapes = {p.id: reproject(p.geometry, CRS, WEB) for p in held}
    near = {key for key, shape in shapes.items() if shape.intersection(frame).area > 4}
    assert near <= set(layer["id"])
    codes = {p.id: (p.code_cs, p.code_us) for p in held}
    for row in layer.itertuples():
        assert (row.cs, row.us) == codes[row.id]
        wide = frame.buffer(frame.length / 4 * 64 / EXTENT, join_style="mitre")
        wanted = shapes[row.id].intersection(wide)
        apart = shapely.hausdorff_distance(shapely.make_valid(row.geometry), wanted)
        assert apart < 2 * tile.side / EXTENT, row.id
    assert shapely.is_valid(layer.geometry.to_numpy()).mean() > 0.9


def test_a_status_that_a_threshold_decided_is_on_the_tile(map_, tmp_path):
    legal_rows.refresh(map_)
    kept = {
        row[0]: bool(row[1])
        for row in map_.execute(
            "SELECT m.id, l.artif FROM map_now m JOIN legal_now l USING (version)"
        ).fetchall()
    }
    seen = view(map_, (0, 0, SIDE_M, SIDE_M), valid_at=end_of(2026))
    assert dict(zip(seen.ids, seen.artificial.tolist(), strict=True)) == kept


def test_changes_are_the_differential_and_cost_only_what_changed(map_, tmp_path):
    pieces = pieces_between(map_, end_of(MILLESIME), end_of(2026))
    whole = differential(map_, end_of(MILLESIME), end_of(2026)).pieces
    assert pieces and sorted(map(repr, pieces)) == sorted(map(repr, whole))
    tile = tile_at(SIDE_M / 2, SIDE_M / 2, 14)
    layers = read(tmp_path, drawn_tile(map_, tile, "changes", changes_of(pieces)), tile)
    frame = shapely.box(*tile.bounds)
    inside, around = (
        {p.cs_after for p in pieces if reproject(p.geometry, CRS, WEB).intersects(ground)}
        for ground in (frame, frame.buffer(tile.side / 20))  # tiles have a margin
    )
    assert inside <= set(layers["changes"]["cs"]) <= around
    assert pieces_between(map_, end_of(NOW), end_of(NOW)) == []


def test_alerts_come_as_outlines_and_points_and_follow_a_review(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    patched(made, 1, [building(80, 80), building(360, 220)])
    records = alerts_now(made)
    before = stamp(made)
    tile = tile_at(SIDE_M / 2, SIDE_M / 2, 11)
    layers = read(tmp_path, drawn_tile(made, tile, "alerts", alerts_of(records), points=True), tile)
    assert set(layers["alerts-points"]["id"]) == {r.id for r in records}
    for row in layers["alerts-points"].itertuples():
        record = next(r for r in records if r.id == row.id)
        ground = reproject(record.geometry, CRS, WEB).buffer(tile.side / EXTENT)
        assert ground.contains(row.geometry)
        assert (row.kind, row.state) == (record.kind.value, record.state.value)
    commits = made.commits
    reject_alert(made, records[0].id, reason="a tarpaulin")
    after = stamp(made)
    assert made.commits > commits
    assert after.alerts != before.alerts and after.map == before.map
    made.close()


def test_a_window_at_an_instant_reads_the_index_and_not_the_map(map_):
    plan = map_.execute(
        "EXPLAIN SELECT version FROM polygons "
        "WHERE ST_Intersects(geom, ST_MakeEnvelope(0, 0, 100, 100))"
    ).fetchall()[0][1]
    assert "RTREE_INDEX_SCAN" in plan
    assert millesimes(map_) == [2021, 2024, 2025]
    assert [v.version for v in versions_of(map_, as_of(map_, valid_at=end_of(2021))[0].id)]


def test_every_middle_of_a_pixel_has_the_polygon_it_lies_in():
    shapes = np.array(
        [p.geometry for p in random_coverage(np.random.default_rng(1), cells=60, side=600.0)],
        dtype=object,
    )
    holed = shapely.box(100, 100, 300, 300).difference(shapely.box(150, 150, 200, 250))
    middles = np.meshgrid(*[(np.arange(512) + 0.5) * 600 / 512] * 2)
    for many in (shapes, np.array([holed], dtype=object)):
        owner = covering(many, (0.0, 0.0), 600 / 512, 512)
        for number, shape in enumerate(many):
            assert (shapely.contains_xy(shape, *middles) == (owner == number)).all()
    assert (covering(shapes[:0], (0.0, 0.0), 1.0, 512) == -1).all()


def test_from_afar_small_polygons_are_their_greatest_class(map_):
    seen = view(map_, (0, 0, SIDE_M, SIDE_M), valid_at=end_of(MILLESIME))
    block = drawn(seen, Place(160.0, 0, 0))
    assert (block[:, :3, :3] != OUTSIDE).all() and (block[:, 5:, 5:] == OUTSIDE).all()
    areas = np.bincount(
        seen.cover,
        weights=[shapely.clip_by_rect(s, 0, 0, 480, 480).area for s in seen.shapes],
        minlength=len(CS_LEAVES) + 1,
    )
    drawn_most = np.bincount(block[0, :3, :3].ravel(), minlength=len(areas))
    assert areas[drawn_most.argmax()] >= np.sort(areas)[-3]


@pytest.mark.parametrize("theme", list(Theme))
def test_the_overview_has_the_official_colours(map_, theme):
    tile = tile_at(SIDE_M / 2, SIDE_M / 2, 12)
    body = Overview(map_).png(tile, theme, valid_at=end_of(MILLESIME), stamp=1)
    image = np.array(Image.open(io.BytesIO(body)).convert("RGBA"))
    solid = image[image[..., 3] > 0][:, :3]
    assert 20 * 20 < len(solid) < 80 * 80  # 600 m at 13.8 m a pixel, and clear around it
    entries = {"couverture": COUVERTURE, "usage": USAGE}.get(theme.value)
    allowed = {e.rgb for e in entries.values()} if entries else {(213, 94, 0), (214, 228, 236)}
    assert {tuple(c) for c in np.unique(solid, axis=0).tolist()} <= allowed
    assert palette(theme)[OUTSIDE, 3] == 0


def image_of(folder, name, year, dtype="uint8", corner=(0.0, SIDE_M), missing=False):
    """A four-coloured GeoTIFF of half the map's side, half a metre to a pixel."""
    path = folder / f"{name}.tif"
    values = np.zeros((3, 600, 600), dtype)
    top = 255 if dtype == "uint8" else 4000
    values[0, :300], values[1, :, :300], values[2] = top, top // 2, top // 4
    profile = {"driver": "GTiff", "width": 600, "height": 600, "count": 3, "dtype": dtype}
    with rasterio.open(
        path, "w", crs=CRS, transform=from_origin(*corner, 0.5, 0.5), **profile
    ) as file:
        file.write(values)
    west, north = corner
    record = ImageRecord(
        item=f"pva-{name}",
        path=path,
        sensor=Sensor.PVA,
        acquired=datetime(year, 6, 18, tzinfo=UTC) + timedelta(days=len(name)),
        gsd=0.5,
        footprint=shapely.box(west, north - 300, west + 300, north),
    )
    if missing:
        path.unlink()
    return record


def test_images_of_a_year_come_as_tiles_and_a_missing_one_leaves_a_hole(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    add_image(made, image_of(tmp_path, "a", 2021))
    add_image(made, image_of(tmp_path, "b", 2024, "uint16"))
    add_image(made, image_of(tmp_path, "gone", 2024, corner=(300.0, 600.0), missing=True))
    tile = tile_at(150, 450, 17)
    for year, brightest in ((2021, 255), (2024, 255)):
        body = image_tile(made, tile, year=year)
        image = np.array(Image.open(io.BytesIO(body)).convert("RGBA"))
        assert image.shape == (512, 512, 4)
        assert image[..., :3].max() >= brightest - 15
    # the same ground has the same colour as in the file: red above, none below
    west, _, _, north = tile.bounds
    x, y = transformer(CRS, WEB).transform([100, 100], [580, 320])
    for px, py, red in ((x[0], y[0], 255), (x[1], y[1], 0)):
        where = tile_at(100, 580 if red else 320, 19)
        shown = np.array(Image.open(io.BytesIO(image_tile(made, where, year=2021))).convert("RGB"))
        column = int((px - where.bounds[0]) / where.side * 512)
        row = int((where.bounds[3] - py) / where.side * 512)
        assert abs(int(shown[row, column, 0]) - red) < 20, (west, north)
    assert image_tile(made, tile_at(450, 450, 19), year=2024) == b""
    assert image_tile(made, tile, year=2022) == b""
    assert image_tile(made, tile_at(150, 450, 8), year=2021) == b""  # too fine for that
    assert first_zoom(0.2, 43.6) > first_zoom(10.0, 43.6)
    made.close()


def test_readers_hold_neither_a_commit_nor_a_checkpoint_up(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    tile, done, failed = tile_at(SIDE_M / 2, SIDE_M / 2, 15), threading.Event(), []

    def look():
        while not done.is_set():
            try:
                map_tile(made, tile, valid_at=end_of(2030))
            except Exception as error:  # noqa: BLE001 - told below
                failed.append(error)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number, x in enumerate((80, 220, 360, 500), start=1):
        assert patched(made, number, [building(x, 220)]).created
    done.set()
    for reader in readers:
        reader.join()
    assert not failed
    patched(made, 9, [building(80, 500)])
    made.checkpoint()  # raises where a reader's answer is still open
    made.close()


def test_a_tile_is_small_enough_to_send(map_):
    body = map_tile(map_, tile_at(SIDE_M / 2, SIDE_M / 2, 14), valid_at=end_of(NOW))
    assert 0 < len(gzip.compress(body, 5)) < len(body) < 100_000
