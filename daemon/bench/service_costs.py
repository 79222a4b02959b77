"""What an event and a changed polygon cost the service, pixels apart: two runs of one store.

The same scenes are sent through one update process, one detect process and a broker twice, to two
stores that are alike: once nothing is new on them, once there are buildings. What the first run
takes is the events'; what the second takes more is the changes'. A third service with several
stores is left alone for a while: what it takes more than the first at rest is the stores'.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from daemon.bench.country import Scene, made_apart, scenes_of
from daemon.bench.simulate import REST_SECONDS, Simulated, running, simulate
from daemon.bench.watch import BenchFailed
from updater.recovery import compact

WARM: Final = 8
"""Events before the clock starts: they load what is loaded once."""
RESTING_STORES: Final = 11
LEAST: Final = 0.01
"""Least part of a run with changes that is the changes': the clocks may say that they cost nothing,
and nothing can be divided by."""


def service_costs(scenes: int, *, changes_per_scene: float, seed: int) -> dict[str, float | str]:
    """The costs of events, changes and stores.

    Raises:
        BenchFailed: a process ended or hung, or no polygon was patched.
        UsageError: no broker is installed.
    """
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        folder = Path(name)
        some = scenes_of(
            "D001", scenes=WARM + scenes, changes_per_scene=changes_per_scene, seed=seed + 1
        )
        none = [replace(scene, changes=0) for scene in some]
        bare, bare_bytes = _one(folder / "bare", none, seed)
        full, full_bytes = _one(folder / "full", some, seed)
        resting = _resting(folder / "resting", seed)
    if not full.changes:
        raise BenchFailed("No polygon was patched; measure with more scenes.")
    return costs_of(bare, full, (bare_bytes, full_bytes), resting)


def costs_of(
    bare: Simulated, full: Simulated, grown: tuple[int, int], resting: float
) -> dict[str, float | str]:
    """Costs from a run without changes and one with; ``grown``: bytes each store grew by, dead
    space apart; ``resting``: cores of a service with ``RESTING_STORES`` at rest."""
    base = (bare.resting_cores + full.resting_cores) / 2
    store = max(0.0, resting - base) / (RESTING_STORES - 1)
    writer = _each(bare, full, (bare.writer_seconds, full.writer_seconds))
    cores = _each(
        bare,
        full,
        (
            bare.core_seconds - base * bare.relayed_seconds,
            full.core_seconds - base * full.relayed_seconds,
        ),
    )
    stored = _each(bare, full, grown, whole=True)
    topics = _each(bare, full, (bare.topic_bytes, full.topic_bytes), whole=True)
    return {
        "events": 1 / writer[0],
        "changes": 1 / writer[1],
        "event_cores": cores[0],
        "change_cores": cores[1],
        "base_cores": max(0.0, base - store),
        "store_cores": store,
        "event_bytes": stored[0],
        "change_bytes": stored[1],
        "message_bytes": topics[0],
        "change_message_bytes": topics[1],
    }


def _each(
    bare: Simulated, full: Simulated, taken: tuple[float, float], *, whole: bool = False
) -> tuple[float, float]:
    """An event's share and a change's of what two runs took; ``whole``: the warm events too."""
    events, changes = (bare.sent, full.patched) if whole else (bare.events, full.changes)
    return taken[0] / events, max(taken[1] - taken[0], LEAST * taken[1]) / changes


def _one(folder: Path, scenes: list[Scene], seed: int) -> tuple[Simulated, int]:
    """A run of one store, and the bytes its rows took."""
    country = made_apart(folder, departements=1, scenes=len(scenes), seed=seed)
    (db,) = country.stores.values()
    before = compact(db).after
    found = simulate(folder, country, scenes, writers=1, warm=WARM)
    if not found.account["accounted_for"]:
        raise BenchFailed(f"The service lost or doubled something: {found.account}.")
    return found, compact(db).after - before


def _resting(folder: Path, seed: int) -> float:
    """Cores of a service with several stores while nothing comes."""
    country = made_apart(folder, departements=RESTING_STORES, scenes=1, seed=seed)
    with running(folder, country, writers=1) as roles:
        return roles.rest(REST_SECONDS)
