"""How well the Sentinel-2 monitor finds what was planted in a made-up landscape.

Regions of each look become alerts by the rules of ``updater.alerts`` (evidence, two clean looks),
then alerts are compared with the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
from rasterio.features import geometry_mask, rasterize
from shapely.geometry.base import BaseGeometry

from daemon.bench_parcels import Truth
from daemon.bench_scenes import GSD_M, Scenery
from daemon.bench_spectra import BANDS
from detectors.series import Look, observe
from detectors.series_regions import CLEARED, looks_regions
from detectors.series_state import SeriesState
from detectors.types import BoolArray, ByteArray, Grid, Region
from schemas.alert import AlertState
from schemas.nomenclature import CS_INDEX
from schemas.policy import CLEAN_LOOKS_TO_CANCEL, SENSOR_POLICY, Sensor
from updater.alerts import same_ground, state_of

SEEN_SHARE: Final = 0.5
"""Share of a place that must be valid for a look to count as one of it."""
TRUE_SHARE: Final = 0.5
"""Share of a true alert that lies on the planted site and the pixel around it."""
FOUND_SHARE: Final = 0.3
"""Share of a planted site that a true alert must cover to have found it."""


@dataclass(slots=True)
class Watched:
    """An alert of the bench: its ground, looks, and when it was confirmed."""

    ground: BaseGeometry
    pixels: BoolArray
    probability: float
    looks: int
    first: datetime
    clean: int = 0
    confirmed: datetime | None = None
    ended: datetime | None = None


@dataclass(slots=True)
class Watch:
    """The alerts of one series, followed look by look."""

    grid: Grid
    alerts: list[Watched] = field(default_factory=list)

    def follow(self, look: Look, found: Sequence[Region]) -> None:
        """One look's regions: feed the alerts they lie on, raise new ones, count the rest clean."""
        lowest = SENSOR_POLICY[Sensor.SENTINEL_2].alert_probability
        current = [a for a in self.alerts if a.ended is None]
        fed: set[int] = set()
        for region in found:
            if region.to_cs == CLEARED or region.probability < lowest:
                continue
            own = [a for a in current if a.ended is None and same_ground(a.ground, region.geometry)]
            if not own:
                self.alerts.append(self._raised(region, look))
                continue
            best = max(own, key=lambda a: (a.looks, a.ground.intersection(region.geometry).area))
            if id(best) not in fed:
                self._again(best, region, look)
            fed.add(id(best))
            for other in own:  # two that have become one
                if other is not best and other.confirmed is None:
                    other.ended = look.acquired
        for alert in current:
            if (
                alert.ended is None
                and id(alert) not in fed
                and look.valid[alert.pixels].mean() >= SEEN_SHARE
            ):
                alert.clean += 1
                if alert.clean >= CLEAN_LOOKS_TO_CANCEL:
                    alert.ended = look.acquired

    def _raised(self, region: Region, look: Look) -> Watched:
        return Watched(region.geometry, self._pixels(region), region.probability, 1, look.acquired)

    def _pixels(self, region: Region) -> BoolArray:
        return np.asarray(
            geometry_mask([region.geometry], self.grid.shape, self.grid.transform, invert=True),
            bool,
        )

    def _again(self, alert: Watched, region: Region, look: Look) -> None:
        alert.probability = (alert.probability * alert.looks + region.probability) / (
            alert.looks + 1
        )
        alert.looks += 1
        alert.clean = 0
        if alert.confirmed is None:  # the first outline may hold a cloud beside the site
            alert.ground, alert.pixels = region.geometry, self._pixels(region)
        sensors = [Sensor.SENTINEL_2] * alert.looks
        state = state_of(alert.probability, alert.looks, sensors)
        if state is AlertState.CONFIRMED and alert.confirmed is None:
            alert.confirmed = look.acquired


def prior_of(scenery: Scenery) -> tuple[ByteArray, BoolArray]:
    """The map's covers and its farmed ground on the grid of a scenery."""
    polygons = scenery.polygons()
    size, place = scenery.grid.shape, scenery.grid.transform
    cover = rasterize([(p, CS_INDEX[cs]) for p, cs, _ in polygons], size, transform=place)
    farmed = rasterize([(p, int(us == "US1.1")) for p, _, us in polygons], size, transform=place)
    return cover.astype(np.uint8), farmed > 0


