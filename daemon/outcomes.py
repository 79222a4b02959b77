"""What becomes of a message, and what a failure is called."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Final

import duckdb
import structlog

from daemon.sources import Message
from schemas.dead_letter import DeadLetter
from schemas.errors import MillesimedError
from updater.errors import StoreError
from updater.trouble import explained, is_of_the_data, of_store

log = structlog.get_logger()

KEPT_BYTES: Final = 256 * 1024
"""Bytes of a bad event kept inside its dead letter; a longer one stays whole in ``failed/`` or in
the topic."""


class Outcome(StrEnum):
    """What became of a message."""

    PROCESSED = "processed"
    DUPLICATE = "duplicate"
    DEAD_LETTERED = "dead-lettered"
    ASKED = "asked"
    """An acquisition a detect worker is to judge."""
    JUDGED = "judged"
    """A judgement that was given (detect), or taken in (update)."""
    ELSEWHERE = "elsewhere"
    """Another process has the store it concerns."""
    REFUSED = "refused"
    """Something in a topic between the roles that no role has put there."""


class Interrupted(Exception):
    """The service was asked to stop in the middle of an event; nothing of it is committed."""


class PassedBy(Exception):
    """The message concerns a store of another process."""


def failure(error: Exception) -> tuple[str, str]:
    """Reason and sentence of what an event fails with.

    Raises:
        StoreError: what is wrong with this machine and not with the event, which is to come again.
        Interrupted, PassedBy: as they are; the event did not fail.
    """
    if isinstance(error, StoreError | Interrupted | PassedBy):
        raise error
    if isinstance(error, MillesimedError):
        return error.reason, str(error)
    if (trouble := _trouble(error)) is not None:
        raise trouble from None
    log.error("event_failed", exc_info=error)
    return (
        "internal",
        f"The event failed unexpectedly ({type(error).__name__}: {str(error)[:200]}).",
    )


def _trouble(error: Exception) -> StoreError | None:
    if isinstance(error, duckdb.Error) and not is_of_the_data(error):
        return of_store("in use", error)
    return explained(error) if isinstance(error, OSError) else None


def dead_letter(
    message: Message, event: str | None, *, reason: str, text: str, received: datetime
) -> DeadLetter:
    """The dead letter of a message: original bytes, where from, why. The same message at the
    same place gives the same letter; ``event``: its CloudEvents id where one could be read."""
    payload = message.value if message.value is not None else b""
    origin = message.origin
    place = f"{origin.source}|{origin.topic}|{origin.partition}|{origin.offset}|{origin.path}"
    if message.value is None:
        place += f"|{message.size}"
    digest = hashlib.sha256(place.encode() + payload).hexdigest()
    return DeadLetter(
        id=f"DL{digest[:20].upper()}",
        event=event,
        origin=origin,
        reason=reason,
        message=text,
        attempts=1,
        received=received,
        headers={k: v.decode("utf-8", "replace") for k, v in message.headers.items()},
        payload_base64=base64.b64encode(payload[:KEPT_BYTES]).decode(),
        truncated=message.value is None or len(payload) > KEPT_BYTES,
    )
