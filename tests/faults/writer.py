"""A process that patches a store event after event until it is killed or done.

``python -m tests.faults.writer STORE EVENTS``: goes on where the store's history ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from detectors.types import Region
from tests.map_store import building, patched
from updater.store import Store

SIDE = 3_000.0


def regions_of(number: int) -> list[Region]:
    """What the event of a number sees: the same whenever it is asked for."""
    rng = np.random.default_rng([7, number])
    return [building(*rng.uniform(40, SIDE - 40, 2), *rng.uniform(18, 45, 2)) for _ in range(3)]


def main() -> None:
    """Patch until as many events as asked for have had their effect."""
    path, events = Path(sys.argv[1]), int(sys.argv[2])
    with Store.open(path) as store:
        (done,) = store.execute("SELECT count(*) FROM events").fetchone() or (0,)
        sys.stdout.write("open\n")
        sys.stdout.flush()
        for number in range(done, events):
            patched(store, number, regions_of(number))


if __name__ == "__main__":
    main()
