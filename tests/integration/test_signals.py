"""A running process told to stop, or killed, in the middle of an event: nothing lost or doubled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import shapely

from tests.integration.broker import free_port
from tests.scenes import announced, prepared
from updater.reads import alerts_now, as_of, end_of
from updater.store import Store
from updater.verify import verify

STOP_SECONDS = 25.0
"""Less than the half minute the documents ask a supervisor to grant."""


def start(folder: Path, *, once: bool = False, port: int | None = None) -> subprocess.Popen[bytes]:
    """`millesimed run` as a process of its own."""
    command = [sys.executable, "-m", "daemon.cli", "run", "--device", "cpu"]
    command += ["--db", str(folder / "D032.duckdb"), "--inbox", str(folder / "inbox")]
    command += ["--outbox", str(folder / "outbox")]
    if once:
        command.append("--once")
    environment = os.environ | {"MILLESIMED_HTTP__PORT": str(port or free_port())}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(folder: Path) -> None:
    done = start(folder, once=True)
    _, errors = done.communicate(timeout=200)
    assert done.returncode == 0, errors.decode()[-2000:]


def outcome(folder: Path):
    with Store.open(folder / "D032.duckdb") as store:
        assert verify(store, deep=True).valid
        now = as_of(store, valid_at=end_of(2024))
        polygons = sorted((p.id, p.code_cs, shapely.to_wkb(p.geometry)) for p in now)
        events = store.execute("SELECT count(*) FROM events").fetchone()[0]
        return polygons, sorted((r.id, r.state, r.sequence) for r in alerts_now(store)), events


@pytest.fixture(scope="module")
def ready(tmp_path_factory, small_scene):
    folder = tmp_path_factory.mktemp("ready")
    settings = prepared(folder, small_scene)
    announced(settings.inbox, small_scene.after)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(ready, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(ready, folder)
    finish(folder)
    return outcome(folder)


def wait_until_busy(folder: Path, port: int) -> None:
    """Until the metrics say an event is being worked on."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
                text = answer.read().decode()
        except OSError:
            time.sleep(0.1)
            continue
        if 'millesimed_stage_in_progress{stage="detect"} 1.0' in text:
            return
        time.sleep(0.05)
    raise AssertionError("the service never began to detect")


def test_sigterm_in_the_middle_of_an_event_stops_cleanly_and_loses_nothing(
    ready, uninterrupted, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(ready, folder)
    port = free_port()
    process = start(folder, port=port)
    wait_until_busy(folder, port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
        assert answer.status == 200
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < STOP_SECONDS
    assert process.returncode == 0, errors.decode()[-2000:]
    with Store.open(folder / "D032.duckdb") as store:
        assert not store.repaired
        assert store.execute("SELECT count(*) FROM events").fetchone() == (0,)
    finish(folder)
    assert outcome(folder) == uninterrupted


@pytest.mark.parametrize("delay", [0.0, 1.5, 4.0])
def test_sigkill_in_the_middle_of_an_event_loses_and_doubles_nothing(
    ready, uninterrupted, tmp_path, delay
):
    folder = tmp_path / "run"
    shutil.copytree(ready, folder)
    port = free_port()
    process = start(folder, port=port)
    wait_until_busy(folder, port)
    time.sleep(delay)
    process.kill()
    process.communicate()
    finish(folder)
    assert outcome(folder) == uninterrupted
    files = [path.stem for path in (folder / "outbox" / "alerts").glob("*.json")]
    assert len(files) == len(uninterrupted[1])


def test_a_kill_right_after_the_commit_makes_the_event_a_duplicate(ready, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(ready, folder)
    script = (
        "import os, signal, sys\n"
        "from daemon import pipeline\n"
        "real = pipeline.commit.commit\n"
        "def dies(store, effect):\n"
        "    real(store, effect)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "pipeline.commit.commit = dies\n"
        "sys.argv = ['millesimed', 'run', '--once', '--device', 'cpu', '--db', sys.argv[1],\n"
        "            '--inbox', sys.argv[2], '--outbox', sys.argv[3]]\n"
        "from daemon.cli import main\n"
        "main()\n"
    )
    places = [str(folder / name) for name in ("D032.duckdb", "inbox", "outbox")]
    done = subprocess.run([sys.executable, "-c", script, *places], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert list((folder / "inbox").glob("*.json")), "the event is still there"
    assert not (folder / "outbox" / "alerts").exists(), "nothing was published yet"
    finish(folder)
    assert outcome(folder) == uninterrupted
    assert not list((folder / "inbox").glob("*.json"))
    assert list((folder / "outbox" / "alerts").glob("*.json"))
