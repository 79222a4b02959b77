"""The true changes of the demo landscape: what was built, cut, dug, cleared and pulled down.

Each change is one parcel painted on top of the old ones. None touches the ossature or another
change, and each is above the minimum unit of what it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import LineString, Point, Polygon
from shapely.geometry.base import BaseGeometry

from daemon.demo.landscape import Parcel, rectangle_in
from updater.generalise import polygons_of

ROOM_M2 = 6200.0
"""A parcel that keeps 2 500 m² when 3 500 m² of it change."""
KEEP_APART_M = 6.0
"""Between two changes, so that each can be told on its own."""


@dataclass(frozen=True, slots=True)
class TrueChange:
    """One change: what it is, what was there, and the parcel now there."""

    kind: str
    cs_before: str
    us_before: str
    after: Parcel


class _Ground:
    """Where changes may still go."""

    def __init__(self, rng: np.random.Generator, before: Sequence[Parcel]) -> None:
        self.rng = rng
        self.before = list(before)
        self.roads = shapely.union_all([p.geometry for p in before if p.ossature])
        self.solid = shapely.union_all([p.geometry for p in before if p.kind in {"roof", "hall"}])
        self.used: BaseGeometry = Polygon()
        self.changes: list[TrueChange] = []

    def of(self, *kinds: str, above: float = 0.0) -> list[Parcel]:
        """Parcels of some kinds, in random order."""
        found = [p for p in self.before if p.kind in kinds and p.geometry.area > above]
        return [found[i] for i in self.rng.permutation(len(found))]

    def roomy(self, kind: str) -> list[Parcel]:
        """Parcels of a kind, those first that stay above the minimum unit after a change."""
        found = self.of(kind, above=3600)
        return sorted(found, key=lambda p: p.geometry.area < ROOM_M2)

    def add(self, kind: str, was: Parcel, shape: BaseGeometry, now: tuple[str, str, str]) -> None:
        """Record a change and take its ground."""
        parts = polygons_of(shape)
        largest = max(parts, key=lambda p: p.area)
        parcel = Parcel(shapely.set_precision(largest, 0.01), *now)
        self.changes.append(TrueChange(kind, was.code_cs, was.code_us, parcel))
        self.used = self.used.union(largest.buffer(KEEP_APART_M))

    @property
    def taken(self) -> BaseGeometry:
        """Ground no new building may touch."""
        return self.used.union(self.solid).union(self.roads)


def change_everything(rng: np.random.Generator, before: Sequence[Parcel]) -> list[TrueChange]:
    """All changes of a landscape, at least twenty."""
    ground = _Ground(rng, before)
    _extend_quarry(ground)
    _car_park(ground)
    _road(ground)
    _clearings(ground, 2)
    _site(ground)
    _pond(ground)
    _halls(ground, 2)
    _houses_in_fields(ground, 9)
    _houses_in_plots(ground, 4)
    _demolitions(ground, 4)
    return ground.changes


def _extend_quarry(ground: _Ground) -> None:
    quarry = ground.of("quarry")[0]
    near = [
        p
        for p in ground.of("field", "broadleaf", "shrub", "vineyard", "conifer", above=3200)
        if shapely.length(p.geometry.boundary.intersection(quarry.geometry.boundary)) > 25
    ]
    if not near:
        return
    chosen = near[0]
    reach = quarry.geometry.buffer(55, join_style="mitre").intersection(chosen.geometry)
    ground.add("quarry", chosen, reach, ("CS1.1.2.1", "US1.3", "quarry"))


def _car_park(ground: _Ground) -> None:
    for lawn in ground.roomy("lawn") + ground.roomy("field"):
        shape = rectangle_in(
            ground.rng,
            lawn.geometry,
            width=(36, 44),
            length=(44, 60),
            margin=2,
            avoid=ground.taken,
        )
        if shape is not None:
            ground.add("car park", lawn, shape, ("CS1.1.1.2", "US3", "carpark"))
            return


def _road(ground: _Ground) -> None:
    """A lane of 10 m from the ossature across open fields."""
    fields = shapely.union_all([p.geometry for p in ground.of("field", "shrub", "vineyard")])
    middle = shapely.union_all([p.geometry for p in ground.before]).centroid
    # off the lines where acquisitions meet: cut in two, no half may reach the minimum unit
    seams = shapely.union_all(
        [
            LineString([(middle.x, middle.y - 900), (middle.x, middle.y + 900)]),
            LineString([(middle.x - 900, middle.y), (middle.x + 900, middle.y)]),
        ]
    ).buffer(25)
    best: tuple[float, BaseGeometry, Parcel] | None = None
    for _ in range(160):
        start = ground.of("field", above=4000)[0]
        centre = start.geometry.representative_point()
        angle = float(ground.rng.uniform(0, 180))
        line = affinity.rotate(
            LineString([(centre.x - 215, centre.y), (centre.x + 215, centre.y)]), angle
        )
        free = fields.difference(ground.taken).difference(seams)
        strip = line.buffer(5, cap_style="flat").intersection(free)
        parts = polygons_of(strip.buffer(-2.5).buffer(2.5))
        if not parts:
            continue
        longest = max(parts, key=lambda p: p.area)
        if best is None or longest.area > best[0]:
            best = (longest.area, longest, start)
        if longest.area > 3700:
            break
    if best is not None and best[0] > 2800:
        ground.add("road", best[2], best[1], ("CS1.1.1.2", "US4.1.1", "road"))


def _clearings(ground: _Ground, count: int) -> None:
    """Whole stands cut at once, or a hole in a wood large enough to stay one."""
    for wood in ground.of("broadleaf", "conifer", above=3200):
        if sum(c.kind == "clearing" for c in ground.changes) == count:
            return
        shape: BaseGeometry = wood.geometry
        if wood.geometry.area > ROOM_M2:
            x, y = wood.geometry.representative_point().coords[0]
            blob = affinity.rotate(
                affinity.scale(Point(x, y).buffer(1), 32, 36), float(ground.rng.uniform(0, 180))
            )
            shape = blob.intersection(wood.geometry)
        if shape.area > 3000 and not shape.intersects(ground.used):
            ground.add("clearing", wood, shape, ("CS2.2.1", "US1.2", "meadow"))


def _site(ground: _Ground) -> None:
    """A whole field stripped for building."""
    for field in ground.of("field", above=3600):
        if not field.geometry.intersects(ground.used):
            ground.add("construction site", field, field.geometry, ("CS1.1.2.1", "US6.1", "site"))
            return


def _pond(ground: _Ground) -> None:
    for field in ground.roomy("field"):
        x, y = field.geometry.representative_point().coords[0]
        blob = affinity.scale(Point(x, y).buffer(1), 31, 36)
        shape = blob.intersection(field.geometry.buffer(-2)).difference(ground.taken)
        if shape.area > 3000 and len(polygons_of(shape)) == 1:
            ground.add("pond", field, shape, ("CS1.2.2", "US6.3", "water"))
            return


def _halls(ground: _Ground, count: int) -> None:
    made = 0
    for plot in ground.of("lawn", above=2600) + ground.roomy("field"):
        shape = rectangle_in(
            ground.rng, plot.geometry, width=(24, 30), length=(36, 50), margin=4, avoid=ground.taken
        )
        if shape is not None:
            ground.add("hall", plot, shape, ("CS1.1.1.1", "US3", "hall"))
            made += 1
        if made == count:
            return


def _houses_in_fields(ground: _Ground, count: int) -> None:
    """New houses where fields meet the village, several to a field."""
    village = shapely.union_all([p.geometry for p in ground.of("garden")])
    fields = sorted(
        ground.of("field", above=4200), key=lambda p: float(p.geometry.distance(village))
    )
    made = 0
    for field in fields:
        for _ in range(3):
            shape = rectangle_in(
                ground.rng,
                field.geometry,
                width=(14, 17),
                length=(17, 21),
                margin=5,
                avoid=ground.taken.union(ground.used.buffer(4)),
            )
            if shape is not None and made < count:
                ground.add("house", field, shape, ("CS1.1.1.1", "US5", "roof"))
                made += 1
        if made == count:
            return


def _houses_in_plots(ground: _Ground, count: int) -> None:
    made = 0
    for plot in ground.of("garden", above=800):
        if plot.geometry.interiors or made == count:
            continue
        shape = rectangle_in(
            ground.rng, plot.geometry, width=(14, 16), length=(16, 18), margin=3, avoid=ground.taken
        )
        if shape is not None:
            ground.add("house", plot, shape, ("CS1.1.1.1", "US5", "roof"))
            made += 1


def _demolitions(ground: _Ground, count: int) -> None:
    made = 0
    for house in ground.of("roof", "hall", above=230):
        if made == count:
            return
        if house.geometry.area > 700 or house.geometry.intersects(ground.used):
            continue
        ground.add("demolition", house, house.geometry, ("CS2.2.1", house.code_us, "garden"))
        made += 1
