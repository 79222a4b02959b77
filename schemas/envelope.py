"""CloudEvents 1.0 around everything that travels: types, topics, parsing and writing.

Kafka binary mode: attributes are ``ce_*`` headers, the value is the data. Structured mode
(``content-type: application/cloudevents+json``) is what an inbox file holds and is accepted from
Kafka too. Specification: CloudEvents 1.0.2, Kafka protocol binding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka, to_binary
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import REQUIRED_ATTRIBUTES, CloudEvent
from pydantic import BaseModel, ValidationError

from schemas.acquisition import AcquisitionItem
from schemas.alert import Alert
from schemas.change import Change
from schemas.correction import Correction
from schemas.dead_letter import DeadLetter
from schemas.errors import EventTooLarge, InvalidEvent, NotJson
from schemas.policy import MAX_EVENT_BYTES
from schemas.task import Judgement, Task

ACQUISITION_TYPE: Final = "fr.millesimed.acquisition.v1"
CORRECTION_TYPE: Final = "fr.millesimed.correction.v1"
CHANGE_TYPE: Final = "fr.millesimed.change.v1"
ALERT_TYPE: Final = "fr.millesimed.alert.v1"
DEAD_LETTER_TYPE: Final = "fr.millesimed.dead-letter.v1"
TASK_TYPE: Final = "fr.millesimed.task.v1"
JUDGEMENT_TYPE: Final = "fr.millesimed.judgement.v1"

TOPIC_ACQUISITIONS: Final = "millesimed.acquisitions"
TOPIC_CHANGES: Final = "millesimed.changes"
TOPIC_ALERTS: Final = "millesimed.alerts"
TOPIC_DEAD_LETTERS: Final = "millesimed.dead-letters"
TOPIC_TASKS: Final = "millesimed.tasks"
TOPIC_JUDGEMENTS: Final = "millesimed.judgements"

MODELS: Final[dict[str, tuple[str, type[BaseModel]]]] = {
    ACQUISITION_TYPE: (TOPIC_ACQUISITIONS, AcquisitionItem),
    CORRECTION_TYPE: (TOPIC_ACQUISITIONS, Correction),
    CHANGE_TYPE: (TOPIC_CHANGES, Change),
    ALERT_TYPE: (TOPIC_ALERTS, Alert),
    DEAD_LETTER_TYPE: (TOPIC_DEAD_LETTERS, DeadLetter),
    TASK_TYPE: (TOPIC_TASKS, Task),
    JUDGEMENT_TYPE: (TOPIC_JUDGEMENTS, Judgement),
}
"""Topic and data model of every event type. Corrections come in where acquisitions do: one source,
one order, one position."""

Data = TypeVar("Data", bound=BaseModel)

_STRUCTURED: Final = "application/cloudevents+json"
_MAX_DEPTH: Final = 64
"""Deepest JSON nesting read; a STAC Item needs about ten levels."""
_MAX_NAME: Final = 1024
"""Longest CloudEvents id or source, characters: both are kept in the key of every event."""
_REQUIRED_LIST: Final = "specversion, id, source and type"


@dataclass(frozen=True, slots=True)
class _Identified:
    """The CloudEvents identity of an event."""

    id: str
    source: str
    time: datetime | None

    @property
    def key(self) -> str:
        """What makes the event unique (CloudEvents: ``source`` + ``id``)."""
        return f"{self.source}#{self.id}"


@dataclass(frozen=True, slots=True)
class AcquisitionEvent(_Identified):
    """A validated acquisition: CloudEvents identity and the STAC Item it carries."""

    item: AcquisitionItem

    @property
    def subject(self) -> str:
        """What the event is about: the Item."""
        return self.item.id


@dataclass(frozen=True, slots=True)
class CorrectionEvent(_Identified):
    """A validated batch of corrections with its CloudEvents identity."""

    correction: Correction

    @property
    def subject(self) -> str:
        """What the event is about: the batch itself."""
        return self.id


Event = AcquisitionEvent | CorrectionEvent
"""What may have an effect on a map."""


def parse_event(value: bytes | None, headers: dict[str, bytes]) -> Event:
    """Read an acquisition or a batch of corrections from a message's bytes and headers.

    Raises:
        EventTooLarge, NotJson, InvalidEvent: as ``parse_acquisition``.
    """
    if value and len(value) <= MAX_EVENT_BYTES and _says_correction(value, headers):
        attributes, correction = _read(value, headers, CORRECTION_TYPE, Correction)
        time = attributes.get("time")
        return CorrectionEvent(
            id=str(attributes["id"]),
            source=str(attributes["source"]),
            time=time if isinstance(time, datetime) else None,
            correction=correction,
        )
    return parse_acquisition(value, headers)


def _says_correction(value: bytes, headers: dict[str, bytes]) -> bool:
    """True where the type is that of a correction, whatever else is wrong."""
    lower = {name.lower(): text for name, text in headers.items()}
    if any(name.startswith("ce_") for name in lower):
        return lower.get("ce_type") == CORRECTION_TYPE.encode()
    document = _json(value) if CORRECTION_TYPE.encode() in value else None
    return isinstance(document, dict) and document.get("type") == CORRECTION_TYPE


def parse_acquisition(value: bytes | None, headers: dict[str, bytes]) -> AcquisitionEvent:
    """Read an acquisition from a message's bytes and headers (or from a structured file).

    Raises:
        EventTooLarge: more than ``MAX_EVENT_BYTES``.
        NotJson: the bytes are no JSON text.
        InvalidEvent: no CloudEvent, another type, or no acquisition Item.
    """
    if value is None or not value:
        raise InvalidEvent("The event is empty; send a CloudEvent whose data is a STAC Item.")
    if len(value) > MAX_EVENT_BYTES:
        raise EventTooLarge(
            f"The event has {len(value)} bytes, more than the {MAX_EVENT_BYTES} allowed; "
            "send the image by reference, not inside the event."
        )
    attributes, item = _read(value, headers, ACQUISITION_TYPE, AcquisitionItem)
    time = attributes.get("time")
    return AcquisitionEvent(
        id=str(attributes["id"]),
        source=str(attributes["source"]),
        time=time if isinstance(time, datetime) else None,
        item=item,
    )


def parse_task(value: bytes, headers: dict[str, bytes]) -> Task:
    """Read a task.

    Raises:
        NotJson, InvalidEvent: it is none.
    """
    return _read(value, headers, TASK_TYPE, Task)[1]


def parse_judgement(value: bytes, headers: dict[str, bytes]) -> Judgement:
    """Read a judgement.

    Raises:
        NotJson, InvalidEvent: it is none.
    """
    return _read(value, headers, JUDGEMENT_TYPE, Judgement)[1]


def _read(
    value: bytes, headers: dict[str, bytes], type_: str, model: type[Data]
) -> tuple[dict[str, Any], Data]:
    """Attributes and data of an event of one type."""
    attributes, data = _attributes(_json(value), headers, value)
    if attributes["type"] != type_:
        wanted = _name(type_)
        raise InvalidEvent(
            f"The event type is {str(attributes['type'])[:100]!r}, not {type_!r}; "
            f"send {wanted}s only on this source."
        )
    try:
        return attributes, model.model_validate(data)
    except ValidationError as error:
        what = "acquisition Item" if model is AcquisitionItem else _name(type_)
        raise InvalidEvent(_first_problem(error, what)) from None


def _name(type_: str) -> str:
    """An event type as one says it."""
    return type_.removeprefix("fr.millesimed.").removesuffix(".v1")


def _json(value: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        document = json.loads(value.decode(), parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise NotJson(
            "The event is not JSON in UTF-8; send a CloudEvent whose data is a STAC Item."
        ) from None
    if _depth(document) > _MAX_DEPTH:
        raise InvalidEvent(f"The event nests deeper than {_MAX_DEPTH} levels; send a STAC Item.")
    return document


def _no_constant(name: str) -> float:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(name)


def _depth(document: Any) -> int:  # noqa: ANN401
    level, depth = [document], 0
    while level and depth <= _MAX_DEPTH:
        depth += 1
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return depth


def _attributes(
    document: Any,  # noqa: ANN401
    headers: dict[str, bytes],
    value: bytes,
) -> tuple[dict[str, Any], Any]:
    binary = any(name.lower().startswith("ce_") for name in headers)
    if not isinstance(document, dict) or not (binary or "specversion" in document):
        raise InvalidEvent(
            "The event has no CloudEvents attributes; give ce_* headers or a structured "
            "CloudEvent with specversion, id, source and type."
        )
    lower = {name.lower(): text for name, text in headers.items()}
    given = {n.removeprefix("ce_") for n in lower if n.startswith("ce_")} if binary else document
    if missing := [name for name in REQUIRED_ATTRIBUTES if name not in given]:
        # the library would make up an id, another one each time the event is read
        raise InvalidEvent(f"The CloudEvent has no {missing[0]}; give {_REQUIRED_LIST}.")
    message = KafkaMessage(
        headers=lower if binary else {"content-type": _STRUCTURED.encode()}, key=None, value=value
    )
    try:
        event = from_kafka(message, JSONFormat())
    except (CloudEventValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        detail = _plain(" ".join(str(error).split())).rstrip(".")
        raise InvalidEvent(
            f"The event is no valid CloudEvent 1.0 ({detail}); correct its attributes."
        ) from None
    attributes = event.get_attributes()
    if attributes["specversion"] != "1.0":
        raise InvalidEvent("The CloudEvent's specversion is not 1.0; send version 1.0.")
    for name in ("id", "source"):
        if len(attributes[name]) > _MAX_NAME or not attributes[name].isprintable():
            raise InvalidEvent(
                f"The CloudEvent's {name} is longer than {_MAX_NAME} characters or holds control "
                "characters; give a short, plain one."
            )
    return attributes, document if binary else document.get("data")


def _first_problem(error: ValidationError, kind: str) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = _plain(".".join(str(part) for part in problem["loc"])) or "the item"
    more = error.error_count() - 1
    rest = f" (and {more} more)" if more else ""
    what = _plain(problem["msg"])
    return f"The event's data is no {kind}: {where}: {what}{rest}; correct it and send it again."


def _plain(text: str) -> str:
    """What somebody else wrote, short and without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:200])


def cloud_event(
    *, type_: str, id_: str, source: str, data: BaseModel | dict[str, Any], time: datetime, key: str
) -> CloudEvent:
    """A CloudEvent of one of this project's types; ``key`` becomes its partition key."""
    body = data if isinstance(data, dict) else data.model_dump(mode="json", by_alias=True)
    return CloudEvent(
        attributes={
            "specversion": "1.0",
            "type": type_,
            "source": source,
            "id": id_,
            "time": time,
            "datacontenttype": "application/json",
            "partitionkey": key,
        },
        data=body,
    )


def to_structured(event: CloudEvent) -> bytes:
    """The event as one JSON document, as inbox and outbox folders hold it."""
    return bytes(JSONFormat().write(event))


def to_kafka(event: CloudEvent) -> KafkaMessage:
    """The event in Kafka binary mode."""
    return to_binary(event, JSONFormat())
