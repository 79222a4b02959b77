"""Blocks of the map from afar: drawn once, by one thread, and anew only where the map changed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.http import application
from daemon.page import blocks, overview
from daemon.page.atlas import Atlas
from daemon.page.blocks import Overview
from daemon.page.overview import Theme
from tests.map_store import MILLESIME, building, made_store, patched
from tests.served import Running, listening
from tests.test_tiles import tile_at
from updater import legal_rows
from updater.page_reads import ground_changed, latest_change, stamp
from updater.reads import end_of

SIDE_M = 600.0
BLOCK_M = 160.0


@pytest.fixture
def store(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Many blocks on a small map: 8 pixels a side of the fine grid, one of the coarse."""
    for module in (overview, blocks):
        monkeypatch.setattr(module, "BLOCK_M", BLOCK_M)
    monkeypatch.setattr(blocks, "READ_AT_ONCE", 1)


@pytest.fixture
def looks(monkeypatch):
    """Windows the map was looked at in, and what is to happen at the next look."""
    seen, real = [], blocks.view
    seen_by = threading.Lock()

    def view(store, bounds, *, valid_at):
        with seen_by:
            seen.append(bounds)
            act = view.then.pop(0) if view.then else None
        found = real(store, bounds, valid_at=valid_at)
        if act:
            act()
        return found

    view.then = []
    monkeypatch.setattr(blocks, "view", view)
    return seen, view.then


def picture(made, store, zoom=12, theme=Theme.COVER, year=2030):
    tile = tile_at(SIDE_M / 2, SIDE_M / 2, zoom)
    return made.png(tile, theme, valid_at=end_of(year), stamp=stamp(store).map)


def test_after_a_commit_only_blocks_of_its_ground_are_drawn_and_the_picture_is_right(store, looks):
    seen, _ = looks
    made = Overview(store)
    picture(made, store)
    assert len(seen) == len(set(seen)) == 16  # 600 m on blocks of 160 m
    for number, place in enumerate(((80, 80), (360, 220), (500, 500)), start=1):
        seen.clear()
        patched(store, number, [building(*place)], days=300 * number)
        picture(made, store)
        assert 0 < len(seen) < 10, "only where something was changed"
        for theme in Theme:
            for zoom in (9, 12):
                found = picture(made, store, zoom, theme)
                assert found == picture(Overview(store), store, zoom, theme), (number, theme, zoom)
    seen.clear()
    picture(made, store, year=2030)
    assert not seen
    assert picture(made, store, year=MILLESIME) != picture(made, store, year=2030)


def test_a_status_that_is_judged_anew_is_drawn(store):
    made = Overview(store)
    before = picture(made, store, theme=Theme.LEGAL)
    patched(store, 1, [building(80, 80)])
    since = latest_change(store)
    assert legal_rows.refresh(store) > 0
    assert ground_changed(store, since).shape[1] == 4
    after = picture(made, store, theme=Theme.LEGAL)
    assert after == picture(Overview(store), store, theme=Theme.LEGAL) != before


def test_two_who_want_the_same_share_the_work(store, looks):
    seen, then = looks
    made, both = Overview(store), threading.Barrier(2, timeout=20)
    then += [both.wait, both.wait]  # neither goes on before the other has begun a block
    with ThreadPoolExecutor(2) as pool:
        found = {f.result() for f in [pool.submit(picture, made, store) for _ in range(2)]}
    assert len(found) == 1 and len(seen) == len(set(seen)) == 16


def test_a_block_whose_ground_changes_while_it_is_drawn_is_not_kept(store, looks):
    seen, then = looks
    made = Overview(store)
    then.append(lambda: patched(store, 1, [building(80, 80)]))
    picture(made, store)
    assert picture(made, store) == picture(Overview(store), store)
    assert len(seen) > 16 + 16


def test_who_waits_for_a_drawing_that_fails_draws_himself(store, looks):
    _, then = looks
    made, begun, other = Overview(store), threading.Event(), threading.Event()

    def fails():
        begun.set()
        assert other.wait(20)
        raise OSError("the disk is gone")

    def waits():
        assert begun.wait(20)
        threading.Timer(0.2, other.set).start()
        return picture(made, store)

    then.append(fails)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(picture, made, store), pool.submit(waits)
        assert second.result() == picture(Overview(store), store)
        with pytest.raises(OSError, match="disk"):
            first.result()


def test_the_first_view_is_ready_before_anybody_asks(store, looks, monkeypatch):
    seen, _ = looks
    monkeypatch.setattr("daemon.page.atlas.WARM_COARSE_M", 0.0)
    atlas = Atlas()
    atlas.warm([store], threading.Event())
    assert len(seen) == 2 * 16  # both grids
    seen.clear()
    for zoom in (9, 10):
        picture(atlas.sheet(store).overview, store, zoom, year=MILLESIME)
    assert not seen
    stopped = threading.Event()
    stopped.set()
    Atlas().warm([store], stopped)
    assert not seen


def test_a_map_that_cannot_be_read_stops_no_service(store, looks):
    _, then = looks

    def fails():
        raise OSError("the disk is gone")

    then.append(fails)
    Atlas().warm([store], threading.Event())
    assert not then


def test_what_is_got_ready_ends_with_the_service(store, monkeypatch):
    begun, ended = threading.Event(), threading.Event()

    def warm(self, stores, stopped):
        begun.set()
        assert stores == [store] and stopped.wait(20)
        ended.set()

    monkeypatch.setattr(Atlas, "warm", warm)
    with listening(application(Running(), [store])):
        assert begun.wait(20) and not ended.is_set()
    assert ended.is_set()
