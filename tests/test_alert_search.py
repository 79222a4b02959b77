"""Alerts by what is asked: the database and a plain look at every one of them agree."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from shapely.geometry import box

from schemas.alert import AlertKind, AlertState
from tests.map_store import building, made_store, patched
from updater import alert_search
from updater.alert_rows import by_rank
from updater.alert_search import Asked, first, page, search
from updater.crs import WGS84, reproject
from updater.reads import alerts_now
from updater.review import reject_alert

PLACES = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]


def raised(path, seed, count):
    """A store with so many alerts of several kinds, one of them rejected."""
    store, _ = made_store(path, seed=seed)
    regions = [building(x, y, 18 + 2 * i, 20) for i, (x, y) in enumerate(PLACES[:count])]
    patched(store, 1, regions)
    reject_alert(store, alerts_now(store)[0].id, reason="tent")
    return store


@pytest.fixture
def stores(tmp_path):
    made = [raised(tmp_path / f"{n}.duckdb", n, count) for n, count in ((9, 12), (4, 7))]
    yield made
    for store in made:
        store.close()


def plain(stores, takes):
    """Ids of the alerts that a test takes, most important first."""
    return [r.id for r in by_rank([r for s in stores for r in alerts_now(s) if takes(r)])]


def asked_for(stores):
    records = [record for store in stores for record in alerts_now(store)]
    area = sorted(r.geometry.area for r in records)[len(records) // 2]
    last = max(r.known_at for r in records)
    sure = sorted(r.probability for r in records)[len(records) // 2]
    yield Asked(), lambda r: True
    yield Asked(states=[AlertState.REJECTED]), lambda r: r.state is AlertState.REJECTED
    for kind in AlertKind:
        yield Asked(kinds=[kind]), lambda r, k=kind: k in r.kinds
    two = [AlertKind.CONSTRUCTION, AlertKind.CLEARING]
    yield Asked(kinds=two), lambda r: not set(two).isdisjoint(r.kinds)
    yield Asked(min_area=area), lambda r: r.geometry.area >= area
    yield Asked(min_area=float("inf")), lambda r: False
    yield Asked(min_probability=sure), lambda r: r.probability >= sure
    yield Asked(since=last), lambda r: r.known_at >= last
    yield Asked(since=last + timedelta(microseconds=1)), lambda r: False
    both = Asked(states=[AlertState.CONFIRMED], min_area=area)
    yield both, lambda r: r.state is AlertState.CONFIRMED and r.geometry.area >= area
    ground = reproject(box(60, 60, 300, 300), stores[0].crs, WGS84)
    inside = reproject(box(*ground.bounds), WGS84, stores[0].crs)
    yield Asked(bbox=ground.bounds), lambda r: r.geometry.intersects(inside)
    yield Asked(bbox=(-180, -90, 180, 90)), lambda r: True


def test_every_question_has_the_answer_a_plain_look_gives(stores):
    lengths = set()
    for asked, takes in asked_for(stores):
        expected = plain(stores, takes)
        total, found = page(stores, asked, 1, 1000)
        assert [record.id for record, _ in found] == expected, asked
        assert total == len(expected)
        for store in stores:
            assert [r.id for r in search(store, asked)] == plain([store], takes)
        lengths.add(len(expected))
    assert {0, len(plain(stores, lambda r: True))} < lengths and len(lengths) > 5


def test_pages_follow_each_other_over_all_stores(stores):
    whole = plain(stores, lambda r: True)
    count = len(whole)
    for size in (1, 4, count, count + 1):
        pages = [page(stores, Asked(), n, size) for n in range(1, -(-count // size) + 2)]
        assert {total for total, _ in pages} == {count}
        assert [r.id for _, found in pages for r, _ in found] == whole
        assert pages[-1][1] == []
    for record, store in page(stores, Asked(), 2, 5)[1]:
        assert record in alerts_now(store)


def test_only_what_is_shown_is_read_whole(stores, monkeypatch):
    read, real = [], alert_search.record_from_row
    monkeypatch.setattr(
        alert_search, "record_from_row", lambda *row: read.append(row) or real(*row)
    )
    total, shown = page(stores, Asked(), 2, 3)
    assert total > 10 and len(shown) == len(read) == 3


def test_an_alert_of_an_earlier_version_has_one_kind(stores):
    store = stores[0]
    with store.transaction() as cursor:
        for id_, text in cursor.execute("SELECT id, record FROM alerts").fetchall():
            values = json.loads(text)
            del values["kinds"]
            older = json.dumps(values)
            cursor.execute("UPDATE alerts SET record = ? WHERE id = ?", [older, id_])
    kinds = store.execute("SELECT kind, count(*) FROM alerts_now GROUP BY kind").fetchall()
    for kind, count in kinds:
        assert first(store, Asked(kinds=[AlertKind(kind)]), 100)[0] == count
