"""Giving a dead letter another chance, once its cause is gone."""

from __future__ import annotations

import base64
from pathlib import Path

from daemon.announce import drop
from schemas.dead_letter import DeadLetter
from schemas.envelope import ACQUISITION_TYPE, cloud_event, parse_acquisition, to_structured
from schemas.errors import UsageError


def back_to_inbox(letter: DeadLetter, inbox: Path) -> Path:
    """Write the letter's event into an inbox again, under the letter's id.

    Raises:
        UsageError: the bytes were too many to keep inside the letter.
        InvalidEvent: they never were an event; another try would end the same way.
    """
    if letter.truncated:
        raise UsageError(
            f"The event of {letter.id} is too large to be kept whole; announce the image again."
        )
    payload = base64.b64decode(letter.payload_base64)
    headers = {name: value.encode() for name, value in letter.headers.items()}
    event = parse_acquisition(payload, headers)
    if headers:
        payload = to_structured(
            cloud_event(
                type_=ACQUISITION_TYPE,
                id_=event.id,
                source=event.source,
                data=event.item.model_dump(mode="json", by_alias=True),
                time=event.time or letter.received,
                key=letter.id,
            )
        )
    return drop(inbox, letter.id, payload)
