"""A store on a disk that fills up, in a process of its own.

``python -m tests.faults.disks STORE EVENTS ROOM``: patches event after event from where the
history ends; no file may grow beyond ROOM bytes (-1: no limit), which for a small ROOM ends in a
commit, for one of about the store's size in a checkpoint. The last line printed is what became of
it, as JSON.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from schemas.errors import MillesimedError
from tests.faults.writer import regions_of
from tests.map_store import patched
from updater.store import Store

CHECKPOINT_EVERY = 7


def limited(room: int) -> None:
    """Let no file grow beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead of an end
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def written(path: Path, events: int) -> dict[str, Any]:
    """How many events are in, and the sentence that ended it."""
    said, done = None, -1
    try:
        with Store.open(path) as store:
            (done,) = store.execute("SELECT count(*) FROM events").fetchone() or (0,)
            for number in range(done, events):
                patched(store, number, regions_of(number))
                done = number + 1
                if done % CHECKPOINT_EVERY == 0:
                    store.checkpoint()
    except MillesimedError as error:
        said = str(error)
    return {"done": done, "said": said}


if __name__ == "__main__":
    place, count, spare = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if spare >= 0:
        limited(spare)
    sys.stdout.write(json.dumps(written(place, count)) + "\n")
