"""Traces of real events, as a real OTLP/HTTP receiver gets them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from daemon import tracing
from daemon.announce import drop, event_bytes, item_of, when
from daemon.service import Service
from daemon.sources import Message
from schemas.dead_letter import Origin
from schemas.errors import UsageError
from schemas.policy import Sensor
from tests.integration.broker import free_port
from tests.scenes import FLOWN_AFTER, prepared

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
STAGES = ["validate", "locate", "detect", "plan", "commit"]
END_SECONDS = 10.0


@contextmanager
def collector():
    """An OTLP/HTTP receiver; gives its address and the requests it took."""
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", taken
    finally:
        server.shutdown()
        server.server_close()


def attributes(span):
    return {pair.key: pair.value.string_value for pair in span.attributes}


@pytest.fixture(scope="module")
def traced(tmp_path_factory, small_scene):
    """Requests of a service that took in one event with a trace and one bad one; its event's id."""
    folder = tmp_path_factory.mktemp("traced")
    with collector() as (address, taken):
        settings = prepared(folder, small_scene).model_copy(update={"otlp_endpoint": address})
        item = item_of(small_scene.after, acquired=when(FLOWN_AFTER), sensor=Sensor.PVA)
        event_id, body = event_bytes(item)
        drop(settings.inbox, event_id, json.dumps(json.loads(body) | context()).encode())
        drop(settings.inbox, "bad", b"{")
        Service(settings, once=True).run()
    return taken, event_id, item.id


def context():
    return {"traceparent": TRACEPARENT}


def spans(taken):
    return [
        span
        for _, request in taken
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_they_go_where_the_protocol_says_and_name_the_service(traced):
    taken, _, _ = traced
    assert {path for path, _ in taken} == {"/v1/traces"}
    (resource,) = {
        json.dumps(attributes(r.resource), sort_keys=True)
        for _, request in taken
        for r in request.resource_spans
    }
    assert json.loads(resource)["service.name"] == "millesimed"


def test_an_event_is_a_span_inside_its_senders_with_one_for_each_stage(traced):
    taken, event_id, item = traced
    mine = [span for span in spans(taken) if span.trace_id.hex() == TRACE]
    (whole,) = (span for span in mine if span.name == "event")
    assert whole.parent_span_id.hex() == PARENT
    said = attributes(whole)
    assert said["cloudevents.event_id"] == event_id and said["millesimed.item"] == item
    assert said["millesimed.store"] == "D032" and said["millesimed.outcome"] == "processed"
    assert said["millesimed.detector"].startswith("map-guided")
    inside = [span for span in mine if span is not whole]
    assert {span.parent_span_id for span in inside} == {whole.span_id}
    in_order = sorted(inside, key=lambda span: span.start_time_unix_nano)
    assert list(dict.fromkeys(span.name for span in in_order)) == STAGES
    for span in inside:
        assert whole.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
    (detect,) = (span for span in inside if span.name == "detect")
    assert attributes(detect)["cloudevents.event_id"] == event_id
    assert attributes(detect)["millesimed.store"] == "D032"


def test_a_bad_event_has_a_trace_of_its_own_and_says_what_failed(traced):
    taken, _, _ = traced
    (whole,) = (
        span
        for span in spans(taken)
        if span.name == "event" and attributes(span)["millesimed.outcome"] == "dead-lettered"
    )
    assert whole.trace_id.hex() != TRACE and not whole.parent_span_id
    (failed,) = (s for s in spans(taken) if s.name == "validate" and s.status.code == 2)
    assert failed.parent_span_id == whole.span_id
    assert failed.events[0].name == "exception"


def message(value, **headers):
    origin = Origin(source="kafka", topic="t", offset=1)
    sent = {name: text.encode() for name, text in headers.items()}
    return Message(value=value, headers=sent, origin=origin, size=0)


@pytest.mark.parametrize(
    "carried",
    [
        message(b"{}", ce_traceparent=TRACEPARENT),
        message(b"{}", traceparent=TRACEPARENT, tracestate=""),
        message(json.dumps(context()).encode()),
    ],
)
def test_the_trace_of_the_sender_is_found_wherever_it_may_stand(carried):
    assert tracing.carrier_of(carried)["traceparent"] == TRACEPARENT


@pytest.mark.parametrize("value", [None, b"traceparent", b'["traceparent"]', b'{"traceparent": 3}'])
def test_what_is_no_trace_is_none(value):
    assert tracing.carrier_of(message(value)) == {}


def test_a_collector_that_is_away_holds_nothing_up(tmp_path, small_scene):
    settings = prepared(tmp_path, small_scene)
    drop(settings.inbox, "bad", b"{")
    away = settings.model_copy(update={"otlp_endpoint": f"http://127.0.0.1:{free_port()}"})
    begun = time.monotonic()
    service = Service(away, once=True)
    service.run()
    assert service.received == 1 and time.monotonic() - begun < END_SECONDS


def test_without_an_address_nothing_is_imported_and_nothing_is_made():
    code = (
        "import sys; from daemon import service, tracing\n"
        "tracing.start(None)()\n"
        "with tracing.span('x', {}): tracing.note(event_id='e')\n"
        "assert tracing.ids() == {}\n"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_a_setting_is_refused_and_the_environment_is_not(monkeypatch):
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"millesimed\[tracing\]"):
        tracing.start("http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    tracing.start(None)()
    assert tracing.ids() == {}
