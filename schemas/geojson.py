"""The two GeoJSON geometries that events carry (RFC 7946, EPSG:4326, longitude first)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Position = tuple[
    Annotated[float, Field(ge=-180, le=180)],
    Annotated[float, Field(ge=-90, le=90)],
]
Ring = Annotated[list[Position], Field(min_length=4, max_length=100_000)]

MAX_RINGS = 10_000
"""More rings than any footprint or alert has; a bound before geometry code sees them."""


class Polygon(BaseModel):
    """A GeoJSON Polygon: outer ring, then holes; every ring is closed."""

    model_config = ConfigDict(frozen=True)

    type: Literal["Polygon"] = "Polygon"
    coordinates: Annotated[list[Ring], Field(min_length=1, max_length=MAX_RINGS)]

    @model_validator(mode="after")
    def _closed(self) -> Polygon:
        if any(ring[0] != ring[-1] for ring in self.coordinates):
            raise ValueError("every ring must end where it begins")
        return self


class MultiPolygon(BaseModel):
    """A GeoJSON MultiPolygon."""

    model_config = ConfigDict(frozen=True)

    type: Literal["MultiPolygon"] = "MultiPolygon"
    coordinates: Annotated[list[list[Ring]], Field(min_length=1, max_length=MAX_RINGS)]


def vertices(polygon: Polygon | MultiPolygon) -> int:
    """How many positions its rings have."""
    parts = [polygon.coordinates] if isinstance(polygon, Polygon) else polygon.coordinates
    return sum(len(ring) for part in parts for ring in part)


AnyPolygon = Annotated[Polygon | MultiPolygon, Field(discriminator="type")]
