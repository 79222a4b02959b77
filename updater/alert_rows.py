"""An alert between its three forms: life-cycle record, database row, published message."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from typing import Any

import shapely

from schemas.alert import Alert, AlertKind, AlertState, Cover
from schemas.legal import legal_status, matrix_row
from schemas.policy import LEGAL_WEIGHT, Sensor
from updater.crs import to_geojson
from updater.types import AlertRecord

_TIMES = ("seen_first", "seen_last", "known_at")


def record_to_row(record: AlertRecord) -> tuple[str, bytes]:
    """JSON of everything but the outline, and the outline as WKB."""
    values: dict[str, Any] = {
        f.name: getattr(record, f.name) for f in fields(record) if f.name != "geometry"
    }
    for name in _TIMES:
        values[name] = values[name].isoformat()
    return json.dumps(values, sort_keys=True), shapely.to_wkb(record.geometry)


def record_from_row(record: str, wkb: bytes) -> AlertRecord:
    """The life-cycle record of a database row."""
    values = json.loads(record)
    for name in _TIMES:
        values[name] = datetime.fromisoformat(values[name])
    values["kind"] = AlertKind(values["kind"])
    values["state"] = AlertState(values["state"])
    values["sensors"] = tuple(Sensor(s) for s in values["sensors"])
    values["acquisitions"] = tuple(values["acquisitions"])
    values["polygons"] = tuple(values["polygons"])
    return AlertRecord(geometry=shapely.from_wkb(wkb), **values)


def rank(record: AlertRecord) -> float:
    """Area × probability × legal weight: what a reader with ten minutes should see first."""
    return float(record.geometry.area) * record.probability * LEGAL_WEIGHT[record.kind]


def _cover(code_cs: str | None, code_us: str | None) -> Cover:
    return Cover(
        code_cs=code_cs,
        code_us=code_us,
        status=legal_status(code_cs, code_us),
        rule=matrix_row(code_cs) if code_cs else None,
    )


def message(record: AlertRecord, *, departement: str, crs: str) -> Alert:
    """The alert as subscribers read it."""
    return Alert(
        id=record.id,
        sequence=record.sequence,
        kind=record.kind,
        state=record.state,
        reason=record.reason,
        departement=departement,
        before=_cover(record.cs_before, record.us_before),
        after=_cover(record.cs_after, record.us_after),
        area=round(float(record.geometry.area), 2),
        probability=record.probability,
        magnitude=record.magnitude,
        looks=record.looks,
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
