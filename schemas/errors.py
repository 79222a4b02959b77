"""Errors that carry a machine-readable reason and one sentence for a person."""

from __future__ import annotations

from typing import ClassVar


class MillesimedError(Exception):
    """Something a person can act on. ``reason`` is the slug that dead letters and metrics count;
    the message is one sentence that says what is wrong and what to do."""

    reason: ClassVar[str] = "internal"


class InvalidEvent(MillesimedError):
    """The bytes are no acquisition event."""

    reason = "schema-invalid"


class NotJson(InvalidEvent):
    """The bytes are not JSON at all."""

    reason = "not-json"


class EventTooLarge(InvalidEvent):
    """The bytes are more than any event needs; they are refused before they are read."""

    reason = "event-too-large"


class UsageError(MillesimedError):
    """The command was used wrongly (exit code 2)."""

    reason = "usage"
