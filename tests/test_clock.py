"""A clock that jumps back changes no order and loses nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.tally import tally
from tests.map_store import building, content, made_store, patched
from updater.clock import SteadyClock
from updater.reads import as_of, end_of
from updater.store import Store
from updater.verify import verify

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Wall:
    """A clock on the wall that anybody may turn."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def test_time_goes_on_while_the_wall_clock_is_behind_and_follows_it_again():
    wall = Wall()
    clock = SteadyClock(wall)
    before = clock()
    wall.now -= 24 * HOUR
    behind = clock()
    assert before < behind < before + HOUR
    wall.now += HOUR
    later = clock()
    assert HOUR <= later - behind < 1.01 * HOUR  # waits end although the clock is wrong
    wall.now -= 5 * HOUR
    assert later < clock() < later + HOUR
    wall.now = START + 48 * HOUR
    assert clock() == wall.now


def test_a_clock_never_precedes_what_is_on_record():
    wall = Wall()
    assert SteadyClock(wall, since=START + 9 * HOUR)() > START + 9 * HOUR
    assert SteadyClock(wall, since=START - HOUR)() == wall.now


@pytest.mark.parametrize("jump", [timedelta(seconds=1), HOUR, timedelta(days=4000)])
def test_events_committed_while_the_clock_jumps_back_keep_their_order(tmp_path, jump):
    store, _ = made_store(tmp_path / "a.duckdb", seed=3)
    path, wall = store.path, Wall()
    wall.now = store.clock() + HOUR
    store.close()
    grounds = [(100, 100), (300, 300), (480, 200), (110, 110)]
    for number, place in enumerate(grounds):
        with Store.open(path, clock=wall) as opened:  # each time a process of its own
            patched(opened, 2 * number, [building(*place)], days=40 * number)
            wall.now -= jump
            patched(opened, 2 * number + 1, [building(place[0], place[1] + 60)], days=40 * number)
        wall.now -= jump
    with Store.open(path, clock=wall) as opened:
        assert verify(opened, deep=True).valid
        keys = opened.execute("SELECT key FROM events ORDER BY recorded").fetchall()
        assert [int(key.rsplit("-", 1)[1]) for (key,) in keys] == list(range(8))
        created = opened.execute("SELECT created FROM outbox ORDER BY seq").fetchall()
        assert created == sorted(created)
        moments = opened.execute("SELECT recorded FROM events ORDER BY recorded").fetchall()
        states = [
            content(as_of(opened, valid_at=end_of(2030), recorded_at=moment))
            for (moment,) in moments
        ]
        assert len({repr(state) for state in states}) > 4  # each event is a step of the history
        assert states[-1] == content(as_of(opened, valid_at=end_of(2030)))
    tally("clock that jumps back", tried=8)
