"""Pages of the map, the differential and the alerts: together they are one whole state."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from shapely.geometry import box

from schemas.alert import AlertState
from tests.map_store import FIRST, building, content, made_store, patched
from updater import alert_pages, diff_pages, map_pages
from updater.artificialisation import statuses
from updater.diff import differential
from updater.legal_near import statuses_near
from updater.map_pages import Part, State
from updater.reads import alerts_now, as_of, end_of
from updater.review import reject_alert

PLACES = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]


@pytest.fixture
def store(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9, cells=120)
    patched(made, 1, [building(x, y, 20 + i, 20) for i, (x, y) in enumerate(PLACES)])
    yield made
    made.close()


def chain(read, key, start, most):
    """All pages one after the other."""
    found, after = [], start
    while part := read(after, most):
        assert len(part) <= most
        found += part
        after = key(part[-1])
    return found


def map_chain(store, state, part, most=7):
    return chain(
        lambda after, n: map_pages.page(store, state, part, after=after, most=n),
        lambda polygon: polygon.version,
        0,
        most,
    )


def diff_chain(store, span, known, part=Part(), most=3, **more):
    pairs = chain(
        lambda after, n: diff_pages.page(store, span, known, part, after=after, most=n, **more),
        lambda pair: pair[0],
        (0, ""),
        most,
    )
    return [piece for _, piece in pairs]


def pieces(found):
    return sorted(
        (p.id_before, p.id_after, p.cs_before, p.cs_after, p.kind, round(p.geometry.area, 6))
        for p in found
    )


@pytest.mark.parametrize("year", [2021, 2024])
@pytest.mark.parametrize(
    "part",
    [
        Part(),
        Part(ground=box(100, 100, 300, 250)),
        Part(ground=box(100, 100, 300, 250).symmetric_difference(box(150, 50, 400, 200))),
        Part(equal={"code_cs": "CS1.1.1.1"}),
        Part(ground=box(0, 0, 400, 400), equal={"code_cs": "CS1.1.1.1"}),
        Part(ground=box(9e5, 9e5, 9.1e5, 9.1e5)),
    ],
)
def test_the_pages_of_a_millesime_are_the_millesime(store, year, part):
    state = State(end_of(year), map_pages.latest(store))
    whole = [
        p
        for p in as_of(store, valid_at=end_of(year))
        if (part.ground is None or p.geometry.intersects(part.ground))
        and all(getattr(p, k) == v for k, v in part.equal.items())
    ]
    found = map_chain(store, state, part)
    assert content(found) == content(whole)
    assert map_pages.count(store, state, part) == len(whole)


def test_time_is_what_was_so_in_between(store):
    state = State(end_of(2024), map_pages.latest(store))
    every = map_chain(store, state, Part())
    born = {p.id for p in every if p.valid_from >= FIRST}
    assert 0 < len(born) < len(every)
    older = map_chain(store, state, Part(until=FIRST - timedelta(seconds=1)))
    assert {p.id for p in every} - {p.id for p in older} == born
    assert map_chain(store, state, Part(since=FIRST)) == every
    old = State(end_of(2021), state.recorded_at)
    gone = {p.version for p in map_chain(store, old, Part())} - {p.version for p in every}
    kept = map_chain(store, old, Part(since=FIRST))
    assert {p.version for p in map_chain(store, old, Part())} - {p.version for p in kept} == gone


def test_a_chain_of_pages_is_one_state_whatever_is_committed(store):
    state = State(end_of(2024), map_pages.latest(store))
    span = (end_of(2021), end_of(2024))
    before, changes = map_chain(store, state, Part()), diff_chain(store, span, state.recorded_at)
    first = map_pages.page(store, state, Part(), after=0, most=20)
    patched(store, 2, [building(150, 150), building(300, 300)], days=1)
    rest = map_chain(store, state, Part())[20:]
    assert content(first + rest) == content(before)
    assert pieces(diff_chain(store, span, state.recorded_at)) == pieces(changes)
    assert map_pages.latest(store) > state.recorded_at
    now = map_chain(store, State(end_of(2024), map_pages.latest(store)), Part())
    assert content(now) != content(before)
    with pytest.raises(ValueError):
        map_pages.page(store, state, Part(equal={"geom": 1}), after=0, most=1)


def test_the_years_of_a_store(store):
    assert map_pages.millesimes(store) == [2021, 2024]


@pytest.mark.parametrize("most", [2, 1000])
def test_the_pages_of_a_differential_are_the_differential(store, most, monkeypatch):
    monkeypatch.setattr(diff_pages, "BATCH", 4)
    patched(store, 2, [building(150, 150), building(360, 80, 60, 50)], days=400)
    known = map_pages.latest(store)
    for span in ((2021, 2024), (2024, 2025), (2021, 2025)):
        times = (end_of(span[0]), end_of(span[1]))
        whole = differential(store, *times, recorded_at=known).pieces
        assert whole and pieces(diff_chain(store, times, known, most=most)) == pieces(whole)
        ground = box(0, 0, 200, 200)
        inside = [p for p in whole if p.geometry.intersects(ground)]
        found = diff_chain(store, times, known, Part(ground=ground), most=most)
        assert 0 < len(inside) < len(whole) or span == (2024, 2025)
        assert pieces(found) == pieces(inside)
        built = diff_chain(
            store, times, known, most=most, takes=lambda p: p.cs_after == "CS1.1.1.1"
        )
        assert pieces(built) == pieces([p for p in whole if p.cs_after == "CS1.1.1.1"])
    late = diff_chain(store, times, known, Part(since=datetime(2025, 1, 1, tzinfo=UTC)))
    early = diff_chain(store, times, known, Part(until=datetime(2025, 1, 1, tzinfo=UTC)))
    assert late and early and pieces(late + early) == pieces(whole)


def test_the_pages_of_alerts_are_the_alerts_of_a_time(store):
    known, before = alert_pages.latest(store), alerts_now(store)
    assert len(before) > 10
    reject_alert(store, before[0].id, reason="tent")

    def every(known, part=Part()):
        return chain(
            lambda after, n: alert_pages.page(store, known, part, after=after, most=n),
            lambda record: record.id,
            "",
            5,
        )

    assert every(known) == before
    later = alert_pages.latest(store)
    assert every(later) == alerts_now(store) != before
    rejected = Part(equal={"state": AlertState.REJECTED.value})
    assert [r.id for r in every(later, rejected)] == [before[0].id] and not every(known, rejected)
    assert alert_pages.count(store, later, rejected) == 1
    near = Part(ground=box(0, 0, 150, 150))
    assert [r.id for r in every(later, near)] == [
        r.id for r in before if r.geometry.intersects(near.ground)
    ]
    assert len(every(later, Part(since=FIRST, until=FIRST))) == len(before)
    assert not every(later, Part(since=FIRST + timedelta(days=1)))
    assert not every(later, Part(until=FIRST - timedelta(days=1)))


@pytest.mark.parametrize("seed", range(2))
def test_statuses_told_from_the_surroundings_are_those_of_the_whole_map(tmp_path, seed):
    store, _ = made_store(tmp_path / "D032.duckdb", seed=seed, cells=1800, side=2600.0)
    with store:
        patched(store, 1, [building(x * 5, y * 5) for x, y in PLACES])
        state = State(end_of(2024), map_pages.latest(store))
        whole = as_of(store, valid_at=end_of(2024))
        expected = dict(zip((p.version for p in whole), statuses(whole), strict=True))
        flipped = [i for i, p in enumerate(whole) if expected[p.version].by_threshold]
        assert len(flipped) > 5
        some = np.random.default_rng(seed).permutation(len(whole))[:200]
        part = [whole[i] for i in [*flipped, *some]]
        assert statuses_near(store, state, part) == [expected[p.version] for p in part]
        for polygon in part[:20]:
            assert statuses_near(store, state, [polygon]) == [expected[polygon.version]]
