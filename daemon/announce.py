"""Telling the service that an image exists: a STAC Item made from the file, in a CloudEvent."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path

import pystac
import shapely
from cloudevents.core.bindings.kafka import KafkaMessage
from cloudevents.core.v1.event import CloudEvent
from pyproj import CRS
from shapely.geometry import box, mapping

from daemon.config import KafkaSettings
from daemon.files import write_durably
from detectors.errors import DetectionError
from detectors.raster import open_dataset
from schemas.acquisition import AcquisitionItem
from schemas.envelope import ACQUISITION_TYPE, cloud_event, to_kafka, to_structured
from schemas.errors import MillesimedError
from schemas.policy import Sensor
from updater.crs import WGS84, reproject

SOURCE = "urn:millesimed:announce"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
DELIVERY_SECONDS = 15.0
_CHUNK = 1 << 20
_SHA256 = "1220"
"""Multihash prefix: function 0x12 (sha2-256), 0x20 bytes."""
METRES_PER_DEGREE = 111_320.0
"""Length of a degree of the equator."""
_EDGE_POINTS = 16
"""Points per side of a footprint: a straight edge in Lambert-93 is a curve in degrees."""


class CannotAnnounce(MillesimedError):
    """The file is no image an event can point to."""

    reason = "announce"


def checksum(path: Path) -> str:
    """SHA-256 of a file as a multihash, hexadecimal (STAC file extension)."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return _SHA256 + digest.hexdigest()


def when(text: str) -> datetime:
    """A date or a time as given on the command line; without a zone it is UTC, without a time
    it is noon, the middle of a flight day."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CannotAnnounce(f"{text!r} is no date; give it as in 2024-06-15.") from None
    if len(text) <= len("2024-06-15"):
        found = found.replace(hour=12)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def item_of(
    path: Path,
    *,
    acquired: datetime,
    sensor: Sensor,
    departement: str | None = None,
    elevation: Path | None = None,
) -> pystac.Item:
    """The STAC Item of an image on disk.

    Its id is made of the file's content, the date and the sensor, so that announcing the same
    image twice is one event.

    Raises:
        CannotAnnounce: no image the service would open, or without a CRS.
    """
    try:
        with open_dataset(path) as image:  # which the service will open too: no format but its own
            crs = CRS.from_user_input(image.crs)
            bounds, shape, transform = image.bounds, image.shape, image.transform
    except DetectionError as error:
        raise CannotAnnounce(str(error)) from None
    authority = crs.to_authority(min_confidence=25)
    code = ":".join(authority) if authority else None
    edge = shapely.segmentize(box(*bounds), (bounds.right - bounds.left) / _EDGE_POINTS)
    footprint = reproject(edge, crs.to_wkt(), WGS84)
    digest = checksum(path)
    name = hashlib.sha256(f"{digest}|{acquired.isoformat()}|{sensor}".encode()).hexdigest()[:16]
    item = pystac.Item(
        id=f"{sensor.value}-{acquired:%Y%m%d}-{name}",
        geometry=mapping(footprint),
        bbox=list(footprint.bounds),
        datetime=acquired,
        properties={
            "proj:code": code,
            "proj:shape": list(shape),
            "proj:transform": list(transform)[:6],
            "gsd": metres_per_pixel(crs, transform.a, footprint),
            "millesimed:sensor": sensor.value,
            "millesimed:departement": departement,
        },
        stac_extensions=[PROJECTION, FILE],
    )
    item.add_asset(
        "image",
        pystac.Asset(
            href=path.resolve().as_uri(),
            roles=["data"],
            extra_fields={"file:checksum": digest, "file:size": path.stat().st_size},
        ),
    )
    if elevation is not None:
        try:
            open_dataset(elevation, allow_no_crs=True).close()
        except DetectionError as error:
            raise CannotAnnounce(f"The surface model is none: {error}") from None
        asset = pystac.Asset(href=elevation.resolve().as_uri(), roles=["data"])
        item.add_asset("elevation", asset)
    return item


def metres_per_pixel(crs: CRS, pixel: float, footprint: shapely.Geometry) -> float:
    """Ground sample distance in metres, also for an image in degrees (mid-latitude)."""
    if not crs.is_geographic:
        return abs(float(pixel))
    latitude = math.radians(float(footprint.centroid.y))
    return abs(float(pixel)) * METRES_PER_DEGREE * math.cos(latitude)


def event_bytes(item: pystac.Item) -> tuple[str, bytes]:
    """Event id and structured CloudEvent of an Item, checked against the event's schema."""
    return item.id, to_structured(_event(item))


def _event(item: pystac.Item) -> CloudEvent:
    """The CloudEvent of an Item, checked against the event's schema."""
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    AcquisitionItem.model_validate(document)
    return cloud_event(
        type_=ACQUISITION_TYPE,
        id_=item.id,
        source=SOURCE,
        data=document,
        time=datetime.now(UTC),
        key=_key(item),
    )


def _key(item: pystac.Item) -> str:
    """Département and kilometre tile: what keeps the order of events on the same ground."""
    west, south = (item.bbox or [0.0, 0.0])[:2]
    departement = item.properties.get("millesimed:departement") or "FR"
    return f"{departement}/{west:.2f},{south:.2f}"


def drop(inbox: Path, event_id: str, body: bytes) -> Path:
    """Put an event into an inbox folder, whole or not at all, and durably: who sent it may then
    forget it."""
    target = inbox / f"{event_id}.json"
    write_durably(target, body)
    return target


def to_topic(item: pystac.Item, settings: KafkaSettings) -> str:
    """Produce an Item as a binary-mode CloudEvent; gives ``topic@servers``.

    Raises:
        CannotAnnounce: the broker did not take it.
        UsageError: an option that the client does not know or take.
    """
    return produce(to_kafka(_event(item)), settings)


def produce(record: KafkaMessage, settings: KafkaSettings) -> str:
    """Produce a record to the topic of acquisitions; gives ``topic@servers``.

    Raises:
        CannotAnnounce: the broker did not take it.
        UsageError: an option that the client does not know or take.
    """
    from confluent_kafka import Producer

    from daemon.kafka_errors import QUIET, made

    problems: list[str] = []
    producer = made(Producer, {"bootstrap.servers": settings.servers, **QUIET, **settings.options})
    producer.produce(
        settings.acquisitions,
        value=record.value,
        key=record.key,
        headers=list(record.headers.items()),
        on_delivery=lambda error, _: problems.append(str(error)) if error else None,
    )
    if producer.flush(DELIVERY_SECONDS) or problems:
        detail = problems[0] if problems else "no answer"
        raise CannotAnnounce(
            f"Kafka at {settings.servers} did not take the event ({detail}); check the broker."
        )
    return f"{settings.acquisitions}@{settings.servers}"
