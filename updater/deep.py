"""Every state the map has had, and everything beside the map, checked in time that grows with what
changed: a state differs from the one before only where versions begin or end, so only the ground of
those and of their neighbours is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from schemas.envelope import ALERT_TYPE, CHANGE_TYPE, DEAD_LETTER_TYPE
from updater import histories
from updater.reads import end_of
from updater.revert import PREFIX
from updater.store import Store
from updater.topology import MOVED_M2

Shapes = npt.NDArray[np.object_]
Instants = npt.NDArray[np.int64]

NEVER: Final = np.iinfo(np.int64).max
"""The instant, microseconds, at which what still holds ends."""
PRUNED: Final = "outbox_pruned"
"""Fact of a store: messages committed before this time (ISO 8601) may have been pruned."""

NO_HISTORY: Final = "a Sentinel-2 history that is missing or damaged"

_KNOWN: Final = """
SELECT ST_AsWKB(p.geom), epoch_us(p.recorded), coalesce(min(epoch_us(r.recorded)), ?)
FROM polygons p LEFT JOIN retirements r ON r.version = p.version
GROUP BY p.version, p.geom, p.recorded ORDER BY p.version
"""
_VALID: Final = """
SELECT ST_AsWKB(p.geom), epoch_us(p.valid_from), coalesce(min(epoch_us(r.valid_to)), ?)
FROM polygons p LEFT JOIN retirements r ON r.version = p.version
GROUP BY p.version, p.geom, p.valid_from ORDER BY p.version
"""
_ROWS: Final[dict[str, str]] = {
    "what an event did, without the event": """
        SELECT count(*) FROM (
            SELECT event FROM polygons UNION ALL SELECT event FROM retirements
            UNION ALL SELECT event FROM lineage
        ) w ANTI JOIN events e ON e.key = w.event
        WHERE w.event IS NOT NULL""",
    "an event's change that nobody is told of": f"""
        SELECT count(*) FROM events e ANTI JOIN outbox o
        ON o.id = 'CH' || upper(substr(sha256(
            (SELECT value FROM meta WHERE key = 'territory') || '|' || e.key), 1, 20))
        WHERE e.changed > 0 AND NOT starts_with(e.key, '{PREFIX}')
        AND e.recorded >= $cut""",
    "states of an alert that are not 1, 2, 3, …": """
        SELECT count(*) FROM (
            SELECT id FROM alerts GROUP BY id
            HAVING min(sequence) <> 1 OR max(sequence) <> count(*)
        )""",
    "a message of an alert state there is not": f"""
        SELECT count(*) FROM outbox o ANTI JOIN alerts a ON o.id = a.id || '.' || a.sequence
        WHERE o.type = '{ALERT_TYPE}'""",
    "a message of a dead letter there is not": f"""
        SELECT count(*) FROM outbox o ANTI JOIN dead_letters d ON o.id = d.id
        WHERE o.type = '{DEAD_LETTER_TYPE}'""",
    "a dead letter nobody is told of": f"""
        SELECT count(*) FROM dead_letters d ANTI JOIN outbox o
        ON o.id = d.id AND o.type = '{DEAD_LETTER_TYPE}'
        WHERE d.received >= $cut""",
    "one message twice": f"""
        SELECT count(*) FROM (
            SELECT id FROM outbox WHERE type IN ('{CHANGE_TYPE}', '{ALERT_TYPE}')
            GROUP BY id HAVING count(*) > 1
        )""",
    "given up, and no longer there": """
        SELECT count(*) FROM parked p ANTI JOIN outbox o ON o.seq = p.seq""",
    "passed over, and no longer there": """
        SELECT count(*) FROM passed_over p ANTI JOIN outbox o ON o.seq = p.seq""",
    "a position beyond every message": """
        SELECT count(*) FROM positions WHERE seq > (
            SELECT max(coalesce(last_value, start_value)) FROM duckdb_sequences()
            WHERE sequence_name = 'outbox_seq' AND database_name = 'store'
        )""",
    "an offset behind no message": """
        SELECT count(*) FROM offsets WHERE next_offset < 1""",
    "another chance for no dead letter": """
        SELECT count(*) FROM retries r ANTI JOIN dead_letters d ON d.id = r.letter""",
}


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions on one axis: outlines, and the instants (microseconds) each begins and ends at."""

    shapes: Shapes
    begin: Instants
    end: Instants


