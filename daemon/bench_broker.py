"""A Kafka broker as a process of its own, on loopback, for benches and tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.envelope import MODELS
from schemas.errors import UsageError

PROGRAM: Final = "noida-db"
START_SECONDS: Final = 30.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def available() -> bool:
    """True where the broker binary is installed."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def broker(folder: Path, *, partitions: int = 1) -> Iterator[str]:
    """Start a broker with the project's topics; gives its address.

    Raises:
        UsageError: it is not installed.
    """
    if not available():
        raise UsageError(f"There is no {PROGRAM} here; install millesimed[test], or use the inbox.")
    port = free_port()
    command = [PROGRAM, "start", "--only", "kafka", "--kafka-port", str(port)]
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "broker")], stdout=log, stderr=log
        )
        try:
            server = f"127.0.0.1:{port}"
            _wait(server, partitions)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(server: str, partitions: int) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        admin = AdminClient({"bootstrap.servers": server, "log_level": 0})
        try:
            admin.list_topics(timeout=2)
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    wanted = [NewTopic(topic, num_partitions=partitions) for topic, _ in MODELS.values()]
    for done in admin.create_topics(wanted).values():
        done.result(timeout=20)
