"""From regions to a patch: ``plan(polygons, regions, rules) → Patch``, a pure function.

For each region, largest first:

1. draw its outline as a map would (``generalise``), cut it by the ossature, leave out ground
   that has the new cover already and neighbours it only brushes;
2. relabel polygons it covers whole, cut those it covers in part;
3. merge what falls below the minimum unit into the best neighbour, or give the region up;
4. teach the ring of neighbours the new nodes, and assert the invariants of the coverage.

A region that cannot be applied soundly is left out and counted; the patch of the others stands.
Ground that a person corrected is left out where the image lacks evidence (``protection``). What a
person draws (``Drawn``) goes the same way, but as drawn and under the usage given, and raises no
alert.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import shapely
from shapely.errors import GEOSException
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from detectors.types import Region
from schemas.alert import AlertKind
from schemas.change import Operation
from schemas.nomenclature import class_distance
from schemas.policy import (
    BUILDING,
    BUILDING_TAKEN_FROM_M2,
    CAMPAIGN_DAYS,
    COORDINATE_GRID_M,
    GROWTH_FROM_M2,
    MMU_BUILT_M2,
    NEIGHBOUR_RADIUS_M,
    RELABEL_SHARE,
    WIDTH_NETWORK_M,
    WIDTH_OTHER_M,
    minimum_unit,
    minimum_width,
    new_usage,
)
from updater import protection, topology
from updater.artificialisation import statuses
from updater.errors import PatchRefused
from updater.generalise import enlarged, narrower, opened, outline, polygons_of, to_grid, valid
from updater.types import (
    Drawn,
    Link,
    MapPolygon,
    Patch,
    Piece,
    Rules,
    Side,
    Sighting,
    by_matrix,
    kinds_of,
)
from updater.workspace import Entry, Evidence, Workspace

SPILL_PIXELS = 3.0
"""An overlap narrower than this many pixels is the image's uncertainty, not a change."""
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


def plan(polygons: Sequence[MapPolygon], regions: Sequence[Region], rules: Rules) -> Patch:
    """What a scene's regions do to the map.

    ``polygons`` holds every polygon a region touches, all their neighbours, and what lies within
    ``NEIGHBOUR_RADIUS_M`` of a region; geometries on the coordinate grid. The result does not
    depend on the order of either sequence.
    """
    workspace = Workspace(sorted(polygons, key=lambda p: p.id))
    corrected = protection.Ground(rules.corrected)
    sightings: list[Sighting] = []
    ignored: Counter[str] = Counter()
    left_out: dict[int, str] = {}
    for index in sorted(range(len(regions)), key=lambda i: _order(regions[i])):
        region = regions[index]
        held = corrected.held(region, rules)
        try:
            if _may_patch(region, rules):
                apply(workspace, region, rules, held)
            else:
                free, smallest = _free(region, held), rules.policy.min_alert_area
                sightings.append(_sighting_only(workspace, free, rules, smallest=smallest))
            if held is not None and _touches(region, held):
                ignored["corrected"] += 1
        except RegionIgnored as outcome:
            left_out[index] = str(outcome)
            ignored[str(outcome)] += 1
        except (PatchRefused, GEOSException):  # the workspace is as it was: nothing is half done
            left_out[index] = "topology"
            ignored["topology"] += 1
        if held is not None:
            sightings += _doubts(workspace, region, held, rules)
    retired, created = workspace.outcome()
    first = workspace.first
    pieces = [piece for entry in created for piece in _pieces(entry, first)]
    return Patch(
        retired=retired,
        created=[entry.polygon for entry in created],
        lineage=[link for entry in created for link in _links(entry, first)],
        pieces=pieces,
        sightings=([] if rules.sensor is None else _from_pieces(pieces, workspace)) + sightings,
        ignored=dict(ignored),
        left_out=left_out,
    )


def _touches(region: Region, held: protection.Held) -> bool:
    return bool(shapely.intersection(region.geometry, held.ground).area >= MIN_PIECE_M2)


def _free(region: Region, held: protection.Held | None) -> Region:
    """A region without the ground it may not speak of."""
    if held is None:
        return region
    rest = topology.difference(valid(region.geometry), held.ground)
    if rest.is_empty:
        raise RegionIgnored("corrected")
    return replace(region, geometry=rest)


def _doubts(
    workspace: Workspace, region: Region, held: protection.Held, rules: Rules
) -> list[Sighting]:
    """What a later image says of corrected ground that it may not redraw: a warning."""
    if held.doubted is None or region.to_cs is None:
        return []
    ground = topology.intersection(valid(region.geometry), held.doubted)
    if ground.is_empty or region.probability < rules.policy.alert_probability:
        return []
    building = region.to_cs == BUILDING  # which is drawn from there on
    smallest = BUILDING_TAKEN_FROM_M2 if building else rules.policy.min_alert_area
    doubt = replace(region, geometry=ground)
    try:
        return [_sighting_only(workspace, doubt, rules, smallest=smallest)]
    except RegionIgnored:  # too small to warn of; it is counted already
        return []


