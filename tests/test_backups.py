"""Backups of a running service: asked for over HTTP, made on the clock, gone on from afterwards."""

import json
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from daemon.backups import Backups
from daemon.bench.broker import free_port
from daemon.cli import app
from daemon.commands.recovery import ServiceRefused
from daemon.config import HttpSettings, Scope
from daemon.service import Service, handled
from tests.map_store import building, content, made_store, patched
from tests.scenes import announced, prepared
from tests.served import known
from updater.reads import alerts_now, map_now
from updater.recovery import restore
from updater.store import Store
from updater.verify import verify

WAIT_SECONDS = 60.0


def test_the_newest_few_of_each_store_are_kept(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", cells=12)
    other, _ = made_store(tmp_path / "other.duckdb", cells=12)
    backups = Backups(tmp_path / "kept", 2)
    with store, other:
        stranger = tmp_path / "kept" / "D032-mine.duckdb"
        stranger.parent.mkdir()
        stranger.write_bytes(b"not ours")
        made = [backups.make(store).path for _ in range(3)]
        patched(store, 1, [building(90, 90)])
        made.append(backups.make(store).path)
        assert backups.of(store) == made[-2:] and stranger.exists()
        with store.transaction() as cursor:
            cursor.execute("DELETE FROM lineage")
        backups.round([store])  # logged, and the good ones stay
        assert backups.of(store) == made[-2:]


def test_what_a_kill_left_goes_with_the_next_backup(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", cells=12)
    kept = tmp_path / "kept"
    backups = Backups(kept, 2)
    with store:
        (kept / "D032-20200101T000000000000Z.series").mkdir(parents=True)
        (kept / ".D032-20200101T000000000000Z.duckdb.77.staged").write_bytes(b"half")
        (kept / ".D032-20200101T000000000000Z.duckdb.77.staged.wal").write_bytes(b"half")
        (kept / ".D032-20200101T000000000000Z.duckdb.77.series").mkdir()
        (tmp_path / ".D032.duckdb.77.held").mkdir()
        made = backups.make(store)
        assert list(kept.iterdir()) == [made.path]
        assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_the_next_backup_is_due_so_long_after_the_last_whenever_the_service_started(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", cells=12)
    backups = Backups(tmp_path / "kept", 2)
    with store:
        start = store.clock()
        assert backups.due([store], 24) <= store.clock()
        backups.make(store)
        made = store.clock()
        due = backups.due([store], 24)
        assert start + timedelta(hours=24) <= due <= made + timedelta(hours=24)


@pytest.fixture
def running(tmp_path, small_scene):
    """A service at work over HTTP, and its settings."""
    port = free_port()
    settings = prepared(tmp_path, small_scene).model_copy(
        update={
            "backup_folder": tmp_path / "backups",
            "backup_hours": 1 / 3600,
            "backups_kept": 1000,
            "detector": "cva",
            "http": HttpSettings(
                port=port,
                tokens={
                    "root": known(Scope.ADMIN, token="boss"),
                    "clerk": known(Scope.REVIEW, token="clerk"),
                },
            ),
        }
    )
    service = Service(settings)
    worker = threading.Thread(target=service.run)
    worker.start()
    try:
        wait_until(lambda: service.ready)
        yield service, settings, f"http://127.0.0.1:{port}"
    finally:
        service.stop()
        worker.join(WAIT_SECONDS)
        assert not worker.is_alive()


def wait_until(true):
    until = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def call(*words, token=None):
    done = CliRunner().invoke(app, [*words, "--json"], env={"MILLESIMED_TOKEN": token})
    return json.loads(done.stdout) if done.exit_code == 0 else done.exception


def test_a_running_service_is_backed_up_and_a_restore_goes_on_to_the_same_map(
    running, small_scene, tmp_path
):
    service, settings, url = running
    first = call("backup", "--url", url, token="boss")
    (early,) = first["backups"]
    assert early["departement"] == "D032" and early["newest"] is None
    assert isinstance(call("backup", "--url", url, token="clerk"), ServiceRefused)
    assert isinstance(call("backup", "--url", url), ServiceRefused)
    offline = ["backup", "--db", str(settings.db[0]), str(tmp_path / "x.duckdb")]
    locked = subprocess.run(
        [sys.executable, "-m", "daemon.cli", *offline], capture_output=True, text=True, check=False
    )
    assert locked.returncode == 1 and "--url" in locked.stderr
    assert not (tmp_path / "x.duckdb").exists()
    announced(settings.inbox, small_scene.after)
    wait_until(lambda: service.received == 1 and not list(settings.inbox.glob("*.json")))
    late = call("backup", "--url", url, token="boss")["backups"][0]
    assert late["newest"] is not None
    on_the_clock = {late["file"], early["file"]}
    wait_until(lambda: {p.name for p in settings.backup_folder.glob("*Z.duckdb")} - on_the_clock)
    service.stop()
    wait_until(lambda: not service.ready)

    again = tmp_path / "again"
    again.mkdir()
    restore(settings.backup_folder / late["file"], again / "late.duckdb")
    restored = restore(settings.backup_folder / early["file"], again / "D032.duckdb")
    assert restored.verdict.valid
    replay = settings.model_copy(
        update={"db": [restored.path], "inbox": again / "inbox", "outbox": again / "outbox"}
    )
    for done in (settings.inbox / "done").glob("*.json"):  # what came after the backup comes again
        (again / "inbox").mkdir()
        (again / "inbox" / done.name).write_bytes(done.read_bytes())
    second = Service(replay, once=True)
    second.run()
    assert handled(second)["processed"] == 1
    with Store.open(restored.path) as store, Store.open(again / "late.duckdb") as other:
        assert verify(store, deep=True).valid
        assert content(map_now(store)) == content(map_now(other))
        assert [a.id for a in alerts_now(store)] == [a.id for a in alerts_now(other)]
        keys = "SELECT key FROM events"
        assert store.execute(keys).fetchall() == other.execute(keys).fetchall()
