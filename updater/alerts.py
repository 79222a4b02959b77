"""The life of an alert, as pure functions: what one more look makes of it.

States and rules follow OPERA DIST-ALERT at polygon level: evidence is the mean weighted
probability times the square of the number of looks, so that one extreme look cannot stand for
several; a masked look says nothing; a look without the change counts against. One image of a
sensor that policy trusts alone (PVA) may confirm at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import shapely
from shapely.geometry.base import BaseGeometry

from schemas.alert import AlertState
from schemas.policy import (
    ALERT_SAME_GROUND_SHARE,
    CLEAN_LOOKS_TO_CANCEL,
    CONFIRMATION_EVIDENCE,
    PROVISIONAL_EVIDENCE,
    SENSOR_POLICY,
    Sensor,
)
from updater.types import AlertRecord, Sighting

OPEN_STATES = frozenset({AlertState.FIRST, AlertState.PROVISIONAL, AlertState.CONFIRMED})
"""States in which another look may still change the alert."""


@dataclass(frozen=True, slots=True)
class Look:
    """One image's view of some ground: when it was taken, when it became known, by what."""

    acquisition: str
    sensor: Sensor
    acquired: datetime
    known_at: datetime
    detector: str
    reference: str | None


def evidence_of(probability: float, looks: int, sensors: Sequence[Sensor]) -> float:
    """Weighted probability × looks²; the weight is the mean over the sensors that looked."""
    weight = sum(SENSOR_POLICY[s].evidence_weight for s in sensors) / len(sensors)
    return probability * weight * looks**2


def state_of(probability: float, looks: int, sensors: Sequence[Sensor]) -> AlertState:
    """The state that the evidence so far deserves."""
    trusted = any(probability >= SENSOR_POLICY[s].confirms_alone for s in sensors)
    evidence = evidence_of(probability, looks, sensors)
    if trusted or evidence >= CONFIRMATION_EVIDENCE:
        return AlertState.CONFIRMED
    return AlertState.PROVISIONAL if evidence >= PROVISIONAL_EVIDENCE else AlertState.FIRST


def raised(sighting: Sighting, look: Look) -> AlertRecord:
    """A new alert from its first sighting. Its id depends on the event and the ground only, so
    a rerun of the same event raises the same alert."""
    ground = shapely.to_wkb(shapely.normalize(sighting.geometry))
    digest = hashlib.sha256(f"{look.acquisition}|{sighting.kind}".encode() + ground).hexdigest()
    sensors = (look.sensor,)
    return AlertRecord(
        id=f"AL{digest[:20].upper()}",
        kind=sighting.kind,
        state=state_of(sighting.probability, 1, sensors),
        sequence=1,
        cs_before=sighting.cs_before,
        us_before=sighting.us_before,
        cs_after=sighting.cs_after,
        us_after=sighting.us_after,
        probability=sighting.probability,
        magnitude=sighting.magnitude,
        looks=1,
        evidence=evidence_of(sighting.probability, 1, sensors),
        clean_looks=0,
        seen_first=look.acquired,
        seen_last=look.acquired,
        known_at=look.known_at,
        acquisitions=(look.acquisition,),
        sensors=sensors,
        reference=look.reference,
        detector=look.detector,
        polygons=sighting.polygons,
        geometry=sighting.geometry,
    )


def seen_again(record: AlertRecord, sighting: Sighting, look: Look) -> AlertRecord:
    """The alert after one more look that shows the change.

    The same acquisition twice is one look. A confirmed alert stays confirmed. The outline
    follows the finer sensor: an image that may patch draws better than one that may not.
    """
    if look.acquisition in record.acquisitions:
        return record
    looks = record.looks + 1
    sensors = (*record.sensors, look.sensor)
    probability = (record.probability * record.looks + sighting.probability) / looks
    confirmed = record.state is AlertState.CONFIRMED
    finer = SENSOR_POLICY[look.sensor].patches and not all(
        SENSOR_POLICY[s].patches for s in record.sensors
    )
    alone = state_of(sighting.probability, 1, (look.sensor,)) is AlertState.CONFIRMED
    state = AlertState.CONFIRMED if confirmed or alone else state_of(probability, looks, sensors)
    return replace(
        record,
        state=state,
        sequence=record.sequence + 1,
        probability=probability,
        magnitude=max(record.magnitude, sighting.magnitude),
        looks=looks,
        evidence=evidence_of(probability, looks, sensors),
        clean_looks=0,
        seen_first=min(record.seen_first, look.acquired),
        seen_last=max(record.seen_last, look.acquired),
        known_at=look.known_at,
        acquisitions=(*record.acquisitions, look.acquisition),
        sensors=sensors,
        detector=look.detector,
        polygons=tuple(sorted({*record.polygons, *sighting.polygons})),
        geometry=sighting.geometry if finer else record.geometry,
    )


def seen_clean(record: AlertRecord, look: Look) -> AlertRecord:
    """The alert after a valid look that shows no change any more.

    Two in a row end a confirmed alert (finished) and cancel an unconfirmed one (rejected).
    """
    clean = record.clean_looks + 1
    over = clean >= CLEAN_LOOKS_TO_CANCEL
    if record.state not in OPEN_STATES or not over:
        return replace(record, clean_looks=clean)
    confirmed = record.state is AlertState.CONFIRMED
    return replace(
        record,
        clean_looks=clean,
        state=AlertState.FINISHED if confirmed else AlertState.REJECTED,
        reason=None if confirmed else "seen clean again",
        sequence=record.sequence + 1,
        known_at=look.known_at,
    )


def rejected(record: AlertRecord, *, reason: str, at: datetime) -> AlertRecord:
    """The alert after a person said no, with the reason given."""
    return replace(
        record,
        state=AlertState.REJECTED,
        reason=reason,
        sequence=record.sequence + 1,
        known_at=at,
    )


def same_ground(a: BaseGeometry, b: BaseGeometry) -> bool:
    """True when two outlines share half of the smaller one."""
    smaller = min(a.area, b.area)
    shared = shapely.intersection(a, b).area
    return bool(smaller > 0 and shared >= ALERT_SAME_GROUND_SHARE * smaller)


def follow(
    known: Sequence[AlertRecord], sightings: Sequence[Sighting], look: Look
) -> list[AlertRecord]:
    """The alerts that change by one image's sightings, each in its new state.

    A sighting on the ground of a known alert of its kind feeds that alert; on the ground of a
    rejected one it is dropped; elsewhere it raises a new one.
    """
    current = {record.id: record for record in known}
    changed: dict[str, AlertRecord] = {}
    for sighting in sightings:
        match = _match(list(current.values()), sighting)
        if match is None:
            record = raised(sighting, look)
        elif match.state is AlertState.REJECTED:
            continue
        else:
            record = seen_again(match, sighting, look)
            if record is match:
                continue
        current[record.id] = record
        changed[record.id] = record
    return list(changed.values())


def _match(known: Sequence[AlertRecord], sighting: Sighting) -> AlertRecord | None:
    candidates = [
        r
        for r in known
        if r.kind is sighting.kind
        and r.state is not AlertState.SUPERSEDED
        and same_ground(r.geometry, sighting.geometry)
    ]
    return max(
        candidates,
        key=lambda r: (shapely.intersection(r.geometry, sighting.geometry).area, r.id),
        default=None,
    )
