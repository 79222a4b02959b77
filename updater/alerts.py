"""The life of an alert, as pure functions: what one more look makes of it.

States and rules follow OPERA DIST-ALERT at polygon level: evidence is the mean weighted
probability times the square of the number of looks, so that one extreme look cannot stand for
several; a masked look says nothing; two clean looks in a row cancel. One image of a sensor that
policy trusts alone (PVA) may confirm at once. An alert keeps its looks, and its state is a function
of them in the order the ground was seen, whatever the order they became known in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import shapely
from shapely.geometry.base import BaseGeometry

from detectors.types import Ground
from schemas.alert import AlertKind, AlertState, FalseAlarm, Verdict
from schemas.policy import (
    ALERT_SAME_GROUND_SHARE,
    CAMPAIGN_DAYS,
    CANCELLED_DAYS,
    CLEAN_CHANGED_SHARE,
    CLEAN_LOOKS_TO_CANCEL,
    CLEAN_VALID_SHARE,
    CONFIRMATION_EVIDENCE,
    PROVISIONAL_EVIDENCE,
    REJECTED_GROUND_SHARE,
    SENSOR_POLICY,
    Sensor,
    evidence_class,
)
from updater.types import AlertRecord, Observation, Review, Says, Side, Sighting, kinds_of

_STRENGTH = (AlertState.FIRST, AlertState.PROVISIONAL, AlertState.CONFIRMED)
"""States of an alert that holds, by how sure it is."""
OPEN_STATES = frozenset(_STRENGTH)
"""States in which another look may still change the alert."""
_OPPOSITE = {
    AlertKind.ARTIFICIALISATION: AlertKind.DESARTIFICIALISATION,
    AlertKind.DESARTIFICIALISATION: AlertKind.ARTIFICIALISATION,
    AlertKind.CONSTRUCTION: AlertKind.DEMOLITION,
    AlertKind.DEMOLITION: AlertKind.CONSTRUCTION,
}


@dataclass(frozen=True, slots=True)
class Look:
    """One image's view of some ground: when it was taken, when it became known, by what.

    ``compared_to``: when the older of the two images was taken; a look only says that an alert's
    change is not there where that was before the change.
    """

    acquisition: str
    sensor: Sensor
    acquired: datetime
    known_at: datetime
    detector: str
    reference: str | None
    compared_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """An alert before (None for a new one) and after a look."""

    before: AlertRecord | None
    after: AlertRecord

    @property
    def told(self) -> bool:
        """True where a subscriber would want to know: not for a look that only agrees."""
        old, new = self.before, self.after
        return old is None or (
            (old.state, old.kinds, old.reason) != (new.state, new.kinds, new.reason)
            or _class(old.observations) < _class(new.observations)
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an alert stands by what was observed."""

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


def evidence_of(run: Sequence[Observation]) -> float:
    """Mean probability × mean weight of the sensors × looks²."""
    probability = sum(o.probability for o in run) / len(run)
    weight = sum(SENSOR_POLICY[o.sensor].evidence_weight for o in run) / len(run)
    return probability * weight * len(run) ** 2


def deserved(run: Sequence[Observation]) -> AlertState:
    """The state that looks which show the change deserve."""
    trusted = any(o.probability >= SENSOR_POLICY[o.sensor].confirms_alone for o in run)
    evidence = evidence_of(run)
    if trusted or evidence >= CONFIRMATION_EVIDENCE:
        return AlertState.CONFIRMED
    return AlertState.PROVISIONAL if evidence >= PROVISIONAL_EVIDENCE else AlertState.FIRST


