"""The acquisition event: a STAC Item that says an image of some ground at some time exists.

The Item is plain STAC 1.0/1.1 with the projection extension (``proj:code``, ``proj:shape``,
``proj:transform``) and two fields of this project, prefixed ``millesimed:``. Any STAC client can
read it; ``pystac`` writes it (``daemon.announce``).
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    model_validator,
)

from schemas.geojson import AnyPolygon, vertices
from schemas.policy import FIRST_YEAR, LAST_YEAR, MAX_FOOTPRINT_VERTICES, Sensor

TERRITORY_PATTERN = r"^D(0[1-9]|[1-9][0-9]|[0-9]{3}|0?2[AB]|9[78][0-9])$"
"""A département as IGN names it in its deliveries: ``D032``, ``D02A``, ``D971``."""

_NUMBER: Final = re.compile(r"\s*[+-]?[0-9.]+(e[+-]?[0-9]+)?\s*", re.IGNORECASE)
Departement = Annotated[str, Field(pattern=TERRITORY_PATTERN)]


def _in_the_age_of_imagery(value: datetime) -> datetime:
    """Dates at the ends of the calendar cannot be counted with, nor kept by every database."""
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    return value


def _written_out(value: object) -> object:
    """RFC 3339 has no seconds since 1970, which pydantic would take for an instant."""
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise ValueError("an instant as RFC 3339 writes it, as in 2024-06-18T10:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""An instant with its offset from UTC."""
Day = Annotated[date, BeforeValidator(_written_out)]
"""A day, as in 2024-06-18."""
Moment = Annotated[Instant, AfterValidator(_in_the_age_of_imagery)]
"""An instant an image can be from."""


class AcquisitionProperties(BaseModel):
    """Properties of the Item: when, on which grid, by which sensor."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    datetime: Moment = Field(description="Acquisition time: when the ground was seen.")
    proj_code: str | None = Field(
        default=None,
        alias="proj:code",
        pattern=r"^[A-Z]+:[0-9A-Za-z_.-]+$",
        description="CRS of the image as authority and code; null when it has none.",
    )
    proj_shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = Field(
        default=None, alias="proj:shape", description="Rows and columns."
    )
    proj_transform: list[float] | None = Field(
        default=None,
        alias="proj:transform",
        min_length=6,
        max_length=9,
        description="Affine transform from (column, row) to the CRS, row-major.",
    )
    gsd: float = Field(gt=0, le=1000, description="Ground sample distance, metres.")
    sensor: Sensor = Field(
        alias="millesimed:sensor", description="Sensor family; decides what the image may do."
    )
    departement: Departement | None = Field(
        default=None,
        alias="millesimed:departement",
        description="Département as in D032; null lets the footprint decide.",
    )


class Asset(BaseModel):
    """One file of the acquisition."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    href: str = Field(min_length=1, max_length=4096, description="Path or file:// address.")
    type: str | None = Field(default=None, description="Media type.")
    roles: Annotated[list[str], FailFast()] = Field(default_factory=list)
    checksum: str | None = Field(
        default=None,
        alias="file:checksum",
        pattern=r"^[0-9a-f]{4,136}$",
        description="Multihash of the file, hexadecimal (STAC file extension).",
    )
    size: int | None = Field(default=None, alias="file:size", ge=0, description="Bytes.")


class AcquisitionItem(BaseModel):
    """A STAC Item of one acquisition; the asset named ``image`` is the one that is judged, one
    named ``elevation`` the surface model (MNS) of the same date."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Literal["Feature"]
    stac_version: str = Field(pattern=r"^1\.\d+\.\d+(-[\w.]+)?$")
    id: str = Field(min_length=1, max_length=256)
    geometry: AnyPolygon = Field(description="Footprint, EPSG:4326.")
    bbox: list[float] | None = Field(default=None, min_length=4, max_length=6)
    properties: AcquisitionProperties
    assets: Annotated[dict[str, Asset], Field(min_length=1, max_length=64)]
    links: Annotated[list[dict[str, Any]], FailFast()] = Field(default_factory=list)
    stac_extensions: Annotated[list[str], FailFast()] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_image(self) -> AcquisitionItem:
        if "image" not in self.assets:
            raise ValueError('one asset must be named "image"')
        if vertices(self.geometry) > MAX_FOOTPRINT_VERTICES:
            raise ValueError(f"the footprint has more than {MAX_FOOTPRINT_VERTICES} vertices")
        return self

    @property
    def acquired(self) -> datetime:
        """When the ground was seen."""
        return self.properties.datetime

    @property
    def image(self) -> Asset:
        """The asset that is judged."""
        return self.assets["image"]

    @property
    def elevation(self) -> Asset | None:
        """The surface model (MNS, metres) of the same date, where one was delivered."""
        return self.assets.get("elevation")
