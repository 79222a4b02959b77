"""`millesimed status` beside a real service process, and where none runs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from daemon.announce import drop
from daemon.commands import status as commands_status
from daemon.config import HttpSettings
from daemon.http import HttpServer, application
from daemon.metrics import Metrics
from daemon.status import NoAnswer, Status, asked
from daemon.status_view import age
from tests.integration.broker import free_port
from tests.scenes import announced, prepared

STAGES = ["validate", "locate", "detect", "plan", "commit", "publish"]
EVENT_SECONDS = 150.0
SHOWN_SECONDS = 60.0


def status(*arguments):
    command = [sys.executable, "-m", "daemon.cli", "status", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def figures(*arguments):
    code, text, errors = status("--json", *arguments)
    assert text, errors
    return code, json.loads(text)


def configured(folder, port):
    (folder / "deliveries").mkdir()
    path = folder / "millesimed.toml"
    path.write_text(
        'db = ["D032.duckdb"]\ninbox = "inbox"\ndevice = "cpu"\n'
        f'[http]\nhost = "0.0.0.0"\nport = {port}\n'
        '[[acquire]]\nname = "ign"\nkind = "folder"\nfolder = "deliveries"\nevery_seconds = 1\n'
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_scene):
    """What it says while a service runs that took in an event and a bad one, and afterwards."""
    folder = tmp_path_factory.mktemp("status")
    settings = prepared(folder, small_scene)
    config = configured(folder, free_port())
    drop(settings.inbox, "bad", b"{")
    announced(settings.inbox, small_scene.after)
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "run", "--config", str(config)], stderr=log
        )
    try:
        until = time.monotonic() + EVENT_SECONDS
        while not list((settings.inbox / "done").glob("*.json")):
            assert service.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        time.sleep(3)  # the relay and the source have had their turn
        while figures("--config", config)[1]["lag"] != {"inbox": 0}:  # looked at every 15 s
            assert time.monotonic() < until
        found = {
            "running": figures("--config", config),
            "shown": status("--config", config),
            "live": live(config),
        }
    finally:
        service.terminate()
        service.wait(timeout=60)
    return found | {"stopped": figures("--config", config), "config": config}


def live(config):
    """What a terminal shows until ctrl-C, and the exit code."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        # who is started in the background ignores ctrl-C, and hands that down
        [
            *("env", "--default-signal=INT", sys.executable, "-m", "daemon.cli"),
            *("status", "--live", "--config", str(config)),
        ],
        stdin=side,
        stdout=side,
        stderr=side,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "60"},
    )
    os.close(side)
    text, until = b"", time.monotonic() + SHOWN_SECONDS
    while b"Stages" not in text and time.monotonic() < until:
        text += os.read(main, 65536)
    process.send_signal(signal.SIGINT)
    reader = threading.Thread(target=_drain, args=(main,), daemon=True)
    reader.start()
    code = process.wait(timeout=30)
    os.close(main)
    return code, text.decode(errors="replace")


def _drain(terminal):
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass


def test_a_running_service_is_well_and_says_what_it_did(run):
    code, found = run["running"]
    assert code == 0 and found["healthy"] and found["state"] == "ready"
    assert found["trouble"] is None and found["up_seconds"] > 0
    events = found["events"]
    assert (events["processed"], events["dead-lettered"], events["duplicate"]) == (1, 1, 0)
    assert events["per_hour"] == pytest.approx(2 * 3600 / found["up_seconds"], rel=0.01)
    assert datetime.now(UTC) - datetime.fromisoformat(events["last"]) < timedelta(minutes=10)
    assert found["dead_letters"] == {"not-json": 1}
    stages = {row["stage"]: row for row in found["stages"]}
    assert list(stages) == STAGES
    for name in STAGES:
        assert stages[name]["newest"].startswith("2024-06-18")
    assert stages["detect"]["finished"] == 1 and stages["detect"]["seconds"] > 0
    assert stages["validate"]["failed"] == 1
    assert found["lag"] == {"inbox": 0}
    assert {row["channel"]: row["depth"] for row in found["outbox"]}["folder"] == 0
    (detector,) = found["detectors"]
    assert detector["detector"] == "map-guided" and detector["scenes"] == 1
    assert detector["drift_sigmas"] is not None