def standing(
    observations: Sequence[Observation],
    *,
    review: Review | None = None,
    superseded: str | None = None,
) -> Standing:
    """Where an alert stands after some looks, of which at least one shows the change.

    Looks count in the order the ground was seen. A run of looks that show the change grows until
    clean ones end it; after a rest, or after silence while it was unconfirmed, the next starts a
    new run. What a person rejected stays so unless better evidence than they had shows it again;
    what a person accepted is confirmed until clean looks of later ground than they saw end it.
    """
    run: list[Observation] = []
    clean, state, reason, ended = 0, AlertState.FIRST, None, None
    for look in sorted(observations, key=lambda o: (o.acquired, o.acquisition)):
        if look.says is Says.CHANGED:
            if ended is not None and not _returns(state, run, look, ended):
                continue
            if ended is not None or (run and _silent(state, run, look)):
                run, ended = [], None
            state = _stronger(state, deserved([*run, look])) if run else deserved([look])
            run, clean, reason = [*run, look], 0, None
        elif run and state in OPEN_STATES:
            clean += _against(run, look)
            if clean >= CLEAN_LOOKS_TO_CANCEL:
                confirmed = state is AlertState.CONFIRMED
                state = AlertState.FINISHED if confirmed else AlertState.REJECTED
                reason = f"seen {look.says.value.replace('-', ' ')} by {look.sensor.value}"
                ended = look.acquired
    if review is not None and review.verdict is Verdict.ACCEPTED:
        state, reason = _accepted(state, reason, ended, review)
    elif review is not None and _class(observations) <= review.evidence_class:
        state, reason = AlertState.REJECTED, review.reason
    if superseded is not None:
        state, reason = AlertState.SUPERSEDED, superseded
    return Standing(
        state=state,
        probability=sum(o.probability for o in run) / len(run),
        magnitude=max(o.magnitude for o in run),
        looks=len(run),
        evidence=evidence_of(run),
        clean_looks=clean,
        seen_first=run[0].acquired,
        seen_last=run[-1].acquired,
        acquisitions=tuple(o.acquisition for o in run),
        sensors=tuple(o.sensor for o in run),
        reason=reason,
    )


def _accepted(
    state: AlertState, reason: str | None, ended: datetime | None, review: Review
) -> tuple[AlertState, str | None]:
    if ended is None or ended <= review.at:
        return AlertState.CONFIRMED, None
    return (AlertState.FINISHED if state is AlertState.REJECTED else state), reason


def _stronger(a: AlertState, b: AlertState) -> AlertState:
    return max(a, b, key=_STRENGTH.index)


def _class(run: Sequence[Observation]) -> int:
    return max((evidence_class(o.sensor) for o in run if o.says is Says.CHANGED), default=0)


def _against(run: Sequence[Observation], look: Observation) -> int:
    """How many clean looks one is worth: a coarser sensor's says nothing, a finer one's or a change
    back decides alone."""
    rises = evidence_class(look.sensor) - _class(run)
    if rises < 0:
        return 0
    alone = rises > 0 or look.says is Says.CHANGED_BACK
    return CLEAN_LOOKS_TO_CANCEL if alone else 1


def _silent(state: AlertState, run: Sequence[Observation], look: Observation) -> bool:
    """True where so much time went by that unconfirmed looks support nothing any more."""
    days = max(SENSOR_POLICY[o.sensor].silence_days for o in (*run, look))
    long_after = look.acquired - run[-1].acquired > timedelta(days=days)
    return state is not AlertState.CONFIRMED and long_after


def _returns(
    state: AlertState, run: Sequence[Observation], look: Observation, ended: datetime
) -> bool:
    """True where a look opens an ended alert again: what looks cancelled, cloud or plough, must not
    hide what is built there later."""
    better = evidence_class(look.sensor) > _class(run)
    rested = look.acquired - ended > timedelta(days=CANCELLED_DAYS)
    return state is AlertState.FINISHED or better or rested


def judged(record: AlertRecord) -> AlertRecord:
    """The record with everything that follows from its observations."""
    found = standing(record.observations, review=record.review, superseded=record.superseded)
    return replace(record, **{name: getattr(found, name) for name in Standing.__slots__})


def raised(sighting: Sighting, look: Look) -> AlertRecord:
    """A new alert from its first sighting. Its id depends on the event and the ground only, so
    a rerun of the same event raises the same alert."""
    ground = shapely.to_wkb(shapely.normalize(sighting.geometry))
    digest = hashlib.sha256(f"{look.acquisition}|{sighting.kind}".encode() + ground).hexdigest()
    observations = (_observation(sighting, look),)
    found = standing(observations)
    return AlertRecord(
        id=f"AL{digest[:20].upper()}",
        kinds=sighting.kinds,
        before=sighting.before,
        after=sighting.after,
        observations=observations,
        review=None,
        superseded=None,
        superseded_by=None,
        sequence=1,
        **{name: getattr(found, name) for name in Standing.__slots__},
        known_at=look.known_at,
        reference=look.reference,
        detector=look.detector,
        polygons=sighting.polygons,
        places=(),
        geometry=sighting.geometry,
    )


def _observation(sighting: Sighting, look: Look) -> Observation:
    return Observation(
        look.acquisition,
        look.sensor,
        look.acquired,
        Says.CHANGED,
        sighting.probability,
        sighting.magnitude,
    )


