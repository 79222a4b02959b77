"""Legal status of a whole map: the matrix, then the décret's thresholds.

The official chain is matrix → thresholds → forcing next to buildings; only the matrix is
published exactly. This is the order used here, written down so that it can be compared with an
official layer:

1. each polygon takes the status of its CS × US cell;
2. polygons of one status that touch form a surface; a surface at the edge of the map is not
   known to be enclosed and keeps its status;
3. an artificialised surface under 2 500 m², enclosed in the other status, becomes non
   artificialised, unless its buildings together cover more than 50 m²;
4. then a non-artificialised surface under 2 500 m², enclosed in artificialised ground, becomes
   artificialised.

``crit_seuil`` is true where step 3 or 4 changed the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from schemas.legal import (
    BUILT_COVER,
    BUILT_THRESHOLD_M2,
    SURFACE_THRESHOLD_M2,
    LegalStatus,
    legal_status,
)
from updater.generalise import polygons_of
from updater.types import MapPolygon


@dataclass(frozen=True, slots=True)
class Status:
    """Legal status of a polygon, and whether a threshold decided it."""

    status: LegalStatus
    by_threshold: bool


def statuses(polygons: Sequence[MapPolygon]) -> list[Status]:
    """Legal status of every polygon of a coverage, in the order given."""
    if not polygons:
        return []
    shapes = np.array([p.geometry for p in polygons], dtype=object)
    matrix = np.array([legal_status(p.code_cs, p.code_us) is LegalStatus.ARTIF for p in polygons])
    built = np.array([p.geometry.area if p.code_cs == BUILT_COVER else 0.0 for p in polygons])
    frame = shapely.coverage_union_all(shapes).boundary
    after = _flip_small(shapes, matrix, frame, artificial=True, built=built)
    after = _flip_small(shapes, after, frame, artificial=False, built=np.zeros(len(built)))
    return [
        Status(LegalStatus.ARTIF if now else LegalStatus.NON_ARTIF, bool(now != was))
        for now, was in zip(after, matrix, strict=True)
    ]


def _flip_small(
    shapes: npt.NDArray[np.object_],
    artificial_now: npt.NDArray[np.bool_],
    frame: shapely.Geometry,
    *,
    artificial: bool,
    built: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Statuses after small enclosed surfaces of one status took the other."""
    chosen = np.flatnonzero(artificial_now == artificial)
    result = artificial_now.copy()
    if not len(chosen):
        return result
    surfaces = polygons_of(shapely.coverage_union_all(shapes[chosen]))
    inside = shapely.point_on_surface(shapes[chosen])
    points, owners = shapely.STRtree(surfaces).query(inside, predicate="intersects")
    small = shapely.area(surfaces) < SURFACE_THRESHOLD_M2
    built_in = np.zeros(len(surfaces))
    np.add.at(built_in, owners, built[chosen[points]])
    flips = small & (built_in <= BUILT_THRESHOLD_M2)
    edge = np.zeros(len(surfaces), dtype=bool)
    candidates = np.flatnonzero(flips)
    if len(candidates):
        borders = shapely.boundary(np.array(surfaces, dtype=object)[candidates])
        edge[candidates] = shapely.length(shapely.intersection(borders, frame)) > 0
    for point, owner in zip(points, owners, strict=True):
        if flips[owner] and not edge[owner]:
            result[chosen[point]] = not artificial
    return result
