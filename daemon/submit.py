"""Sending corrections in: a submission becomes an event, durable before anybody is told so.

The id of a batch follows from what it says and who says it, so that one sent twice is one event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import shapely
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from daemon.announce import drop, produce, when
from daemon.config import KafkaSettings, Settings
from schemas.change import ChangeKind
from schemas.correction import Correction, Submission
from schemas.envelope import CORRECTION_TYPE, cloud_event, to_kafka, to_structured
from schemas.errors import MillesimedError
from schemas.policy import MAX_CORRECTION_FEATURES, MAX_CORRECTION_VERTICES, MAX_EVENT_BYTES
from updater.crs import GEOJSON_DECIMALS, WGS84, reproject
from updater.generalise import polygons_of
from updater.types import AlertRecord
from updater.vector_io import CS_COLUMNS, US_COLUMNS, read, texts

SOURCE: Final = "urn:millesimed:corrections"
REVIEW_SOURCE: Final = "revue d'alerte"
"""Source of what a decision on an alert puts back."""
OBSERVED_COLUMNS: Final = ("observed", "date_obs", "date")
COMMENT_COLUMNS: Final = ("comment", "commentaire")


class CannotSubmit(MillesimedError):
    """What is sent in is no batch of corrections."""

    reason = "submit"


@dataclass(frozen=True, slots=True)
class Intake:
    """Where events go: a topic, or an inbox folder."""

    kafka: KafkaSettings | None
    inbox: Path | None

    @classmethod
    def of(cls, settings: Settings, *, always_kafka: bool = False) -> Intake:
        """Where the service that has these settings reads them."""
        if settings.kafka is not None and (always_kafka or settings.inbox is None):
            return cls(settings.kafka, None)
        return cls(None, settings.inbox_folder())

    def deliver(self, event: CloudEvent) -> str:
        """Hand an event over, and give where it is: in the inbox, written through to the disk, or
        in the topic, acknowledged by every replica in step.

        Raises:
            CannotSubmit: it is larger than any event may be.
            CannotAnnounce: the broker did not take it.
            OSError: the inbox did not.
        """
        body = to_structured(event)
        if len(body) > MAX_EVENT_BYTES:
            raise CannotSubmit(
                f"The batch has {len(body)} bytes, more than the {MAX_EVENT_BYTES} of an event; "
                "send it in parts."
            )
        if self.kafka is not None:
            sure = {**self.kafka.options, "acks": "all"}
            return produce(to_kafka(event), self.kafka.model_copy(update={"options": sure}))
        if self.inbox is None:
            raise CannotSubmit("There is no inbox; set `inbox` or `kafka` in millesimed.toml.")
        return str(drop(self.inbox, str(event.get_id()), body))


def event_of(submission: Submission, author: str) -> CloudEvent:
    """The event of a submission by somebody.

    Raises:
        CannotSubmit: the author's name is none.
    """
    values = submission.model_dump(mode="json", exclude_none=True)
    try:
        correction = Correction.model_validate({**values, "author": author})
    except ValidationError as error:
        raise CannotSubmit(_sentence(error)) from None
    digest = hashlib.sha256(correction.model_dump_json().encode()).hexdigest()
    return cloud_event(
        type_=CORRECTION_TYPE,
        id_=f"corrections-{digest[:20]}",
        source=SOURCE,
        data=correction,
        time=datetime.now(UTC),
        key=_key(correction),
    )


def _key(correction: Correction) -> str:
    """Département and kilometre tile, as of acquisitions."""
    where = "alert"
    if correction.features:
        ground = shapely.geometry.shape(correction.features[0].geometry.model_dump())
        west, south, _, _ = ground.bounds
        where = f"{west:.2f},{south:.2f}"
    return f"{correction.departement or 'FR'}/{where}"


def restoring(record: AlertRecord, reason: str, departement: str) -> Submission:
    """What puts the ground of an alert back as it was before."""
    return Submission(
        type="FeatureCollection",
        features=[],
        observed=record.seen_last,
        source=REVIEW_SOURCE,
        comment=reason[:500],
        alert=record.id,
        departement=departement,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """What all polygons of a file have in common where the file does not say."""

    source: str
    observed: str | None = None
    kind: ChangeKind = ChangeKind.CORRECTION
    departement: str | None = None
    comment: str | None = None


def submissions(path: Path, batch: Batch) -> list[Submission]:
    """The batches of a vector file: one for each date, and no larger than an event may be.

    Raises:
        ImportFailed: no vector layer.
        CannotSubmit: it lacks a CRS, codes or a date, or holds none that are valid.
    """
    frame = read(path)
    if frame.crs is None:
        raise CannotSubmit(f"{path.name} has no CRS; write one.")
    by_date: dict[str, list[dict[str, Any]]] = {}
    for feature, observed in _features(frame, path, batch):
        by_date.setdefault(observed, []).append(feature)
    if not by_date:
        raise CannotSubmit(f"{path.name} holds no polygon; check the file.")
    made = []
    for observed, features in sorted(by_date.items()):
        for part in _parts(features):
            made.append(_submission(part, observed, batch))
    return made


def _features(
    frame: gpd.GeoDataFrame, path: Path, batch: Batch
) -> Iterator[tuple[dict[str, Any], str]]:
    """GeoJSON features with their dates, in the order of the file."""
    covers, uses = texts(frame, *CS_COLUMNS), texts(frame, *US_COLUMNS)
    dates, comments = texts(frame, *OBSERVED_COLUMNS), texts(frame, *COMMENT_COLUMNS)
    crs = frame.crs.to_wkt()
    rows = zip(frame.geometry, covers, uses, dates, comments, strict=True)
    for number, (shape, cover, use, date, comment) in enumerate(rows, start=1):
        observed = date or batch.observed
        lacking = {"code_cs": cover, "code_us": use, "observed": observed}
        if missing := [name for name, value in lacking.items() if value is None]:
            raise CannotSubmit(
                f"Row {number} of {path.name} has no {missing[0]}; fill in that column"
                + (", or give --observed." if missing[0] == "observed" else ".")
            )
        for part in polygons_of(_world(shape, crs)):
            properties = {"code_cs": cover, "code_us": use, "comment": comment}
            feature = {"type": "Feature", "geometry": mapping(part), "properties": properties}
            yield feature, when(str(observed)).isoformat()


def _world(shape: BaseGeometry | None, crs: str) -> BaseGeometry:
    if shape is None or shape.is_empty:
        return shapely.Polygon()
    world = reproject(shapely.force_2d(shapely.make_valid(shape)), crs, WGS84)
    return shapely.transform(world, lambda xy: xy.round(GEOJSON_DECIMALS))


def _parts(features: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The features in batches within the bounds of an event."""
    part: list[dict[str, Any]] = []
    held = 0
    for feature in features:
        size = sum(len(ring) for ring in feature["geometry"]["coordinates"])
        if part and (len(part) == MAX_CORRECTION_FEATURES or held + size > MAX_CORRECTION_VERTICES):
            yield part
            part, held = [], 0
        part.append(feature)
        held += size
    yield part


def _submission(features: list[dict[str, Any]], observed: str, batch: Batch) -> Submission:
    try:
        return Submission.model_validate(
            {
                "type": "FeatureCollection",
                "features": features,
                "observed": observed,
                "kind": batch.kind,
                "source": batch.source,
                "comment": batch.comment,
                "departement": batch.departement,
            }
        )
    except ValidationError as error:
        raise CannotSubmit(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"]) or "batch"
    return f"{where}: {found['msg']}; correct it and send it again."
