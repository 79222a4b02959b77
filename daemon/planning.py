"""The pipeline's plan stage: from regions to everything an event does to one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from daemon.judging import Judged
from daemon.locate import Located
from detectors.types import Region
from schemas.dead_letter import Origin
from schemas.envelope import AcquisitionEvent
from schemas.policy import SENSOR_POLICY
from updater import alerts, commit, corrections, planner, protection, reads, topology
from updater.alerts import Look, Step
from updater.store import Store
from updater.territories import places_of
from updater.types import Patch, Rules


def effect_of(
    store: Store, event: AcquisitionEvent, located: Located, judged: Judged, origin: Origin
) -> commit.Effect:
    """Everything a judged acquisition does to a store, against the map as it is now.

    Raises:
        PatchRefused: it would break an invariant of the map.
    """
    item = event.item
    rules = Rules(
        event=event.key,
        acquired=item.acquired,
        sensor=item.properties.sensor,
        policy=SENSOR_POLICY[item.properties.sensor],
        detector=judged.detector,
        gsd=item.properties.gsd,
    )
    rules = _heeding(store, judged.regions, item.id, rules)
    patch = (drawn if rules.policy.patches else _warned)(store, judged.regions, rules)
    return commit.Effect(
        event=event,
        rules=rules,
        patch=patch,
        alerts=_follow(store, patch, event, located, judged),
        image=reads.ImageRecord(
            item=item.id,
            path=located.image,
            sensor=item.properties.sensor,
            acquired=item.acquired,
            gsd=item.properties.gsd,
            footprint=located.footprint,
            elevation=located.elevation,
        ),
        origin=origin,
        series=judged.series,
    )


def _heeding(store: Store, regions: Sequence[Region], item: str, rules: Rules) -> Rules:
    """The rules with the ground that people corrected and what other images said of it."""
    if not regions:
        return rules
    west, south, east, north = shapely.total_bounds([r.geometry for r in regions]).tolist()
    found = corrections.corrected_in(store, (west, south, east, north))
    if not found:
        return rules
    bounds = [c.geometry.bounds for c in found]
    window = shapely.total_bounds(shapely.box(*zip(*bounds, strict=True))).tolist()
    around = (window[0], window[1], window[2], window[3])
    known = reads.alerts_in(store, around)
    return replace(
        rules,
        corrected=protection.standing(found, reads.current_in(store, around)),
        seen=tuple(protection.seen_before(known, item)),
    )


def drawn(store: Store, regions: Sequence[Region], rules: Rules) -> Patch:
    """The patch of one image, or of one batch of corrections, that may draw; its invariants
    asserted."""
    grounds = [region.geometry for region in regions]
    polygons = reads.neighbourhood(store, grounds)
    patch = planner.plan(polygons, regions, replace(rules, zone_construite=_zone(store, grounds)))
    assert_whole(polygons, patch)
    return patch


def _warned(store: Store, regions: Sequence[Region], rules: Rules) -> Patch:
    """What an image that may only warn says, region by region: they lie far apart, and the map
    between them is not needed."""
    parts = [
        planner.plan(reads.neighbourhood(store, [region.geometry]), [region], rules)
        for region in regions
    ]
    ignored: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
    return Patch(sightings=[s for part in parts for s in part.sightings], ignored=dict(ignored))


def _zone(store: Store, grounds: Sequence[BaseGeometry]) -> BaseGeometry | None:
    if not grounds:
        return None
    window = shapely.total_bounds(list(grounds))
    return reads.zone_construite(store, (window[0], window[1], window[2], window[3]))


def assert_whole(polygons: Sequence[Any], patch: Patch) -> None:
    """The design's invariants over the whole patch and its ring, once more before the commit."""
    if patch.is_empty:
        return
    gone = {p.id for p in patch.retired}
    tree = shapely.STRtree([p.geometry for p in polygons])
    ground = [p.geometry for p in patch.retired]
    ring = {int(i) for i in tree.query(ground, predicate="intersects")[1]}
    stay = [polygons[i].geometry for i in ring if polygons[i].id not in gone]
    topology.assert_invariants(
        [*ground, *stay],
        [*(p.geometry for p in patch.created), *stay],
        where="of this acquisition",
    )


def _follow(
    store: Store, patch: Patch, event: AcquisitionEvent, located: Located, judged: Judged
) -> list[Step]:
    """What one acquisition does to the alerts of its ground, with the territories they lie in."""
    grounds = [located.footprint, *(s.geometry for s in patch.sightings)]
    window = shapely.total_bounds(grounds)
    known = reads.alerts_in(store, (window[0], window[1], window[2], window[3]))
    references = located.references
    look = Look(
        acquisition=event.item.id,
        sensor=event.item.properties.sensor,
        acquired=event.item.acquired,
        known_at=store.clock(),
        detector=judged.detector,
        reference=references[0].item if references else None,
        compared_to=max((image.acquired for image in references), default=None),
    )
    seen = [judged.grounds.get(record.id) for record in known]
    steps = alerts.follow(known, patch.sightings, look, seen)
    return with_places(store, steps)


def with_places(store: Store, steps: Sequence[Step]) -> list[Step]:
    """The steps, each alert that is new or was drawn anew with the territories it lies in."""
    moved = [s for s in steps if s.before is None or s.before.geometry is not s.after.geometry]
    places = places_of(store, [step.after.geometry for step in moved])
    told = {
        step.after.id: replace(step.after, places=found)
        for step, found in zip(moved, places, strict=True)
    }
    return [Step(step.before, told.get(step.after.id, step.after)) for step in steps]
