"""The alert: what subscribers are told, with everything that explains it."""

from __future__ import annotations

from datetime import date
from enum import StrEnum, unique

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.acquisition import Departement
from schemas.geojson import AnyPolygon
from schemas.legal import LegalStatus
from schemas.policy import Sensor


@unique
class AlertState(StrEnum):
    """Where an alert stands in its life (OPERA DIST-ALERT's states at polygon level)."""

    FIRST = "first"
    """Seen once, with doubt."""
    PROVISIONAL = "provisional"
    """More evidence than one doubtful look, not yet proof."""
    CONFIRMED = "confirmed"
    """Enough independent evidence, or one image that policy trusts alone."""
    FINISHED = "finished"
    """Confirmed earlier and over: the ground was seen without the change again."""
    REJECTED = "rejected"
    """A person, or clean looks, said no; never raised again for the same ground."""
    SUPERSEDED = "superseded"
    """Another alert took over the same ground."""


@unique
class AlertKind(StrEnum):
    """What changed in law."""

    ARTIFICIALISATION = "artificialisation"
    DESARTIFICIALISATION = "desartificialisation"
    OTHER = "other"


class Cover(BaseModel):
    """Cover, usage and legal status of a piece of ground at one date."""

    model_config = ConfigDict(frozen=True)

    code_cs: str | None
    code_us: str | None
    status: LegalStatus = Field(description="By the CS × US matrix of décret 2023-1096.")
    rule: str | None = Field(default=None, description="The matrix row that decided.")


class Alert(BaseModel):
    """One alert in one state. ``(id, sequence)`` is unique: receivers deduplicate on it."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Stable for the life of the alert.")
    sequence: int = Field(ge=1, description="Counts the states this alert has been sent in.")
    kind: AlertKind
    state: AlertState
    reason: str | None = Field(default=None, description="Why it was rejected.")
    departement: Departement
    before: Cover
    after: Cover
    area: float = Field(gt=0, description="Square metres.")
    probability: float = Field(ge=0, le=1, description="Mean over the ground and the looks.")
    magnitude: float = Field(ge=0, le=1)
    looks: int = Field(ge=1, description="Valid observations that showed the change.")
    evidence: float = Field(ge=0, description="Weighted probability × looks².")
    seen_first: date = Field(description="First clock: when the ground was first seen changed.")
    seen_last: date = Field(description="When it was last seen so.")
    known_at: AwareDatetime = Field(description="Second clock: when the system knew.")
    reference_acquisition: str | None = Field(
        default=None, description="Item id of the image before."
    )
    acquisitions: list[str] = Field(min_length=1, description="Item ids of the images after.")
    sensors: list[Sensor]
    detector: str = Field(description="Name and version of the detector.")
    polygons: list[str] = Field(description="Ids of the map polygons it touches.")
    rank: float = Field(ge=0, description="Area × probability × legal weight: read from the top.")
    geometry: AnyPolygon = Field(description="Outline, EPSG:4326.")
