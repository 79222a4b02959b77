"""The ``[[acquire]]`` tables of the configuration: one for each place images come from.

Secrets never stand in the file. Each is an environment variable named after the table,
``MILLESIMED_ACQUIRE_<NAME>_<WHAT>``: ``MILLESIMED_ACQUIRE_CDSE_PASSWORD`` for the table named
``cdse``.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from schemas.acquisition import TERRITORY_PATTERN, Departement
from schemas.policy import Sensor

SECRET_PREFIX: Final = "MILLESIMED_ACQUIRE"  # noqa: S105 - a name
SECRET_WORDS: Final = ("password", "secret", "token", "access_key", "client_secret")
PLACE: Final = ("url", "collections", "catalogue", "subscription", "resource", "folder", "bucket")
"""Settings that say which place it is; the others only choose from it."""
GIB: Final = 1 << 30
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@]+$")]


class SourceSettings(BaseModel):
    """What every source of images has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Its name: in logs, in file names, in its secrets' names.")
    every_seconds: float = Field(default=3600.0, ge=1, description="Between two looks.")
    sensor: Sensor | None = Field(
        default=None, description="Sensor of its images, where they do not say."
    )
    departement: Departement | None = Field(
        default=None, description="Département as in D032 of all its images; none lets each say."
    )
    downloads: int = Field(default=2, ge=1, le=16, description="Images fetched at once.")
    calls_per_second: float = Field(
        default=5.0, gt=0, le=100, description="Most calls a second to its server."
    )
    max_bytes: int = Field(
        default=20 * GIB, gt=0, description="Largest download, and largest unpacked delivery."
    )

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if isinstance(values, dict):
            for key in values:
                if str(key).lower() in SECRET_WORDS:
                    name = secret_name(str(values.get("name", "NAME")), str(key))
                    raise ValueError(f"{key} is a secret; give it as {name} in the environment")
        return values

    def identity(self) -> dict[str, Any]:
        """What decides where images are listed; the cursor of another place is of no use."""
        return self.model_dump(mode="json", include={"kind", *PLACE})


class Footprint(BaseModel):
    """Where images are looked for; without either, the ground of the service's maps."""

    bbox: tuple[float, float, float, float] | None = Field(
        default=None, description="West, south, east, north, degrees."
    )
    area: Path | None = Field(
        default=None, description="Vector file whose outline is looked for instead."
    )


class StacSource(SourceSettings, Footprint):
    """A STAC API, asked for what is new. A bearer token, where it wants one: ``…_TOKEN``."""

    kind: Literal["stac"]
    url: Url = Field(description="Its landing page.")
    collections: list[str] = Field(min_length=1, description="Collections to look into.")
    since: datetime | None = Field(
        default=None, description="Oldest acquisition wanted; none begins with the first look."
    )
    overlap_days: float = Field(
        default=30.0,
        ge=0,
        description="How far behind the newest image each look begins: images come in late.",
    )
    assets: list[str] = Field(
        default_factory=list,
        description="Assets that make the image, by key or band name; none chooses by sensor.",
    )
    query: dict[str, Any] = Field(
        default_factory=dict, description="Query extension, as in {'eo:cloud_cover' = {lt = 60}}."
    )
    method: Literal["GET", "POST"] = Field(default="POST", description="How the API is asked.")
    page_size: int = Field(default=50, ge=1, le=1000, description="Items of one answer.")


class CopernicusSource(SourceSettings):
    """A pull subscription of the Copernicus Data Space. Secrets: ``…_USER`` and ``…_PASSWORD``, or
    ``…_CLIENT_ID`` and ``…_CLIENT_SECRET``."""

    kind: Literal["copernicus"]
    subscription: str = Field(
        pattern=r"^[0-9a-fA-F-]{36}$", description="Id of the running pull subscription."
    )
    catalogue: Url = Field(
        default="https://catalogue.dataspace.copernicus.eu/odata/v1", description="OData root."
    )
    download: Url = Field(
        default="https://download.dataspace.copernicus.eu/odata/v1",
        description="OData root that products are fetched from.",
    )
    token_url: Url = Field(
        default="https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/"
        "token",
        description="Where tokens are had.",
    )
    bands: list[str] = Field(
        default=["B02", "B03", "B04", "B08", "B11"],
        min_length=1,
        description="Bands taken out of a product, in this order, on the finest one's grid.",
    )
    verify: bool = Field(
        default=True, description="Refuse a product whose MD5 is not the catalogue's."
    )


