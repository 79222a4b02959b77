"""A square kilometre of invented France as a valid OCS GE coverage.

Roads frame blocks; blocks are cut into parcels; parcels become village plots with a house, fields,
vineyards, woods, ponds, a commercial zone and a quarry. Everything follows from the seed.
Coordinates are Lambert-93 (EPSG:2154) on the centimetre grid; areas in m².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import LineString, Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import split

from schemas.policy import COORDINATE_GRID_M
from updater.generalise import polygons_of

CRS = "EPSG:2154"
DEPARTEMENT = "D032"
MILLESIME = 2021
SIDE_M = 1100.0
ORIGIN = (500_000.0, 6_280_000.0)
"""South-west corner: the Gers, where OCS GE of the new generation began."""
ROAD_HALF_WIDTH_M = 4.0
PLOT_M2 = 1000.0
FIELD_M2 = 4600.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A polygon of the landscape with its codes and what the painter needs to know of it."""

    geometry: Polygon
    code_cs: str
    code_us: str
    kind: str
    ossature: bool = False


@dataclass(frozen=True, slots=True)
class Landscape:
    """The made ground: parcels before and after, the true changes, and the built-up zone.

    ``before`` has the columns of OCCUPATION_SOL plus ``kind``; ``after`` the painter's columns;
    ``changes``: kind, cs_before, cs_after, us_before, us_after.
    """

    seed: int
    bounds: tuple[float, float, float, float]
    before: gpd.GeoDataFrame
    after: gpd.GeoDataFrame
    changes: gpd.GeoDataFrame
    zone_construite: gpd.GeoDataFrame


def roads(rng: np.random.Generator, frame: Polygon) -> BaseGeometry:
    """The ossature: three or four bent roads across the square, 8 m wide."""
    west, south, east, north = frame.bounds
    lines = []
    for share in (0.30, 0.66):
        across = np.linspace(west - 20, east + 20, 7)
        level = south + SIDE_M * (share + rng.uniform(-0.03, 0.03))
        lines.append(LineString(np.column_stack([across, level + rng.normal(0, 9, 7)])))
    for share in (0.34, 0.70):
        along = np.linspace(south - 20, north + 20, 7)
        level = west + SIDE_M * (share + rng.uniform(-0.03, 0.03))
        lines.append(LineString(np.column_stack([level + rng.normal(0, 9, 7), along])))
    made = shapely.union_all([line.buffer(ROAD_HALF_WIDTH_M, cap_style="flat") for line in lines])
    return made.intersection(frame)


def parcels(rng: np.random.Generator, polygon: Polygon, target: float) -> list[Polygon]:
    """A polygon cut again and again across its longer side until parts are about ``target``."""
    if polygon.area < 1.5 * target:
        return [polygon]
    frame = shapely.oriented_envelope(polygon)
    corners = shapely.get_coordinates(frame)[:4]
    a, b = corners[1] - corners[0], corners[2] - corners[1]
    long, short = (a, b) if np.hypot(*a) >= np.hypot(*b) else (b, a)
    start = corners[0] if long is a else corners[1]
    at = start + long * rng.uniform(0.42, 0.58)
    tilt = rng.uniform(-0.06, 0.06)
    direction = short / np.hypot(*short)
    turned = np.array(
        [
            direction[0] * math.cos(tilt) - direction[1] * math.sin(tilt),
            direction[0] * math.sin(tilt) + direction[1] * math.cos(tilt),
        ]
    )
    reach = 3 * SIDE_M
    cut = LineString([at - turned * reach, at + turned * reach])
    parts = polygons_of(split(polygon, cut))
    if len(parts) < 2:
        return [polygon]
    return [piece for part in parts for piece in parcels(rng, part, target)]


def rectangle_in(
    rng: np.random.Generator,
    ground: BaseGeometry,
    *,
    width: tuple[float, float],
    length: tuple[float, float],
    margin: float,
    avoid: BaseGeometry | None = None,
) -> Polygon | None:
    """A rectangle along the ground's own direction, well inside it; None when none fits."""
    frame = shapely.get_coordinates(shapely.oriented_envelope(ground))
    side = frame[1] - frame[0]
    angle = math.degrees(math.atan2(side[1], side[0]))
    inner = ground.buffer(-margin)
    if inner.is_empty:
        return None
    west, south, east, north = inner.bounds
    for _ in range(40):
        w, h = rng.uniform(*width), rng.uniform(*length)
        x, y = rng.uniform(west, east), rng.uniform(south, north)
        turn = angle + rng.normal(0, 2)
        shape = affinity.rotate(box(x - w / 2, y - h / 2, x + w / 2, y + h / 2), turn)
        if inner.contains(shape) and (avoid is None or not shape.intersects(avoid)):
            return shape
    return None


