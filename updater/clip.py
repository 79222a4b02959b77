"""Cutting a map to a territory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from updater.generalise import polygons_of
from updater.types import MapPolygon

CONTEXT_M = 1_000.0
"""Ground around a territory that may decide a legal status inside it: two enclosed surfaces, each
under 2 500 m² and so at most 500 m long at the product's width of 5 m."""
SLIVER_M2 = 0.01
"""Smaller pieces are rounding along the territory's border."""


def cut(shapes: Sequence[BaseGeometry], ground: BaseGeometry) -> npt.NDArray[np.object_]:
    """What of each shape lies in a ground: the shape itself where all of it does, an empty geometry
    where nothing does."""
    result = np.empty(len(shapes), dtype=object)
    result[:] = shapes
    shapely.prepare(ground)
    crossing = ~shapely.covers(ground, result)
    result[crossing] = shapely.intersection(result[crossing], ground)
    return result


def touching(polygons: Sequence[MapPolygon], ground: BaseGeometry) -> list[MapPolygon]:
    """The polygons that share ground with a territory or its surroundings."""
    if not polygons:
        return []
    shapes = np.array([p.geometry for p in polygons], dtype=object)
    wide = shapely.buffer(ground, CONTEXT_M)
    shapely.prepare(wide)
    return [p for p, hit in zip(polygons, shapely.intersects(wide, shapes), strict=True) if hit]


def clipped(polygons: Sequence[MapPolygon], ground: BaseGeometry) -> list[tuple[int, MapPolygon]]:
    """What of each polygon lies in a territory, with the index it had; a polygon cut in several
    parts gives one for each, numbered behind its id."""
    if not polygons:
        return []
    found = []
    for index, (polygon, shape) in enumerate(
        zip(polygons, cut([p.geometry for p in polygons], ground), strict=True)
    ):
        if shape is polygon.geometry:
            found.append((index, polygon))
        else:
            parts = [p for p in polygons_of(shape) if p.area > SLIVER_M2]
            for number, part in enumerate(parts, start=1):
                name = polygon.id if len(parts) == 1 else f"{polygon.id}-{number}"
                found.append((index, replace(polygon, id=name, geometry=part)))
    return found
