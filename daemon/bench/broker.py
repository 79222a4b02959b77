"""A Kafka broker as a process of its own, on loopback, for benches and tests.

Before it stands a process that lets a fetch wait as Kafka does (:mod:`daemon.bench.patience`).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.envelope import MODELS
from schemas.errors import UsageError

PROGRAM: Final = "noida-db"
START_SECONDS: Final = 30.0
SAVED_SECONDS: Final = 3.0
"""After which this broker has on disk what it confirmed; it writes about once a second, and at once
when it is stopped. One with replicas has it when it confirms."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def available() -> bool:
    """True where the broker binary is installed."""
    return shutil.which(PROGRAM) is not None


def _binary() -> str:
    """The broker itself: the command of that name is a process before it, which dies alone."""
    beside = Path(str(files("noida_db"))) / "noida-db"
    beside.chmod(0o755)  # which the command does before it starts it
    return str(beside)


class Broker:
    """A broker that can go away and come back, with what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._own = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._front: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    @property
    def pids(self) -> list[int]:
        """Its processes, none while it is stopped."""
        return [process.pid for process in (self._process, self._front) if process is not None]

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            UsageError: it is not installed.
        """
        if not available():
            raise UsageError(
                f"There is no {PROGRAM} here; install millesimed[test] or use the inbox."
            )
        command = [_binary(), "start", "--only", "kafka", "--kafka-port", str(self._own)]
        command += ["--data-dir", str(self.folder / "broker")]
        front = [sys.executable, "-m", "daemon.bench.patience", str(self.port), str(self._own)]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the broker of a package
                command, stdout=log, stderr=log
            )
            self._front = subprocess.Popen(front, stdout=log, stderr=log)  # noqa: S603 - this program
        until = time.monotonic() + START_SECONDS
        while True:
            admin = AdminClient({"bootstrap.servers": self.server, "log_level": 0})
            try:
                admin.list_topics(timeout=2)
                return
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def settle(self) -> None:
        """Wait until a kill would lose nothing of what it confirmed."""
        time.sleep(SAVED_SECONDS)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, or kill it, which loses what it has not saved."""
        for process in (self._process, self._front):
            if process is not None:
                process.kill() if kill or process is self._front else process.terminate()
                process.wait(timeout=20)
        self._process = self._front = None

    def create(self, names: list[str], *, partitions: int = 1) -> None:
        """Make topics."""
        create_topics(self.server, dict.fromkeys(names, partitions))


@contextmanager
def broker(folder: Path, *, partitions: int = 1) -> Iterator[str]:
    """Start a broker with the project's topics; gives its address."""
    with brittle_broker(folder, partitions=partitions) as found:
        yield found.server


@contextmanager
def brittle_broker(folder: Path, *, partitions: int = 1) -> Iterator[Broker]:
    """The same, to be stopped and started."""
    found = Broker(folder)
    try:
        found.start()
        found.create([topic for topic, _ in MODELS.values()], partitions=partitions)
        yield found
    finally:
        found.stop()


def create_topics(server: str, partitions: Mapping[str, int]) -> None:
    """Make topics, each with its number of partitions."""
    admin = AdminClient({"bootstrap.servers": server, "log_level": 0})
    wanted = [NewTopic(name, num_partitions=count) for name, count in partitions.items()]
    for done in admin.create_topics(wanted).values():
        done.result(timeout=20)
