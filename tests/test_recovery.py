"""Backups of a store at work, restores to a time, compaction: always a state the store had."""

import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from schemas.subscription import ChannelKind, Wish
from tests.map_store import FIRST, building, content, made_store, patched
from updater import outbox
from updater.deep import PRUNED
from updater.errors import StoreError
from updater.migrations import MIGRATIONS
from updater.reads import alerts_now, as_of, map_now
from updater.recovery import backup, compact, restore
from updater.store import Store
from updater.subscriptions import accepted, channel_name, save
from updater.verify import verify

EVENTS = 8
PLACES = [(x, y) for y in (90, 300, 510) for x in (90, 300, 510)]


def event(store, number):
    """The same event of a number, whichever store it comes to."""
    x, y = PLACES[number]
    patched(store, number, [building(x, y)], days=number)


@pytest.fixture
def quiet(tmp_path):
    """A store before its first event."""
    store, _ = made_store(tmp_path / "D032.duckdb")
    with store:
        yield store


def undisturbed(folder):
    """The map after every event, without a disaster."""
    store, _ = made_store(folder / "undisturbed.duckdb")
    with store:
        for number in range(EVENTS):
            event(store, number)
        return content(map_now(store)), sorted(a.id for a in alerts_now(store))


def test_a_backup_made_between_commits_is_a_prefix_of_the_history_and_can_be_gone_on_from(
    quiet, tmp_path
):
    half, made = threading.Event(), []

    def work():
        for number in range(EVENTS):
            event(quiet, number)
            if number == 2:
                half.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert half.wait(60)
    while worker.is_alive() or len(made) < 2:
        made.append(backup(quiet, tmp_path / f"copy-{len(made)}.duckdb"))
    worker.join()
    everything = content(map_now(quiet))
    known = [row[0] for row in quiet.execute("SELECT key FROM events ORDER BY recorded").fetchall()]
    for copied in made:
        assert copied.verdict.valid
        with Store.open(copied.path, read_only=True) as copy:
            keys = [
                r[0] for r in copy.execute("SELECT key FROM events ORDER BY recorded").fetchall()
            ]
            assert len(keys) >= 3 and keys == known[: len(keys)]
            then = as_of(quiet, valid_at=FIRST + timedelta(days=99), recorded_at=copied.newest)
            assert content(map_now(copy)) == content(then)
    restored = restore(made[0].path, tmp_path / "again.duckdb")
    with Store.open(restored.path) as again:
        (done,) = again.execute("SELECT next_offset FROM offsets").fetchone()
        assert done >= 3
        for number in range(done, EVENTS):
            event(again, number)
        assert content(map_now(again)) == everything
        assert verify(again, deep=True).valid
    assert (everything, sorted(a.id for a in alerts_now(quiet))) == undisturbed(tmp_path)