def test_it_says_how_stores_and_sources_are(run):
    _, found = run["running"]
    (store,) = found["stores"]
    assert store["store"] == "D032" and store["bytes"] > 0 and store["free_bytes"] > 0
    assert datetime.now(UTC) - datetime.fromisoformat(store["checkpoint"]) < timedelta(minutes=10)
    assert store["map"].startswith("2024-06-18")
    (source,) = found["sources"]
    assert (source["source"], source["kind"], source["owed"]) == ("ign", "folder", 0)
    assert datetime.now(UTC) - datetime.fromisoformat(source["last_success"]) < timedelta(minutes=5)


def test_a_person_reads_the_same(run):
    code, text, _ = run["shown"]
    assert code == 0
    for word in ("ready", "map-guided", "not-json", "D032", "ign", *STAGES):
        assert word in text
    assert "1 processed, 0 duplicate, 1 dead-lettered" in text


def test_live_it_fills_the_terminal_until_it_is_stopped(run):
    code, text = run["live"]
    assert code == 0
    assert "ready" in text and "Stages" in text


def test_where_none_runs_the_stores_are_read_and_the_code_says_so(run):
    code, found = run["stopped"]
    assert code == 1 and not found["healthy"] and found["state"] == "not running"
    assert "No service answers at http://127.0.0.1:" in found["trouble"]
    assert found["events"]["processed"] == 1 and found["events"]["dead-lettered"] == 1
    assert found["dead_letters"] == {"not-json": 1} and found["lag"] == {"inbox": 0}
    (store,) = found["stores"]
    assert store["store"] == "D032" and store["trouble"] is None and store["log_bytes"] == 0
    assert found["sources"][0]["last_success"]
    assert found["outbox"] == [{"channel": "folder", "depth": 0, "age_seconds": 0.0}]


def test_a_store_with_a_log_is_left_as_it_is(run, tmp_path):
    here = run["config"].parent
    log = here / "D032.duckdb.wal"
    log.write_bytes(b"x")
    before = (here / "D032.duckdb").stat()
    try:
        code, found = figures("--config", run["config"])
        assert log.read_bytes() == b"x"
    finally:
        log.unlink()
    assert code == 1 and "the next start mends it" in found["stores"][0]["trouble"]
    assert (here / "D032.duckdb").stat().st_mtime_ns == before.st_mtime_ns


@contextmanager
def serving(*, alive, ready):
    class Service:
        metrics = Metrics()

    Service.alive, Service.ready = alive, ready
    port = free_port()
    settings = HttpSettings(port=port)
    server = HttpServer(application(Service(), [], settings), settings)
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("alive", "ready", "state", "advice"),
    [(False, True, "hung", "restart the service"), (True, False, "not ready", "see its log")],
)
def test_a_service_that_is_not_well_is_told_in_a_sentence(alive, ready, state, advice):
    with serving(alive=alive, ready=ready) as url:
        found = asked(url)
    assert found.state == state and advice in found.trouble


def test_nothing_there_and_something_else_there_are_told_apart(tmp_path):
    with pytest.raises(NoAnswer, match="No service answers"):
        asked(f"http://127.0.0.1:{free_port()}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(NoAnswer, match="is not millesimed"):
            asked(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()


class Elsewhere(SimpleHTTPRequestHandler):
    """Something that answers to anything."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_):
        pass


def test_the_rate_of_what_was_watched():
    seen = commands_status.deque()
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def look(seconds, processed):
        found = Status(taken=at + timedelta(seconds=seconds), url="", state="ready")
        found.events = {"processed": processed, "per_hour": 7.0, "last": None}
        commands_status._pace(found, seen)
        return found.events["per_hour"]

    assert look(0, 100) == 7.0  # nothing to compare it with
    assert look(60, 102) == pytest.approx(120)
    assert look(360, 102) == pytest.approx(0)  # the first look is too long ago
    assert look(420, 3) == 7.0  # started anew
    assert look(480, 4) == pytest.approx(60)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (7, "7 s"), (90, "1.5 min"), (5400, "1.5 h"), (129600, "1.5 d")],
)
def test_ages_are_said_as_a_person_says_them(seconds, text):
    assert age(seconds) == text