def bench_series(seed: int, *, with_map: bool = True, size: int = 330) -> dict[str, Any]:
    """Recall, precision and delay of confirmed alerts over one made-up landscape.

    ``delay_looks``: clear looks from the day the ground became mineral to the confirming one, both
    counted; ``delay_looks_begun``: from the day the works began.
    """
    scenery = Scenery(seed, size=size)
    cover, farmed = prior_of(scenery) if with_map else (None, None)
    state, watch, seconds = SeriesState.empty(scenery.grid), Watch(scenery.grid), 0.0
    sites = [t for t in scenery.truth if t.artificial]
    insides = [
        geometry_mask([t.geometry], scenery.grid.shape, scenery.grid.transform, invert=True)
        for t in sites
    ]
    clear: list[list[datetime]] = [[] for _ in sites]
    for index in range(len(scenery.dates)):
        image, valid, acquired = scenery.scene(index)
        started = perf_counter()
        state, look = observe(
            state,
            image,
            BANDS,
            valid,
            acquired,
            acquisition=f"S2-{index}",
            cover=cover,
            farmed=farmed,
        )
        found = looks_regions(look, scenery.grid)
        seconds += perf_counter() - started
        watch.follow(look, found)
        for inside, days in zip(insides, clear, strict=True):
            if valid[inside].mean() >= SEEN_SHARE:
                days.append(acquired)
    result = judged(watch, scenery.truth, sites, clear)
    return {"seed": seed, **result, "seconds_per_look": seconds / len(scenery.dates)}


def judged(
    watch: Watch, truth: Sequence[Truth], sites: Sequence[Truth], clear: Sequence[list[datetime]]
) -> dict[str, Any]:
    """Confirmed alerts against the truth; one first raised before the works began is false."""
    confirmed = [(a, a.confirmed) for a in watch.alerts if a.confirmed]
    hits: dict[int, datetime] = {}
    true = 0
    wrong: Counter[str] = Counter()
    for alert, when in confirmed:
        on = [
            i
            for i, site in enumerate(sites)
            if alert.first >= site.begins and lies_on(alert.ground, site.geometry)
        ]
        true += bool(on)
        for i in on:
            if covers(alert.ground, sites[i].geometry):
                hits[i] = min(hits.get(i, when), when)
        if not on:
            wrong[_cause(alert, truth)] += 1
    delays, begun = [], []
    for i, when in hits.items():
        since = sites[i].built or sites[i].begins
        delays.append(sum(since <= day <= when for day in clear[i]))
        begun.append(sum(sites[i].begins <= day <= when for day in clear[i]))
    kinds = Counter(site.kind for site in sites)
    return {
        "recall": len(hits) / len(sites),
        "precision": true / max(1, len(confirmed)),
        "confirmed": len(confirmed),
        "first_only": len(watch.alerts) - len(confirmed),
        "delay_looks": median(delays) if delays else None,
        "delay_looks_begun": median(begun) if begun else None,
        "recall_by_kind": {
            kind: sum(sites[i].kind == kind for i in hits) / n for kind, n in kinds.items()
        },
        "false_by_cause": dict(wrong),
    }


def lies_on(ground: BaseGeometry, site: BaseGeometry) -> bool:
    """True where most of an alert lies on a site, to the pixel."""
    return bool(ground.intersection(site.buffer(GSD_M)).area >= TRUE_SHARE * ground.area)


def covers(ground: BaseGeometry, site: BaseGeometry) -> bool:
    """True where an alert covers enough of a site."""
    return bool(ground.intersection(site).area >= FOUND_SHARE * site.area)


def _cause(alert: Watched, truth: Sequence[Truth]) -> str:
    """What was planted on the ground of a false alert at that time, or nothing."""
    for event in truth:
        over = event.ends is not None and event.ends + timedelta(days=30) < alert.first
        if event.kind != "snow" and not over and lies_on(alert.ground, event.geometry):
            return event.kind
    return "nothing planted"