def test_a_backup_does_not_let_go_of_the_stores_lock(quiet, tmp_path):
    backup(quiet, tmp_path / "copy.duckdb")
    script = (
        "import sys; from pathlib import Path; from updater.store import Store\n"
        "Store.open(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(quiet.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "StoreLocked" in done.stderr


def test_a_restore_to_a_time_is_the_map_as_known_then_and_goes_on_to_the_same_end(quiet, tmp_path):
    moments = []
    for number in range(EVENTS):
        event(quiet, number)
        moments.append(quiet.clock())
    copied = backup(quiet, tmp_path / "copy.duckdb")
    everything = content(map_now(quiet))
    then = content(as_of(quiet, valid_at=FIRST + timedelta(days=99), recorded_at=moments[4]))
    restored = restore(copied.path, tmp_path / "then.duckdb", at=moments[4])
    assert restored.verdict.valid and restored.newest <= moments[4]
    with Store.open(restored.path) as again:
        assert content(map_now(again)) == then != everything
        assert again.execute("SELECT count(*) FROM events").fetchone() == (5,)
        assert not again.execute("SELECT * FROM offsets").fetchall()
        for number in range(5, EVENTS):
            event(again, number)
        assert content(map_now(again)) == everything
        assert verify(again, deep=True).valid


def test_a_restore_to_a_time_the_backup_does_not_know_is_refused(quiet, tmp_path):
    began = quiet.clock()
    event(quiet, 0)
    copied = backup(quiet, tmp_path / "copy.duckdb")
    after = quiet.clock()
    target = tmp_path / "then.duckdb"
    with pytest.raises(StoreError, match="no map of that time"):
        restore(copied.path, target, at=began - timedelta(days=9))
    with pytest.raises(StoreError, match="knows nothing later"):
        restore(copied.path, target, at=after)
    assert not target.exists() and not list(tmp_path.glob(".*"))
    restore(copied.path, target, at=copied.newest)
    with Store.open(target) as again:  # it is no backup any more
        event(again, 1)
        assert not again.execute("SELECT 1 FROM meta WHERE key = 'backed_up'").fetchall()


def test_a_second_compaction_that_prunes_less_forgets_nothing_of_the_first(quiet):
    event(quiet, 0)
    outbox.delivered(quiet, "folder", [row.seq for row in outbox.pending(quiet, "folder")])
    quiet.close()
    assert compact(quiet.path, channels=["folder"], outbox_days=0).pruned > 0
    assert compact(quiet.path, channels=["folder"], outbox_days=30).pruned == 0
    with Store.open(quiet.path) as again:
        assert verify(again, deep=True).valid


def test_a_restore_replaces_nothing_unasked_and_sets_aside_what_it_replaces(quiet, tmp_path):
    event(quiet, 0)
    copied = backup(quiet, tmp_path / "copy.duckdb")
    target = tmp_path / "target.duckdb"
    target.write_bytes(os.urandom(8192))  # a disaster
    stale = tmp_path / "target.duckdb.wal"
    stale.write_bytes(b"a log that fits no other file")
    with pytest.raises(StoreError, match="--force"):
        restore(copied.path, target)
    with pytest.raises(StoreError, match="exists already"):
        backup(quiet, target)
    before = target.read_bytes()
    restore(copied.path, target, force=True)
    assert not stale.exists()
    assert (tmp_path / "target.duckdb.replaced").read_bytes() == before
    with Store.open(target) as again:
        assert not again.repaired and content(map_now(again)) == content(map_now(quiet))
    with pytest.raises(StoreError, match="onto itself"):
        restore(target, target, force=True)
    with pytest.raises(StoreError, match="move it away"):
        restore(copied.path, target, force=True)
    assert not list(tmp_path.glob(".*staged*"))


def test_a_broken_backup_is_refused_and_the_store_stays(quiet, tmp_path):
    event(quiet, 0)
    copied = backup(quiet, tmp_path / "copy.duckdb")
    with Store.open(copied.path) as spoilt, spoilt.transaction() as cursor:
        cursor.execute("DELETE FROM lineage")
    target = tmp_path / "target.duckdb"
    with pytest.raises(StoreError, match="does not verify"):
        restore(copied.path, target)
    assert not target.exists()


def test_a_backup_of_an_older_schema_is_restored_as_a_current_store(tmp_path, monkeypatch):
    path = tmp_path / "old.duckdb"
    with monkeypatch.context() as older:
        for name in ("store", "copies"):
            older.setattr(f"updater.{name}.MIGRATIONS", MIGRATIONS[:3])
        older.setattr("updater.store.SCHEMA_VERSION", 3)
        with made_store(path)[0] as store, store.transaction() as cursor:
            cursor.execute(
                "INSERT INTO outbox SELECT nextval('outbox_seq'), 'm' || i, 't', 't', 'k', '{}', "
                "now() FROM range(6) t(i)"
            )
            cursor.execute("INSERT INTO deliveries SELECT 'folder', seq, now() FROM outbox")
            cursor.execute(
                "INSERT INTO deliveries SELECT 'kafka', seq, now() FROM outbox WHERE seq IN (1, 4)"
            )
            cursor.execute("INSERT INTO parked VALUES ('kafka', 3, 'too large', now())")
            cursor.execute("INSERT INTO positions VALUES ('subscription:S1', 2)")
    restored = restore(path, tmp_path / "new.duckdb")
    with Store.open(restored.path) as again:
        assert int(again.meta("schema")) == len(MIGRATIONS)
        assert not outbox.pending(again, "folder")
        assert [row.seq for row in outbox.pending(again, "kafka")] == [2, 5, 6]
        assert [row.seq for row, _ in outbox.parked(again, "kafka")] == [3]
        assert outbox.position(again, "subscription:S1") == 2
        rows = again.execute("SELECT channel, seq FROM passed_over").fetchall()
        assert rows == [("kafka", 2)]


def test_compaction_keeps_the_history_and_prunes_only_what_everyone_has_had(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb")
    with store:
        reader = accepted(Wish(name="r", channel=ChannelKind.WEBHOOK, url="https://a.example/"))
        save(store, reader)
        save(store, accepted(Wish(name="f", channel=ChannelKind.FEED)))  # nobody is told
        start = store.clock() + timedelta(hours=1)
        for number in range(EVENTS):
            store.clock = lambda n=number: start + timedelta(days=10 * n)
            event(store, number)
        rows = outbox.pending(store, "folder")
        told, heard = rows[-1].seq, rows[5].seq
        store.clock = lambda: start + timedelta(days=60)
        outbox.delivered(store, "folder", [row.seq for row in rows])
        outbox.delivered(store, "kafka", [row.seq for row in rows[:9] if row is not rows[2]])
        outbox.advance(store, channel_name(reader.id), heard, parked={rows[1].seq: "HTTP 500"})
        outbox.advance(store, "pictures", told)
        everything, alerts = content(map_now(store)), alerts_now(store)
        states = store.execute("SELECT version, recorded FROM polygons ORDER BY 1").fetchall()
        lacking = [row.seq for row in outbox.pending(store, "kafka")]
        asked = store.execute("SELECT count(*) FROM outbox").fetchone()[0]
        for _ in range(40):  # dead space
            with store.transaction() as cursor:
                cursor.execute("CREATE TABLE waste AS SELECT range AS a FROM range(50000)")
            store.checkpoint()
            with store.transaction() as cursor:
                cursor.execute("DROP TABLE waste")
    found = compact(
        store.path,
        channels=["folder", "kafka"],
        alert_channels=["pictures"],
        outbox_days=50,
        clock=lambda: start + timedelta(days=90),
    )
    assert found.after < found.before and not list(tmp_path.glob(".*staged*"))
    with Store.open(store.path) as again:
        assert content(map_now(again)) == everything and alerts_now(again) == alerts
        assert (
            again.execute("SELECT version, recorded FROM polygons ORDER BY 1").fetchall() == states
        )
        kept = {row[0] for row in again.execute("SELECT seq FROM outbox").fetchall()}
        assert 0 < found.pruned == asked - len(kept)
        gone = [row for row in rows if row.seq not in kept]
        assert all(row.created < start + timedelta(days=40) for row in gone)
        assert all(row.seq <= min(heard, rows[8].seq) or "change" in row.type for row in gone)
        assert [row.seq for row in outbox.pending(again, "kafka")] == lacking
        assert (
            lacking[0] == rows[2].seq and lacking[1] > rows[8].seq
        )  # passed over, and not reached
        (parked,) = outbox.parked(again, channel_name(reader.id))
        assert parked[0].seq == rows[1].seq
        assert verify(again, deep=True).valid and again._has_index()
        assert again.execute("SELECT value FROM meta WHERE key = ?", [PRUNED]).fetchone()
        again.clock = lambda: start + timedelta(days=91)
        patched(again, 99, [building(*PLACES[8])], days=99)
        fresh = outbox.pending(again, "folder")
        assert fresh and min(row.seq for row in fresh) > told  # no number is given out twice


def test_what_kafka_never_had_is_never_pruned(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb")
    with store:
        event(store, 0)
        outbox.delivered(store, "folder", [row.seq for row in outbox.pending(store, "folder")])
        store.checkpoint()
    assert compact(store.path, channels=["folder", "kafka"], outbox_days=0).pruned == 0
    assert compact(store.path, channels=["folder"], outbox_days=None).pruned == 0
    assert compact(store.path, channels=["folder"], outbox_days=0).pruned > 0


def test_an_idle_reader_keeps_no_checkpoint_from_the_log(quiet):
    """An answer that was not read to its end used to keep every checkpoint from happening."""
    ready, leave = threading.Event(), threading.Event()

    def read_one():
        quiet.execute("SELECT * FROM polygons").fetchone()
        ready.set()
        leave.wait(30)

    reader = threading.Thread(target=read_one)
    reader.start()
    assert ready.wait(30)
    try:
        log_file = quiet.path.with_name(quiet.path.name + ".wal")
        for number in range(3):
            with quiet.transaction() as cursor:
                cursor.execute("INSERT OR REPLACE INTO offsets VALUES ('t', 0, ?)", [number])
            quiet.checkpoint()
            assert not log_file.exists() or log_file.stat().st_size == 0
    finally:
        leave.set()
        reader.join()
