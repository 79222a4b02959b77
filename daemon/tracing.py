"""Traces over OTLP/HTTP, where they are asked for: a span for each event and each of its stages.

Nothing of OpenTelemetry's SDK is imported, and nothing is paid, before ``start`` finds an address
to send to. It takes the extra: ``pip install 'millesimed[tracing]'``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import structlog

from daemon import __version__
from schemas.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from daemon.sources import Message

log = structlog.get_logger()

NAME: Final = "millesimed"
ENVIRONMENT: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORT_SECONDS: Final = 3.0
"""How long a collector may take; one that is away may hold up the end of the service so long."""
ATTRIBUTES: Final = {
    "event_id": "cloudevents.event_id",
    "item": "millesimed.item",
    "store": "millesimed.store",
    "detector": "millesimed.detector",
    "outcome": "millesimed.outcome",
    "task": "millesimed.task",
}
"""What a journey is about, as spans call it."""

_WHOLE: Final[ContextVar[Span | None]] = ContextVar("event_span", default=None)
_tracer: Tracer | None = None


def start(endpoint: str | None) -> Callable[[], None]:
    """Begin to send spans to an endpoint, or to the one of the environment; gives how to end it.

    Raises:
        UsageError: an endpoint is configured, the extra is not installed.
    """
    of_environment = any(os.environ.get(name) for name in ENVIRONMENT)
    if endpoint is None and not of_environment:
        return _nothing
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        advice = "install it: pip install 'millesimed[tracing]'"
        if endpoint is not None:
            raise UsageError(f"Traces need an extra that is not there; {advice}.")
        log.warning("no_traces", advice=advice)  # said to every program of this machine
        return _nothing
    return _begin(endpoint)


def _nothing() -> None:
    """There is nothing to end."""


def _begin(endpoint: str | None) -> Callable[[], None]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": NAME}
    provider = TracerProvider(
        resource=Resource.create(named | {"service.version": __version__}),
        shutdown_on_exit=False,
    )
    address = f"{endpoint.rstrip('/')}/v1/traces" if endpoint is not None else None
    exporter = OTLPSpanExporter(endpoint=address, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    global _tracer  # noqa: PLW0603 - one process, one place its spans go to
    _tracer = provider.get_tracer(NAME, __version__)

    def end() -> None:
        global _tracer  # noqa: PLW0603
        _tracer = None
        provider.shutdown()

    return end


@contextmanager
def span(name: str, known: Mapping[str, Any]) -> Iterator[None]:
    """A span inside the one under way; ``known``: what logs say at this moment."""
    if _tracer is None:
        yield
        return
    attributes = {ATTRIBUTES[key]: value for key, value in known.items() if key in ATTRIBUTES}
    with _tracer.start_as_current_span(name, attributes=attributes):
        yield


@contextmanager
def event(message: Message) -> Iterator[None]:
    """The span of a message, inside the sender's where it said which (``traceparent``)."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    origin = message.origin
    attributes: dict[str, str | int] = {
        "messaging.system": origin.source,
        "messaging.operation.type": "process",
        "messaging.destination.name": origin.topic,
        "messaging.destination.partition.id": str(origin.partition),
        "messaging.message.body.size": message.size,
    }
    if origin.offset is not None:
        attributes["messaging.kafka.offset"] = origin.offset
    with _tracer.start_as_current_span(
        "event", context=_parent(message), kind=SpanKind.CONSUMER, attributes=attributes
    ) as whole:
        reset = _WHOLE.set(whole)
        try:
            yield
        finally:
            _WHOLE.reset(reset)


def note(**what: str) -> None:
    """Attributes of the event's span and of the one under way, by the names of the log."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    for name, value in what.items():
        for one in (_WHOLE.get(), get_current_span()):
            if one is not None:
                one.set_attribute(ATTRIBUTES[name], value)


def ids() -> dict[str, str]:
    """What a log line needs to be found by a trace; nothing without one."""
    if _tracer is None:
        return {}
    from opentelemetry.trace import format_trace_id, get_current_span

    return {"trace_id": format_trace_id(get_current_span().get_span_context().trace_id)}


def _parent(message: Message) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier_of(message))


def carrier_of(message: Message) -> dict[str, str]:
    """The trace context of a CloudEvent: ``ce_traceparent`` or ``traceparent`` among the headers,
    or an attribute of a structured event (its extension *Distributed Tracing*)."""
    lower = {name.lower(): value for name, value in message.headers.items()}
    found: dict[str, str] = {}
    for name in ("traceparent", "tracestate"):
        value = lower.get(f"ce_{name}", lower.get(name))
        if value is not None:
            found[name] = value.decode("ascii", "replace")
    return found or _inside(message.value)


def _inside(value: bytes | None) -> dict[str, str]:
    if value is None or b"traceparent" not in value:
        return {}
    try:
        document: Any = json.loads(value)
    except (ValueError, RecursionError):  # which validation says better
        return {}
    if not isinstance(document, Mapping):
        return {}
    names = ("traceparent", "tracestate")
    return {name: document[name] for name in names if isinstance(document.get(name), str)}
