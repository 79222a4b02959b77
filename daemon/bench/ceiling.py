"""How much faster several processes judge than one where nothing stands between them: the machine's
own limit, which a broker and a writer can only lower.

Cores share memory, caches and often their very arithmetic, so two of them are seldom worth two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from daemon.bench.process import heard, spawned
from daemon.config import Settings
from daemon.judging import Context, context_of, judged_context
from daemon.locate import locate
from schemas.envelope import parse_acquisition
from updater.store import Store

EACH: Final = 8
"""Acquisitions that every process judges while the clock runs."""


def judging_alone(db: Path, events: Sequence[bytes], workers: int) -> float:
    """Acquisitions a second that so many processes judge, each with its own copy of the work and
    one thread."""
    with Store.open(db) as store:
        found = [_context(store, body) for body in events[: EACH + 1]]
    with ExitStack() as stack:
        pipes = [stack.enter_context(spawned(_judge, db, found))[1] for _ in range(workers)]
        for pipe in pipes:
            heard(pipe, "process that judges")  # it has everything loaded
        for pipe in pipes:
            pipe.send(None)
        spans = [heard(pipe, "process that judges") for pipe in pipes]
    seconds: float = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return workers * (len(found) - 1) / seconds


def _context(store: Store, body: bytes) -> Context:
    item = parse_acquisition(body, {}).item
    return context_of(store, item, locate(store, item))


def _judge(db: Path, contexts: Sequence[Context], orders: Any) -> None:  # noqa: ANN401 - a pipe
    """The first to warm up; when told, the others. Says when it began and ended, on the clock all
    processes of a machine share."""
    import torch

    torch.set_num_threads(1)
    settings = Settings(db=[db], detector="siamese", device="cpu")
    first, *rest = contexts
    judged_context(first, settings, _silent)
    orders.send("ready")
    orders.recv()
    began = time.monotonic()
    for context in rest:
        judged_context(context, settings, _silent)
    orders.send((began, time.monotonic()))


def _silent(*_: object) -> None:
    """Nobody is told how far it is."""
