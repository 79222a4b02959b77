"""The alert: what subscribers are told, with everything that explains it."""

from __future__ import annotations

from datetime import date
from enum import StrEnum, unique

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.acquisition import Departement
from schemas.geojson import AnyPolygon
from schemas.legal import LegalStatus
from schemas.policy import Sensor
from schemas.territory import TerritoryKind


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
    """What changed: first in law, then on the ground."""

    ARTIFICIALISATION = "artificialisation"
    """The ground became artificialised under the décret."""
    DESARTIFICIALISATION = "desartificialisation"
    """It ceased to be."""
    CONSTRUCTION = "construction"
    """A building stands where none stood."""
    DEMOLITION = "demolition"
    """A building is gone."""
    CLEARING = "clearing"
    """Trees are gone."""
    OTHER = "other"
    """Any other change of cover."""


@unique
class FalseAlarm(StrEnum):
    """Why an alert was none: the closed list of the false-alarm table."""

    SHADOW = "shadow"
    """The shadow of a building, a tree, a slope."""
    SEASON = "season"
    """Crops, leaves, ploughed ground: the time of the year."""
    CLOUD = "cloud"
    """Cloud, haze, snow, smoke."""
    MISREGISTRATION = "misregistration"
    """The two images do not lie on each other, or a roof leans another way."""
    TEMPORARY = "temporary"
    """There and gone: a tent, a fair, stored goods."""
    VEHICLES = "vehicles"
    """Cars, trucks, boats."""
    WATER_LEVEL = "water-level"
    """Tide, flood, an emptied pond."""
    MAP_WRONG = "map-wrong"
    """The ground has not changed: the older map was wrong."""
    OTHER = "other"
    """None of these; the reason says what."""


@unique
class Verdict(StrEnum):
    """What a person said of an alert."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Reviewed(BaseModel):
    """What a person said of an alert, and who."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    by: str | None = Field(default=None, description="Who; unknown for reviews of older versions.")
    cause: FalseAlarm | None = Field(default=None, description="Of a rejection, where given.")
    at: AwareDatetime


class Cover(BaseModel):
    """Cover, usage and legal status of a piece of ground at one date."""

    model_config = ConfigDict(frozen=True)

    code_cs: str | None
    code_us: str | None
    status: LegalStatus = Field(description="By décret 2023-1096: matrix, then thresholds.")
    rule: str | None = Field(default=None, description="The matrix row of the cover.")
    threshold: str | None = Field(
        default=None, description="The threshold that decided against the matrix row, if one did."
    )


class Place(BaseModel):
    """A territory an alert lies in."""

    model_config = ConfigDict(frozen=True)

    kind: TerritoryKind
    code: str
    name: str


class Alert(BaseModel):
    """One alert in one state. ``(id, sequence)`` is unique: receivers deduplicate on it.

    Numbers may be left out: looks that change nothing are kept, not told.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Stable for the life of the alert.")
    sequence: int = Field(ge=1, description="Rises with each message.")
    kind: AlertKind = Field(description="What weighs most: the law before the ground.")
    kinds: list[AlertKind] = Field(
        min_length=1, description="Everything it is: a new building is a construction too."
    )
    state: AlertState
    reason: str | None = Field(default=None, description="Why it was rejected or superseded.")
    review: Reviewed | None = Field(default=None, description="What a person said last.")
    superseded_by: str | None = Field(default=None, description="The alert that took over.")
    departement: Departement
    places: list[Place] = Field(
        default_factory=list, description="Communes, EPCI and other territories, where known."
    )
    before: Cover
    after: Cover
    area: float = Field(gt=0, description="Square metres.")
    probability: float = Field(ge=0, le=1, description="Mean over the ground and the looks.")
    magnitude: float = Field(ge=0, le=1)
    looks: int = Field(ge=1, description="Valid observations that showed the change.")
    clean_looks: int = Field(
        default=0, ge=0, description="Valid observations since that did not show it."
    )
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
