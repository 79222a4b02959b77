"""What a patch says of itself: lineage, the pieces of its differential, and what was sighted."""

from __future__ import annotations

from collections.abc import Sequence

import shapely

from detectors.types import Region
from schemas.alert import AlertKind
from schemas.change import Operation
from schemas.policy import new_usage
from updater import topology
from updater.artificialisation import statuses
from updater.generalise import to_grid
from updater.settling import MIN_PIECE_M2, RegionIgnored
from updater.types import (
    Link,
    MapPolygon,
    Piece,
    Rules,
    Side,
    Sighting,
    by_matrix,
    kinds_of,
)
from updater.workspace import Entry, Evidence, Workspace


def links_of(entry: Entry, first: dict[str, MapPolygon]) -> list[Link]:
    """What a created polygon was made from, and how."""
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


def pieces_of(entry: Entry, first: dict[str, MapPolygon]) -> list[Piece]:
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


def sightings_of(pieces: Sequence[Piece], workspace: Workspace) -> list[Sighting]:
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


def sighting_only(
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