def seen_again(record: AlertRecord, sighting: Sighting, look: Look) -> AlertRecord:
    """The alert after one more look that shows the change; the same record where it adds nothing.

    The same acquisition twice is one look. Outline, covers and kinds follow the finer sensor: an
    image that may patch draws and names better than one that may not. Until it is confirmed the
    outline of an alert that only warns follows its newest look, for the first may hold the edge of
    a cloud.
    """
    new = _observation(sighting, look)
    polygons = tuple(sorted({*record.polygons, *sighting.polygons}))
    finer = evidence_class(look.sensor) > _class(record.observations)
    known = not finer and _adds_nothing(record, new)
    observed = record if known else _with(record, new, look)
    if observed.state is AlertState.REJECTED and not finer:
        return record
    if observed is record:
        if polygons == record.polygons:
            return record
        observed = replace(record, sequence=record.sequence + 1, known_at=look.known_at)
    observed = replace(observed, polygons=polygons, detector=look.detector)
    if not finer:
        coarse = _class(record.observations) == 1
        unsure = record.state in OPEN_STATES and record.state is not AlertState.CONFIRMED
        newest = look.acquired >= record.seen_last and look.acquisition not in record.acquisitions
        moves = coarse and unsure and newest
        return replace(observed, geometry=sighting.geometry) if moves else observed
    return replace(
        observed,
        kinds=sighting.kinds,
        before=sighting.before,
        after=sighting.after,
        reference=look.reference,
        geometry=sighting.geometry,
    )


def _adds_nothing(record: AlertRecord, new: Observation) -> bool:
    """True for one more look of the same campaign at what is confirmed."""
    near = timedelta(days=CAMPAIGN_DAYS)
    return (
        record.state is AlertState.CONFIRMED
        and not record.clean_looks
        and new.acquired >= record.seen_first
        and any(abs(new.acquired - o.acquired) < near for o in record.observations)
        and all(o.acquisition != new.acquisition for o in record.observations)
    )


def seen_clean(record: AlertRecord, look: Look, says: Says = Says.CLEAN) -> AlertRecord:
    """The alert after a valid look that does not show its change, or undoes it.

    Two in a row end a confirmed alert (finished) and cancel an unconfirmed one (rejected).
    """
    if record.state not in OPEN_STATES:
        return record
    return _with(record, Observation(look.acquisition, look.sensor, look.acquired, says), look)


def _with(record: AlertRecord, new: Observation, look: Look) -> AlertRecord:
    """The record with one more observation; one that shows the change stands for its acquisition
    whatever else that shows."""
    others = tuple(o for o in record.observations if o.acquisition != new.acquisition)
    same = [o for o in record.observations if o.acquisition == new.acquisition]
    shown = [o for o in (*same, new) if o.says is Says.CHANGED]
    best = max(shown or [new], key=lambda o: (o.probability, o.magnitude))
    if best in same:
        return record
    observations = (*others, best)
    if all(o.says is not Says.CHANGED for o in observations):
        return record
    return judged(
        replace(
            record,
            observations=observations,
            sequence=record.sequence + 1,
            known_at=look.known_at,
        )
    )


def rejected(
    record: AlertRecord,
    *,
    reason: str,
    at: datetime,
    by: str | None = None,
    cause: FalseAlarm | None = None,
) -> AlertRecord:
    """The alert after a person said no, with the reason given, and the cause of the false alarm."""
    review = Review(reason, at, _class(record.observations), Verdict.REJECTED, by, cause)
    return _reviewed(record, review)


def accepted(record: AlertRecord, *, at: datetime, by: str | None = None) -> AlertRecord:
    """The alert after a person said yes."""
    return _reviewed(record, Review("", at, _class(record.observations), Verdict.ACCEPTED, by))


def redrawn(
    record: AlertRecord, *, at: datetime, by: str, after: Side, geometry: BaseGeometry
) -> AlertRecord:
    """The alert after a person drew its ground anew: it is accepted, as drawn."""
    named = replace(record, after=after, kinds=kinds_of(record.before, after), geometry=geometry)
    return accepted(named, at=at, by=by)


def _reviewed(record: AlertRecord, review: Review) -> AlertRecord:
    later = replace(record, review=review, sequence=record.sequence + 1, known_at=review.at)
    return judged(later)


def superseded(
    record: AlertRecord, *, reason: str, at: datetime, by: str | None = None
) -> AlertRecord:
    """The alert after another (``by``) took over its ground, or its event was undone."""
    later = replace(record, superseded=reason, superseded_by=by, known_at=at)
    return judged(replace(later, sequence=record.sequence + 1))


