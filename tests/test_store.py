"""The store: one writer, append-only history, and an index that survives SIGKILL."""

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from daemon.config import Settings
from updater.errors import StoreError, StoreLocked
from updater.reads import as_of, current_in, end_of
from updater.store import Store
from updater.verify import verify

WRITER = """
import os, signal, sys
from pathlib import Path
from datetime import UTC, datetime
from shapely.geometry import box
from updater.commit import append_polygons
from updater.store import Store
from updater.types import MapPolygon

store = Store.open(Path(sys.argv[1]))
now = datetime.now(UTC)
start = store.execute("SELECT count(*) FROM polygons").fetchone()[0]
for n in range(start, start + int(sys.argv[2])):
    with store.transaction() as cursor:
        shape = box(10_000 + n * 10, 0, 10_010 + n * 10, 10)
        append_polygons(
            cursor,
            [MapPolygon(f"K{n}", "CS2.2.1", "US1.1", 2021, shape)],
            valid_from=now,
            recorded=now,
            event=None,
        )
os.kill(os.getpid(), signal.SIGKILL)
"""

RECOVERER = """
import os, signal, sys
from pathlib import Path
import duckdb
from updater import store as module

stop = int(sys.argv[2])
real = module.Store._rebuild_index

def dies(self):
    statements = (
        module.DROP_INDEX, "CHECKPOINT store", module.CREATE_INDEX, "CHECKPOINT store"
    )
    for number, statement in enumerate(statements):
        if number == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        self._connection.execute(statement)

module.Store._rebuild_index = dies
module.Store.open(Path(sys.argv[1]))
"""


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-800:]


def test_after_sigkill_the_index_is_rebuilt_and_every_row_is_there(store):
    path, before = store.path, store.execute("SELECT count(*) FROM polygons").fetchone()[0]
    store.close()
    run(WRITER, path, 30)
    assert path.with_name(path.name + ".wal").stat().st_size > 0
    with Store.open(path) as again:
        assert again.repaired
        assert again.execute("SELECT count(*) FROM polygons").fetchone()[0] == before + 30
        assert (
            len(current_in(again, (10_000 + before * 10 + 1, 1, 10_000 + before * 10 + 5, 5))) == 1
        )
        again.checkpoint()
    with Store.open(path) as clean:
        assert not clean.repaired


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_kill_inside_the_recovery_is_recovered_too(store, stop):
    path, before = store.path, store.execute("SELECT count(*) FROM polygons").fetchone()[0]
    store.close()
    run(WRITER, path, 8)
    run(RECOVERER, path, stop)
    with Store.open(path) as again:
        assert again.execute("SELECT count(*) FROM polygons").fetchone()[0] == before + 8
        plan = again.execute(
            "EXPLAIN SELECT id FROM polygons WHERE ST_Intersects(geom, ST_MakeEnvelope(0, 0, 1, 1))"
        ).fetchall()[0][1]
        assert "RTREE_INDEX_SCAN" in plan


