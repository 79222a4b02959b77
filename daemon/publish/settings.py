"""The ``[publication]`` table of the configuration: where the map is published, and as what.

What the platform gives ids to (datastore, processings, checks, endpoint) is configuration, for it
differs from one platform to the next. Secrets never stand in the file: a token is
``MILLESIMED_PUBLICATION_TOKEN`` or the text of ``token_file``; credentials it is had for are
``MILLESIMED_PUBLICATION_CLIENT_ID`` and ``…_CLIENT_SECRET``, with ``…_USER`` and ``…_PASSWORD``
where a person's account is used.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

SECRET_PREFIX: Final = "MILLESIMED_PUBLICATION"  # noqa: S105 - a name
SECRET_WORDS: Final = ("token", "client_id", "client_secret", "user", "password")
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@]+$")]
Id = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]


def secret_name(what: str) -> str:
    """The environment variable of a secret."""
    return f"{SECRET_PREFIX}_{what}".upper()


def secret(what: str) -> SecretStr | None:
    """A secret, None where the environment has none."""
    found = os.environ.get(secret_name(what))
    return SecretStr(found) if found else None


class ServiceSettings(BaseModel):
    """What the data is published as: a configuration and its offering."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["WFS", "WMS-VECTOR", "WMTS-TMS", "DOWNLOAD"] = Field(
        default="WFS", description="Kind of service."
    )
    endpoint: Id = Field(description="Id of the endpoint it is published on.")
    layer_name: str = Field(
        default="ocsge_{territory}",
        pattern=r"^[\w.{}-]+$",
        description="Name of the layer; {territory} and {millesime} are filled in. Without "
        "{millesime} one layer follows the map from year to year.",
    )
    title: str = Field(default="OCS GE {millesime}, {territory}", description="For people.")
    abstract: str = Field(
        default="Occupation du sol à grande échelle, millésime {millesime}.",
        description="For people.",
    )
    keywords: list[str] = Field(
        default=["OCS GE", "occupation du sol"], description="For catalogues."
    )
    open: bool = Field(default=True, description="Everybody may read it.")
    type_infos: dict[str, Any] = Field(
        default_factory=dict, description="More of the configuration's type_infos."
    )
    used_data: dict[str, Any] = Field(
        default_factory=dict, description="More of its used_data, as zone and format of a DOWNLOAD."
    )
    relation: dict[str, Any] = Field(
        default_factory=dict, description="More of the table's relation, as style of a WMS-VECTOR."
    )


class PyramidSettings(BaseModel):
    """The processing that makes vector tiles of the tables, for WMTS-TMS."""

    model_config = ConfigDict(extra="forbid")

    processing: Id = Field(description="Id of the processing.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Its parameters: levels and composition."
    )


class PublicationSettings(BaseModel):
    """Where and how `millesimed publish` hands over a map."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(default="https://data.geopf.fr/api", description="Root of the API Entrepôt.")
    datastore: Id = Field(description="Id of the datastore.")
    processing: Id = Field(description="Id of the processing that takes the delivery in.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="More parameters of that processing, as srs."
    )
    checks: list[Id] = Field(
        default_factory=list,
        description="Ids of checks asked for besides those the platform runs by itself.",
    )
    service: ServiceSettings = Field(description="What it is published as.")
    pyramid: PyramidSettings | None = Field(
        default=None, description="For WMTS-TMS: the processing that makes the tiles."
    )
    keyed: bool = Field(
        default=True,
        description="Make the tables first, with their primary keys; without one a table takes no "
        "incremental delivery.",
    )
    outline_updates: bool = Field(
        default=True,
        description="Incremental: outlines travel in updates; false deletes and inserts instead.",
    )
    keep_superseded: int = Field(
        default=1,
        ge=0,
        description="Stored data of a map that nothing shows any more: how many are kept, the "
        "newest; older ones are removed once the new one is shown.",
    )
    folder: Path | None = Field(
        default=None, description="Where deliveries are made; else `deliveries` by the store."
    )
    networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="Networks the platform may be called in though they are not public.",
    )
    token_file: Path | None = Field(default=None, description="File that holds a bearer token.")
    token_url: Url = Field(
        default="https://sso.geopf.fr/realms/geoplateforme/protocol/openid-connect/token",
        description="Where tokens are had for credentials.",
    )
    poll_seconds: float = Field(default=10.0, gt=0, description="Between two looks at a status.")
    patience_hours: float = Field(
        default=6.0, gt=0, description="How long one status may last before the command gives up."
    )
    calls_per_second: float = Field(default=5.0, gt=0, le=1000, description="Most calls a second.")

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if isinstance(values, dict):
            for key in values:
                if str(key).lower() in SECRET_WORDS:
                    raise ValueError(
                        f"{key} is a secret; give it as {secret_name(str(key))} in the environment"
                    )
        return values

    @model_validator(mode="after")
    def _has_its_tiles(self) -> PublicationSettings:
        if (self.service.type == "WMTS-TMS") != (self.pyramid is not None):
            raise ValueError("WMTS-TMS and `pyramid` go together; set both or neither")
        return self
