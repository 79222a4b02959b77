"""A clock that never goes back, for the axis that says since when something is known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

TICK = timedelta(microseconds=1)
"""What a database keeps apart."""


def utc_now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


class SteadyClock:
    """Another clock's time, except where that jumps back: then time goes on from the last answer
    until the other clock has caught up. Threads may share it.

    ``since``: the latest instant already on record, which the answers do not precede.
    """

    def __init__(self, clock: Clock, since: datetime | None = None) -> None:
        self._clock = clock
        self._last = since
        self._ahead = timedelta()
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """Now, UTC."""
        with self._lock:
            now = self._clock()
            if self._last is None or now >= self._last:
                self._ahead = timedelta()
            elif now + self._ahead <= self._last:
                self._ahead = self._last - now + TICK
            now += self._ahead
            self._last = now
            return now
