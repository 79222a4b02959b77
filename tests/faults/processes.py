"""Service processes to be killed: started anew from the interpreter, or forked from a warm one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from updater.faults import POINTS, VARIABLE

ROOT = Path(__file__).parents[2]
END_SECONDS = 120.0
"""Only a hang takes that long to end, however busy the machine."""
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class Running(Protocol):
    """A process that was started."""

    pid: int

    def wait(self, seconds: float) -> int | None:
        """How it ended (minus the signal's number where one killed it); None: it still runs."""
        ...


class Starter(Protocol):
    """A way to start ``millesimed``."""

    def start(self, arguments: list[str], *, log: Path, fault: str | None = None) -> Running:
        """Start it; ``fault``: the step it is to die at."""
        ...


def kill(process: Running) -> int:
    """``kill -9``; gives how it ended."""
    os.kill(process.pid, signal.SIGKILL)
    ended = process.wait(END_SECONDS)
    assert ended is not None
    return ended


def _environment(fault: str | None) -> dict[str, str]:
    assert fault is None or fault.partition(":")[0] in POINTS
    return QUIET | ({VARIABLE: fault} if fault else {})


@dataclass
class ColdProcess:
    """A process with an interpreter of its own."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def wait(self, seconds: float) -> int | None:
        """How it ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Cold:
    """``python -m daemon.cli``: seconds of imports each time."""

    def start(self, arguments: list[str], *, log: Path, fault: str | None = None) -> ColdProcess:
        """Start it."""
        with log.open("ab") as target:
            process = subprocess.Popen(
                [sys.executable, "-m", "daemon.cli", *arguments],
                env=os.environ | _environment(fault),
                stdout=target,
                stderr=target,
                cwd=ROOT,
            )
        return ColdProcess(process)


@dataclass
class WarmProcess:
    """A process forked from the warm one, which alone can wait for it."""

    pid: int
    warm: Warm

    def wait(self, seconds: float) -> int | None:
        """How it ended."""
        return self.warm.ask({"wait": self.pid, "seconds": seconds})


@dataclass
class Warm:
    """A process that has everything imported and forks."""

    process: subprocess.Popen[str]

    def start(self, arguments: list[str], *, log: Path, fault: str | None = None) -> WarmProcess:
        """Start it."""
        request = {"run": arguments, "environment": _environment(fault), "log": str(log)}
        pid = self.ask(request)
        assert pid is not None
        return WarmProcess(pid, self)

    def ask(self, request: dict[str, object]) -> int | None:
        """The warm process's answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer is None or isinstance(answer, int)
        return answer


@contextmanager
def warm() -> Iterator[Warm]:
    """The warm process while it is needed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.warm"],
        env=os.environ | QUIET,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield Warm(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(END_SECONDS)
