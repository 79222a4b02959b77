"""The container's and the unit's command, really executed with the files that are deployed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from datetime import datetime, timedelta

import pytest

from daemon.announce import drop
from tests.deployed import (
    BESIDE,
    DEPLOY,
    READY_SECONDS,
    Started,
    can_sandbox,
    dockerfile,
    filtered,
    here,
    instruction,
    sandboxed,
    unit,
)
from tests.integration.broker import available, broker, free_port
from tests.scenes import announced, prepared
from updater.store import Store

EVENT_SECONDS = 150.0
BEAT_SECONDS = 30.0
"""Half the silence the unit allows; a machine that runs other tests too is late by seconds."""
DOCKER_STOP_SECONDS = 10.0
"""What `docker stop` grants between the stop signal and the kill."""


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


@pytest.fixture
def data(tmp_path, small_scene):
    """What lies in the data folder: a store."""
    folder = tmp_path / "data"
    folder.mkdir()
    prepared(folder, small_scene)
    if not can_sandbox(folder):
        pytest.skip("this machine lets no process have mounts of its own")
    return folder


def replaced(text, folder, **others):
    """A deployed configuration with what is this machine's."""
    for old, new in {folder: f"{BESIDE}/data", "0.0.0.0": "127.0.0.1", **others}.items():
        text = text.replace(old, new)
    return text


def test_the_sandbox_is_one(data):
    for refused in (["touch", "/root/x"], ["chown", "1:1", f"{BESIDE}/data"]):
        done = subprocess.run(sandboxed(refused, data), capture_output=True, check=False)
        assert done.returncode != 0, refused


@pytest.mark.kafka
@pytest.mark.skipif(not available(), reason="noida-db is not installed")
def test_the_containers_command_serves_from_kafka_and_stops_within_its_grace(data, tmp_path):
    port = free_port()
    with broker(tmp_path) as server:
        text = (DEPLOY / "millesimed.toml").read_text()
        own = replaced(text, "/data", **{"kafka:19092": server, "port = 8460": f"port = {port}"})
        (data / "millesimed.toml").write_text(own)
        started = Started(here(instruction("ENTRYPOINT") + instruction("CMD")), data, port)
        try:
            started.wait_ready()
            assert healthy(port)
            stop_signal = re.search(r"^STOPSIGNAL (\w+)", dockerfile(), re.MULTILINE)[1]
            code, seconds = started.stop(stop_signal)
        finally:
            started.close()
    assert code == 0 and seconds < DOCKER_STOP_SECONDS, started.log.read_text()[-2000:]
    assert {"running", "stopping"} <= {line["event"] for line in started.lines()}
    assert not healthy(port)
    with Store.open(data / "D032.duckdb") as store:
        assert not store.repaired


def healthy(port):
    """What the container's health check says."""
    program, *rest = (part.replace("8460", str(port)) for part in instruction("  CMD"))
    done = subprocess.run([shutil.which(program), *rest], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


class Systemd:
    """The socket systemd hears its services on."""

    def __init__(self, folder):
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.heard = []

    def wait(self, state, seconds=READY_SECONDS):
        until = time.monotonic() + seconds
        while state not in self.heard:
            self._socket.settimeout(max(0.01, until - time.monotonic()))
            self.heard += self._socket.recv(4096).decode().splitlines()

    def close(self):
        self._socket.close()


@needs_systemd
def test_the_filter_is_one(data):
    """What it denies is refused, what it allows works."""
    refused = subprocess.run(
        filtered(["chown", "0:0", str(data)]), capture_output=True, check=False
    )
    assert refused.returncode == 1 and b"not permitted" in refused.stderr
    assert (
        subprocess.run(filtered(["ls", str(data)]), capture_output=True, check=False).returncode
        == 0
    )


@needs_systemd
def test_the_units_command_says_ready_keeps_saying_so_and_stops_in_time(
    data, tmp_path, small_scene
):
    settings, port = unit(), free_port()
    assert settings["Type"] == ["notify"]
    text = (DEPLOY / "systemd" / "millesimed.toml").read_text()
    own = replaced(text, "/var/lib/millesimed", **{"port = 8460": f"port = {port}"})
    (data / "millesimed.toml").write_text(own)
    environment = dict(line.split("=", 1) for line in settings["Environment"])
    environment = {k: v.replace("/var/cache", f"{BESIDE}/tmp") for k, v in environment.items()}
    systemd = Systemd(tmp_path)
    environment |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "4000000"}
    (command,) = settings["ExecStart"]
    started = Started(filtered(here(command.split())), data, port, environment)
    try:
        systemd.wait("READY=1")
        assert started.answer("/readyz") == 200
        drop(data / "inbox", "0-bad", b"{")
        event_id = announced(data / "inbox", small_scene.after)
        begun = time.monotonic()
        while not list((data / "inbox" / "done").glob("*.json")):
            systemd.heard.clear()
            systemd.wait("WATCHDOG=1", seconds=BEAT_SECONDS)  # while it detects too
            assert time.monotonic() - begun < EVENT_SECONDS
        code, seconds = started.stop(settings["KillSignal"][0])
        systemd.wait("STOPPING=1", seconds=1)
    finally:
        started.close()
        systemd.close()
    assert code == 0 and seconds < int(settings["TimeoutStopSec"][0])
    told(started.lines(), event_id, data)


def told(lines, event_id, data):
    """Every line is an object with a time in UTC and a level; those of an event say whose."""
    for line in lines:
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
        assert line["level"] in {"info", "warning"}
    (bad,) = (line for line in lines if line["event"] == "dead_letter")
    assert bad["path"] == "0-bad.json" and bad["failed_in"] == "validate"
    assert "event_id" not in bad  # it could not be read
    of_event = [line for line in lines if line.get("event_id") == event_id]
    assert "event_processed" in {line["event"] for line in of_event}
    for line in of_event:
        assert line["store"] == "D032" and line["stage"] == "commit"
        assert line["path"] == f"{event_id}.json" and line["detector"].startswith("map-guided")
        assert line["item"] == json.loads(next(done_file(data, event_id)).read_text())["data"]["id"]
    (end,) = (line for line in lines if line["event"] == "stopping")
    assert not end.keys() & {"event_id", "item", "store", "stage", "path"}  # of no event


def done_file(data, event_id):
    return (data / "inbox" / "done").glob(f"{event_id}.json")
