"""Processes of a bench: started anew, spoken to over a pipe, never left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from daemon.bench.watch import BenchFailed


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes have taken since they began."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)


@contextmanager
def spawned(target: Any, *arguments: Any) -> Iterator[tuple[BaseProcess, Any]]:  # noqa: ANN401
    """A process that runs ``target(*arguments, pipe)``, and the other end of that pipe."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        if process.is_alive():
            process.terminate()
        process.join()


def heard(pipe: Any, who: str) -> Any:  # noqa: ANN401
    """What a process says next.

    Raises:
        BenchFailed: it ended instead.
    """
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise BenchFailed(f"The {who} ended before its time; its output says why.") from None
