"""Statuses kept in the store are those of the whole map, and only what changed is judged anew."""

import numpy as np
import pytest

from daemon.bench.patch import CORNER, make_map
from tests.map_store import building, patched
from updater import legal_rows
from updater.artificialisation import components, statuses
from updater.importer import create_store
from updater.legal_rows import known, refresh
from updater.reads import map_now
from updater.revert import revert
from updater.store import Store

SIDE = 80


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A map of 6 400 plots of about a sixth of a hectare, many of them small enclosed surfaces."""
    monkeypatch.setattr("daemon.bench.patch.CELL_M", 40.0)
    make_map(tmp_path / "m.gpkg", polygons=SIDE * SIDE, seed=2)
    create_store(tmp_path / "D032.duckdb", tmp_path / "m.gpkg", territory="D032", millesime=2021)
    with Store.open(tmp_path / "D032.duckdb") as opened:
        yield opened


def kept(store):
    return known(store, [p.version for p in map_now(store)])


def whole(store):
    polygons = map_now(store)
    return {p.version: s for p, s in zip(polygons, statuses(polygons), strict=True)}


def test_after_patches_and_undoings_the_kept_statuses_are_the_whole_maps(store, monkeypatch):
    # the plots are compact: none reaches further than this
    monkeypatch.setattr(legal_rows, "SURFACE_REACH_M", 120.0)
    assert refresh(store) == SIDE * SIDE and refresh(store) == 0
    assert kept(store) == whole(store)
    assert sum(s.by_threshold for s in whole(store).values()) > 100
    rng = np.random.default_rng(4)
    judged = 0
    for number in range(12):
        place = CORNER + rng.uniform(200, SIDE * 40 - 200, 2)
        regions = [
            building(*(place + rng.uniform(-60, 60, 2)), *rng.uniform(18, 50, 2)) for _ in range(4)
        ]
        patched(store, number, regions)
        judged = refresh(store)
        assert 0 < judged < 400  # of 6 400
        assert kept(store) == whole(store)
    revert(store, "bench-11", reason="test")
    assert refresh(store) > 0 and kept(store) == whole(store)


def test_square_by_square_they_are_the_same(store, monkeypatch):
    monkeypatch.setattr(legal_rows, "SURFACE_REACH_M", 120.0)
    monkeypatch.setattr(legal_rows, "SQUARE_M", 900.0)
    assert refresh(store) == SIDE * SIDE and kept(store) == whole(store)
    patched(store, 0, [building(*(CORNER + 1000), 60, 50), building(*(CORNER + 2400), 40, 50)])
    assert 0 < refresh(store) < 400 and kept(store) == whole(store)


def test_components_are_those_of_the_graph():
    links = np.array([(0, 1), (1, 2), (5, 4), (6, 8), (8, 7), (2, 0)])
    found = components(9, links[:, 0], links[:, 1])
    assert found.tolist() == [0, 0, 0, 3, 4, 4, 6, 6, 6]
    chain = np.random.default_rng(1).permutation(5000)
    assert set(components(5000, chain[:-1], chain[1:]).tolist()) == {0}
