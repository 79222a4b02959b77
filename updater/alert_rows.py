"""An alert between its three forms: life-cycle record, database row, published message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any

import shapely
from pydantic import BaseModel

from schemas.alert import (
    Alert,
    AlertKind,
    AlertState,
    Cover,
    FalseAlarm,
    Place,
    Reviewed,
    Verdict,
)
from schemas.legal import THRESHOLD_RULES, LegalStatus, legal_status, matrix_row
from schemas.policy import LEGAL_WEIGHT, Sensor
from updater.crs import to_geojson
from updater.types import AlertRecord, Observation, Review, Says, Side

_TIMES = ("seen_first", "seen_last", "known_at")
_LISTS = ("acquisitions", "polygons")


def record_to_row(record: AlertRecord) -> tuple[str, bytes]:
    """JSON of everything but the outline, and the outline as WKB."""
    values = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "geometry"}
    return json.dumps(values, sort_keys=True, default=_plain), shapely.to_wkb(record.geometry)


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is no part of an alert")


def record_from_row(record: str, wkb: bytes) -> AlertRecord:
    """The life-cycle record of a database row."""
    values = json.loads(record)
    for name in _TIMES:
        values[name] = datetime.fromisoformat(values[name])
    if "observations" not in values:
        values = _from_schema_2(values)
    else:
        values["observations"] = tuple(_observation(o) for o in values["observations"])
    values["kinds"] = tuple(AlertKind(k) for k in values["kinds"])
    values["state"] = AlertState(values["state"])
    values["sensors"] = tuple(Sensor(s) for s in values["sensors"])
    for name in _LISTS:
        values[name] = tuple(values[name])
    for name in ("before", "after"):
        side = values[name]
        values[name] = Side(**(side | {"status": LegalStatus(side["status"])}))
    review = values["review"]
    if review is not None:
        values["review"] = _review(review)
    values["places"] = tuple(Place.model_validate(place) for place in values["places"])
    return AlertRecord(geometry=shapely.from_wkb(wkb), **values)


def _review(values: dict[str, Any]) -> Review:
    cause = values.get("cause")
    return Review(
        reason=values["reason"],
        at=datetime.fromisoformat(values["at"]),
        evidence_class=values["evidence_class"],
        verdict=Verdict(values.get("verdict", Verdict.REJECTED)),
        by=values.get("by"),
        cause=FalseAlarm(cause) if cause else None,
    )


def _observation(values: dict[str, Any]) -> Observation:
    return Observation(
        acquisition=values["acquisition"],
        sensor=Sensor(values["sensor"]),
        acquired=datetime.fromisoformat(values["acquired"]),
        says=Says(values["says"]),
        probability=values["probability"],
        magnitude=values["magnitude"],
    )


def _from_schema_2(values: dict[str, Any]) -> dict[str, Any]:
    """An alert of an earlier version, which kept sums instead of its looks: they are spread evenly
    between its first and its last day."""
    first, last = values["seen_first"], values["seen_last"]
    looks = list(zip(values["acquisitions"], values["sensors"], strict=True))
    step = (last - first) / max(1, len(looks) - 1) if len(looks) > 1 else timedelta(0)
    values["observations"] = tuple(
        Observation(
            acquisition,
            Sensor(sensor),
            first + number * step,
            Says.CHANGED,
            values["probability"],
            values["magnitude"],
        )
        for number, (acquisition, sensor) in enumerate(looks)
    )
    values["kinds"] = [values.pop("kind")]
    for name in ("before", "after"):
        cs, us = values.pop(f"cs_{name}"), values.pop(f"us_{name}")
        values[name] = {"code_cs": cs, "code_us": us, "status": legal_status(cs, us).value}
    said_no = values["state"] == AlertState.REJECTED.value
    values["review"] = (
        {
            "reason": values["reason"] or "",
            "at": values["known_at"].isoformat(),
            "evidence_class": 2,
        }
        if said_no
        else None
    )
    gone = values["state"] == AlertState.SUPERSEDED.value
    reason = values["reason"] or "superseded" if gone else None
    return values | {"superseded": reason, "superseded_by": None, "places": []}


def rank(record: AlertRecord) -> float:
    """Area × probability × legal weight: what a reader with ten minutes should see first."""
    return float(record.geometry.area) * record.probability * LEGAL_WEIGHT[record.kind]


def by_rank(records: Sequence[AlertRecord]) -> list[AlertRecord]:
    """Most important first."""
    return sorted(records, key=lambda record: (-rank(record), record.id))


def _cover(side: Side) -> Cover:
    return Cover(
        code_cs=side.code_cs,
        code_us=side.code_us,
        status=side.status,
        rule=matrix_row(side.code_cs) if side.code_cs else None,
        threshold=THRESHOLD_RULES[side.status] if side.by_threshold else None,
    )


def _told_review(review: Review | None) -> Reviewed | None:
    if review is None:
        return None
    return Reviewed(verdict=review.verdict, by=review.by, cause=review.cause, at=review.at)


def message(record: AlertRecord, *, departement: str, crs: str) -> Alert:
    """The alert as subscribers read it."""
    return Alert(
        id=record.id,
        sequence=record.sequence,
        kind=record.kind,
        kinds=list(record.kinds),
        state=record.state,
        reason=record.reason,
        review=_told_review(record.review),
        superseded_by=record.superseded_by,
        departement=departement,
        places=list(record.places),
        before=_cover(record.before),
        after=_cover(record.after),
        area=round(float(record.geometry.area), 2),
        probability=record.probability,
        magnitude=record.magnitude,
        looks=record.looks,
        clean_looks=record.clean_looks,
        evidence=record.evidence,
        seen_first=record.seen_first.date(),
        seen_last=record.seen_last.date(),
        known_at=record.known_at,
        reference_acquisition=record.reference,
        acquisitions=list(record.acquisitions),
        sensors=list(record.sensors),
        detector=record.detector,
        polygons=list(record.polygons),
        rank=round(rank(record), 1),
        geometry=to_geojson(record.geometry, crs),
    )
