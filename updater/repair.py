"""Repairing delivered outlines into a coverage: single valid parts on the grid, no overlap, matched
edges.

Everything works on arrays of outlines and names; a million of them are looked at by GEOS, and only
those with a defect one by one in Python. What a coverage needs is enforced; what it need not be is
left alone (holes, islands). Every repair is noted with the polygon it touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from detectors.types import Progress
from schemas.policy import COORDINATE_GRID_M
from updater import topology
from updater.errors import ImportFailed
from updater.generalise import polygons_of

SPECK_M2 = 0.05
"""A polygon smaller than this is digitising noise: a few grid cells."""
FARTHEST_M = 1e8
"""Beyond every projected coordinate: the Earth is 4e7 m around."""
_CLEAN_ROUNDS = 3
"""Cleaning and rounding may each undo a little of the other; three rounds settle every case met."""
_POLYGON = 3
"""GEOS's type number of a polygon."""

Shapes = npt.NDArray[np.object_]
Indices = npt.NDArray[np.intp]


@dataclass(slots=True)
class ImportReport:
    """What an import found and repaired. ``details``: (kind, polygon id) for each repair."""

    polygons: int = 0
    area: float = 0.0
    valid: bool = False
    crs: str = ""
    repaired: Counter[str] = field(default_factory=Counter)
    details: list[tuple[str, str]] = field(default_factory=list)

    def note(self, kind: str, polygon: str) -> None:
        """Count one repair."""
        self.repaired[kind] += 1
        self.details.append((kind, polygon))


@dataclass(slots=True)
class Outlines:
    """Outlines being repaired: the row of the delivery each comes from, its name, its shape."""

    rows: Indices
    names: list[str]
    shapes: Shapes

    def __len__(self) -> int:
        return len(self.names)

    def kept(self, keep: npt.NDArray[np.bool_]) -> Outlines:
        """Those of them where ``keep`` is true."""
        names = [n for n, k in zip(self.names, keep, strict=True) if k]
        return Outlines(self.rows[keep], names, self.shapes[keep])


def single_parts(names: Sequence[str], shapes: Shapes, report: ImportReport) -> Outlines:
    """Valid single polygons on the coordinate grid, each vertex rounded the same for both sides;
    names made unique."""
    flat = shapely.force_2d(shapes)
    for row in _off_the_earth(flat).tolist():
        report.note("off-the-earth", names[row])
        flat[row] = None
    present = ~(shapely.is_missing(flat) | shapely.is_empty(flat))
    wrong = present & ~shapely.is_valid(flat)
    flat[wrong] = shapely.make_valid(flat[wrong])
    rounded = shapely.set_precision(flat, COORDINATE_GRID_M, mode="pointwise")
    torn = present & ~shapely.is_valid(rounded)
    rounded[torn] = shapely.make_valid(rounded[torn])
    plain = (
        present & (shapely.get_type_id(rounded) == _POLYGON) & (shapely.area(rounded) >= SPECK_M2)
    )
    found: list[tuple[int, str, Polygon]] = []
    taken: set[str] = set()
    for row, name in enumerate(names):
        if wrong[row]:
            report.note("invalid", name)
        if plain[row]:
            found.append((row, _unique(name, taken, report), rounded[row]))
            continue
        if not present[row]:
            report.note("empty", name)
            continue
        parts = polygons_of(rounded[row])
        whole = [part for part in parts if part.area >= SPECK_M2]
        if len(whole) < len(parts) or not whole:
            report.note("sliver", name)
        if len(whole) > 1:
            report.note("multi-part", name)
        for number, part in enumerate(whole, start=1):
            own = name if len(whole) == 1 else f"{name}-{number}"
            found.append((row, _unique(own, taken, report), part))
    result = np.empty(len(found), dtype=object)
    result[:] = [shape for _, _, shape in found]
    rows = np.fromiter((row for row, _, _ in found), np.intp, len(found))
    return Outlines(rows, [name for _, name, _ in found], result)


def _off_the_earth(shapes: Shapes) -> Indices:
    """Indices of the outlines with a coordinate that is no number, or of no place in metres."""
    coordinates, index = shapely.get_coordinates(shapes, return_index=True)
    wrong = ~(np.abs(coordinates) <= FARTHEST_M).all(axis=1)  # a comparison with NaN is false
    return np.unique(index[wrong])


def _unique(name: str, taken: set[str], report: ImportReport) -> str:
    if name in taken:
        report.note("duplicate-id", name)
        copies = 2
        while f"{name}_{copies}" in taken:
            copies += 1
        name = f"{name}_{copies}"
    taken.add(name)
    return name


