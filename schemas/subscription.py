"""What a subscriber asks for: where, what, how sure, how."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Literal
from urllib.parse import urlparse

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.alert import AlertKind, AlertState
from schemas.geojson import AnyPolygon
from schemas.policy import SENSOR_POLICY, Sensor


@unique
class ChannelKind(StrEnum):
    """How a subscriber is told."""

    WEBHOOK = "webhook"
    """HTTP POST, signed as the Standard Webhooks specification says."""
    MAIL = "mail"
    """E-mail, one for each alert or a digest."""
    FOLDER = "folder"
    """Files in a folder of the subscription's own inside the service's outbox."""
    FEED = "feed"
    """Atom and GeoJSON over HTTP, read when the subscriber likes."""


@unique
class Rhythm(StrEnum):
    """When a subscriber is told; only mail comes as a digest."""

    IMMEDIATE = "immediate"
    DAILY = "daily"
    WEEKLY = "weekly"


SECRET_PREFIX = "whsec_"  # noqa: S105 - what all of them begin with
Code = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,16}$")]


class Wish(BaseModel):
    """What a subscriber may say of a subscription. Everything not given is not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="Who asks.")
    territories: list[Code] = Field(
        default_factory=list, max_length=500, description="INSEE, SIREN or SCOT codes."
    )
    polygon: AnyPolygon | None = Field(default=None, description="Ground, EPSG:4326.")
    kinds: list[AlertKind] = Field(
        default_factory=lambda: [AlertKind.ARTIFICIALISATION, AlertKind.DESARTIFICIALISATION],
        min_length=1,
    )
    states: list[AlertState] = Field(
        default_factory=lambda: [AlertState.CONFIRMED, AlertState.REJECTED, AlertState.SUPERSEDED],
        min_length=1,
        description="States worth a message; a withdrawal is one.",
    )
    min_area: float | None = Field(
        default=None, ge=0, description="Square metres; none takes the sensor's own smallest."
    )
    min_probability: float = Field(default=0.5, ge=0, le=1)
    language: Literal["fr", "en"] = "fr"
    channel: ChannelKind
    rhythm: Rhythm = Rhythm.IMMEDIATE
    url: str | None = Field(default=None, max_length=2_000, description="Of the webhook.")
    address: str | None = Field(
        default=None,
        max_length=254,
        pattern=r"^[^@\s<>,;:\"()\[\]\\]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$",
        description="Of the mail.",
    )

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str | None) -> str | None:
        if url is not None and (
            urlparse(url).scheme not in {"http", "https"} or not urlparse(url).hostname
        ):
            raise ValueError("a webhook's address begins with http:// or https://")
        return url

    @model_validator(mode="after")
    def _channel_is_whole(self) -> Wish:
        if self.channel is ChannelKind.WEBHOOK and not self.url:
            raise ValueError("a webhook needs its url")
        if self.channel is ChannelKind.MAIL and not self.address:
            raise ValueError("mail needs an address")
        if self.channel is not ChannelKind.MAIL and self.rhythm is not Rhythm.IMMEDIATE:
            raise ValueError("only mail comes as a digest")
        return self

    def smallest(self, sensors: list[Sensor]) -> float:
        """Square metres from which an alert of these sensors is worth a message."""
        if self.min_area is not None:
            return self.min_area
        return min(SENSOR_POLICY[sensor].min_alert_area for sensor in sensors)


class Subscription(Wish):
    """A wish that is kept: with its id, its secrets, and whether it still holds."""

    id: str = Field(pattern=r"^SU[0-9A-F]{20}$")
    secrets: list[str] = Field(
        default_factory=list, max_length=4, description="Signing keys, newest first (whsec_…)."
    )
    token: str = Field(
        default="", description="What ends the subscription without a login (unsubscribe link)."
    )
    active: bool = True
    owner: str | None = Field(
        default=None,
        max_length=64,
        description="Name of the token it was made with; none where it was made at the machine.",
    )

    @model_validator(mode="after")
    def _keys_are_whole(self) -> Subscription:
        if self.channel is ChannelKind.WEBHOOK and not self.secrets:
            raise ValueError("a webhook needs a secret")
        if any(not secret.startswith(SECRET_PREFIX) for secret in self.secrets):
            raise ValueError(f"a secret begins with {SECRET_PREFIX}")
        return self

    def public(self) -> dict[str, object]:
        """The subscription without its secrets."""
        return self.model_dump(mode="json", exclude={"secrets", "token"})
