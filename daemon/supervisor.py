"""Telling systemd how it goes: ready, still turning, stopping (``sd_notify(3)``).

Where no supervisor asked (``NOTIFY_SOCKET`` is not set) nothing is said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from time import monotonic

import structlog

log = structlog.get_logger()


class Supervisor:
    """Whoever started this process and wants to hear of it."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._every = _watchdog_seconds(environment) / 2  # as its manual advises
        self._said = -self._every

    def ready(self) -> None:
        """Stores are open and the source is read."""
        self._say("READY=1")

    def alive(self) -> None:
        """The main loop turned; said twice in the time after which silence counts as a hang."""
        if self._every and monotonic() - self._said >= self._every:
            self._said = monotonic()
            self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.sendto(state.encode(), self._address)
        except OSError as error:  # its own time limits decide then
            log.warning("supervisor_unheard", state=state, error=error.strerror)


def _address(text: str) -> str | None:
    """A path, or a name of the abstract namespace."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """After how much silence it restarts this process; 0 where it does not watch."""
    asked, whom = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    meant = whom in {"", str(os.getpid())}
    return int(asked) / 1e6 if asked.isdecimal() and meant else 0.0