def test_a_second_writer_is_told_who_is_in_the_way(store):
    script = (
        "import sys; from pathlib import Path; from updater.store import Store\n"
        "Store.open(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert StoreLocked.__name__ in done.stderr and "in use by another process" in done.stderr


def test_a_transaction_is_all_or_nothing(store):
    count = "SELECT count(*) FROM images"
    with pytest.raises(RuntimeError), store.transaction() as cursor:
        cursor.execute(
            "INSERT INTO images VALUES ('i', 'p', 'pva', now(), 0.2, ST_Point(0, 0), now(), NULL)"
        )
        raise RuntimeError("stop")
    assert store.execute(count).fetchone()[0] == 0


def test_missing_foreign_and_newer_files_are_refused_with_a_sentence(store, tmp_path):
    with pytest.raises(StoreError, match="millesimed init"):
        Store.open(tmp_path / "none.duckdb")
    foreign = tmp_path / "foreign.duckdb"
    foreign.write_bytes(os.urandom(8192))
    with pytest.raises(StoreError, match="does not open"):
        Store.open(foreign)
    store.execute("UPDATE meta SET value = '999' WHERE key = 'schema'")
    path = store.path
    store.close()
    with pytest.raises(StoreError, match="upgrade millesimed"):
        Store.open(path)


def test_a_territory_that_is_no_departement_is_refused(tmp_path):
    with pytest.raises(StoreError, match="D032"):
        Store.create(tmp_path / "a.duckdb", territory="Gers", crs="EPSG:2154", millesime=2021)


def test_the_map_as_of_a_date_is_what_was_valid_and_known_then(store):
    from updater.commit import append_polygons
    from updater.types import MapPolygon

    first = as_of(store, valid_at=end_of(2021))
    old, since = first[0], datetime(2024, 6, 18, tzinfo=UTC)
    now = datetime.now(UTC) + timedelta(hours=2)
    known_before = now - timedelta(hours=1)
    with store.transaction() as cursor:
        cursor.execute(
            "INSERT INTO retirements VALUES (?, ?, 'evolution', ?, 'e')", [old.version, since, now]
        )
        new = MapPolygon(old.id, "CS1.1.1.1", "US5", 2024, old.geometry)
        append_polygons(cursor, [new], valid_from=since, recorded=now, event="e")
        cursor.execute(
            "INSERT INTO lineage VALUES (?, ?, 'relabel', 'e', 'd', ?)", [old.id, old.id, now]
        )

    def cover(valid_at, recorded_at):
        found = as_of(store, valid_at=valid_at, recorded_at=recorded_at)
        assert len(found) == len(first)
        return next(p.code_cs for p in found if p.id == old.id)

    later = now + timedelta(days=1)
    assert cover(end_of(2021), later) == old.code_cs
    assert cover(end_of(2024), later) == "CS1.1.1.1"
    assert cover(end_of(2024), known_before) == old.code_cs
    assert verify(store).lineage_errors == 0


def test_a_store_that_was_opened_takes_commits_and_folds_them_in(store):
    store.close()
    with Store.open(store.path) as again:
        for offset in (1, 2):
            with again.transaction() as cursor:
                cursor.execute("INSERT OR REPLACE INTO offsets VALUES ('topic', 0, ?)", [offset])
            again.checkpoint()
        log_file = store.path.with_name(store.path.name + ".wal")
        assert not log_file.exists() or log_file.stat().st_size == 0


def test_a_thread_that_asked_and_idles_holds_up_no_checkpoint(store):
    asked, done = threading.Event(), threading.Event()

    def ask():
        store.execute("SELECT count(*), min(created) FROM outbox").fetchone()
        asked.set()
        done.wait(30)

    idle = threading.Thread(target=ask)
    idle.start()
    try:
        assert asked.wait(30)
        with store.transaction() as cursor:
            cursor.execute("INSERT INTO offsets VALUES ('topic', 0, 1)")
        store.checkpoint()
        log_file = store.path.with_name(store.path.name + ".wal")
        assert not log_file.exists() or log_file.stat().st_size == 0
    finally:
        done.set()
        idle.join()


def test_a_store_takes_no_more_memory_than_it_is_allowed(store):
    path = store.path
    store.close()
    with Store.open(path, memory="96MiB") as bounded:
        assert bounded.execute("SELECT current_setting('memory_limit')").fetchall() == [
            ("96.0 MiB",)
        ]
    with pytest.raises(ValidationError, match="store_memory"):
        Settings(db=[path], store_memory="96; DROP TABLE meta")


def test_a_look_is_kept_until_something_is_committed(store):
    looks = []

    def look():
        looks.append(store.commits)
        if len(looks) == 2:  # somebody commits while it looks: it is out of date already
            with store.transaction():
                pass
        return len(looks)

    assert [store.kept("looks", look) for _ in range(3)] == [1, 1, 1]
    with store.transaction():
        pass
    assert [store.kept("looks", look) for _ in range(3)] == [2, 3, 3]
    assert store.kept("other", lambda: "another") == "another" and store.kept("looks", look) == 3
    with pytest.raises(ZeroDivisionError), store.transaction():
        raise ZeroDivisionError
    assert store.kept("looks", look) == 3  # nothing was written
