"""Where events come from: one protocol, for an inbox folder (``inbox_source``) and for Kafka topics
(``kafka_source``).

A source hands out one message at a time, is told when its effect is committed (``done``), and is
kept alive while a long detection runs (``heartbeat``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from schemas.dead_letter import Origin
from schemas.errors import MillesimedError

Place = tuple[str, int]
"""Topic and partition."""


class SourceError(MillesimedError):
    """The source cannot be read."""

    reason = "source"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: bytes (None where they are too many to read), headers, origin, when
    it was sent, its partition key; ``again``: the store knows already that it was read."""

    value: bytes | None
    headers: Mapping[str, bytes]
    origin: Origin
    size: int
    path: Path | None = None
    sent: datetime | None = None
    key: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a source still holds: messages without effect by partition (the one in hand counts),
    and when the oldest known of them was sent."""

    lag: Mapping[str, int]
    oldest: datetime | None


class Source(Protocol):
    """A stream of messages."""

    def next(self, timeout: float) -> Message | None:
        """The next message, or None when none came in time."""
        ...

    def heartbeat(self) -> None:
        """Say "still here" while a message is being worked on."""
        ...

    def done(self, message: Message, *, failed: bool) -> None:
        """The message's effect (or its dead letter) is committed."""
        ...

    def drained(self) -> bool:
        """True when everything that was there has been handed out."""
        ...

    def backlog(self) -> Backlog:
        """What waits; asked by another thread than the one that reads."""
        ...

    def close(self) -> None:
        """Let go."""
        ...
