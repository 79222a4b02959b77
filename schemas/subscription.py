"""What a subscriber asks for: where, what, how sure, how."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Literal
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
    FEED = "feed"
    """Atom and GeoJSON over HTTP, read when the subscriber likes."""


SECRET_PREFIX = "whsec_"


class Subscription(BaseModel):
    """One subscriber's wish. Everything that is not given is not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^SU[0-9A-F]{20}$")
    name: str = Field(min_length=1, max_length=200, description="Who asks.")
    territories: list[str] = Field(
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
    url: str | None = Field(default=None, max_length=2_000, description="Of the webhook.")
    secrets: list[str] = Field(
        default_factory=list, max_length=4, description="Signing keys, newest first (whsec_…)."
    )
    active: bool = True

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str | None) -> str | None:
        if url is not None and (
            urlparse(url).scheme not in {"http", "https"} or not urlparse(url).hostname
        ):
            raise ValueError("a webhook's address begins with http:// or https://")
        return url

    @model_validator(mode="after")
    def _channel_is_whole(self) -> Subscription:
        if self.channel is ChannelKind.WEBHOOK and not (self.url and self.secrets):
            raise ValueError("a webhook needs its url and a secret")
        if any(not secret.startswith(SECRET_PREFIX) for secret in self.secrets):
            raise ValueError(f"a secret begins with {SECRET_PREFIX}")
        return self

    def smallest(self, sensors: list[Sensor]) -> float:
        """Square metres from which an alert of these sensors is worth a message."""
        if self.min_area is not None:
            return self.min_area
        return min(SENSOR_POLICY[sensor].min_alert_area for sensor in sensors)

    def public(self) -> dict[str, object]:
        """The subscription without its secrets."""
        return self.model_dump(mode="json", exclude={"secrets"})
