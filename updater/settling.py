"""Cut polygons along changed ground, merge what is too small, and node the ring around it.

Drafts are polygons being made. What is written is a coverage again, or nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from schemas.nomenclature import class_distance
from schemas.policy import minimum_unit
from updater import protection, topology
from updater.generalise import polygons_of
from updater.types import MapPolygon, Rules
from updater.workspace import Entry, Evidence, Workspace

Usage = Callable[[str | None], str]
"""The usage of changed ground, from the usage it had."""
MIN_PIECE_M2 = 1.0
"""Smaller pieces of a differential are grid noise."""


class RegionIgnored(Exception):
    """The region has no effect on the map; the argument is the reason's slug."""


@dataclass(slots=True)
class Draft:
    """A polygon being made: its ground, what it copies its attributes from, its parents."""

    geometry: BaseGeometry
    base: MapPolygon
    parents: frozenset[str]
    evidence: Evidence | None = None

    @property
    def is_new(self) -> bool:
        """True for the changed ground itself, False for what is left of its parents."""
        return self.evidence is not None


def changed(polygon: MapPolygon, to_cs: str, usage: Usage, rules: Rules) -> MapPolygon:
    """The polygon under its new cover and usage, millésime and source ours."""
    return replace(
        polygon,
        code_cs=to_cs,
        code_us=usage(polygon.code_us),
        millesime=rules.millesime,
        source=rules.source,
        version=0,
        valid_from=rules.acquired,
        code_or="NC",
    )


def cut(
    workspace: Workspace,
    pieces: dict[int, BaseGeometry],
    ground: BaseGeometry,
    to_cs: str,
    usage: Usage,
    evidence: Evidence,
    rules: Rules,
) -> list[Draft]:
    """Changed ground and what is left of each polygon, as single-part drafts."""
    keys, inside = list(pieces), list(pieces.values())
    drafts = []
    for part in polygons_of(topology.union(inside)):
        shares = [topology.intersection(piece, part).area for piece in inside]
        owners = [k for k, area in zip(keys, shares, strict=True) if area >= MIN_PIECE_M2]
        main = keys[shares.index(max(shares))]
        base = changed(workspace[main].polygon, to_cs, usage, rules)
        parents = frozenset().union(*(workspace[k].parents for k in owners or [main]))
        drafts.append(Draft(part, base, parents, evidence))
    for key in keys:
        entry = workspace[key]
        for part in polygons_of(topology.difference(entry.polygon.geometry, ground)):
            drafts.append(Draft(part, entry.polygon, entry.parents, entry.evidence))
    return drafts


def settle(
    workspace: Workspace,
    keys: Sequence[int],
    drafts: list[Draft],
    rules: Rules,
    held: protection.Held | None,
) -> None:
    """Merge what is too small, node the ring, check, and write the result."""
    taken = list(keys)
    old = topology.union([workspace[k].polygon.geometry for k in keys])
    ring = [k for k in workspace.near(old) if k not in set(keys)]
    small = _too_small(drafts, rules)
    while small is not None:
        drafts.remove(small)
        host_key = _merge_into_best(workspace, small, drafts, ring)
        if host_key is not None:
            ring.remove(host_key)
            taken.append(host_key)
        small = _too_small(drafts, rules)
    parents = [workspace[k].polygon.geometry for k in taken]
    nodes = topology.new_vertices([p for d in drafts for p in polygons_of(d.geometry)], parents)
    shapes = [topology.with_nodes(d.geometry, nodes) for d in drafts]
    ring_old = [workspace[k].polygon.geometry for k in ring]
    ring_new = [topology.with_nodes(g, nodes) for g in ring_old]
    before, after = [*parents, *ring_old], [*shapes, *ring_new]
    if topology.problem(before, after) is not None:
        after = topology.cleaned(after) or after
        where = f"at {old.representative_point().coords[0]}"
        topology.assert_invariants(before, after, where=where)
    made = [
        Entry(_finished(draft, shape, rules), draft.parents, draft.evidence)
        for draft, shape in zip(drafts, after[: len(drafts)], strict=True)
    ]
    for ring_key, was, now in zip(ring, ring_old, after[len(drafts) :], strict=True):
        if now is not was and not shapely.equals_identical(now, was):
            entry = workspace[ring_key]
            made.append(replace(entry, polygon=replace(entry.polygon, geometry=now, version=0)))
            taken.append(ring_key)
    write(workspace, taken, made, held)


def _too_small(drafts: Sequence[Draft], rules: Rules) -> Draft | None:
    """The smallest draft below its minimum unit, or None."""
    below = [
        d
        for d in drafts
        if d.geometry.area
        < minimum_unit(d.base.code_cs or "", inside_built_zone=in_built_zone(d.geometry, rules))
    ]
    return min(below, key=lambda d: (d.geometry.area, d.geometry.bounds)) if below else None


def _merge_into_best(
    workspace: Workspace, small: Draft, drafts: list[Draft], ring: Sequence[int]
) -> int | None:
    """Give a small piece to the neighbour with the longest border and nearest class.

    Returns the key of the ring polygon that took it, or None when a draft did.

    Raises:
        RegionIgnored: no neighbour but the ossature touches it.
    """
    hosts: list[tuple[float, int, Draft, int | None]] = []
    for i, draft in enumerate(drafts):
        hosts.append((_affinity(small, draft), i, draft, None))
    for ring_key in ring:
        entry = workspace[ring_key]
        if not entry.polygon.ossature:
            host = Draft(entry.polygon.geometry, entry.polygon, entry.parents, entry.evidence)
            hosts.append((_affinity(small, host), len(hosts), host, ring_key))
    for score, _, host, key in sorted(hosts, key=lambda h: (-h[0], h[1])):
        if score <= 0:
            break
        merged = topology.union([host.geometry, small.geometry])
        if isinstance(merged, Polygon):
            host.geometry = merged
            host.parents |= small.parents
            host.evidence = host.evidence or small.evidence
            if key is not None:
                drafts.append(host)
            return key
    raise RegionIgnored("below-minimum-unit")


def _affinity(small: Draft, host: Draft) -> float:
    border = topology.shared_border(small.geometry, host.geometry)
    a, b = small.base.code_cs, host.base.code_cs
    if border <= 0 or (small.is_new and a != b):
        return 0.0  # changed ground grows its own cover, it never becomes another
    return border / (1 + (class_distance(a, b) if a and b else len("CS1.1.1.1")))


def _finished(draft: Draft, shape: Polygon, rules: Rules) -> MapPolygon:
    """The draft as a polygon with an id that any rerun of the same event gives again."""
    digest = hashlib.sha256(rules.event.encode() + shapely.to_wkb(shape)).hexdigest()
    return replace(draft.base, id=f"MLS{digest[:20].upper()}", geometry=shape, version=0)


def write(
    workspace: Workspace,
    keys: Sequence[int],
    made: Sequence[Entry],
    held: protection.Held | None,
) -> None:
    """Put polygons in the place of others, unless that overwrites ground it may not: what joins a
    neighbour because it is too small must not either.

    Raises:
        RegionIgnored: it does.
    """
    if held is not None and protection.overwrites(
        held.ground, [workspace[k].polygon for k in keys], [entry.polygon for entry in made]
    ):
        raise RegionIgnored("corrected")
    workspace.replace(keys, made)


def in_built_zone(geometry: BaseGeometry, rules: Rules) -> bool:
    """True where ground lies in the ZONE_CONSTRUITE, which has smaller minimum units."""
    zone = rules.zone_construite
    if zone is None:
        return False
    return bool(shapely.intersects(zone, shapely.point_on_surface(geometry)))
