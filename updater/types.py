"""The values of the map: polygons, the context of a plan, and the patch that comes out of it.

Geometries are shapely Polygons in the CRS of the store, on the centimetre grid; areas in m².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from detectors.types import Region
from schemas.alert import AlertKind, AlertState, FalseAlarm, Place, Verdict
from schemas.change import ChangeKind, Operation
from schemas.legal import LegalStatus, legal_status
from schemas.policy import BUILDING, TREES, Sensor, SensorPolicy, cover_group

MACHINE: Final = "millesimed"
PERSON: Final = "correction"
"""What the source of a polygon begins with that this service drew: from an image, from a person."""


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
    parent: str
    cs_before: str | None
    us_before: str | None
    cs_after: str
    us_after: str
    probability: float
    magnitude: float
    looks: int
    geometry: BaseGeometry


@dataclass(frozen=True, slots=True)
class Side:
    """Cover, usage and legal status of some ground at one date; ``by_threshold`` where a threshold
    of the décret decided against the matrix."""

    code_cs: str | None
    code_us: str | None
    status: LegalStatus
    by_threshold: bool = False


def by_matrix(code_cs: str | None, code_us: str | None) -> Side:
    """Some ground whose surroundings are not looked at: the matrix alone decides."""
    return Side(code_cs, code_us, legal_status(code_cs, code_us))


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at one change: what an alert is made of or fed by."""

    before: Side
    after: Side
    probability: float
    magnitude: float
    polygons: tuple[str, ...]
    geometry: BaseGeometry

    @property
    def kinds(self) -> tuple[AlertKind, ...]:
        """What it is, most important first."""
        return kinds_of(self.before, self.after)

    @property
    def kind(self) -> AlertKind:
        """What weighs most."""
        return self.kinds[0]

    @property
    def area(self) -> float:
        """Square metres."""
        return float(self.geometry.area)


def kinds_of(before: Side, after: Side) -> tuple[AlertKind, ...]:
    """What a change is: in law first, then on the ground."""
    was, now = before.code_cs, after.code_cs
    trees_before, trees_after = (c is not None and cover_group(c) == TREES for c in (was, now))
    artificial = after.status is LegalStatus.ARTIF
    found = {
        AlertKind.ARTIFICIALISATION: artificial and before.status is not after.status,
        AlertKind.DESARTIFICIALISATION: not artificial and before.status is not after.status,
        AlertKind.CONSTRUCTION: now == BUILDING != was,
        AlertKind.DEMOLITION: was == BUILDING != now,
        AlertKind.CLEARING: trees_before and not trees_after,
    }
    return tuple(kind for kind, so in found.items() if so) or (AlertKind.OTHER,)


@dataclass(frozen=True, slots=True)
class Drawn(Region):
    """Ground a person drew, with the usage it has; ``restores``: it is the map of before an alert,
    which no minimum keeps from coming back where its cover still adjoins."""

    to_us: str = ""
    restores: bool = False


@dataclass(frozen=True, slots=True)
class Corrected:
    """Ground that a person corrected, when it was seen to be as drawn, and its cover."""

    geometry: BaseGeometry
    observed: datetime
    code_cs: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A look of another image at a change of some ground."""

    geometry: BaseGeometry
    to_cs: str | None
    acquired: datetime


@dataclass(frozen=True, slots=True)
class Rules:
    """What a plan may do and in whose name.

    ``zone_construite``: union of the built-up zones, or None where the map has none (then the
    larger minimum unit holds everywhere). ``gsd``: pixel of the evidence, metres; outlines are
    not trusted below it. ``sensor``: None for what a person drew. ``corrected``, ``seen``: what
    people corrected there, and what other images said of it.
    """

    event: str
    acquired: datetime
    sensor: Sensor | None
    policy: SensorPolicy
    detector: str
    gsd: float
    zone_construite: BaseGeometry | None = None
    kind: ChangeKind = ChangeKind.EVOLUTION
    corrected: tuple[Corrected, ...] = ()
    seen: tuple[Seen, ...] = ()

    @property
    def source(self) -> str:
        """What the map names as the source of what is drawn."""
        return f"{MACHINE if self.sensor else PERSON} {self.detector}"

    @property
    def millesime(self) -> int:
        """Year of the imagery, which is the millésime that grows."""
        return self.acquired.year


@dataclass(frozen=True, slots=True)
class Patch:
    """What an event does to the map: versions to close, versions to open, and why.

    ``retired`` and ``created`` together are exactly the neighbourhood that moves; an empty patch
    changes nothing. ``ignored`` counts regions that did not pass, whole or in part, by reason;
    ``left_out``: why, by the place of a region in what was given, for those that did not at all.
    """

    retired: Sequence[MapPolygon] = ()
    created: Sequence[MapPolygon] = ()
    lineage: Sequence[Link] = ()
    pieces: Sequence[Piece] = ()
    sightings: Sequence[Sighting] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True when no line or label of the map changes."""
        return not self.retired and not self.created


@unique
class Says(StrEnum):
    """What a valid look says of an alert's ground."""

    CHANGED = "changed"
    """It shows the change."""
    CLEAN = "clean"
    """It shows the ground as it was before."""
    CHANGED_BACK = "changed-back"
    """It shows another change that undoes this one."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One valid look at the ground of an alert."""

    acquisition: str
    sensor: Sensor
    acquired: datetime
    says: Says
    probability: float = 0.0
    magnitude: float = 0.0


@dataclass(frozen=True, slots=True)
class Review:
    """What a person said of an alert, and the class of the evidence that was there to be seen."""

    reason: str
    at: datetime
    evidence_class: int
    verdict: Verdict = Verdict.REJECTED
    by: str | None = None
    cause: FalseAlarm | None = None


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """An alert as the life cycle sees it: identity, what was observed, and what follows from it.

    From ``state`` to ``sensors`` everything follows from the observations, the review and
    ``superseded``, why another alert or a revert took its place (``updater.alerts.standing``).
    """

    id: str
    kinds: tuple[AlertKind, ...]
    before: Side
    after: Side
    observations: tuple[Observation, ...]
    review: Review | None
    superseded: str | None
    superseded_by: str | None
    sequence: int
    state: AlertState
    probability: float
    magnitude: float
    looks: int
    evidence: float
    clean_looks: int
    seen_first: datetime
    seen_last: datetime
    acquisitions: tuple[str, ...]
    sensors: tuple[Sensor, ...]
    reason: str | None
    known_at: datetime
    reference: str | None
    detector: str
    polygons: tuple[str, ...]
    places: tuple[Place, ...]
    geometry: BaseGeometry

    @property
    def kind(self) -> AlertKind:
        """What weighs most."""
        return self.kinds[0]
