"""Where acquisitions come from: what a watcher is, and what every watcher says when it fails.

A watcher looks at one place and tells, page by page, what is new there. It keeps no state: what it
has seen is a cursor that the caller keeps (``daemon.acquire.state``). A page is announced and its
cursor saved before the watcher is asked for the next one, so that whatever it does after a
``yield`` (acknowledging, say) is done for events that are durably written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pystac

from schemas.errors import MillesimedError

Cursor = dict[str, Any]
"""What a watcher remembers, as JSON."""


class AcquireError(MillesimedError):
    """An image, or a whole source, cannot be had; another try may do."""

    reason = "acquire"


class Stopped(Exception):
    """The service was asked to stop; nothing is lost, the next look goes on here."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Something new at a source. ``key``: the same thing has the same; ``label``: for people;
    ``data``: what is needed to fetch it, as JSON, without secrets."""

    key: str
    label: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """What is new, and the cursor behind it."""

    refs: Sequence[Ref]
    cursor: Cursor


class Watcher(Protocol):
    """One place images come from."""

    def poll(self, cursor: Cursor) -> Iterator[Page]:
        """What is new behind a cursor, ``{}`` at first.

        Raises:
            AcquireError: the place does not answer, or not as it should.
        """
        ...

    def fetch(self, ref: Ref) -> list[pystac.Item]:
        """Bring it here and describe its images. Called again it finds what it brought, and gives
        Items of the same ids.

        Raises:
            MillesimedError: it cannot be had, or is no image.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
