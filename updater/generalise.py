"""Outlines fit for a map: right-angled buildings, other covers without pixel sawtooth.

Pure functions on shapely polygons in metres. Area is kept within ``AREA_TOLERANCE``; where a
regular outline would change it more, the simpler outline stands.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from schemas.policy import BUILDING, COORDINATE_GRID_M

AREA_TOLERANCE = 0.12
"""Largest relative change of area a regular outline may make: one pixel around a 200 m² building
seen at 0.5 m is 14 %, so a tenth is within what the image can tell."""
RECTANGLE_FILL = 0.82
"""A shape that fills this share of its minimum rotated rectangle is drawn as that rectangle."""
MIN_EDGE_M = 2.0
"""Shortest wall kept in a right-angled outline."""


def polygons_of(geometry: BaseGeometry) -> list[Polygon]:
    """The non-empty polygons of any geometry, lines and points left out."""
    if geometry.is_empty:
        return []
    if isinstance(geometry, Polygon):
        return [geometry]
    if not hasattr(geometry, "geoms"):
        return []
    return [polygon for part in geometry.geoms for polygon in polygons_of(part)]


def to_grid(geometry: BaseGeometry) -> BaseGeometry:
    """The geometry on the coordinate grid of the product, valid."""
    return shapely.set_precision(geometry, COORDINATE_GRID_M)


def valid(geometry: BaseGeometry) -> BaseGeometry:
    """The geometry, repaired where it crosses itself: overlays take none that does. What a repair
    leaves of lines and points is no ground."""
    return geometry if shapely.is_valid(geometry) else as_multi(shapely.make_valid(geometry))


def opened(geometry: BaseGeometry, width: float) -> BaseGeometry:
    """The parts at least ``width`` metres wide (morphological opening, square corners)."""
    inner = geometry.buffer(-width / 2, join_style="mitre")
    if inner.is_empty:
        return inner
    return valid(inner.buffer(width / 2, join_style="mitre"))  # a mitred corner may cross an edge


def narrower(geometries: Sequence[BaseGeometry], width: float) -> list[bool]:
    """Which of the geometries are nowhere ``width`` metres wide."""
    array = np.asarray(geometries, dtype=object)
    found = shapely.is_empty(shapely.buffer(array, -width / 2, join_style="mitre"))
    return [bool(empty) for empty in found]


def outline(geometry: BaseGeometry, *, code_cs: str, gsd: float) -> BaseGeometry:
    """The outline of a changed region as the map draws it; may be empty."""
    parts = [
        (building(part, gsd=gsd) if code_cs == BUILDING else smooth(part, gsd=gsd))
        for part in polygons_of(shapely.make_valid(geometry))
    ]
    return to_grid(shapely.union_all([p for p in parts if not p.is_empty]))


def smooth(polygon: Polygon, *, gsd: float) -> BaseGeometry:
    """An outline without pixel stairs: holes and spikes under two pixels go, corners are cut."""
    closed = polygon.buffer(gsd).buffer(-2 * gsd).buffer(gsd)
    kept = [_chaikin(p.simplify(1.2 * gsd), reach=2 * gsd) for p in polygons_of(closed)]
    simple = shapely.union_all([p.simplify(0.5 * gsd) for p in kept])
    return shapely.make_valid(simple)


def _chaikin(polygon: Polygon, *, reach: float) -> Polygon:
    """One round of corner cutting (Chaikin 1974) on every ring, never further than ``reach``
    from the corner: long straight sides stay."""

    def cut(ring: np.ndarray) -> np.ndarray:
        a, b = ring[:-1], ring[1:]
        length = np.hypot(*(b - a).T)[:, None]
        share = np.minimum(0.25, reach / np.maximum(length, 1e-9))
        points = np.empty((2 * len(a), 2))
        points[0::2], points[1::2] = a + share * (b - a), b - share * (b - a)
        return points

    shell = cut(shapely.get_coordinates(polygon.exterior))
    holes = [cut(shapely.get_coordinates(hole)) for hole in polygon.interiors]
    return Polygon(shell, holes)


def building(polygon: Polygon, *, gsd: float) -> BaseGeometry:
    """A right-angled outline along the building's own main direction."""
    simple = polygon.buffer(gsd, join_style="mitre").buffer(-gsd, join_style="mitre")
    solids = [Polygon(p.exterior) for p in polygons_of(simple)]
    if not solids:
        return polygon
    solid = max(solids, key=lambda p: p.area).simplify(1.2 * gsd)
    frame = shapely.oriented_envelope(solid)
    if not isinstance(frame, Polygon) or frame.area == 0:
        return polygon
    if solid.area >= RECTANGLE_FILL * frame.area:
        factor = math.sqrt(polygon.area / frame.area)
        return affinity.scale(frame, factor, factor, origin="centroid")
    square = _right_angled(solid, angle=_direction(frame))
    good = (
        square is not None
        and square.is_valid
        and abs(square.area - polygon.area) <= AREA_TOLERANCE * polygon.area
    )
    return square if square is not None and good else solid