def _order(region: Region) -> tuple[float, tuple[float, ...], str]:
    return (-region.geometry.area, tuple(region.geometry.bounds), region.to_cs or "")


def _may_patch(region: Region, rules: Rules) -> bool:
    if isinstance(region, Drawn):
        return True
    if region.to_cs is None:
        raise RegionIgnored("class-unknown")
    if region.probability < rules.policy.alert_probability:
        raise RegionIgnored("probability")
    return (
        rules.policy.patches
        and rules.gsd <= rules.policy.max_gsd
        and region.probability >= rules.policy.patch_probability
    )


def apply(
    workspace: Workspace, region: Region, rules: Rules, held: protection.Held | None = None
) -> None:
    """Write one region into the workspace, but for ground it may not overwrite.

    Raises:
        RegionIgnored: the region changes nothing, or nothing above the minimum unit.
        PatchRefused: the cut would break the coverage.
    """
    to_cs = region.to_cs or ""
    ground, pieces = _ground(workspace, region, rules, held)
    keys = list(pieces)
    touched = [workspace[k].polygon for k in keys]
    whole = shapely.area([p.geometry for p in touched]).sum() - ground.area
    fresh = whole < MIN_PIECE_M2 * len(touched) and all(
        topology.difference(p.geometry, ground).area < MIN_PIECE_M2 for p in touched
    )
    near = workspace.near(ground, distance=NEIGHBOUR_RADIUS_M)
    uses = frozenset(u for k in near if (u := workspace[k].polygon.code_us))
    usage = _usage(region, uses)
    evidence = Evidence(region.probability, region.magnitude, region.looks)
    if fresh and not _any_too_small(touched, to_cs, rules):
        made = [_relabelled(workspace[k], to_cs, usage, evidence, rules) for k in keys]
        _write(workspace, keys, made, held)
        return
    drafts = _cut(workspace, pieces, ground, to_cs, usage, evidence, rules)
    _settle(workspace, keys, drafts, rules, held)


def _usage(region: Region, uses: frozenset[str]) -> Usage:
    if isinstance(region, Drawn):
        return lambda _: region.to_us
    to_cs = region.to_cs or ""
    return lambda from_us: new_usage(to_cs=to_cs, from_us=from_us, neighbour_uses=uses)