def _village(rng: np.random.Generator, block: Polygon) -> list[Parcel]:
    made = []
    for plot in parcels(rng, block, PLOT_M2):
        made.append(Parcel(plot, "CS2.2.1", "US5", "garden"))
        if plot.area > 700 and rng.uniform() < 0.86:
            house = rectangle_in(rng, plot, width=(13, 16), length=(16, 20), margin=2)
            if house is not None:
                made.append(Parcel(house, "CS1.1.1.1", "US5", "roof"))
    return made


def _commerce(rng: np.random.Generator, block: Polygon) -> list[Parcel]:
    made = []
    for i, plot in enumerate(parcels(rng, block, 9000)):
        if i % 3 == 0:
            made.append(Parcel(plot, "CS1.1.1.2", "US3", "carpark"))
        else:
            made.append(Parcel(plot, "CS2.2.1", "US3", "lawn"))
        hall = rectangle_in(rng, plot, width=(26, 36), length=(38, 60), margin=4)
        if hall is not None and i % 3 != 2:
            made.append(Parcel(hall, "CS1.1.1.1", "US3", "hall"))
    return made


_COUNTRY = (
    ("CS2.2.1", "US1.1", "field", 0.52),
    ("CS2.1.1.1", "US1.2", "broadleaf", 0.16),
    ("CS2.1.1.2", "US1.2", "conifer", 0.07),
    ("CS2.1.3", "US1.1", "vineyard", 0.11),
    ("CS2.1.2", "US6.3", "shrub", 0.06),
    ("CS1.2.2", "US6.3", "water", 0.03),
    ("CS1.1.2.1", "US1.1", "yard", 0.05),
)
"""Cover, usage, painter's kind and share of the parcels of open country."""


def _country(rng: np.random.Generator, block: Polygon) -> list[Parcel]:
    plots = parcels(rng, block, FIELD_M2)
    made = []
    for plot, (cs, us, kind, _) in zip(plots, _drawn(rng, len(plots)), strict=True):
        made.append(Parcel(plot, cs, us, kind))
        if kind == "yard":
            barn = rectangle_in(rng, plot, width=(16, 22), length=(24, 36), margin=4)
            if barn is not None:
                made.append(Parcel(barn, "CS1.1.1.1", "US1.1", "hall"))
    return made


def _drawn(rng: np.random.Generator, count: int) -> list[tuple[str, str, str, float]]:
    """Kinds for some parcels by their shares, every kind at least once where there is room."""
    rows: list[tuple[str, str, str, float]] = []
    for row in _COUNTRY:
        rows += [row] * max(1, round(row[3] * count))
    while len(rows) < count:
        rows.append(_COUNTRY[0])
    return [rows[i] for i in rng.permutation(len(rows))[:count]]


def parcels_before(rng: np.random.Generator, frame: Polygon) -> list[Parcel]:
    """Everything that stands before, later entries on top of earlier ones."""
    road = roads(rng, frame)
    blocks = sorted(
        polygons_of(frame.difference(road)),
        key=lambda b: b.centroid.distance(frame.centroid),
    )
    made: list[Parcel] = []
    for i, block in enumerate(blocks):
        if i == 0:
            made += _village(rng, block)
        elif i == 1:
            made += _mixed(rng, block)
        elif i == 2:
            made += _commerce_and_fields(rng, block)
        else:
            made += _country(rng, block)
    made += _quarry(rng, made)
    made += [
        Parcel(part, "CS1.1.1.2", "US4.1.1", "road", ossature=True) for part in polygons_of(road)
    ]
    return made


def _mixed(rng: np.random.Generator, block: Polygon) -> list[Parcel]:
    """A block half village, half country."""
    halves = parcels(rng, block, block.area / 1.9)
    return _village(rng, halves[0]) + [p for h in halves[1:] for p in _country(rng, h)]


def _commerce_and_fields(rng: np.random.Generator, block: Polygon) -> list[Parcel]:
    halves = parcels(rng, block, block.area / 1.9)
    return _commerce(rng, halves[0]) + [p for h in halves[1:] for p in _country(rng, h)]


