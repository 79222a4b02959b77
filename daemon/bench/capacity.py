"""``millesimed bench capacity``: what the whole of France needs, and whether the arithmetic holds.

The costs of one core, card, writer and store are measured (``daemon.bench.costs``), the arithmetic
(``daemon.bench.needs``) makes a plan of them, and the same arithmetic says how long a simulated run
will take (``daemon.bench.simulate``), which is then run and held against it. No cost is taken from
the run it is checked against.
"""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from daemon.bench.costs import Effort, measure_costs
from daemon.bench.country import made_apart, scenes_of
from daemon.bench.needs import (
    DEPARTEMENTS,
    PARTITIONS_PER_WORKER,
    PLANNED,
    Costs,
    Load,
    Machine,
    Plan,
    france,
    plan,
    predict,
)
from daemon.bench.simulate import Simulated, simulate
from detectors.types import Progress
from schemas.policy import Sensor

SEED_OF_RUN: Final = 1_000
"""Between the seed of the costs and that of the run: it has scenes of its own."""


def this_machine() -> Machine:
    """What this process may use."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(cores=len(os.sched_getaffinity(0)), cards=cards)


def bench_costs(effort: Effort, *, progress: Progress | None = None) -> dict[str, Any]:
    """Costs of this machine, and what it is.

    Raises:
        BenchFailed, UsageError: as ``measure_costs``.
    """
    costs = measure_costs(effort, changes_per_scene=_changes_per_scene(), progress=progress)
    return {"costs": asdict(costs), "given": sorted(effort.given), "measured_on": _measured_on()}


def bench_capacity(
    effort: Effort,
    *,
    departements: int,
    events: int,
    writers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Costs, assumptions, the plan, and a simulated run of so many départements with so many events
    each; ``writers``: update processes, else one for each core.

    Raises:
        BenchFailed: a process ended or hung.
        UsageError: no broker is installed, or no such device.
    """
    machine = this_machine()
    measured = bench_costs(effort, progress=progress)
    costs = Costs(**measured["costs"])
    writers = min(writers or machine.cores, departements)
    run = _run(departements, events, writers, effort.seed + SEED_OF_RUN, progress)
    return {
        **measured,
        "machine": asdict(machine),
        "assumptions": assumptions(),
        "plan": plan_figures(plan(france(), costs, machine)),
        "simulation": compared(run, costs, machine, stores=departements, writers=writers),
    }


def assumptions() -> dict[str, Any]:
    """What the plan takes for granted."""
    return {
        "planned_share_of_a_unit": PLANNED,
        "partitions_per_worker": PARTITIONS_PER_WORKER,
        "stores": DEPARTEMENTS,
        "programmes": [
            asdict(programme) | {"sensor": programme.sensor.value} for programme in france()
        ],
    }


def plan_figures(found: Plan) -> dict[str, Any]:
    """A plan as figures, each stage with its units in the mean and in a burst."""
    document = asdict(found)
    document["needs"] = [
        asdict(need) | {"mean_units": need.units(need.mean), "burst_units": need.units(need.burst)}
        for need in found.needs
    ]
    return document


def compared(
    run: Simulated, costs: Costs, machine: Machine, *, stores: int, writers: int
) -> dict[str, Any]:
    """A simulated run beside what the arithmetic says of it."""
    load = Load(run.events, run.changes, stores, writers, run.largest_share)
    said = predict(load, costs, machine)
    at_rest = costs.base_cores + stores * costs.store_cores
    return {
        "departements": stores,
        "update_processes": writers,
        "events": run.events,
        "changes": run.changes,
        "predicted_seconds": said.seconds,
        "measured_seconds": run.seconds,
        "ratio": run.seconds / said.seconds,
        "bottleneck": said.bottleneck,
        "predicted_by_resource": said.by_resource,
        "busy": {
            "writer": run.writer_seconds / (writers * run.seconds),
            "core": run.core_seconds / (machine.cores * run.relayed_seconds),
        },
        "cores_taken_by_others": run.others_cores,
        "cores_of_broker": run.broker_cores,
        "core_seconds": run.cpu,
        "core_seconds_predicted": run.events * costs.event_cores
        + run.changes * costs.change_cores
        + at_rest * run.relayed_seconds,
        "resting_cores": run.resting_cores,
        "resting_cores_predicted": at_rest,
        "events_per_second": run.events / run.seconds,
        "events_per_second_and_process": run.events / run.seconds / writers,
        "changes_per_second_and_writer": run.changes / run.seconds / writers,
        "relayed_seconds": run.relayed_seconds,
        "store_bytes_per_event": run.store_bytes / run.sent,
        "topic_bytes_per_event": run.topic_bytes / run.sent,
        "topic_bytes_per_event_predicted": costs.message_bytes
        + costs.change_message_bytes * run.patched / run.sent,
        "account": run.account,
    }


def _run(
    departements: int, events: int, writers: int, seed: int, progress: Progress | None
) -> Simulated:
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        country = made_apart(
            Path(name), departements=departements, scenes=events + 1, seed=seed, progress=progress
        )
        changes = _changes_per_scene()
        scenes = [
            scene
            for code in country.stores
            for scene in scenes_of(code, scenes=events + 1, changes_per_scene=changes, seed=seed)
        ]
        # campaigns of all départements at once: they come mixed, the first of each to warm up
        scenes.sort(key=lambda scene: (scene.number, scene.departement))
        return simulate(
            Path(name),
            country,
            scenes,
            writers=writers,
            warm=departements,
            progress=progress,
        )


def _changes_per_scene() -> float:
    (aerial,) = (p for p in france() if p.sensor is Sensor.PVA)
    return aerial.changes_per_km2 * aerial.scene_km2


def _measured_on() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "machine": platform.machine(),
        "load_average": os.getloadavg(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            name: version(name)
            for name in ("millesimed", "torch", "duckdb", "confluent-kafka", "noida-db")
        }
        | {"python": platform.python_version()},
    }