def same_ground(a: BaseGeometry, b: BaseGeometry) -> bool:
    """True when two outlines share half of the smaller one."""
    smaller = min(a.area, b.area)
    shared = shapely.intersection(a, b).area
    return bool(smaller > 0 and shared >= ALERT_SAME_GROUND_SHARE * smaller)


def outlines(records: Sequence[AlertRecord]) -> dict[str, BaseGeometry]:
    """The ground of the alerts that another look may still change, by id."""
    return {record.id: record.geometry for record in records if record.state in OPEN_STATES}


def follow(
    known: Sequence[AlertRecord],
    sightings: Sequence[Sighting],
    look: Look,
    grounds: Sequence[Ground | None] = (),
) -> list[Step]:
    """The alerts that change by one image.

    A sighting on the ground of known alerts of its kind feeds the surest of them and takes over
    those that were not sure yet; on the ground of a rejected one it is dropped unless it is better
    evidence; elsewhere it raises a new one. ``grounds`` (one for each known alert, None where
    nothing was looked at) then say which other alerts were seen without their change.
    """
    first = {record.id: record for record in known}
    current = dict(first)
    for sighting in sightings:
        for record in _fed(list(current.values()), sighting, look):
            current[record.id] = record
        for record in list(current.values()):
            if _undone(record, sighting):
                current[record.id] = seen_clean(record, look, Says.CHANGED_BACK)
    for record, ground in zip(known, grounds, strict=bool(grounds)):
        if ground is not None and current[record.id] is record and _is_clean(record, ground, look):
            current[record.id] = seen_clean(record, look)
    return [
        Step(first.get(id_), record)
        for id_, record in current.items()
        if first.get(id_) is not record
    ]


def _fed(known: Sequence[AlertRecord], sighting: Sighting, look: Look) -> list[AlertRecord]:
    """The alerts a sighting feeds, raises or takes over, in their new states."""
    matches = [
        r
        for r in known
        if r.kind is sighting.kind and r.state is not AlertState.SUPERSEDED and _covers(r, sighting)
    ]
    if not matches:
        return [raised(sighting, look)]
    matches.sort(key=lambda r: _claim(r, sighting), reverse=True)
    survivor = seen_again(matches[0], sighting, look)
    others = [r for r in matches[1:] if r.state in OPEN_STATES]
    sure = [r for r in others if r.state is AlertState.CONFIRMED]
    unsure = [r for r in others if r.state is not AlertState.CONFIRMED]
    if not unsure or survivor.state not in OPEN_STATES:
        return [survivor, *(seen_again(r, sighting, look) for r in sure)]
    reason = f"taken over by {survivor.id}"
    return [
        replace(survivor, geometry=shapely.union(survivor.geometry, sighting.geometry)),
        *(seen_again(r, sighting, look) for r in sure),
        *(superseded(r, reason=reason, at=look.known_at, by=survivor.id) for r in unsure),
    ]


def _covers(record: AlertRecord, sighting: Sighting) -> bool:
    """True where a sighting is on the ground of an alert; a small one that was rejected does not
    speak for all of a large change."""
    if not same_ground(record.geometry, sighting.geometry):
        return False
    shared = float(shapely.intersection(record.geometry, sighting.geometry).area)
    held = record.state is AlertState.REJECTED
    return not held or shared >= REJECTED_GROUND_SHARE * sighting.area


def _claim(record: AlertRecord, sighting: Sighting) -> tuple[int, float, str]:
    """What makes an alert the one a sighting belongs to: a person's no, then how sure it is, then
    how much ground they share."""
    order = {AlertState.REJECTED: 3 if record.review else -1, AlertState.FINISHED: -1}
    rank = order.get(record.state, -1)
    if record.state in OPEN_STATES:
        rank = _STRENGTH.index(record.state)
    shared = float(shapely.intersection(record.geometry, sighting.geometry).area)
    return rank, shared, record.id


def _undone(record: AlertRecord, sighting: Sighting) -> bool:
    return (
        record.state in OPEN_STATES
        and _OPPOSITE.get(record.kind) is sighting.kind
        and same_ground(record.geometry, sighting.geometry)
    )


def _is_clean(record: AlertRecord, ground: Ground, look: Look) -> bool:
    """True where a look saw enough of an open alert's ground, compared it with an image older than
    the change, and found it as it was."""
    older = look.compared_to is None or look.compared_to < record.seen_first
    return (
        record.state in OPEN_STATES
        and older
        and look.acquired > record.seen_first
        and ground.valid >= CLEAN_VALID_SHARE
        and ground.changed <= CLEAN_CHANGED_SHARE
    )
