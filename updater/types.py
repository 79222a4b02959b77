"""The values of the map: polygons, the context of a plan, and the patch that comes out of it.

Geometries are shapely Polygons in the CRS of the store, on the centimetre grid; areas in m².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from schemas.alert import AlertKind, AlertState
from schemas.change import ChangeKind, Operation
from schemas.policy import Sensor, SensorPolicy


@dataclass(frozen=True, slots=True)
class MapPolygon:
    """One version of one polygon of OCCUPATION_SOL.

    ``version`` is the store's row number of this version, 0 for one not stored yet.
    """

    id: str
    code_cs: str | None
    code_us: str | None
    millesime: int
    geometry: Polygon
    version: int = 0
    source: str = "calcul"
    ossature: bool = False
    id_origine: str = "NC"
    code_or: str = "NC"
    valid_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One lineage row: parent and child polygon ids and how one became the other."""

    parent: str
    child: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of ground whose cover changed: from one parent to the polygon now there."""

    polygon: str
    cs_before: str | None
    us_before: str | None
    cs_after: str
    us_after: str
    probability: float
    magnitude: float
    looks: int
    geometry: BaseGeometry


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at one change of legal weight: what an alert is made of or fed by."""

    kind: AlertKind
    cs_before: str | None
    us_before: str | None
    cs_after: str
    us_after: str
    probability: float
    magnitude: float
    polygons: tuple[str, ...]
    geometry: BaseGeometry

    @property
    def area(self) -> float:
        """Square metres."""
        return float(self.geometry.area)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a plan may do and in whose name.

    ``zone_construite``: union of the built-up zones, or None where the map has none (then the
    larger minimum unit holds everywhere). ``gsd``: pixel of the evidence, metres; outlines are
    not trusted below it.
    """

    event: str
    acquired: datetime
    sensor: Sensor
    policy: SensorPolicy
    detector: str
    gsd: float
    zone_construite: BaseGeometry | None = None
    kind: ChangeKind = ChangeKind.EVOLUTION

    @property
    def millesime(self) -> int:
        """Year of the imagery, which is the millésime that grows."""
        return self.acquired.year


@dataclass(frozen=True, slots=True)
class Patch:
    """What an event does to the map: versions to close, versions to open, and why.

    ``retired`` and ``created`` together are exactly the neighbourhood that moves; an empty patch
    changes nothing. ``ignored`` counts regions that did not pass, by reason.
    """

    retired: Sequence[MapPolygon] = ()
    created: Sequence[MapPolygon] = ()
    lineage: Sequence[Link] = ()
    pieces: Sequence[Piece] = ()
    sightings: Sequence[Sighting] = ()
    ignored: dict[str, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True when no line or label of the map changes."""
        return not self.retired and not self.created


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """An alert as the life cycle sees it: identity, state and the evidence so far."""

    id: str
    kind: AlertKind
    state: AlertState
    sequence: int
    cs_before: str | None
    us_before: str | None
    cs_after: str
    us_after: str
    probability: float
    magnitude: float
    looks: int
    evidence: float
    clean_looks: int
    seen_first: datetime
    seen_last: datetime
    known_at: datetime
    acquisitions: tuple[str, ...]
    sensors: tuple[Sensor, ...]
    reference: str | None
    detector: str
    polygons: tuple[str, ...]
    geometry: BaseGeometry
    reason: str | None = None
