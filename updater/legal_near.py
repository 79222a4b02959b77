"""Legal statuses of some polygons of any state of the map, told from their surroundings alone.

Only a surface under the threshold can take another status than the matrix gives, so only polygons
smaller than it need their surroundings; how far those reach is said in ``updater.legal_rows``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import shapely
from shapely.geometry import box

from schemas.legal import SURFACE_THRESHOLD_M2, legal_status
from updater.artificialisation import Status, statuses
from updater.legal_rows import SURFACE_REACH_M
from updater.map_pages import State, around
from updater.store import Store
from updater.types import MapPolygon

CELL_M: Final = 2_000.0
"""Small polygons in one square of this side are told together: its window has nine times the ground
of a lone polygon's, and holds some two thousand polygons of OCS GE."""


def statuses_near(store: Store, state: State, polygons: Sequence[MapPolygon]) -> list[Status]:
    """Status of each of some polygons of a state, the same as the whole map would give."""
    told = {p.version: Status(legal_status(p.code_cs, p.code_us), False) for p in polygons}
    cells: dict[tuple[float, float], list[MapPolygon]] = defaultdict(list)
    for polygon in polygons:
        if polygon.geometry.area < SURFACE_THRESHOLD_M2:
            x, y = np.floor(np.array(polygon.geometry.bounds[:2]) / CELL_M).tolist()
            cells[x, y].append(polygon)
    for small in cells.values():
        extent = box(*shapely.total_bounds([p.geometry for p in small]))
        window = shapely.buffer(extent, 2 * SURFACE_REACH_M, join_style="mitre")
        found = around(store, state, window)
        mine = {p.version for p in small}
        for polygon, status in zip(found, statuses(found), strict=True):
            if polygon.version in mine:
                told[polygon.version] = status
    return [told[p.version] for p in polygons]
