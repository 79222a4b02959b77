"""Verification finds each kind of harm done to a store behind its back."""

from datetime import timedelta

import pytest
import shapely
from shapely.geometry import box

from updater.commit import append_polygons
from updater.types import MapPolygon
from updater.verify import verify


def spoil(store, statement, values=()):
    with store.transaction() as cursor:
        cursor.execute(statement, list(values))


def test_a_fresh_store_is_valid(store):
    verdict = verify(store, deep=True)
    assert verdict.valid and verdict.polygons > 10 and verdict.area > 100_000


def test_an_overlap_is_counted(store):
    west, south, *_ = shapely.total_bounds(
        [
            shapely.from_wkb(bytes(r[0]))
            for r in store.execute("SELECT ST_AsWKB(geom) FROM map_now").fetchall()
        ]
    )
    now = store.clock()
    with store.transaction() as cursor:
        append_polygons(
            cursor,
            [MapPolygon("X", "CS2.2.1", "US1.1", 2021, box(west, south, west + 9, south + 9))],
            valid_from=now - timedelta(days=9),
            recorded=now,
            event=None,
        )
    verdict = verify(store)
    assert not verdict.valid and verdict.overlaps >= 1


@pytest.mark.parametrize("column", ["gaps", "lineage_errors", "history_errors"])
def test_harm_is_told_by_its_kind(store, column):
    now = store.clock()
    if column == "gaps":
        spoil(
            store,
            "INSERT INTO retirements SELECT min(version), ?, 'evolution', ?, 'e' FROM polygons",
            [now, now],
        )
    elif column == "lineage_errors":
        spoil(store, "INSERT INTO lineage VALUES ('no', 'body', 'split', 'e', 'd', ?)", [now])
    else:
        spoil(store, "INSERT INTO retirements VALUES (999999, ?, 'evolution', ?, 'e')", [now, now])
    verdict = verify(store)
    assert not verdict.valid and getattr(verdict, column) == 1


@pytest.fixture
def patched_store(tmp_path):
    """A store with a few events, alerts and messages."""
    from tests.map_store import building, made_store, patched

    made, _ = made_store(tmp_path / "D032.duckdb")
    with made:
        for number, place in enumerate([(90, 90), (300, 300), (120, 95)]):
            patched(made, number, [building(*place)], days=number)
        assert verify(made, deep=True).valid
        yield made


def test_a_past_state_that_was_torn_is_found_though_the_map_is_whole_again(patched_store):
    (version,) = patched_store.execute(
        "SELECT max(version) FROM map_now WHERE event IS NULL"
    ).fetchone()
    copied = (
        "INSERT INTO polygons SELECT nextval('version_seq'), id, code_cs, code_us, millesime, "
        "source, ossature, id_origine, code_or, geom, valid_from, ?::TIMESTAMPTZ, event "
        "FROM polygons WHERE version = ?"
    )
    later = patched_store.clock() + timedelta(seconds=5)
    again = later + timedelta(seconds=5)
    spoil(
        patched_store,
        "INSERT INTO retirements SELECT ?, valid_from, 'evolution', ?, "
        "(SELECT min(key) FROM events) FROM polygons WHERE version = ?",
        [version, later, version],
    )
    spoil(patched_store, copied, [again, version])  # a hole for five seconds, on one axis
    assert verify(patched_store).valid
    assert verify(patched_store, deep=True).torn_states == 2  # it opens, and it closes


SPOILT = {
    "DELETE FROM events WHERE key = (SELECT min(event) FROM lineage)": "without the event",
    "DELETE FROM outbox WHERE id LIKE 'CH%'": "an event's change that nobody is told of",
    "DELETE FROM alerts WHERE sequence = 1": "a message of an alert state there is not",
    "UPDATE alerts SET sequence = 7": "states of an alert",
    "INSERT INTO outbox SELECT 99, * EXCLUDE (seq) FROM outbox LIMIT 1": "twice",
    "INSERT INTO parked VALUES ('subscription:x', 77, 'r', now())": "no longer there",
    "INSERT INTO positions VALUES ('folder', 1000)": "beyond every message",
    "INSERT INTO retries VALUES ('DL', 'inbox', now())": "another chance",
    "INSERT INTO dead_letters VALUES ('DL', NULL, 'r', 'm', '{}', now())": "nobody is told of",
    "INSERT INTO offsets VALUES ('other', 0, 0)": "behind no message",
}


@pytest.mark.parametrize("statement", SPOILT, ids=list(SPOILT.values()))
def test_what_does_not_fit_beside_the_map_is_named(patched_store, statement):
    spoil(patched_store, statement)
    verdict = verify(patched_store, deep=True)
    assert not verdict.valid and not verdict.torn_states
    assert any(SPOILT[statement] in what for what in verdict.row_errors), verdict.row_errors
    assert verify(patched_store).valid or "events" in statement or "lineage" in statement