class GeoplateformeSource(SourceSettings):
    """The Géoplateforme's download service: Atom feeds of deliveries."""

    kind: Literal["geoplateforme"]
    url: Url = Field(
        default="https://data.geopf.fr/telechargement", description="Root of the service."
    )
    resource: str = Field(
        default="BDORTHO", pattern=r"^[\w.-]+$", description="Resource whose deliveries are wanted."
    )
    zones: list[Annotated[str, StringConstraints(pattern=TERRITORY_PATTERN)]] = Field(
        min_length=1, description="Départements wanted; one delivery is tens of gigabytes."
    )
    match: str = Field(
        default=r"_RVB-0M\d\d_", description="Regular expression a delivery's name must hold."
    )
    graph: str = Field(
        default="GRAPHE-MOSAIQUAGE",
        description="What the name of the delivery with the flight dates holds.",
    )
    since: date | None = Field(
        default=None, description="Oldest publication wanted; none begins with the first look."
    )
    max_bytes: int = Field(
        default=200 * GIB, gt=0, description="Largest volume, and largest unpacked delivery."
    )

    @field_validator("match")
    @classmethod
    def _is_a_pattern(cls, text: str) -> str:
        return _pattern(text)


class FolderSource(SourceSettings):
    """A folder that deliveries of IGN are put into."""

    kind: Literal["folder"]
    folder: Path = Field(description="The folder; each folder or archive in it is one delivery.")
    quiet_seconds: float = Field(
        default=60.0, ge=0, description="A delivery without MD5 must lie unchanged for so long."
    )
    every_seconds: float = Field(default=60.0, ge=1, description="Between two looks.")
    infrared: bool = Field(default=False, description="Take infrared tiles too (-IRC-).")
    max_bytes: int = Field(default=200 * GIB, gt=0, description="Largest unpacked delivery.")


class S3Source(SourceSettings):
    """Storage that speaks S3. Secrets: ``…_ACCESS_KEY`` and ``…_SECRET_KEY``; none asks without."""

    kind: Literal["s3"]
    url: Url = Field(description="The endpoint.")
    bucket: str = Field(pattern=r"^[a-zA-Z0-9][\w.-]{1,62}$", description="The bucket.")
    prefix: str = Field(default="", description="What keys begin with.")
    region: str = Field(default="us-east-1", description="Region that signatures name.")
    pattern: str = Field(
        default=r"\.(tif|tiff|jp2|zip|7z)$", description="Regular expression keys must hold."
    )
    dated: str | None = Field(
        default=None,
        description="Regular expression with year, month and day that finds the date in a key; "
        "none asks the object's x-amz-meta-acquired. Archives are dated by their mosaic graph.",
    )
    since: datetime | None = Field(default=None, description="Oldest upload wanted; none is all.")
    page_size: int = Field(default=1000, ge=1, le=1000, description="Keys of one answer.")
    etag_is_md5: bool = Field(
        default=True, description="The ETag of an object sent in one piece is its MD5."
    )

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, text: str) -> str:
        return _pattern(text)

    @field_validator("dated")
    @classmethod
    def _finds_a_date(cls, text: str | None) -> str | None:
        if text is not None:
            missing = {"year", "month", "day"} - set(re.compile(_pattern(text)).groupindex)
            if missing:
                raise ValueError(f"the pattern names no {', '.join(sorted(missing))}")
        return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from None
    return text


AcquireSettings = Annotated[
    StacSource | CopernicusSource | GeoplateformeSource | FolderSource | S3Source,
    Field(discriminator="kind"),
]


def secret_name(name: str, what: str) -> str:
    """The environment variable of a source's secret."""
    return f"{SECRET_PREFIX}_{name}_{what}".upper().replace("-", "_")


def secret(name: str, what: str) -> SecretStr | None:
    """A source's secret, None where the environment has none."""
    found = os.environ.get(secret_name(name, what))
    return SecretStr(found) if found else None


def aware(moment: datetime) -> datetime:
    """A time of the configuration; UTC where it does not say."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
