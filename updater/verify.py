"""Is the store what it promises: a coverage, with a history that adds up?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from updater.deep import row_errors, torn_states
from updater.reads import as_of
from updater.store import Store
from updater.topology import MOVED_M2
from updater.types import MapPolygon

OVERLAP_M2 = 1e-6
"""Common ground above floating-point noise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``millesimed verify`` says. ``overlaps``: pairs of polygons that share ground;
    ``gaps``: pieces of ground the first millésime covered and the map no longer does. Of a deep
    look: ``torn_states``, past states that are no coverage; ``row_errors``, what does not fit
    together beside the map."""

    valid: bool
    polygons: int
    overlaps: int
    gaps: int
    area: float
    lineage_errors: int
    history_errors: int
    torn_states: int = 0
    row_errors: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return asdict(self)


def verify(store: Store, *, deep: bool = False, beside: Path | None = None) -> Verdict:
    """Check the map as it is now; ``deep`` also checks every state it has had, that events, alerts,
    messages and positions fit together, and the Sentinel-2 histories ``beside`` the store (or
    another whose are its own)."""
    moment = store.clock()
    now = as_of(store, valid_at=moment, recorded_at=moment)
    shapes = np.array([p.geometry for p in now], dtype=object)
    coverage = bool(shapely.coverage_is_valid(shapes)) if len(shapes) else True
    overlaps = 0 if coverage else _overlaps(shapes)
    gaps = _gaps(store, now)
    lineage, history = _lineage_errors(store), _history_errors(store)
    torn, rows = (torn_states(store), row_errors(store, beside)) if deep else (0, {})
    valid = coverage and not (overlaps or gaps or lineage or history or torn or rows)
    area = float(shapely.area(shapes).sum()) if len(shapes) else 0.0
    return Verdict(valid, len(now), overlaps, gaps, area, lineage, history, torn, rows)


def _overlaps(shapes: np.ndarray) -> int:
    tree = shapely.STRtree(shapes)
    first, second = tree.query(shapes, predicate="intersects")
    once = first < second
    shared = shapely.area(shapely.intersection(shapes[first[once]], shapes[second[once]]))
    return int((shared > OVERLAP_M2).sum())


def _gaps(store: Store, now: list[MapPolygon]) -> int:
    """Ground lost or won since the first millésime, told from the versions that changed only."""
    first = {p.version: p for p in as_of_first(store)}
    current = {p.version: p for p in now}
    gone = [p.geometry for v, p in first.items() if v not in current]
    come = [p.geometry for v, p in current.items() if v not in first]
    if not gone and not come:
        return 0
    moved = shapely.symmetric_difference(shapely.union_all(gone), shapely.union_all(come))
    return sum(1 for part in shapely.get_parts(moved) if part.area > MOVED_M2)


def as_of_first(store: Store) -> list[MapPolygon]:
    """The millésime the store was made from."""
    row = store.execute("SELECT max(recorded) FROM polygons WHERE event IS NULL").fetchone()
    if row is None or row[0] is None:
        return []
    return as_of(store, valid_at=row[0], recorded_at=row[0])


def _lineage_errors(store: Store) -> int:
    """Links to unknown polygons, and polygons an event made without saying from what."""
    row = store.execute(
        "SELECT (SELECT count(*) FROM lineage l WHERE l.parent NOT IN (SELECT id FROM polygons) "
        "OR l.child NOT IN (SELECT id FROM polygons)) + "
        "(SELECT count(*) FROM (SELECT DISTINCT id, event FROM polygons WHERE event IS NOT NULL) p "
        "ANTI JOIN lineage l ON l.child = p.id AND l.event = p.event)"
    ).fetchone()
    return int(row[0]) if row else 0


def _history_errors(store: Store) -> int:
    """Retirements of nothing or before their time, and ids that stand twice on the map."""
    row = store.execute(
        "SELECT (SELECT count(*) FROM retirements r ANTI JOIN polygons p ON p.version = r.version)"
        " + (SELECT count(*) FROM retirements r JOIN polygons p ON p.version = r.version "
        "WHERE r.recorded < p.recorded OR r.valid_to < p.valid_from)"
        " + (SELECT count(*) FROM (SELECT id FROM map_now GROUP BY id HAVING count(*) > 1))"
        " + (SELECT count(*) FROM (SELECT version FROM polygons GROUP BY version "
        "HAVING count(*) > 1))"
    ).fetchone()
    return int(row[0]) if row else 0