def _quarry(rng: np.random.Generator, made: Sequence[Parcel]) -> list[Parcel]:
    fields = [p for p in made if p.kind == "field" and p.geometry.area > 4500]
    chosen = fields[int(rng.integers(len(fields)))]
    return [Parcel(chosen.geometry, "CS1.1.2.1", "US1.3", "quarry")]


def coverage(made: Sequence[Parcel], frame: Polygon) -> list[Parcel]:
    """The parcels as an edge-matched partition of the frame: where several lie on one another
    the last one shows."""
    lines = [p.geometry.boundary for p in made] + [frame.boundary]
    noded = shapely.union_all(
        [shapely.set_precision(line, COORDINATE_GRID_M) for line in lines],
        grid_size=COORDINATE_GRID_M,
    )
    faces = polygons_of(shapely.polygonize(shapely.get_parts(noded)))
    tree = shapely.STRtree([p.geometry for p in made])
    owners: dict[int, list[Polygon]] = {}
    for face in faces:
        point = face.representative_point()
        hits = tree.query(point, predicate="intersects")
        owner = int(hits.max()) if len(hits) else int(tree.nearest(point))
        owners.setdefault(owner, []).append(face)
    partition = []
    for owner in sorted(owners):
        parcel = made[owner]
        for part in polygons_of(shapely.coverage_union_all(owners[owner])):
            partition.append(
                Parcel(part, parcel.code_cs, parcel.code_us, parcel.kind, parcel.ossature)
            )
    return _without_specks(partition)


def _without_specks(partition: list[Parcel], smallest: float = 60.0) -> list[Parcel]:
    """Faces too small to be anything joined to the neighbour they share most border with."""
    while True:
        speck = next((i for i, p in enumerate(partition) if p.geometry.area < smallest), None)
        if speck is None:
            return partition
        small = partition.pop(speck).geometry
        shapes = [p.geometry for p in partition]
        near = shapely.STRtree(shapes).query(small, predicate="intersects")
        borders = [
            0.0
            if partition[i].ossature
            else shapely.length(shapely.intersection(shapes[i].boundary, small.boundary))
            for i in near
        ]
        host = int(near[int(np.argmax(borders))])
        old = partition[host]
        merged = shapely.coverage_union_all([old.geometry, small])
        grown = max(polygons_of(merged), key=lambda g: g.area)
        partition[host] = Parcel(grown, old.code_cs, old.code_us, old.kind, old.ossature)


def frame_of(partition: Sequence[Parcel]) -> gpd.GeoDataFrame:
    """A partition as OCCUPATION_SOL, with the painter's ``kind`` beside the columns."""
    return gpd.GeoDataFrame(
        {
            "id": [f"OCSGE{i:08d}" for i in range(1, len(partition) + 1)],
            "code_cs": [p.code_cs for p in partition],
            "code_us": [p.code_us for p in partition],
            "millesime": [str(MILLESIME)] * len(partition),
            "source": ["calcul"] * len(partition),
            "ossature": [int(p.ossature) for p in partition],
            "id_origine": ["NC"] * len(partition),
            "code_or": ["NC"] * len(partition),
            "kind": [p.kind for p in partition],
        },
        geometry=[p.geometry for p in partition],
        crs=CRS,
    )


def make_landscape(seed: int) -> Landscape:
    """The landscape of a seed: the same bytes every time."""
    from daemon.demo.changes import change_everything

    rng = np.random.default_rng(seed)
    frame = box(*ORIGIN, ORIGIN[0] + SIDE_M, ORIGIN[1] + SIDE_M)
    before = coverage(parcels_before(rng, frame), frame)
    changes = change_everything(rng, before)
    built = [p.geometry for p in before if p.kind in {"garden", "roof", "hall", "carpark", "lawn"}]
    zone = shapely.union_all([g.buffer(12) for g in built]).buffer(-8).simplify(1)
    return Landscape(
        seed=seed,
        bounds=tuple(float(v) for v in frame.bounds),  # type: ignore[arg-type]
        before=frame_of(before),
        after=frame_of([*before, *(c.after for c in changes)]),
        changes=gpd.GeoDataFrame(
            {
                "kind": [c.kind for c in changes],
                "cs_before": [c.cs_before for c in changes],
                "us_before": [c.us_before for c in changes],
                "cs_after": [c.after.code_cs for c in changes],
                "us_after": [c.after.code_us for c in changes],
            },
            geometry=[c.after.geometry for c in changes],
            crs=CRS,
        ),
        zone_construite=gpd.GeoDataFrame(
            {"id": ["ZC1"], "millesime": [str(MILLESIME)]}, geometry=[zone], crs=CRS
        ),
    )
