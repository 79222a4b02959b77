"""Coordinates in and out of the store's CRS."""

from __future__ import annotations

from functools import lru_cache

import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from schemas.geojson import AnyPolygon, MultiPolygon, Polygon
from updater.generalise import polygons_of

WGS84 = "EPSG:4326"
WEB_MERCATOR = "EPSG:3857"
WORLD = (WGS84, WEB_MERCATOR)
"""Offered whatever a store's own CRS is."""
METROPOLITAN_CRS = "EPSG:2154"
OVERSEAS_CRS = {
    "D971": "EPSG:5490",
    "D972": "EPSG:5490",
    "D973": "EPSG:2972",
    "D974": "EPSG:2975",
    "D976": "EPSG:4471",
}
"""CRS of OCS GE deliveries by département; Lambert-93 elsewhere."""
GEOJSON_DECIMALS = 7
"""A centimetre on the ground in degrees (RFC 7946 recommends no more)."""


def legal_crs(departement: str | None) -> str:
    """The CRS the State's data of a département (as D032) are in."""
    return OVERSEAS_CRS.get(departement or "", METROPOLITAN_CRS)


def offered(store_crs: str, departement: str) -> list[str]:
    """The CRS a store's map can be had in, its own first; one without a code is not named."""
    found = dict.fromkeys((store_crs, legal_crs(departement), *WORLD))
    return [crs for crs in found if crs.startswith("EPSG:")]


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """A transformer with longitude (or easting) first."""
    return Transformer.from_crs(source, target, always_xy=True)


def reproject(geometry: BaseGeometry, source: str, target: str) -> BaseGeometry:
    """The geometry in another CRS."""
    if source == target:
        return geometry
    change = transformer(source, target)
    return shapely.transform(geometry, change.transform, interleaved=False)


def to_geojson(geometry: BaseGeometry, crs: str) -> AnyPolygon:
    """A polygonal geometry of the store as the GeoJSON an event carries, EPSG:4326, outer rings
    counterclockwise (RFC 7946)."""
    world = shapely.transform(
        reproject(geometry, crs, WGS84), lambda xy: xy.round(GEOJSON_DECIMALS)
    )
    parts = polygons_of(shapely.orient_polygons(world))
    if len(parts) == 1:
        return Polygon.model_validate(mapping(parts[0]))
    return MultiPolygon.model_validate(mapping(shapely.multipolygons(parts)))


def epsg_of(crs: object) -> int | None:
    """EPSG code of anything pyproj understands, or None."""
    try:
        return CRS.from_user_input(crs).to_epsg(min_confidence=25)
    except CRSError:
        return None
