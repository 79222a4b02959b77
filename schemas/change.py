"""The change message: what one acquisition did to the map."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.acquisition import Departement
from schemas.geojson import AnyPolygon


@unique
class ChangeKind(StrEnum):
    """Evolution: the ground changed. Correction: the older map was wrong at its own date."""

    EVOLUTION = "evolution"
    CORRECTION = "correction"


@unique
class Operation(StrEnum):
    """How a polygon came from its parent."""

    RELABEL = "relabel"
    """Same geometry, other codes; the id stays."""
    SPLIT = "split"
    """A part of the parent; a new id."""
    MERGE = "merge"
    """Several parents in one polygon; a new id."""
    NODE = "node"
    """Same ground and codes, a vertex more on a shared edge; the id stays."""
    REVERT = "revert"
    """The version from before an event that was undone; the id it had."""


class LineageLink(BaseModel):
    """One parent-to-child link."""

    model_config = ConfigDict(frozen=True)

    parent: str
    child: str
    operation: Operation


class ChangedPiece(BaseModel):
    """One piece of ground whose cover changed."""

    model_config = ConfigDict(frozen=True)

    polygon: str = Field(description="Id of the polygon that now stands there.")
    cs_before: str | None
    cs_after: str
    us_before: str | None
    us_after: str | None
    area: float = Field(gt=0, description="Square metres.")
    probability: float = Field(ge=0, le=1)
    geometry: AnyPolygon = Field(description="EPSG:4326.")


class Change(BaseModel):
    """What one acquisition did to the map of one département."""

    model_config = ConfigDict(frozen=True)

    event: str = Field(description="Id of the acquisition event.")
    departement: Departement
    millesime: int = Field(ge=1900, le=2200, description="The millésime that grows by it.")
    kind: ChangeKind
    acquired: AwareDatetime
    recorded: AwareDatetime
    detector: str
    retired: list[str] = Field(description="Ids whose version was closed.")
    created: list[str] = Field(description="Ids whose version was opened.")
    lineage: list[LineageLink]
    pieces: list[ChangedPiece]
