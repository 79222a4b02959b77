"""A small store patched by real plans, for tests of what comes after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from shapely.geometry import box

from daemon.bench.patch import event_of
from daemon.planning import assert_whole
from detectors.types import Region
from schemas.change import ChangeKind
from schemas.dead_letter import Origin
from schemas.policy import SENSOR_POLICY, Sensor
from tests.coverages import random_coverage
from updater import alerts, commit, planner, reads
from updater.importer import load
from updater.store import Store
from updater.types import MapPolygon, Patch, Rules

MILLESIME = 2021
FIRST = datetime(2024, 6, 18, 10, tzinfo=UTC)


def made_store(
    path: Path, seed: int = 0, *, cells: int = 40, side: float = 600.0
) -> tuple[Store, list[MapPolygon]]:
    """A store with a random coverage of 2021 and the whole frame as its built-up zone."""
    polygons = random_coverage(np.random.default_rng(seed), cells=cells, side=side)
    store = Store.create(path, territory="D032", crs="EPSG:2154", millesime=MILLESIME)
    load(store, polygons, [box(0, 0, side, side)], millesime=MILLESIME)
    return store, polygons


def building(x: float, y: float, width: float = 30.0, height: float = 24.0) -> Region:
    """A sure new building about a place."""
    shape = box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Region(shape, "CS2.2.1", "CS1.1.1.1", 0.95, 0.8)


def patched(
    store: Store,
    number: int,
    regions: list[Region],
    *,
    days: int = 0,
    kind: ChangeKind = ChangeKind.EVOLUTION,
    reference: str | None = None,
) -> Patch:
    """One acquisition's regions through look-up, plan, invariants and commit, alerts included."""
    event = event_of(number, box(0.1, 43.1, 0.2, 43.2))
    rules = Rules(
        event=event.key,
        acquired=FIRST + timedelta(days=days),
        sensor=Sensor.PVA,
        policy=SENSOR_POLICY[Sensor.PVA],
        detector="test/1",
        gsd=0.2,
        zone_construite=reads.zone_construite(store, (-1e6, -1e6, 1e7, 1e7)),
        kind=kind,
    )
    polygons = reads.neighbourhood(store, [region.geometry for region in regions])
    patch = planner.plan(polygons, regions, rules)
    assert_whole(polygons, patch)
    look = alerts.Look(
        event.item.id, Sensor.PVA, rules.acquired, store.clock(), "test/1", reference
    )
    raised = alerts.follow(reads.alerts_now(store), patch.sightings, look)
    origin = Origin(source="kafka", topic="t", partition=0, offset=number, path=None)
    commit.commit(store, commit.Effect(event, rules, patch, raised, None, origin))
    return patch


def content(polygons: list[MapPolygon]) -> list[tuple[object, ...]]:
    """What a map says, without the numbers of its versions."""
    return sorted(
        (p.id, p.code_cs, p.code_us, p.millesime, p.source, p.ossature, p.geometry.wkb)
        for p in polygons
    )
