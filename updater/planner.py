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
alert. Steps 2 to 4 are in ``settling``; what the patch says of itself is in ``sighted``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import shapely
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from detectors.types import Region
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
from updater.errors import PatchRefused
from updater.generalise import enlarged, narrower, opened, outline, polygons_of, to_grid, valid
from updater.settling import (
    MIN_PIECE_M2,
    RegionIgnored,
    Usage,
    changed,
    cut,
    in_built_zone,
    settle,
    write,
)
from updater.sighted import links_of, pieces_of, sighting_only, sightings_of
from updater.types import Drawn, MapPolygon, Patch, Rules, Sighting
from updater.workspace import Entry, Evidence, Workspace

SPILL_PIXELS = 3.0
"""An overlap narrower than this many pixels is the image's uncertainty, not a change."""


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
                sightings.append(sighting_only(workspace, free, rules, smallest=smallest))
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
    pieces = [piece for entry in created for piece in pieces_of(entry, first)]
    return Patch(
        retired=retired,
        created=[entry.polygon for entry in created],
        lineage=[link for entry in created for link in links_of(entry, first)],
        pieces=pieces,
        sightings=([] if rules.sensor is None else sightings_of(pieces, workspace)) + sightings,
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
        return [sighting_only(workspace, doubt, rules, smallest=smallest)]
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
        write(workspace, keys, made, held)
        return
    drafts = cut(workspace, pieces, ground, to_cs, usage, evidence, rules)
    settle(workspace, keys, drafts, rules, held)


def _usage(region: Region, uses: frozenset[str]) -> Usage:
    if isinstance(region, Drawn):
        return lambda _: region.to_us
    to_cs = region.to_cs or ""
    return lambda from_us: new_usage(to_cs=to_cs, from_us=from_us, neighbour_uses=uses)


def _any_too_small(polygons: Sequence[MapPolygon], to_cs: str, rules: Rules) -> bool:
    return any(
        p.geometry.area < minimum_unit(to_cs, inside_built_zone=in_built_zone(p.geometry, rules))
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
        if part.area >= minimum_unit(to_cs, inside_built_zone=in_built_zone(part, rules))
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
    unit = minimum_unit(
        polygon.code_cs or "", inside_built_zone=in_built_zone(polygon.geometry, rules)
    )
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


def _relabelled(entry: Entry, to_cs: str, usage: Usage, evidence: Evidence, rules: Rules) -> Entry:
    polygon = changed(entry.polygon, to_cs, usage, rules)
    return Entry(polygon, entry.parents, evidence)
