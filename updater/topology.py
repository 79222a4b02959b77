"""Keeping the coverage whole: cutting on the grid, noding neighbours, asserting the invariants.

A coverage has no overlap and no gap, and every shared edge carries the same vertices on both
sides. The functions here work on a neighbourhood only, never on the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.errors import GEOSException
from shapely.geometry import MultiPoint, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from schemas.policy import AREA_DRIFT_MAX, COORDINATE_GRID_M
from updater.errors import PatchRefused
from updater.generalise import polygons_of, valid

NODE_TOLERANCE_M = 0.75 * COORDINATE_GRID_M
"""A crossing rounded to the grid lies at most half a grid diagonal (0.71 of a step) from the edge
it was on, and another grid point at least one step away: three quarters tells them apart."""
CLEAN_GAP_M = 3 * COORDINATE_GRID_M
"""Widest sliver a local clean may close: a few grid steps, never anything an image shows."""
MOVED_M2 = 1e-4
"""Ground a neighbourhood may win or lose: one grid cell, what rounding a crossing can make."""


def intersection(a: BaseGeometry, b: BaseGeometry) -> BaseGeometry:
    """Common ground of two geometries, on the grid."""
    return areal(_overlay(shapely.intersection, a, b))


def intersections(many: Sequence[BaseGeometry], one: BaseGeometry) -> list[BaseGeometry]:
    """Common ground of each of many geometries with one, on the grid."""
    array = np.asarray(many, dtype=object)
    return [areal(g) for g in _overlay(shapely.intersection, array, one)]


def difference(a: BaseGeometry, b: BaseGeometry) -> BaseGeometry:
    """Ground of ``a`` without ``b``, on the grid."""
    return areal(_overlay(shapely.difference, a, b))


def union(geometries: Sequence[BaseGeometry]) -> BaseGeometry:
    """All the ground together, on the grid."""
    return _overlay(shapely.union_all, np.asarray(geometries, dtype=object))


def _overlay(operation: Callable[..., Any], *geometries: Any) -> Any:  # noqa: ANN401 - or arrays
    """An overlay on the grid; an outline that crosses itself is repaired where GEOS minds it."""
    try:
        return operation(*geometries, grid_size=COORDINATE_GRID_M)
    except GEOSException:
        repaired = [_repaired(g) for g in geometries]
        return operation(*repaired, grid_size=COORDINATE_GRID_M)


def _repaired(geometries: Any) -> Any:  # noqa: ANN401 - one geometry, or an array of them
    if isinstance(geometries, BaseGeometry):
        return valid(areal(geometries))
    return np.array([valid(areal(g)) for g in geometries], dtype=object)


def areal(geometry: BaseGeometry) -> BaseGeometry:
    """The geometry without the lines and points where two shapes merely touch."""
    if geometry.geom_type in {"Polygon", "MultiPolygon"}:
        return geometry
    return MultiPolygon(polygons_of(geometry))


def shared_border(a: BaseGeometry, b: BaseGeometry) -> float:
    """Length of the border two polygons share, metres."""
    return float(shapely.length(shapely.intersection(a.boundary, b.boundary)))


def new_vertices(pieces: Sequence[Polygon], parents: Sequence[Polygon]) -> MultiPoint:
    """Vertices of the pieces that no parent had: what neighbours may have to learn."""
    old = {tuple(p) for p in shapely.get_coordinates(list(parents))}
    fresh = {tuple(p) for p in shapely.get_coordinates(list(pieces))} - old
    return MultiPoint(sorted(fresh))


def with_nodes(polygon: Polygon, nodes: BaseGeometry) -> Polygon:
    """The polygon with those nodes that lie on its edges added as vertices; the same object
    when none does."""
    if nodes.is_empty or shapely.distance(polygon.boundary, nodes) > NODE_TOLERANCE_M:
        return polygon
    snapped = shapely.snap(polygon, nodes, NODE_TOLERANCE_M)
    if isinstance(snapped, Polygon) and snapped.is_valid:
        same = len(shapely.get_coordinates(snapped)) == len(shapely.get_coordinates(polygon))
        return polygon if same else snapped
    return polygon


def cleaned(polygons: Sequence[Polygon]) -> list[Polygon] | None:
    """The neighbourhood edge-matched by GEOS CoverageClean, or None where it tears a polygon."""
    result = shapely.coverage_clean(
        np.asarray(polygons, dtype=object), gap_width=CLEAN_GAP_M, snapping_distance=0.0
    )
    parts = [polygons_of(shapely.set_precision(g, COORDINATE_GRID_M)) for g in result]
    return [p[0] for p in parts] if all(len(p) == 1 for p in parts) else None


def is_valid_coverage(polygons: Sequence[Polygon]) -> bool:
    """True when the polygons overlap nowhere and match along every shared edge."""
    return bool(shapely.coverage_is_valid(np.asarray(polygons, dtype=object)))


def problem(before: Sequence[Polygon], after: Sequence[Polygon]) -> str | None:
    """What is wrong with a patched neighbourhood, or None.

    ``before`` and ``after`` are the whole neighbourhood, ring of neighbours included. Slivers
    between edges show as moved ground: a part of a coverage may well end in a wedge narrower
    than any gap that could be asked for.
    """
    if not shapely.is_valid(list(after)).all():
        return "makes an invalid polygon"
    if not is_valid_coverage(after):
        return "tears the coverage"
    area_before, area_after = shapely.area(list(before)).sum(), shapely.area(list(after)).sum()
    if abs(area_after - area_before) > AREA_DRIFT_MAX * area_before:
        return f"changes the area by {area_after - area_before:.3f} m²"
    was, now = (shapely.normalize(shapely.coverage_union_all(list(p))) for p in (before, after))
    same = shapely.equals_identical(was, now)  # vertex by vertex, as nearly always
    if not same and shapely.symmetric_difference(was, now).area > MOVED_M2:
        return "moves ground outside its neighbourhood"
    return None


def assert_invariants(before: Sequence[Polygon], after: Sequence[Polygon], *, where: str) -> None:
    """Refuse a patch whose neighbourhood is no coverage any more or lost ground.

    Raises:
        PatchRefused: naming the invariant and the place.
    """
    found = problem(before, after)
    if found is not None:
        raise PatchRefused(f"The patch {where} {found}; nothing was changed.")
