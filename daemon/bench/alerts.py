"""How few, how true and how soon alerts of a Sentinel-2 series are: the whole service on a made-up
landscape whose every change is known.

Two years of scenes are written as files, announced, and go through the real pipeline into a real
store: histories, map, matrix, life cycle. Then every alert is held against what was planted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
import rasterio
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from daemon.announce import event_bytes, item_of
from daemon.bench.parcels import Truth
from daemon.bench.scenes import CRS, GSD_M, Scenery
from daemon.bench.spectra import BANDS
from daemon.config import Settings
from daemon.metrics import Metrics
from daemon.pipeline import Outcome, Pipeline
from daemon.sources import Message
from detectors.types import BoolArray, FloatArray, Progress
from schemas.alert import AlertKind, AlertState
from schemas.dead_letter import Origin
from schemas.policy import Sensor
from updater.alert_rows import record_from_row
from updater.importer import load
from updater.store import Store
from updater.types import AlertRecord, MapPolygon

SEEN_SHARE: Final = 0.5
"""Share of a site that must be clear for an acquisition to count as a look at it."""
TRUE_SHARE: Final = 0.5
"""Share of a true alert that lies on a planted site and the pixel around it."""
FOUND_SHARE: Final = 0.3
"""Share of a planted site that a true alert must cover to have found it."""
LINGERS: Final = timedelta(days=30)
"""How long after its end something may still be blamed for a false alert."""
STATES: Final = (AlertState.FIRST, AlertState.PROVISIONAL, AlertState.CONFIRMED)


@dataclass(frozen=True, slots=True)
class Told:
    """One alert in its last state, and when it first was at least as sure as each state."""

    record: AlertRecord
    reached: dict[AlertState, datetime]

    @property
    def raised(self) -> datetime:
        """When the ground was first seen changed."""
        return min(self.reached.values())


def bench_alerts(*, seed: int, size: int = 330, progress: Progress | None = None) -> dict[str, Any]:
    """Figures of one landscape: alerts by state with their precision, recall of what was planted,
    delay in clear looks, causes of false alerts, seconds."""
    scenery = Scenery(seed, size=size)
    sites = [t for t in scenery.truth if t.artificial]
    insides = [_inside(t.geometry, scenery) for t in sites]
    clear: list[list[datetime]] = [[] for _ in sites]
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as folder:
        store = _store(Path(folder) / "D032.duckdb", scenery)
        with store:
            pipeline = Pipeline([store], Settings(db=[store.path]), Metrics())
            started = perf_counter()
            for index in range(len(scenery.dates)):
                image, valid, acquired = scenery.scene(index)
                path = Path(folder) / f"s2-{index:03d}.tif"
                _write(path, scenery, image, valid)
                message = _message(path, acquired, index)
                if pipeline.handle(message) is not Outcome.PROCESSED:
                    raise RuntimeError(f"The acquisition of {acquired:%Y-%m-%d} was not taken.")
                path.unlink()
                for inside, days in zip(insides, clear, strict=True):
                    if valid[inside].mean() >= SEEN_SHARE:
                        days.append(acquired)
                if progress is not None:
                    progress("observe", index + 1, len(scenery.dates))
            seconds = perf_counter() - started
            told = list(alerts_told(store))
    figures = held_against(told, scenery.truth, sites, clear)
    return {
        "seed": seed,
        "acquisitions": len(scenery.dates),
        "planted": len(sites),
        "distractors": sum(not t.artificial and t.kind != "snow" for t in scenery.truth),
        **figures,
        "seconds_per_acquisition": seconds / len(scenery.dates),
    }


def _inside(geometry: BaseGeometry, scenery: Scenery) -> BoolArray:
    grid = scenery.grid
    return np.asarray(geometry_mask([geometry], grid.shape, grid.transform, invert=True), bool)


def _store(path: Path, scenery: Scenery) -> Store:
    millesime = scenery.dates[0].year - 1
    store = Store.create(path, territory="D032", crs=CRS, millesime=millesime)
    polygons = [
        MapPolygon(f"P{number}", cs, us, millesime, shape)
        for number, (shape, cs, us) in enumerate(scenery.polygons())
    ]
    load(store, polygons, [], millesime=millesime)
    return store


def _write(path: Path, scenery: Scenery, image: FloatArray, valid: BoolArray) -> None:
    """A scene as level 2A comes to hand: 16 bits, 0 where the mask hides the ground."""
    rows, cols = scenery.grid.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=len(BANDS),
        height=rows,
        width=cols,
        crs=CRS,
        transform=scenery.grid.transform,
        nodata=0,
    ) as target:
        target.write(np.where(valid, np.clip(np.rint(image), 1, 65_535), 0).astype(np.uint16))
        target.descriptions = BANDS


def _message(path: Path, acquired: datetime, number: int) -> Message:
    _, body = event_bytes(item_of(path, acquired=acquired, sensor=Sensor.SENTINEL_2))
    origin = Origin(source="inbox", topic="bench", path=f"{number}.json")
    return Message(value=body, headers={}, origin=origin, size=len(body))


def alerts_told(store: Store) -> Iterator[Told]:
    """Every alert of artificialisation, with the acquisition dates that made it surer."""
    rows = store.execute(
        "SELECT a.id, a.state, a.record, ST_AsWKB(a.geom), e.acquired FROM alerts a "
        "JOIN events e ON e.key = a.event ORDER BY a.id, a.sequence"
    ).fetchall()
    reached: dict[str, dict[AlertState, datetime]] = {}
    last: dict[str, AlertRecord] = {}
    for id_, state, record, wkb, acquired in rows:
        last[id_] = record_from_row(record, bytes(wkb))
        if AlertState(state) in STATES:
            for lower in STATES[: STATES.index(AlertState(state)) + 1]:
                reached.setdefault(id_, {}).setdefault(lower, acquired)
    for id_, record in last.items():
        if record.kind is AlertKind.ARTIFICIALISATION and id_ in reached:
            yield Told(record, reached[id_])


def held_against(
    told: Sequence[Told],
    truth: Sequence[Truth],
    sites: Sequence[Truth],
    clear: Sequence[Sequence[datetime]],
) -> dict[str, Any]:
    """Alerts against the truth. One raised before the works began is false, wherever it lies; the
    delay counts clear looks from when the ground is mineral to the confirming one."""
    on = [_sites_of(alert, sites) for alert in told]
    states = []
    for state in STATES:
        of_state = [
            bool(found) for alert, found in zip(told, on, strict=True) if state in alert.reached
        ]
        states.append(
            {
                "state": state.value,
                "alerts": len(of_state),
                "true": sum(of_state),
                "precision": sum(of_state) / max(1, len(of_state)),
            }
        )
    confirmed: dict[int, datetime] = {}
    wrong: Counter[str] = Counter()
    for alert, found in zip(told, on, strict=True):
        when = alert.reached.get(AlertState.CONFIRMED)
        if when is None:
            continue
        if not found:
            wrong[_cause(alert, truth)] += 1
        for i in found:
            shared = alert.record.geometry.intersection(sites[i].geometry).area
            if shared >= FOUND_SHARE * sites[i].geometry.area:
                confirmed[i] = min(confirmed.get(i, when), when)
    delays = [
        sum((sites[i].built or sites[i].begins) <= day <= when for day in clear[i])
        for i, when in confirmed.items()
    ]
    kinds = Counter(site.kind for site in sites)
    return {
        "states": states,
        "recall": len(confirmed) / len(sites),
        "precision": states[-1]["precision"],
        "delay_looks": median(delays) if delays else None,
        "recall_by_kind": {
            kind: sum(sites[i].kind == kind for i in confirmed) / count
            for kind, count in sorted(kinds.items())
        },
        "false_by_cause": dict(wrong.most_common()),
    }


def _sites_of(alert: Told, sites: Sequence[Truth]) -> list[int]:
    ground = alert.record.geometry
    return [
        i
        for i, site in enumerate(sites)
        if alert.raised >= site.begins
        and ground.intersection(site.geometry.buffer(GSD_M)).area >= TRUE_SHARE * ground.area
    ]


def _cause(alert: Told, truth: Sequence[Truth]) -> str:
    """What was planted on the ground of a false alert at that time, or nothing."""
    ground = alert.record.geometry
    for event in truth:
        over = event.ends is not None and event.ends + LINGERS < alert.raised
        share = ground.intersection(event.geometry.buffer(GSD_M)).area / ground.area
        if event.kind != "snow" and not over and share >= TRUE_SHARE:
            return event.kind
    return "nothing planted"
