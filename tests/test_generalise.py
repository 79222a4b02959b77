"""Outlines: right angles for buildings, no stairs for the rest, area kept."""

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize, shapes
from rasterio.transform import from_origin
from shapely import affinity
from shapely.geometry import Polygon, box, shape

from updater.generalise import opened, outline, polygons_of

TRANSFORM = from_origin(0, 120, 0.5, 0.5)


def pixelated(geometry):
    mask = rasterize([geometry], out_shape=(240, 240), transform=TRANSFORM, dtype="uint8")
    parts = [shape(g) for g, v in shapes(mask, transform=TRANSFORM) if v]
    return max(parts, key=lambda p: p.area)


def angles(polygon):
    ring = shapely.get_coordinates(polygon.exterior)
    edges = np.diff(np.vstack([ring, ring[1:2]]), axis=0)
    turn = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
    return np.abs((np.diff(turn) + 180) % 360 - 180)


@pytest.mark.parametrize("turn", [0, 7, 23, 45, 71])
def test_a_pixelated_house_becomes_a_rectangle_of_its_size_and_place(turn):
    house = affinity.rotate(box(50, 50, 64, 70), turn)
    drawn = outline(pixelated(house), code_cs="CS1.1.1.1", gsd=0.5)
    assert drawn.area == pytest.approx(house.area, rel=0.03)
    assert drawn.intersection(house).area > 0.93 * house.area
    assert np.allclose(angles(drawn), 90, atol=0.5)


@pytest.mark.parametrize("turn", [0, 30])
def test_an_l_shaped_hall_keeps_its_corner_and_right_angles(turn):
    hall = affinity.rotate(box(30, 30, 80, 70).difference(box(55, 50, 80, 70)), turn)
    drawn = outline(pixelated(hall), code_cs="CS1.1.1.1", gsd=0.5)
    assert drawn.area == pytest.approx(hall.area, rel=0.06)
    assert np.allclose(angles(drawn), 90, atol=1.0)
    assert len(drawn.exterior.coords) == 7


def test_a_meadow_has_no_pixel_stairs_and_keeps_its_area():
    meadow = affinity.scale(shapely.Point(60, 60).buffer(1, quad_segs=32), 35, 25)
    stairs = pixelated(meadow)
    drawn = outline(stairs, code_cs="CS2.2.1", gsd=0.5)
    assert drawn.area == pytest.approx(meadow.area, rel=0.03)
    assert angles(drawn).max() < 60
    assert len(drawn.exterior.coords) < len(stairs.exterior.coords) / 3


def test_opening_drops_what_is_too_narrow_and_keeps_corners():
    shape_ = box(0, 0, 20, 20).union(box(20, 9, 60, 11))
    assert opened(shape_, 5).equals_exact(box(0, 0, 20, 20).normalize(), 1e-6) or (
        abs(opened(shape_, 5).area - 400) < 1
    )


def test_polygons_of_takes_surfaces_only():
    mixed = shapely.GeometryCollection(
        [
            box(0, 0, 1, 1),
            shapely.LineString([(0, 0), (2, 2)]),
            shapely.MultiPolygon([box(3, 3, 4, 4)]),
        ]
    )
    assert [p.area for p in polygons_of(mixed)] == [1, 1]
    assert polygons_of(Polygon()) == []