def _direction(frame: Polygon) -> float:
    """Direction of the longest side of a rectangle, radians."""
    corners = shapely.get_coordinates(frame.exterior)
    sides = np.diff(corners, axis=0)
    longest = sides[np.argmax(np.hypot(sides[:, 0], sides[:, 1]))]
    return math.atan2(longest[1], longest[0])


def _right_angled(polygon: Polygon, *, angle: float) -> Polygon | None:
    """The polygon with every wall along or across ``angle``, or None where too few remain.

    Edges are classed as along or across, runs of one class become one wall at their
    length-weighted mean offset, and walls shorter than ``MIN_EDGE_M`` join their neighbours.
    """
    turned = affinity.rotate(polygon, -angle, origin=(0, 0), use_radians=True)
    points = shapely.get_coordinates(turned.exterior)
    walls = _walls(points)
    if len(walls) < 4:
        return None
    corners = []
    for (along, offset, _), (_, following, _) in zip(walls, walls[1:] + walls[:1], strict=True):
        corners.append((following, offset) if along else (offset, following))
    return affinity.rotate(Polygon(corners), angle, origin=(0, 0), use_radians=True)


def _walls(points: np.ndarray) -> list[tuple[bool, float, float]]:
    """Alternating walls of a closed ring as (along, offset, length)."""
    walls: list[tuple[bool, float, float]] = []
    for a, b in itertools.pairwise(points):
        dx, dy = b - a
        along = abs(dx) >= abs(dy)
        length = abs(dx) if along else abs(dy)
        offset = (a[1] + b[1]) / 2 if along else (a[0] + b[0]) / 2
        _append(walls, (bool(along), float(offset), float(length)))
    walls = [wall for wall in walls if wall[2] >= MIN_EDGE_M]
    merged: list[tuple[bool, float, float]] = []
    for wall in walls:
        _append(merged, wall)
    while len(merged) > 1 and merged[0][0] == merged[-1][0]:
        first = merged.pop(0)
        _append(merged, first)
    return merged


def _append(walls: list[tuple[bool, float, float]], wall: tuple[bool, float, float]) -> None:
    """Add a wall, fusing it with the last one when both run the same way."""
    if walls and walls[-1][0] == wall[0]:
        along, offset, length = walls.pop()
        total = length + wall[2]
        mean = (offset * length + wall[1] * wall[2]) / total if total else offset
        wall = (along, mean, total)
    walls.append(wall)


def enlarged(geometry: BaseGeometry, area: float) -> BaseGeometry:
    """The shape scaled about its centre to an area, m² (isolated buildings of 50–200 m²)."""
    factor = math.sqrt(area * 1.001 / geometry.area)
    return affinity.scale(geometry, factor, factor, origin="centroid")


def as_multi(geometry: BaseGeometry) -> MultiPolygon:
    """The polygonal parts of a geometry as one MultiPolygon."""
    return MultiPolygon(polygons_of(geometry))
