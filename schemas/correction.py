"""The correction event: what a person, or who holds a territory's own map, says the ground is.

A GeoJSON FeatureCollection (RFC 7946, EPSG:4326) of polygons with their codes, and who says so, of
which date and from what source. One batch is of one date and one kind, for it is one patch.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator

from schemas.acquisition import Departement, Moment
from schemas.change import ChangeKind
from schemas.geojson import AnyPolygon, vertices
from schemas.nomenclature import CS_LEAVES, US_CODES
from schemas.policy import MAX_CORRECTION_FEATURES, MAX_CORRECTION_VERTICES

ALERT_PATTERN: Final = r"^AL[0-9A-F]{20}$"


def _cover(code: str) -> str:
    if code not in CS_LEAVES:
        raise ValueError("no cover of the nomenclature's last level, as in CS1.1.1.1")
    return code


def _usage(code: str) -> str:
    if code not in US_CODES:
        raise ValueError("no usage of the nomenclature, as in US1.1")
    return code


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("one line of plain text")
    return text.strip()


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Comment = Annotated[str, Field(max_length=500)]
AlertId = Annotated[str, Field(pattern=ALERT_PATTERN)]


class DrawnProperties(BaseModel):
    """What some ground is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code_cs: Annotated[str, AfterValidator(_cover)] = Field(description="Cover, a leaf.")
    code_us: Annotated[str, AfterValidator(_usage)] = Field(description="Usage.")
    comment: Comment | None = None


class DrawnFeature(BaseModel):
    """Some ground and what it is."""

    model_config = ConfigDict(frozen=True)

    type: Literal["Feature"]
    geometry: AnyPolygon = Field(description="EPSG:4326.")
    properties: DrawnProperties


class Submission(BaseModel):
    """What is sent in; who sends it is known otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["FeatureCollection"]
    features: Annotated[
        list[DrawnFeature], FailFast(), Field(max_length=MAX_CORRECTION_FEATURES)
    ] = Field(description="Ground as it is; none, with an alert, puts the alert's ground back.")
    observed: Moment = Field(description="When the ground was seen to be as drawn.")
    kind: ChangeKind = Field(
        default=ChangeKind.CORRECTION,
        description="correction: the map was wrong; evolution: the ground has changed.",
    )
    source: Name = Field(description="What it was drawn from, as in `OCS communale`.")
    comment: Comment | None = Field(default=None, description="On the whole batch.")
    alert: AlertId | None = Field(
        default=None,
        description="The alert this answers: what of its ground is not drawn anew goes back to "
        "what it was before.",
    )
    departement: Departement | None = Field(
        default=None, description="As in D032; null lets the ground decide."
    )

    @model_validator(mode="after")
    def _says_something_bounded(self) -> Submission:
        if not self.features and self.alert is None:
            raise ValueError("features: draw at least one polygon, or name an alert")
        if self.alert is not None and self.kind is not ChangeKind.CORRECTION:
            raise ValueError("kind: the answer to an alert is a correction")
        if sum(vertices(f.geometry) for f in self.features) > MAX_CORRECTION_VERTICES:
            raise ValueError(
                f"features: more than {MAX_CORRECTION_VERTICES} vertices; send several batches"
            )
        return self


class Correction(Submission):
    """A submission and who sent it: the data of a correction event."""

    author: Name = Field(description="Who says so: over HTTP the name of the token.")
