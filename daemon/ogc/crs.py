"""Coordinates as OGC API - Features part 2 wants them: CRS by address, axes in the order of each.

Store coordinates are easting, northing. CRS84 is longitude, latitude; EPSG:4326 latitude first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import shapely
from pyproj import CRS
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from updater.crs import GEOJSON_DECIMALS, WORLD, transformer
from updater.reads import Bounds

CRS84: Final = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
EPSG: Final = "http://www.opengis.net/def/crs/EPSG/0/"
METRE_DECIMALS: Final = 3
"""The store is on a grid of centimetres, which this keeps exactly."""
EDGE_POINTS: Final = 32
"""Points on each side of a rectangle of another CRS, whose edges are curves in the store's."""
MARGIN: Final = 0.05
"""Share of a map's extent kept around it when a rectangle is cut to it, so that no polygon at its
edge is lost to rounding."""


def uri_of(crs: str) -> str | None:
    """The address of ``EPSG:…``; None for a CRS without a code."""
    return EPSG + crs.removeprefix("EPSG:") if crs.startswith("EPSG:") else None


def offered(store_crs: str) -> list[str]:
    """Addresses of the CRS a store's features come in, the default first."""
    found = [CRS84, *(uri_of(crs) for crs in (*WORLD, store_crs))]
    return [uri for uri in dict.fromkeys(found) if uri is not None]


def code_of(uri: str) -> str:
    """What pyproj calls the CRS of an address; axes are to be taken in its own order."""
    return "OGC:CRS84" if uri == CRS84 else f"EPSG:{uri.removeprefix(EPSG)}"


@lru_cache(maxsize=64)
def north_first(uri: str) -> bool:
    """True where the first coordinate is latitude or northing."""
    return bool(CRS.from_user_input(code_of(uri)).axis_info[0].direction == "north")


@lru_cache(maxsize=64)
def decimals(uri: str) -> int:
    """Decimals that keep a centimetre."""
    geographic = CRS.from_user_input(code_of(uri)).is_geographic
    return GEOJSON_DECIMALS if geographic else METRE_DECIMALS


def presented(shapes: Sequence[BaseGeometry], store_crs: str, uri: str) -> list[BaseGeometry]:
    """Geometries of a store in the CRS of an address, axes in its order, rings wound as RFC 7946
    says, rounded to ``decimals``."""
    change = transformer(store_crs, code_of(uri))
    swap = north_first(uri)

    def moved(xy: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found = xy if same else np.column_stack(change.transform(xy[:, 0], xy[:, 1]))
        return np.round(found, decimals(uri))

    same = uri_of(store_crs) == uri
    turned = shapely.orient_polygons(shapely.transform(np.array(shapes, dtype=object), moved))
    if swap:
        turned = shapely.transform(turned, lambda xy: xy[:, ::-1])
    found: list[BaseGeometry] = list(turned)
    return found


def ground_of(bbox: Bounds, uri: str, store_crs: str, extent: Bounds) -> BaseGeometry:
    """A rectangle in the CRS of an address as ground of a store; empty where it lies beyond.

    ``extent``: the store's, in its CRS. What lies far outside of it has no coordinates in the
    store's CRS and is cut off first. In degrees the west edge may lie east of the east edge
    (across the antimeridian).
    """
    first, second, third, fourth = bbox
    west, south, east, north = (second, first, fourth, third) if north_first(uri) else bbox
    wide = CRS.from_user_input(code_of(uri)).is_geographic and west > east
    parts = [(west, 180.0), (-180.0, east)] if wide else [(west, east)]
    near = _extent_in(uri, store_crs, extent)
    least_x, least_y, most_x, most_y = near.bounds
    cut = [  # by numbers, for corners may be as far away as numbers go
        box(max(w, least_x), max(south, least_y), min(e, most_x), min(north, most_y))
        for w, e in parts
        if w <= most_x and e >= least_x and w <= e
    ]
    found = cut if south <= min(north, most_y) and north >= least_y else []
    return _moved(found, uri, store_crs, near)


def ground_in_degrees(shape: BaseGeometry, store_crs: str, extent: Bounds) -> BaseGeometry:
    """Any geometry in degrees (longitude first) as ground of a store; as ``ground_of``."""
    near = _extent_in(CRS84, store_crs, extent)
    return _moved([shape.intersection(near)], CRS84, store_crs, near)


def _moved(
    shapes: Sequence[BaseGeometry], uri: str, store_crs: str, near: BaseGeometry
) -> BaseGeometry:
    """The union of some geometries (easting first) around ``near`` in a store's CRS."""
    kept = [shape for shape in shapes if not shape.is_empty]
    if not kept:
        return shapely.Polygon()
    if uri_of(store_crs) == uri:
        return shapely.union_all(kept)
    change = transformer(code_of(uri), store_crs)
    step = max(near.bounds[2] - near.bounds[0], near.bounds[3] - near.bounds[1]) / EDGE_POINTS
    dense = shapely.segmentize(kept, step)
    return shapely.union_all(shapely.transform(dense, change.transform, interleaved=False))


def _extent_in(uri: str, store_crs: str, extent: Bounds) -> BaseGeometry:
    """A store's extent in the CRS of an address, easting first, with a margin."""
    frame = box(*extent)
    size = max(extent[2] - extent[0], extent[3] - extent[1], 1.0)
    around = shapely.segmentize(frame.buffer(size * MARGIN, join_style="mitre"), size / EDGE_POINTS)
    if uri_of(store_crs) == uri:
        return box(*around.bounds)
    change = transformer(store_crs, code_of(uri))
    return box(*shapely.transform(around, change.transform, interleaved=False).bounds)
