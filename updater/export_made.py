"""From the parts of an export to the rows of its layers: statuses, cuts, pieces, changelog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from updater.artificialisation import statuses
from updater.diff import DiffPiece, overlay, within
from updater.diff_files import changelog_frame
from updater.export import frame_of
from updater.export_layers import CHANGELOG, MAP, ZONES, Layer
from updater.export_plan import Plan
from updater.export_rows import Kind, Part
from updater.generalise import as_multi
from updater.reads import Bounds
from updater.types import MapPolygon

Tell = Callable[[int], None]
"""Called with how much of a plan's total has been gone through since the last call."""


@dataclass(slots=True)
class Seen:
    """What a square before this one had already; only what reaches beyond its square is kept."""

    versions: set[int] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)

    def fresh(
        self, polygons: Sequence[MapPolygon], square: Bounds, ground: BaseGeometry | None
    ) -> list[int]:
        """Places of the polygons that are this square's: they touch it, and no square before had
        them."""
        shapes = np.array([p.geometry for p in polygons], dtype=object)
        here = box(*square)
        touches = _hits(here, shapes)
        if ground is not None:
            touches &= _hits(ground, shapes)
        inside = shapely.contains_properly(here, shapes)
        known = self.versions
        found = [i for i, hit in enumerate(touches) if hit and polygons[i].version not in known]
        self.versions.update(polygons[i].version for i in found if not inside[i])
        return found


def _hits(ground: BaseGeometry, shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    shapely.prepare(ground)
    hits: npt.NDArray[np.bool_] = shapely.intersects(ground, shapes)
    return hits


def polygons_of(rows: pa.Table) -> list[MapPolygon]:
    """The polygons of a part."""
    if not rows.num_rows:
        return []
    shapes = shapely.from_wkb(rows["wkb"].to_pylist())
    names = ("version", "id", "code_cs", "code_us", "millesime", "source", "ossature")
    columns = [rows[name].to_pylist() for name in (*names, "id_origine", "code_or")]
    return [
        MapPolygon(
            id=name,
            code_cs=cs,
            code_us=us,
            millesime=int(year),
            geometry=shape,
            version=int(version),
            source=source,
            ossature=bool(frame),
            id_origine=origin,
            code_or=code_or,
        )
        for shape, version, name, cs, us, year, source, frame, origin, code_or in zip(
            shapes, *columns, strict=True
        )
    ]


def map_batches(plan: Plan, given: Iterable[Part], tell: Tell) -> Iterator[pa.RecordBatch]:
    """OCCUPATION_SOL: each square's polygons with the status its surroundings give them."""
    seen, ground = Seen(), plan.ground
    for part in given:
        polygons = polygons_of(part.rows)
        legal = statuses(polygons)
        mine = seen.fresh(polygons, part.square, ground)
        if mine:
            frame = frame_of(
                [polygons[i] for i in mine],
                plan.crs,
                ground=ground,
                legal=[legal[i] for i in mine],
            )
            yield MAP.batch(frame)
        tell(len(mine))


def zone_layer(plan: Plan, rows: pa.Table) -> tuple[Layer, pa.RecordBatch] | None:
    """ZONE_CONSTRUITE of the territory, and what it holds; None where the map has none."""
    shapes = shapely.from_wkb(rows["wkb"].to_pylist()) if rows.num_rows else []
    if not len(shapes):
        return None
    frame = gpd.GeoDataFrame(
        {
            "id": [f"ZC{number:06d}" for number in range(1, len(shapes) + 1)],
            "millesime": [str(plan.request.years[-1])] * len(shapes),
        },
        geometry=shapes,
        crs=plan.crs,
    )
    kept = frame if plan.ground is None else frame.clip(plan.ground)
    kept = kept[kept.geometry.area > 0]
    layer = ZONES
    if (kept.geom_type != ZONES.geometry).any():
        kept.geometry = [as_multi(shape) for shape in kept.geometry]
        layer = replace(ZONES, geometry="MultiPolygon")
    return layer, layer.batch(kept)


def pieces(plan: Plan, given: Iterable[Part], tell: Tell) -> Iterator[list[DiffPiece]]:
    """The differential, square by square, cut to the territory; every piece once."""
    seen, ground = Seen(), plan.ground
    for part in given:
        polygons = polygons_of(part.rows)
        is_old = part.rows["is_old"].to_pylist()
        olds = [p for p, so in zip(polygons, is_old, strict=True) if so]
        news = [p for p, so in zip(polygons, is_old, strict=True) if not so]
        found = overlay(olds, news, corrections=_corrected(part.rows))
        here = box(*part.square)
        mine = [
            p
            for p, hit in zip(
                found, shapely.intersects(here, [p.geometry for p in found]), strict=True
            )
            if hit and (p.id_before, p.id_after) not in seen.pairs
        ]
        seen.pairs.update((p.id_before, p.id_after) for p in mine)
        done = len(seen.fresh(olds, part.square, ground))
        kept = mine if ground is None else within(mine, ground)
        if kept:
            yield kept
        tell(done)


def _corrected(rows: pa.Table) -> set[int]:
    pairs = zip(rows["version"].to_pylist(), rows["corrected"].to_pylist(), strict=True)
    return {version for version, so in pairs if so}


def changelog_batches(plan: Plan, given: Iterable[Part], tell: Tell) -> Iterator[pa.RecordBatch]:
    """The changelog: what changed, then what did not, whole polygons that touch the territory."""
    seen, ground = Seen(), plan.ground
    for part in given:
        polygons = polygons_of(part.rows)
        if part.kind is Kind.CHANGED:
            is_old = part.rows["is_old"].to_pylist()
            olds = [p for p, so in zip(polygons, is_old, strict=True) if so]
            news = [p for p, so in zip(polygons, is_old, strict=True) if not so]
            moved = overlay(olds, news, corrections=_corrected(part.rows))
            frame = changelog_frame(olds, news, moved, plan.crs)
            if ground is not None:
                frame = frame[_hits(ground, frame.geometry.to_numpy())]
            if len(frame):
                yield CHANGELOG.batch(frame)
            tell(int((frame["status"] != "removed").sum()))
            continue
        mine = [polygons[i] for i in seen.fresh(polygons, part.square, ground)]
        if mine:
            yield CHANGELOG.batch(changelog_frame(mine, mine, [], plan.crs))
        tell(len(mine))
