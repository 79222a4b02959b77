"""Test equipment: a process that dies on purpose at a named step.

``MILLESIMED_FAULT=in-transaction`` makes the process end, as ``kill -9`` would end it, when it gets
to that step; ``in-transaction:3`` when it gets there for the third time. Without the variable, as
in every real run, a step costs one look at the environment.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from typing import Final

VARIABLE: Final = "MILLESIMED_FAULT"
POINTS: Final = (
    "after-read",  # a message is in hand, nothing is done yet
    "in-detect",  # its images are being looked at
    "after-detect",  # its regions are known, the map is untouched
    "before-answer",  # a detect worker has judged, nobody was told
    "in-transaction",  # everything is written, the COMMIT is still to come
    "after-commit",  # the effect is in the store, nobody was told
    "before-offset-commit",  # the source does not know yet
    "in-relay",  # a channel has had messages, the store does not know yet
    "in-call",  # a subscriber has had an alert, the store does not know yet
    "in-checkpoint",  # before the log is folded in, and (the second time) right after
    "in-repair",  # between the statements that rebuild the R-tree
    "in-import",  # the map is loaded, the store is not in its place yet
    "in-export",  # the file is written, but not in its place yet
    "between-parts",  # some files of an export are in their places, the others are not
)
"""The steps a process can be made to die at."""

_seen: Counter[str] = Counter()
_counting = threading.Lock()


def reached(point: str) -> None:
    """Die here if the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if wanted:
        _reached(point, wanted)


def _reached(point: str, wanted: str) -> None:
    name, _, count = wanted.partition(":")
    if name != point:
        return
    with _counting:
        _seen[point] += 1
        if _seen[point] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
