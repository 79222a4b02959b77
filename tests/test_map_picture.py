"""The small map: official colours, muted, and outlines where the alerts are."""

import io

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import Affine
from shapely.geometry import Point, box

from daemon import map_picture
from daemon.map_picture import MUTED, PLAIN, STRIP_PX, WIDTH_PX, draw, frame, round_length
from daemon.preview import OUTLINE
from schemas.nomenclature import COUVERTURE
from tests.map_store import made_store
from updater.reads import current_in, versions_in

A, B, C = box(80, 80, 110, 104), box(500, 480, 530, 504), box(300, 300, 330, 324)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made, _ = made_store(tmp_path_factory.mktemp("map") / "D032.duckdb", seed=9)
    yield made
    made.close()


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def placed(grounds):
    """The transform of a picture of some grounds, from outside the module."""
    bounds = np.array([g.bounds for g in grounds])
    window, _ = frame((*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)))
    west, _, _, north = window
    metre = (window[2] - west) / WIDTH_PX
    return Affine.translation(west, north) @ Affine.scale(metre, -metre)


def test_outlines_are_drawn_where_the_alerts_are_and_nowhere_else(store):
    without, drawn = pixels(draw(store, [A, B])), pixels(draw(store, [A, B, C]))
    assert without.shape == drawn.shape and drawn.shape[1] == WIDTH_PX
    changed = np.argwhere((without != drawn).any(axis=2))
    assert len(changed) > 50
    place = placed([A, B])
    col, row = ~place @ (C.centroid.x, C.centroid.y)
    assert np.abs(changed - [row, col]).max() < 0.5 * 30 / place.a + 40  # the outline, its number
    for ground in (A, B, C):
        col, row = ~place @ (ground.bounds[0], ground.centroid.y)
        assert (drawn[int(row), int(col) - 2 : int(col) + 3] == OUTLINE).all(axis=1).any()


def test_the_ground_has_the_official_colours_muted(store):
    drawn, place = pixels(draw(store, [A, B])), placed([A, B])
    seen = set()
    for polygon in current_in(store, (0, 0, 600, 600)):
        inside = polygon.geometry.representative_point()
        col, row = (int(v) for v in ~place @ (inside.x, inside.y))
        near = min(inside.distance(g) for g in (A, B))
        clear = near > 60 and polygon.geometry.buffer(-3 * place.a).contains(inside)
        if clear and 0 <= col < WIDTH_PX and 0 <= row < len(drawn) - STRIP_PX:
            official = np.array(COUVERTURE[polygon.code_cs].rgb)
            assert np.abs(drawn[row, col] - (official * (1 - MUTED) + 255 * MUTED)).max() <= 1
            seen.add(polygon.code_cs)
    assert len(seen) > 4


def test_ground_that_costs_too_much_stays_plain_and_small_alerts_get_a_ring(store, monkeypatch):
    assert versions_in(store, (0, 0, 600, 600), most=10) == 11
    far = [A, box(40_000, 30_000, 40_030, 30_024)]
    wide, place = pixels(draw(store, far)), placed(far)
    assert (wide[5, 5] == PLAIN).all()
    for ground in far:
        col, row = (round(v) for v in ~place @ (ground.centroid.x, ground.centroid.y))
        around = wide[row - 15 : row + 16, col - 15 : col + 16]
        assert (around == OUTLINE).all(axis=2).sum() > 60
    full = len(np.unique(pixels(draw(store, [A])).reshape(-1, 3), axis=0))
    monkeypatch.setattr(map_picture, "MOST_POLYGONS", 2)
    assert len(np.unique(pixels(draw(store, [A])).reshape(-1, 3), axis=0)) < full


@pytest.mark.parametrize(
    "bounds", [(0, 0, 30, 24), (0, 0, 5_000, 10), (0, 0, 10, 5_000), (7e5, 6e6, 7.5e5, 6.1e6)]
)
def test_a_frame_holds_everything_with_square_metres(bounds):
    (west, south, east, north), rows = frame(bounds)
    assert 300 <= rows <= 600 and (east - west) / WIDTH_PX == pytest.approx((north - south) / rows)
    assert box(west, south, east, north).buffer(1e-6).contains(box(*bounds))
    centre = Point((west + east) / 2, (south + north) / 2)
    assert centre.distance(box(*bounds).centroid) < 1e-6


@pytest.mark.parametrize(("most", "length"), [(75, 50), (100, 100), (2_345, 2_000), (0.7, 0.5)])
def test_the_scale_has_round_lengths(most, length):
    assert round_length(most) == pytest.approx(length)


def test_hundreds_of_alerts_make_one_small_picture(store):
    many = [
        box(x, y, x + 30, y + 24) for x in range(0, 90_000, 4_500) for y in range(0, 90_000, 3_600)
    ]
    png = draw(store, many)
    assert len(many) == 500 and len(png) < 150_000