def torn_states(store: Store) -> int:
    """How many past states are no coverage, or hold other ground than the state before: after each
    commit as it was known then, at each date as it is known now, and at the end of each
    millésime's year."""
    known = _versions(store, _KNOWN)
    valid = _versions(store, _VALID)
    torn = sum(1 for _ in _torn(known)) + sum(1 for _ in _torn(valid))
    row = store.execute("SELECT year(max(acquired)) FROM events").fetchone()
    last = row[0] if row is not None and row[0] is not None else store.millesime
    for year in range(store.millesime, int(last) + 1):
        at = int(end_of(year).timestamp() * 1e6)
        torn += not shapely.coverage_is_valid(valid.shapes[(valid.begin <= at) & (at < valid.end)])
    return torn


def _versions(store: Store, sql: str) -> Versions:
    rows = store.execute(sql, [int(NEVER)]).fetchall()
    shapes = np.array(shapely.from_wkb([bytes(row[0]) for row in rows]), dtype=object)
    begin = np.array([row[1] for row in rows], np.int64)
    end = np.array([row[2] for row in rows], np.int64)
    kept = begin < end  # an undone version never held
    return Versions(shapes[kept], begin[kept], end[kept])


def _torn(versions: Versions) -> Iterator[int]:
    """Instants at which the map is torn."""
    shapes, begin, end = versions.shapes, versions.begin, versions.end
    if not len(shapes):
        return
    moments = np.unique(np.concatenate([begin, end[end < NEVER]]))
    first = shapes[begin == moments[0]]
    if not shapely.coverage_is_valid(first):
        yield int(moments[0])
    tree = shapely.STRtree(shapes)
    opened, closed = np.argsort(begin, kind="stable"), np.argsort(end, kind="stable")
    starts, ends = begin[opened], end[closed]
    for moment in moments[1:]:
        come = opened[slice(*np.searchsorted(starts, [moment, moment + 1]))]
        gone = closed[slice(*np.searchsorted(ends, [moment, moment + 1]))]
        near = np.unique(tree.query(shapes[come], predicate="intersects")[1])
        alive = near[(begin[near] <= moment) & (moment < end[near])]
        moved = shapely.symmetric_difference(
            shapely.union_all(shapes[come]), shapely.union_all(shapes[gone])
        )
        lost = max((part.area for part in shapely.get_parts(moved)), default=0.0)
        if lost > MOVED_M2 or not shapely.coverage_is_valid(shapes[alive]):
            yield int(moment)


def row_errors(store: Store, beside: Path | None = None) -> dict[str, int]:
    """What does not fit together among events, alerts, messages, positions, offsets and files of
    histories (``beside`` that store, or this one), by what is wrong; only what there is of it."""
    row = store.execute("SELECT max(value) FROM meta WHERE key = ?", [PRUNED]).fetchone()
    cut = row[0] if row is not None and row[0] is not None else "1970-01-01T00:00:00Z"
    found = {
        what: store.execute(sql.replace("$cut", "?::TIMESTAMPTZ"), [cut] if "$cut" in sql else [])
        for what, sql in _ROWS.items()
    }
    counts = {what: int((rows.fetchone() or (0,))[0]) for what, rows in found.items()}
    named = store.execute("SELECT block, file FROM series").fetchall()
    counts[NO_HISTORY] = histories.unreadable(beside or store.path, named)
    return {what: count for what, count in counts.items() if count}
