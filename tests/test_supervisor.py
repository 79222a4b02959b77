"""What systemd hears, over a real datagram socket."""

import os
import socket
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from daemon import supervisor
from daemon.supervisor import Supervisor


@contextmanager
def listening(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(address)
        found.settimeout(0.2)
        yield found


def heard(found):
    said = []
    while True:
        try:
            said.append(found.recv(4096).decode())
        except TimeoutError:
            return said


@pytest.mark.parametrize("abstract", [False, True])
def test_it_hears_of_the_start_and_of_the_end(tmp_path, abstract):
    name = f"millesimed-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listening("\0" + name if abstract else name) as found:
        told = Supervisor({"NOTIFY_SOCKET": "@" + name if abstract else name})
        told.ready()
        told.alive()  # nobody asked for that
        told.stopping()
        assert heard(found) == ["READY=1", "STOPPING=1"]


def test_a_turning_loop_is_said_twice_in_the_time_it_has(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(supervisor, "monotonic", lambda: now[0])
    with listening(str(tmp_path / "notify")) as found:
        told = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"})
        for _ in range(481):  # a minute, eight turns a second
            told.alive()
            now[0] += 0.125
        assert heard(found) == ["WATCHDOG=1"] * 3


def test_another_process_is_watched_and_not_this_one(tmp_path):
    with listening(str(tmp_path / "notify")) as found:
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000"}
        Supervisor(told | {"WATCHDOG_PID": str(os.getpid() + 1)}).alive()
        assert heard(found) == []
        Supervisor(told | {"WATCHDOG_PID": str(os.getpid())}).alive()
        assert heard(found) == ["WATCHDOG=1"]


def test_without_systemd_or_when_it_went_away_nothing_happens(tmp_path):
    with capture_logs() as said:
        Supervisor({}).ready()
        Supervisor({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert [line["event"] for line in said] == ["supervisor_unheard"]
