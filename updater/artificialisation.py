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
from schemas.policy import COORDINATE_GRID_M
from updater.types import MapPolygon

Indices = npt.NDArray[np.intp]


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
    area = shapely.area(shapes)
    matrix = np.array([legal_status(p.code_cs, p.code_us) is LegalStatus.ARTIF for p in polygons])
    built = np.where([p.code_cs == BUILT_COVER for p in polygons], area, 0.0)
    edges = edges_of(shapes)
    after = _flip_small(matrix, edges, area, artificial=True, built=built)
    after = _flip_small(after, edges, area, artificial=False, built=np.zeros(len(built)))
    return [
        Status(LegalStatus.ARTIF if now else LegalStatus.NON_ARTIF, bool(now != was))
        for now, was in zip(after, matrix, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Edges:
    """Which polygons of a coverage share an edge (``first``, ``second``: their indices), and which
    lie at its frame."""

    first: Indices
    second: Indices
    on_frame: npt.NDArray[np.bool_]


def edges_of(shapes: npt.NDArray[np.object_]) -> Edges:
    """Shared edges of an edge-matched coverage on the coordinate grid.

    Both sides of an edge have the same vertices, so that each segment is met twice, and once at the
    frame: sorting them all finds the neighbours of a million polygons without an overlay.
    """
    rings, owner = shapely.get_rings(shapes, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    steps = np.rint(points / COORDINATE_GRID_M).astype(np.int64)
    steps -= steps.min(axis=0)
    vertex = steps[:, 0] * (int(steps[:, 1].max()) + 1) + steps[:, 1]
    inner = ring[1:] == ring[:-1]
    a, b = vertex[:-1][inner], vertex[1:][inner]
    polygon = owner[ring[:-1][inner]]
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((high, low))
    low, high, polygon = low[order], high[order], polygon[order]
    twin = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    first, second = polygon[:-1][twin], polygon[1:][twin]
    alone = np.ones(len(polygon), bool)
    alone[1:] &= ~twin
    alone[:-1] &= ~twin
    on_frame = np.zeros(len(shapes), bool)
    on_frame[polygon[alone]] = True
    pairs = np.unique(np.stack([np.minimum(first, second), np.maximum(first, second)]), axis=1)
    return Edges(pairs[0], pairs[1], on_frame)


def components(count: int, first: Indices, second: Indices) -> Indices:
    """The connected component of each of ``count`` nodes, named by its smallest node; ``first`` and
    ``second`` are the ends of the links (Shiloach & Vishkin 1982: hooking and pointer jumping)."""
    label = np.arange(count)
    while True:
        a, b = label[first], label[second]
        if (a == b).all():
            return label
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while not (label[label] == label).all():
            label = label[label]


def _flip_small(
    artificial_now: npt.NDArray[np.bool_],
    edges: Edges,
    area: npt.NDArray[np.float64],
    *,
    artificial: bool,
    built: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Statuses after small enclosed surfaces of one status took the other."""
    mine = artificial_now == artificial
    inner = mine[edges.first] & mine[edges.second]
    count = len(area)
    surface = components(count, edges.first[inner], edges.second[inner])
    total = np.bincount(surface, weights=area, minlength=count)
    houses = np.bincount(surface, weights=built, minlength=count)
    open_ = np.bincount(surface, weights=edges.on_frame, minlength=count) > 0
    flips = (total < SURFACE_THRESHOLD_M2) & (houses <= BUILT_THRESHOLD_M2) & ~open_
    return np.asarray(artificial_now ^ (mine & flips[surface]))
