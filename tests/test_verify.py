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
