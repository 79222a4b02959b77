"""What a call asks of the images, taken apart strictly, and what a store has of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import shapely
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from daemon.ogc.crs import CRS84, ground_in_degrees, ground_of
from daemon.ogc.query import bbox_of, times, wrong
from schemas.policy import MAX_FOOTPRINT_VERTICES, Sensor
from updater.image_search import Place, Wanted, holdings, search
from updater.reads import EPOCH, Bounds, ImageRecord
from updater.store import Store

DEFAULT: Final = 100
MOST: Final = 1_000
"""Items on a page: about a megabyte."""
SEARCH: Final = ("bbox", "intersects", "datetime", "ids", "collections", "limit", "token")
ITEMS: Final = ("bbox", "datetime", "ids", "collections", "limit", "token", "f")
"""Of one collection; pystac-client names it again, and sends an empty list of ids."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A page of items."""

    wanted: Wanted
    bbox: Bounds | None
    shape: BaseGeometry | None
    after: Place | None
    limit: int


def of_store(store: Store, asked: Asked) -> list[ImageRecord]:
    ground = None
    if asked.bbox is not None or asked.shape is not None:
        extents = [shapely.box(*held.extent) for held in holdings(store)]
        if not extents:
            return []
        west, south, east, north = shapely.total_bounds(extents).tolist()
        extent = (west, south, east, north)
        if asked.bbox is not None:
            ground = ground_of(asked.bbox, CRS84, store.crs, extent)
        else:
            ground = ground_in_degrees(asked.shape, store.crs, extent)
    return search(store, asked.wanted, ground=ground, after=asked.after, most=asked.limit + 1)


def split(given: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of a GET as the members of a POST."""
    found: dict[str, Any] = {name: value for name, value in given.items() if name != "f"}
    for name in ("ids", "collections"):
        if texts := found.pop(name, ""):
            found[name] = texts.split(",")
    if "bbox" in found:
        found["bbox"] = list(bbox_of(found["bbox"]))
    for name in ("limit", "intersects"):
        if name in found:
            try:
                found[name] = json.loads(found[name])
            except (ValueError, RecursionError):
                raise wrong(name, "it is no JSON.") from None
    return found


def asked_of(given: Mapping[str, Any]) -> Asked:
    """What is asked for.

    Raises:
        HTTPException: 400, something is not understood.
    """
    limit = given.get("limit", DEFAULT)
    if type(limit) is not int or limit < 1:
        raise wrong("limit", "give a whole number from 1 on.")
    bbox, shape = given.get("bbox"), given.get("intersects")
    if bbox is not None and shape is not None:
        raise wrong("intersects", "give it or bbox, not both.")
    moment = given.get("datetime")
    if moment is not None and not isinstance(moment, str):
        raise wrong("datetime", "give it as text.")
    since, until = times(moment)
    names = _texts("collections", given.get("collections"))
    known = {sensor.value for sensor in Sensor}
    wanted = Wanted(
        sensors=None if names is None else [Sensor(name) for name in names if name in known],
        items=_texts("ids", given.get("ids")),
        since=since,
        until=until,
    )
    return Asked(
        wanted,
        None if bbox is None else bbox_of(_joined(bbox)),
        None if shape is None else _shape(shape),
        _place(given.get("token")),
        min(limit, MOST),
    )


def _joined(bbox: object) -> str:
    if not isinstance(bbox, list):
        raise wrong("bbox", "give four numbers.")
    return ",".join(str(part) for part in bbox)


def _texts(name: str, value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise wrong(name, "give a list of texts.")
    return value


def _shape(value: object) -> BaseGeometry:
    try:
        found = shapely.from_geojson(json.dumps(value))
    except GEOSException:
        raise wrong("intersects", "give a GeoJSON geometry in degrees.") from None
    if found.is_empty or not found.is_valid or value is None:
        raise wrong("intersects", "give a valid GeoJSON geometry in degrees.")
    if shapely.get_num_coordinates(found) > MAX_FOOTPRINT_VERTICES:
        raise wrong("intersects", f"it has more than {MAX_FOOTPRINT_VERTICES} vertices.")
    return found


def _place(token: object) -> Place | None:
    if token is None:
        return None
    try:
        microseconds, name = json.loads(str(token))
        return Place(EPOCH + timedelta(microseconds=int(microseconds)), str(name))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise wrong("token", "it comes from the link to the next page; follow that.") from None