def _write(
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


def _any_too_small(polygons: Sequence[MapPolygon], to_cs: str, rules: Rules) -> bool:
    return any(
        p.geometry.area < minimum_unit(to_cs, inside_built_zone=_in_zone(p.geometry, rules))
        for p in polygons
    )


def _ground(
    workspace: Workspace, region: Region, rules: Rules, held: protection.Held | None
) -> tuple[BaseGeometry, dict[int, BaseGeometry]]:
    """The ground a region really changes, and what of it lies in each polygon it changes."""
    to_cs = region.to_cs or ""
    if isinstance(region, Drawn):
        shape = to_grid(valid(region.geometry))
    else:
        shape = outline(region.geometry, code_cs=to_cs, gsd=rules.gsd)
    small = BUILDING_TAKEN_FROM_M2 <= shape.area < MMU_BUILT_M2
    if to_cs == BUILDING and small and not _restores(region):
        shape = to_grid(enlarged(shape, MMU_BUILT_M2))
    open_keys = _open_keys(workspace, shape, region, rules)
    grounds = [workspace[k].polygon.geometry for k in open_keys]
    shape = topology.intersection(topology.union(grounds), shape)
    for key in open_keys:
        shape = _absorb_rest(workspace[key].polygon, shape, rules)
    if held is not None:
        shape = topology.difference(shape, held.ground)
        if shape.area < MIN_PIECE_M2:
            raise RegionIgnored("corrected")
    kept = [
        part
        for part in polygons_of(shape)
        if part.area >= minimum_unit(to_cs, inside_built_zone=_in_zone(part, rules))
        or _may_grow(workspace, part, region)
    ]
    if not kept:
        raise RegionIgnored("below-minimum-unit")
    if not _restores(region):
        too_narrow = narrower(kept, minimum_width(to_cs))
        kept = [part for part, narrow in zip(kept, too_narrow, strict=True) if not narrow]
    if not kept:
        raise RegionIgnored("below-minimum-width")
    ground = topology.union(kept)
    inside = topology.intersections([workspace[k].polygon.geometry for k in open_keys], ground)
    shares = zip(open_keys, inside, strict=True)
    return ground, {k: piece for k, piece in shares if piece.area >= MIN_PIECE_M2}


def _open_keys(
    workspace: Workspace, shape: BaseGeometry, region: Region, rules: Rules
) -> list[int]:
    """Keys of the polygons a shape changes."""
    near = workspace.near(shape)
    if not near:
        raise RegionIgnored("outside-the-map")
    overlaps = topology.intersections([workspace[k].polygon.geometry for k in near], shape)
    brushed = narrower(overlaps, SPILL_PIXELS * rules.gsd)
    open_keys: list[int] = []
    younger = False
    for key, overlap, brush in zip(near, overlaps, brushed, strict=True):
        polygon = workspace[key].polygon
        # a region only spills over a border by what the image cannot tell
        if brush or overlap.area < MIN_PIECE_M2 or polygon.ossature or _has(polygon, region):
            continue
        if _is_younger(polygon, rules):
            younger = True
        else:
            open_keys.append(key)
    if not open_keys:
        if isinstance(region, Drawn) and younger:
            raise RegionIgnored("older-than-the-map")
        raise RegionIgnored("no-new-cover")
    return open_keys


def _is_younger(polygon: MapPolygon, rules: Rules) -> bool:
    """True for what a later campaign has already drawn."""
    if polygon.valid_from is None:
        return False
    return polygon.valid_from >= rules.acquired + timedelta(days=CAMPAIGN_DAYS)


def _has(polygon: MapPolygon, region: Region) -> bool:
    """True where a polygon is already what a region says: a person says the usage too."""
    if polygon.code_cs != region.to_cs:
        return False
    return not isinstance(region, Drawn) or polygon.code_us == region.to_us


def _restores(region: Region) -> bool:
    return isinstance(region, Drawn) and region.restores


def _may_grow(workspace: Workspace, part: BaseGeometry, region: Region) -> bool:
    """True where ground below its minimum unit adjoins a polygon of its new cover."""
    small = part.area < GROWTH_FROM_M2 or narrower([part], WIDTH_OTHER_M)[0]
    if small and not _restores(region):
        return False
    near = (workspace[k].polygon for k in workspace.near(part))
    return any(
        p.code_cs == region.to_cs
        and not p.ossature
        and topology.shared_border(part, p.geometry) > 0
        for p in near
    )


def _absorb_rest(polygon: MapPolygon, shape: BaseGeometry, rules: Rules) -> BaseGeometry:
    """The shape, drawn out to the polygon's own border where a sliver or less than a minimum
    unit would be left between them."""
    if shapely.distance(polygon.geometry.boundary, shape) >= SPILL_PIXELS * rules.gsd:
        return shape  # well inside
    covered = topology.intersection(polygon.geometry, shape)
    rest = topology.difference(polygon.geometry, shape)
    if rest.is_empty or covered.is_empty:
        return shape
    unit = minimum_unit(polygon.code_cs or "", inside_built_zone=_in_zone(polygon.geometry, rules))
    most = covered.area >= RELABEL_SHARE * polygon.geometry.area and rest.area < unit
    if most and narrower([rest], WIDTH_NETWORK_M)[0]:
        return topology.union([shape, polygon.geometry])
    wide = valid(opened(rest, SPILL_PIXELS * rules.gsd).buffer(rules.gsd, join_style="mitre"))
    narrow = [p for p in polygons_of(topology.difference(rest, wide)) if p.area >= MIN_PIECE_M2]
    if not narrow:
        return shape
    # rounding takes an edge a grid step off its neighbour's: near enough is beside
    beside = shapely.buffer(shape, 2 * COORDINATE_GRID_M, join_style="mitre")
    along = shapely.length(shapely.intersection(shapely.boundary(narrow), beside))
    slivers = [p for p, length in zip(narrow, along, strict=True) if length > rules.gsd]
    return topology.union([shape, *slivers]) if slivers else shape


def _in_zone(geometry: BaseGeometry, rules: Rules) -> bool:
    zone = rules.zone_construite
    if zone is None:
        return False
    return bool(shapely.intersects(zone, shapely.point_on_surface(geometry)))


def _relabelled(entry: Entry, to_cs: str, usage: Usage, evidence: Evidence, rules: Rules) -> Entry:
    polygon = _changed(entry.polygon, to_cs, usage, rules)
    return Entry(polygon, entry.parents, evidence)


def _changed(polygon: MapPolygon, to_cs: str, usage: Usage, rules: Rules) -> MapPolygon:
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


def _cut(
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
        base = _changed(workspace[main].polygon, to_cs, usage, rules)
        parents = frozenset().union(*(workspace[k].parents for k in owners or [main]))
        drafts.append(Draft(part, base, parents, evidence))
    for key in keys:
        entry = workspace[key]
        for part in polygons_of(topology.difference(entry.polygon.geometry, ground)):
            drafts.append(Draft(part, entry.polygon, entry.parents, entry.evidence))
    return drafts


def _settle(
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
    _write(workspace, taken, made, held)


def _too_small(drafts: Sequence[Draft], rules: Rules) -> Draft | None:
    """The smallest draft below its minimum unit, or None."""
    below = [
        d
        for d in drafts
        if d.geometry.area
        < minimum_unit(d.base.code_cs or "", inside_built_zone=_in_zone(d.geometry, rules))
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


def _links(entry: Entry, first: dict[str, MapPolygon]) -> list[Link]:
    child = entry.polygon
    links = []
    for parent in sorted(entry.parents):
        if parent == child.id:
            same = (first[parent].code_cs, first[parent].code_us) == (child.code_cs, child.code_us)
            operation = Operation.NODE if same else Operation.RELABEL
        else:
            operation = Operation.SPLIT if len(entry.parents) == 1 else Operation.MERGE
        links.append(Link(parent, child.id, operation))
    return links


def _pieces(entry: Entry, first: dict[str, MapPolygon]) -> list[Piece]:
    """The differential of one created polygon against the polygons it came from."""
    child, found = entry.polygon, []
    for parent in (first[p] for p in sorted(entry.parents)):
        if (parent.code_cs, parent.code_us) == (child.code_cs, child.code_us):
            continue
        same = parent.geometry is child.geometry
        shape = child.geometry if same else topology.intersection(parent.geometry, child.geometry)
        if shape.area >= MIN_PIECE_M2:
            evidence = entry.evidence or Evidence(0.0, 0.0, 1)
            found.append(
                Piece(
                    polygon=child.id,
                    parent=parent.id,
                    cs_before=parent.code_cs,
                    us_before=parent.code_us,
                    cs_after=str(child.code_cs),
                    us_after=str(child.code_us),
                    probability=evidence.probability,
                    magnitude=evidence.magnitude,
                    looks=evidence.looks,
                    geometry=shape,
                )
            )
    return found


def _from_pieces(pieces: Sequence[Piece], workspace: Workspace) -> list[Sighting]:
    """One sighting for each changed polygon and kind of change; statuses by matrix and thresholds
    of the map around, before and after."""
    seen = [piece for piece in pieces if piece.probability > 0]
    if not seen:
        return []
    was, now = _sides(list(workspace.first.values())), _sides(workspace.polygons())
    groups: dict[tuple[str, AlertKind], list[Piece]] = {}
    for piece in seen:
        kind = kinds_of(was[piece.parent], now[piece.polygon])[0]
        groups.setdefault((piece.polygon, kind), []).append(piece)
    return [_group_sighting(group, was, now) for group in groups.values()]


def _sides(polygons: Sequence[MapPolygon]) -> dict[str, Side]:
    return {
        p.id: Side(p.code_cs, p.code_us, s.status, s.by_threshold)
        for p, s in zip(polygons, statuses(polygons), strict=True)
    }


def _group_sighting(group: Sequence[Piece], was: dict[str, Side], now: dict[str, Side]) -> Sighting:
    main = max(group, key=lambda piece: piece.geometry.area)
    return Sighting(
        before=was[main.parent],
        after=now[main.polygon],
        probability=main.probability,
        magnitude=main.magnitude,
        polygons=tuple(sorted({piece.polygon for piece in group})),
        geometry=topology.union([piece.geometry for piece in group]),
    )


def _sighting_only(
    workspace: Workspace, region: Region, rules: Rules, *, smallest: float
) -> Sighting:
    """A change seen by an image that may warn but not patch; ``smallest``: worth it, m²."""
    shape = to_grid(shapely.make_valid(region.geometry))
    if shape.area < smallest:
        raise RegionIgnored("below-alert-area")
    keys = workspace.near(shape)
    shares = {k: topology.intersection(workspace[k].polygon.geometry, shape).area for k in keys}
    to_cs = region.to_cs or ""
    moved = {k: a for k, a in shares.items() if workspace[k].polygon.code_cs != to_cs and a > 0}
    if not moved:
        raise RegionIgnored("no-new-cover")
    main = workspace[max(moved, key=lambda k: moved[k])].polygon
    uses = frozenset(u for k in keys if (u := workspace[k].polygon.code_us))
    to_us = new_usage(to_cs=to_cs, from_us=main.code_us, neighbour_uses=uses)
    return Sighting(
        before=by_matrix(main.code_cs, main.code_us),
        after=by_matrix(to_cs, to_us),
        probability=region.probability,
        magnitude=region.magnitude,
        polygons=tuple(sorted(workspace[k].polygon.id for k in moved)),
        geometry=shape,
    )
