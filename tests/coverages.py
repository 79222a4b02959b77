"""Random valid coverages and regions for property tests."""

from __future__ import annotations

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import MultiPoint, Polygon, box

from detectors.types import Region
from schemas.nomenclature import CS_LEAVES
from updater.generalise import polygons_of
from updater.types import MapPolygon

USES = ["US1.1", "US1.2", "US2", "US3", "US5", "US6.3", "US4.1.1"]


def random_coverage(
    rng: np.random.Generator, *, cells: int = 30, side: float = 400.0, ossature: bool = True
) -> list[MapPolygon]:
    """A Voronoi partition of a square on the centimetre grid, with a road across it."""
    frame = box(0, 0, side, side)
    sites = MultiPoint(rng.uniform(0, side, (cells, 2)))
    faces = [
        shapely.intersection(face, frame)
        for face in shapely.get_parts(shapely.voronoi_polygons(sites, extend_to=frame))
    ]
    shapes = [f for f in faces if isinstance(f, Polygon) and f.area > 1]
    road = None
    if ossature:
        y = float(rng.uniform(0.3, 0.7) * side)
        road = box(0, y, side, y + 8)
    lines = [s.boundary for s in shapes] + [frame.boundary]
    if road is not None:
        lines.append(road.boundary)
    noded = shapely.union_all(lines, grid_size=0.01)
    cells_out = []
    for i, face in enumerate(polygons_of(shapely.polygonize(shapely.get_parts(noded)))):
        is_road = road is not None and road.contains(face.representative_point())
        cells_out.append(
            MapPolygon(
                id=f"P{i:05d}",
                code_cs="CS1.1.1.2" if is_road else str(rng.choice(CS_LEAVES)),
                code_us="US4.1.1" if is_road else str(rng.choice(USES)),
                millesime=2021,
                geometry=face,
                version=i + 1,
                ossature=is_road,
            )
        )
    return cells_out


def random_region(rng: np.random.Generator, *, side: float = 400.0) -> Region:
    """A rotated rectangle, an L or a blob somewhere over the square."""
    x, y = rng.uniform(-10, side + 10, 2)
    w, h = rng.uniform(8, 90, 2)
    kind = rng.integers(3)
    if kind == 0:
        shape = box(-w / 2, -h / 2, w / 2, h / 2)
    elif kind == 1:
        shape = box(-w / 2, -h / 2, w / 2, h / 2).difference(box(0, 0, w, h))
    else:
        shape = affinity.scale(shapely.Point(0, 0).buffer(1), w / 2, h / 2)
    shape = affinity.translate(affinity.rotate(shape, float(rng.uniform(0, 180))), x, y)
    return Region(
        geometry=shape,
        from_cs=None,
        to_cs=str(rng.choice(CS_LEAVES)),
        probability=float(rng.uniform(0.4, 1.0)),
        magnitude=float(rng.uniform(0, 1)),
    )
