"""The way of one event as logs and traces tell it.

Whatever is logged while a message is carried says which event it is about, of which item, on which
store (the département) and in which stage; after a failure also in which stage that was. What is
bound inside a journey is forgotten at its end. Traces (``daemon.tracing``) hold the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Final, TypeVar

from structlog.contextvars import (
    bind_contextvars,
    bound_contextvars,
    clear_contextvars,
    get_contextvars,
)

from daemon import tracing
from daemon.sources import Message

T = TypeVar("T")
S = TypeVar("S")

_UNDER_WAY: Final = ContextVar("under_way", default=False)


def journey(handle: Callable[[S, Message], T]) -> Callable[[S, Message], T]:
    """A method that carries a message, told as one journey."""

    @wraps(handle)
    def told(self: S, message: Message, /) -> T:
        before, way = get_contextvars(), _UNDER_WAY.set(True)
        try:
            with tracing.event(message):
                bind_contextvars(**_origin(message), **tracing.ids())
                return handle(self, message)
        finally:
            _UNDER_WAY.reset(way)
            clear_contextvars()
            bind_contextvars(**before)

    return told


def _origin(message: Message) -> dict[str, object]:
    origin = message.origin
    if origin.path is not None:
        return {"path": origin.path}
    return {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset}


def about(**what: str) -> None:
    """Say what the journey is about, from here on: ``event_id``, ``item``, ``store``."""
    bind_contextvars(**what)
    tracing.note(**what)


@contextmanager
def part(**what: str) -> Iterator[None]:
    """A part of a journey that is about something else: one message may set events going."""
    with bound_contextvars(**what):
        yield


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name a stage in logs and traces: in a journey until the next, elsewhere while it lasts."""
    if not _UNDER_WAY.get():
        with bound_contextvars(stage=name), tracing.span(name, {}):
            yield
        return
    bind_contextvars(stage=name)
    with tracing.span(name, get_contextvars()):
        try:
            yield
        except BaseException:
            bind_contextvars(failed_in=name)
            raise
