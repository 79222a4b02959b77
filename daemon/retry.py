"""Giving a dead letter another chance, once its cause is gone: one each, noted in the store.

The event goes out before that is noted. A crash between the two sends it again, which does no harm:
an event has its effect once, and the same failure makes the same letter.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudevents.core.bindings.kafka import KafkaMessage
from pydantic import BaseModel

from daemon.announce import drop, produce
from daemon.config import KafkaSettings
from schemas.dead_letter import DeadLetter
from schemas.envelope import (
    ACQUISITION_TYPE,
    CORRECTION_TYPE,
    CorrectionEvent,
    Event,
    cloud_event,
    parse_event,
    to_structured,
)
from schemas.errors import MillesimedError, UsageError
from updater import review
from updater.store import Store

LETTER_HEADER: Final = "millesimed-dead-letter"
"""Header of a record that is another chance: the id of the dead letter it comes from."""

Send = Callable[[DeadLetter], str]


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a wish to retry a letter: where its event went, or why it did not."""

    id: str
    destination: str | None = None
    refused: str | None = None


def retry(store: Store, letters: Sequence[DeadLetter], send: Send) -> list[Tried]:
    """Send the events of some letters again, each letter's once; one that cannot go holds up no
    other."""
    known, tried = review.retries(store), []
    for letter in letters:
        if letter.id in known:
            before = known[letter.id]
            refused = f"It was retried on {before.at:%Y-%m-%d} already ({before.destination})."
            tried.append(Tried(letter.id, refused=refused))
            continue
        try:
            destination = send(letter)
        except MillesimedError as error:
            tried.append(Tried(letter.id, refused=str(error)))
            continue
        review.mark_retried(store, letter.id, destination)
        tried.append(Tried(letter.id, destination))
    return tried


def back_to_inbox(letter: DeadLetter, inbox: Path) -> Path:
    """Write the letter's event into an inbox again, under the letter's id.

    Raises:
        UsageError: the bytes were too many to keep inside the letter.
        InvalidEvent: they never were an event; another try would end the same way.
    """
    payload, event = _event(letter)
    if letter.headers:
        drawn = isinstance(event, CorrectionEvent)
        payload = to_structured(
            cloud_event(
                type_=CORRECTION_TYPE if drawn else ACQUISITION_TYPE,
                id_=event.id,
                source=event.source,
                data=_data(event).model_dump(mode="json", by_alias=True),
                time=event.time or letter.received,
                key=letter.id,
            )
        )
    return drop(inbox, letter.id, payload)


def back_to_topic(letter: DeadLetter, settings: KafkaSettings) -> str:
    """Produce the letter's event again, word for word; gives ``topic@servers``.

    Raises:
        UsageError, InvalidEvent: as ``back_to_inbox``.
        CannotAnnounce: the broker did not take it.
    """
    payload, _ = _event(letter)
    headers = {name: value.encode() for name, value in letter.headers.items()}
    headers[LETTER_HEADER] = letter.id.encode()
    return produce(KafkaMessage(headers=headers, key=letter.id, value=payload), settings)


def _event(letter: DeadLetter) -> tuple[bytes, Event]:
    if letter.truncated:
        raise UsageError(
            f"The event of {letter.id} is too large to be kept whole; announce the image again."
        )
    payload = base64.b64decode(letter.payload_base64)
    headers = {name: value.encode() for name, value in letter.headers.items()}
    return payload, parse_event(payload, headers)


def _data(event: Event) -> BaseModel:
    return event.correction if isinstance(event, CorrectionEvent) else event.item
