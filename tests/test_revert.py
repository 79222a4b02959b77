"""An undone event leaves the map as it was, and its undoing in the history."""

from datetime import UTC, datetime

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alert import AlertState
from tests.coverages import random_region
from tests.map_store import building, content, made_store, patched
from updater.errors import NotFound, PatchRefused
from updater.lineage import ancestors, descendants, events
from updater.migrations import MIGRATIONS
from updater.reads import alerts_now, as_of, end_of
from updater.revert import revert
from updater.store import Store
from updater.verify import verify

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb")
    yield made
    made.close()


def test_a_reverted_event_leaves_every_byte_of_the_map_as_it_was(store):
    before = content(as_of(store, valid_at=NOW))
    patch = patched(store, 1, [building(150, 150), building(400, 200)])
    assert patch.created and content(as_of(store, valid_at=NOW)) != before
    seen = store.clock()
    done = revert(store, "bench-1", reason="wrong image")
    assert done.closed == len(patch.created) and done.reopened == len(patch.retired)
    assert content(as_of(store, valid_at=NOW)) == before
    assert content(as_of(store, valid_at=end_of(2022))) == before
    # what was known in between is still what was known
    between = content(as_of(store, valid_at=NOW, recorded_at=seen))
    assert between != before
    verdict = verify(store, deep=True)
    assert verdict.valid and verdict.history_errors == verdict.lineage_errors == 0


def test_alerts_of_that_event_alone_are_withdrawn_and_everyone_is_told(store):
    patched(store, 1, [building(150, 150)])
    assert [a.state for a in alerts_now(store)] == [AlertState.CONFIRMED]
    sent = store.execute("SELECT count(*) FROM outbox").fetchone()[0]
    assert revert(store, "bench-1", reason="wrong image").alerts == 1
    (alert,) = alerts_now(store)
    assert alert.state is AlertState.SUPERSEDED and "wrong image" in alert.reason
    assert store.execute("SELECT count(*) FROM outbox").fetchone()[0] == sent + 2


def test_what_cannot_be_undone_is_refused_with_a_sentence(store):
    before = content(as_of(store, valid_at=NOW))
    first = patched(store, 1, [building(150, 150)])
    patched(store, 2, [building(150, 190, 60, 80)], days=400)
    assert first.created
    with pytest.raises(PatchRefused, match="revert them first, newest first: bench-2"):
        revert(store, "bench-1", reason="x")
    with pytest.raises(NotFound, match="No event nothing"):
        revert(store, "nothing", reason="x")
    revert(store, "bench-2", reason="x")
    with pytest.raises(PatchRefused, match="reverted already"):
        revert(store, "bench-2", reason="again")
    revert(store, "bench-1", reason="x")
    assert [e.id for e in events(store)] == [
        "revert#bench-1",
        "revert#bench-2",
        "bench-2",
        "bench-1",
    ]
    # neither event holds any more, at any time on the ground
    for moment in (datetime(2024, 12, 1, tzinfo=UTC), NOW):
        assert content(as_of(store, valid_at=moment)) == before
    assert verify(store, deep=True).valid


def test_lineage_is_walked_both_ways_and_ends(store):
    patch = patched(store, 1, [building(150, 150)])
    child = next(p for p in patch.created if p.code_cs == "CS1.1.1.1")
    parent = next(link.parent for link in patch.lineage if link.child == child.id)
    assert parent in {step.parent for step in ancestors(store, child.id)}
    assert child.id in {step.child for step in descendants(store, parent)}
    revert(store, "bench-1", reason="x")  # now there is a way back: the walk still ends
    assert {"revert"} <= {step.operation for step in descendants(store, child.id)}
    with pytest.raises(NotFound, match="never had"):
        ancestors(store, "NOBODY")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), regions=st.integers(1, 5))
def test_any_patch_can_be_undone_exactly(tmp_path_factory, seed, regions):
    folder = tmp_path_factory.mktemp("revert")
    rng = np.random.default_rng(seed)
    store, _ = made_store(folder / "D032.duckdb", seed=seed, cells=25, side=400.0)
    try:
        before = content(as_of(store, valid_at=NOW))
        found = [random_region(rng) for _ in range(regions)]
        patch = patched(store, 1, found)
        after = content(as_of(store, valid_at=NOW))
        with pytest.raises(duckdb.ConstraintException):  # the same event twice has one effect
            patched(store, 1, found)
        assert content(as_of(store, valid_at=NOW)) == after
        if patch.is_empty:
            return
        revert(store, "bench-1", reason="test")
        assert content(as_of(store, valid_at=NOW)) == before
        assert verify(store, deep=True).valid
    finally:
        store.close()


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("updater.store.MIGRATIONS", MIGRATIONS[:1])
        older.setattr("updater.store.SCHEMA_VERSION", 1)
        made, _ = made_store(tmp_path / "old.duckdb")
        made.execute("CREATE TABLE asked (event VARCHAR)")  # which today's commit looks into
        patched(made, 1, [building(150, 150)])
        made.execute("DROP TABLE asked")
        before = content(as_of(made, valid_at=NOW))
        made.close()
    with Store.open(tmp_path / "old.duckdb") as store:
        assert store.meta("schema") == str(len(MIGRATIONS))
        assert store.execute("SELECT count(*) FROM territories").fetchone() == (0,)
        assert content(as_of(store, valid_at=NOW)) == before
        revert(store, "bench-1", reason="test")
        assert verify(store, deep=True).valid
