"""The two GeoJSON geometries that events carry (RFC 7946, EPSG:4326, longitude first)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

Position = tuple[
    Annotated[float, Field(ge=-180, le=180)],
    Annotated[float, Field(ge=-90, le=90)],
]
Ring = Annotated[list[Position], FailFast(), Field(min_length=4, max_length=100_000)]
"""Reading stops at the first bad position: a megabyte of them would be a gigabyte of complaints."""

MAX_RINGS = 10_000
"""More rings than any footprint or alert has; a bound before geometry code sees them."""

Rings = Annotated[list[Ring], FailFast(), Field(min_length=1, max_length=MAX_RINGS)]
"""An outer ring, then holes."""


def _assert_closed(rings: Rings) -> None:
    if any(ring[0] != ring[-1] for ring in rings):
        raise ValueError("every ring must end where it begins")


class Polygon(BaseModel):
    """A GeoJSON Polygon: outer ring, then holes; every ring is closed."""

    model_config = ConfigDict(frozen=True)

    type: Literal["Polygon"] = "Polygon"
    coordinates: Rings

    @model_validator(mode="after")
    def _closed(self) -> Polygon:
        _assert_closed(self.coordinates)
        return self


class MultiPolygon(BaseModel):
    """A GeoJSON MultiPolygon."""

    model_config = ConfigDict(frozen=True)

    type: Literal["MultiPolygon"] = "MultiPolygon"
    coordinates: Annotated[list[Rings], FailFast(), Field(min_length=1, max_length=MAX_RINGS)]

    @model_validator(mode="after")
    def _closed(self) -> MultiPolygon:
        for rings in self.coordinates:
            _assert_closed(rings)
        return self


def vertices(geometry: Polygon | MultiPolygon) -> int:
    """How many positions a geometry has."""
    polygons = [geometry.coordinates] if isinstance(geometry, Polygon) else geometry.coordinates
    return sum(len(ring) for polygon in polygons for ring in polygon)


AnyPolygon = Annotated[Polygon | MultiPolygon, Field(discriminator="type")]
