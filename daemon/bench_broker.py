"""A Kafka broker as a process of its own, on loopback, for benches."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.errors import UsageError

PACKAGE: Final = "noida_db"
START_SECONDS: Final = 60.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Start a broker; gives its address.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec(PACKAGE) is None:
        raise UsageError("There is no noida-db here; install millesimed[test].")
    program = Path(str(files(PACKAGE))) / "noida-db"  # the command of that name starts this one
    program.chmod(0o755)
    port = free_port()
    command = [str(program), "start", "--only", "kafka", "--kafka-port", str(port)]
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "broker")], stdout=log, stderr=log
        )
        try:
            server = f"127.0.0.1:{port}"
            _wait(server)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(server: str) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            AdminClient({"bootstrap.servers": server, "log_level": 0}).list_topics(timeout=2)
            return
        except KafkaException:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def create_topics(server: str, partitions: Mapping[str, int]) -> None:
    """Make topics, each with its number of partitions."""
    admin = AdminClient({"bootstrap.servers": server, "log_level": 0})
    wanted = [NewTopic(name, num_partitions=count) for name, count in partitions.items()]
    for done in admin.create_topics(wanted).values():
        done.result(timeout=20)
