"""Ground that people corrected, against later images. Pure.

An image overwrites what a person drew only with evidence: it was taken on a later day than the
ground was seen to be as drawn, and it is either very sure (``CORRECTED_PROBABILITY``) or the second
one to say so. What lacks that is left out of the patch; from a later image it becomes an alert,
whose look the next image can agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from detectors.types import Region
from schemas.policy import ALERT_SAME_GROUND_SHARE, CORRECTED_PROBABILITY
from updater import topology
from updater.types import AlertRecord, Corrected, Drawn, MapPolygon, Rules, Says, Seen

REACH_M = 250.0
"""How far beyond itself a region can alter the map: a rest of the largest minimum unit, 2 500 m2,
of the smallest width a map polygon has."""
HELD_M2 = 1.0
"""Less corrected ground under another cover than before is grid noise."""


@dataclass(frozen=True, slots=True)
class Held:
    """Corrected ground a region may not overwrite, in the store's CRS; ``doubted``: the part of it
    that the region's image is later than, so that it may warn."""

    ground: BaseGeometry
    doubted: BaseGeometry | None


class Ground:
    """Corrected ground, to be asked by place."""

    def __init__(self, corrected: Sequence[Corrected]) -> None:
        self._corrected = corrected
        self._tree = shapely.STRtree([c.geometry for c in corrected]) if corrected else None

    def held(self, region: Region, rules: Rules) -> Held | None:
        """What a region may not overwrite; None where there is none near: rests that are too small
        join a neighbour beyond the region itself."""
        if self._tree is None or isinstance(region, Drawn):
            return None
        hits = np.sort(self._tree.query(region.geometry, predicate="dwithin", distance=REACH_M))
        near = [self._corrected[int(i)] for i in hits]
        kept = [c for c in near if not may_overwrite(c, region, rules)]
        if not kept:
            return None
        doubted = [c.geometry for c in kept if is_later(rules.acquired, c.observed)]
        return Held(
            topology.union([c.geometry for c in kept]),
            topology.union(doubted) if doubted else None,
        )


def may_overwrite(corrected: Corrected, region: Region, rules: Rules) -> bool:
    """True where a region has the evidence to redraw (of a sensor that may not draw: to warn of)
    some corrected ground."""
    if not is_later(rules.acquired, corrected.observed):
        return False
    if not rules.policy.patches or region.probability >= CORRECTED_PROBABILITY:
        return True
    return any(
        is_later(look.acquired, corrected.observed)
        and look.to_cs == region.to_cs
        and _same_ground(look.geometry, region.geometry)
        for look in rules.seen
    )


def is_later(acquired: datetime, observed: datetime) -> bool:
    """True for an image of a later day; one of the same day knows no better than the person."""
    return acquired.date() > observed.date()


def standing(
    corrected: Sequence[Corrected], polygons: Sequence[MapPolygon]
) -> tuple[Corrected, ...]:
    """What of corrected ground still has the cover it was given: what was redrawn since, with
    evidence, is no longer a person's word."""
    tree = shapely.STRtree([p.geometry for p in polygons])
    found = []
    for one in corrected:
        near = [polygons[int(i)] for i in np.sort(tree.query(one.geometry, "intersects"))]
        same = [p.geometry for p in near if p.code_cs == one.code_cs]
        ground = topology.intersection(topology.union(same), one.geometry) if same else None
        if ground is not None and ground.area >= HELD_M2:
            found.append(replace(one, geometry=ground))
    return tuple(found)


def seen_before(known: Sequence[AlertRecord], acquisition: str) -> list[Seen]:
    """The looks of other images at the changes that alerts tell of."""
    return [
        Seen(record.geometry, record.after.code_cs, look.acquired)
        for record in known
        for look in record.observations
        if look.says is Says.CHANGED and look.acquisition != acquisition
    ]


def overwrites(
    ground: BaseGeometry, before: Sequence[MapPolygon], after: Sequence[MapPolygon]
) -> bool:
    """True where some ground would have other codes after a change than before."""
    for old in before:
        inside = shapely.intersection(old.geometry, ground)
        if inside.area < HELD_M2:
            continue
        others = [p.geometry for p in after if (p.code_cs, p.code_us) != (old.code_cs, old.code_us)]
        if others and float(shapely.area(shapely.intersection(others, inside)).sum()) >= HELD_M2:
            return True
    return False


def _same_ground(a: BaseGeometry, b: BaseGeometry) -> bool:
    smaller = min(a.area, b.area)
    shared = float(shapely.intersection(a, b).area)
    return bool(smaller > 0 and shared >= ALERT_SAME_GROUND_SHARE * smaller)