def as_coverage(
    outlines: Outlines, report: ImportReport, progress: Progress | None = None
) -> Outlines:
    """The outlines as an edge-matched coverage; an overlap goes to the smaller polygon, which is
    the more particular one. Only defects and their neighbours are touched.

    Raises:
        ImportFailed: three rounds of cleaning did not settle it.
    """
    bad = _invalid(outlines.shapes)
    if len(bad):
        near = _with_neighbours(outlines.shapes, bad)
        outlines, near = _without_duplicates(outlines, near, report)
        for a, b in _overlapping(outlines.shapes, near):
            report.note("overlap", f"{outlines.names[a]} × {outlines.names[b]}")
        bad = near[_invalid(outlines.shapes[near])]
    for turn in range(_CLEAN_ROUNDS):
        if not len(bad):
            return outlines
        clusters = _clusters(outlines.shapes, bad)
        cleaned: dict[int, BaseGeometry] = {}
        for done, members in enumerate(clusters, start=1):
            shapes = shapely.coverage_clean(
                outlines.shapes[members],
                gap_width=topology.CLEAN_GAP_M,
                snapping_distance=COORDINATE_GRID_M / 2,
                merge_strategy="min_area",
            )
            cleaned.update(zip(members.tolist(), shapes, strict=True))
            if progress is not None:
                progress(f"repair {turn + 1}", done, len(clusters))
        outlines, moved = _put_back(outlines, cleaned, report)
        near = _with_neighbours(outlines.shapes, moved)
        bad = near[_invalid(outlines.shapes[near])]
    if not len(bad):
        return outlines
    raise ImportFailed(
        "The map still overlaps itself after three repairs; clean it with coverage tools first "
        f"({', '.join(outlines.names[i] for i in bad[:3])})."
    )


def _invalid(shapes: Shapes) -> Indices:
    """Indices of the outlines that overlap another or do not match its edge."""
    if not len(shapes):
        return np.empty(0, np.intp)
    return np.flatnonzero(~shapely.is_empty(shapely.coverage_invalid_edges(shapes)))


def _with_neighbours(shapes: Shapes, chosen: Indices) -> Indices:
    if not len(chosen):
        return chosen
    return np.unique(shapely.STRtree(shapes).query(shapes[chosen], predicate="intersects")[1])


def _clusters(shapes: Shapes, bad: Indices) -> list[Indices]:
    """Each group of defects that lie together, with its neighbours; groups share no polygon."""
    first, second = shapely.STRtree(shapes).query(shapes[bad], predicate="intersects")
    root = np.arange(len(shapes))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = int(root[i])
        return i

    for a, b in zip(bad[first].tolist(), second.tolist(), strict=True):
        root[find(a)] = find(b)
    groups: dict[int, list[int]] = {}
    for member in np.unique(second).tolist():
        groups.setdefault(find(member), []).append(member)
    return [np.array(sorted(g), np.intp) for g in groups.values()]


def _put_back(
    outlines: Outlines, cleaned: dict[int, BaseGeometry], report: ImportReport
) -> tuple[Outlines, Indices]:
    """The outlines with the cleaned ones in their places, and the indices of those that moved."""
    rows: list[int] = []
    names: list[str] = []
    shapes: list[BaseGeometry] = []
    moved: list[int] = []
    for index in range(len(outlines)):
        row, name, was = int(outlines.rows[index]), outlines.names[index], outlines.shapes[index]
        now = cleaned.get(index)
        if now is None or _identical(now, was):
            parts: list[BaseGeometry] = [was]
        else:
            moves = abs(now.area - was.area) > SPECK_M2
            report.note("edge-moved" if moves else "edge-matched", name)
            parts = _rounded_parts(now)
            if not parts:
                report.note("swallowed", name)
            moved += range(len(names), len(names) + len(parts))
        for number, part in enumerate(parts, start=1):
            rows.append(row)
            names.append(name if number == 1 else f"{name}-{number}")
            shapes.append(part)
    result = np.empty(len(shapes), dtype=object)
    result[:] = shapes
    return Outlines(np.array(rows, np.intp), names, result), np.array(moved, np.intp)


def _identical(a: BaseGeometry, b: BaseGeometry) -> bool:
    """True for the same vertices, whichever comes first."""
    return bool(shapely.equals_identical(shapely.normalize(a), shapely.normalize(b)))


def _rounded_parts(shape: BaseGeometry) -> list[BaseGeometry]:
    rounded = shapely.set_precision(shape, COORDINATE_GRID_M, mode="pointwise")
    return [part for part in polygons_of(rounded) if part.area > 0]


def _without_duplicates(
    outlines: Outlines, chosen: Indices, report: ImportReport
) -> tuple[Outlines, Indices]:
    """Of polygons drawn twice, all of them among ``chosen``, the first stays."""
    known: set[bytes] = set()
    keep = np.ones(len(outlines), bool)
    for index, wkb in zip(
        chosen.tolist(), shapely.to_wkb(shapely.normalize(outlines.shapes[chosen])), strict=True
    ):
        if wkb in known:
            report.note("duplicate", outlines.names[index])
            keep[index] = False
        known.add(wkb)
    left = chosen[keep[chosen]]
    return outlines.kept(keep), (np.cumsum(keep) - 1)[left]


def _overlapping(shapes: Shapes, chosen: Indices) -> Iterator[tuple[int, int]]:
    """Pairs of the chosen outlines that share ground."""
    among = shapes[chosen]
    first, second = shapely.STRtree(among).query(among, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    shared = shapely.area(shapely.intersection(among[first], among[second]))
    for a, b in zip(first[shared > SPECK_M2], second[shared > SPECK_M2], strict=True):
        yield int(chosen[a]), int(chosen[b])
