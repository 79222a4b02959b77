"""HTTP over a real socket: health, readiness, metrics that promtool accepts, the feed."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from daemon.config import HttpSettings
from daemon.http import FINISH_SECONDS, CannotListen, HttpServer, application
from daemon.metrics import Metrics


class Running:
    """The little that HTTP knows of a service."""

    def __init__(self):
        self.metrics, self.alive, self.ready = Metrics(), True, True


@pytest.fixture
def served(store):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = Running()
    server = HttpServer(application(service, [store]), HttpSettings(host="127.0.0.1", port=port))
    server.start()
    yield service, f"http://127.0.0.1:{port}"
    server.stop()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_health_and_readiness_follow_the_service(served):
    service, url = served
    assert get(f"{url}/healthz")[0] == get(f"{url}/readyz")[0] == 200
    service.alive = service.ready = False
    assert get(f"{url}/healthz")[0] == get(f"{url}/readyz")[0] == 503


def test_metrics_are_what_prometheus_expects(served):
    service, url = served
    with service.metrics.stage("detect"):
        service.metrics.events.labels("processed").inc()
    status, text = get(f"{url}/metrics")
    assert status == 200 and b'millesimed_events_total{outcome="processed"} 1.0' in text
    try:
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("promtool is not installed")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_feed_is_served_and_an_unknown_territory_is_a_404(served, store):
    _, url = served
    status, body = get(f"{url}/feed/alerts-{store.territory}.geojson")
    assert status == 200 and json.loads(body)["type"] == "FeatureCollection"
    status, body = get(f"{url}/feed/alerts-D099.geojson")
    assert status == 404 and b"no feed of D099" in body


def test_a_taken_port_is_said_in_one_sentence(served, store):
    service, url = served
    port = int(url.rsplit(":", 1)[1])
    again = HttpServer(application(service, [store]), HttpSettings(host="127.0.0.1", port=port))
    with pytest.raises(CannotListen, match=f"127.0.0.1:{port}"):
        again.start()


def test_a_request_that_never_ends_does_not_hold_up_the_end(store):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = HttpServer(application(Running(), [store]), HttpSettings(port=port))
    server.start()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            b"POST /subscriptions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it waits for the rest
            client.recv(1)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < FINISH_SECONDS + 2
        client.settimeout(2)
        assert b"HTTP/1.1 2" not in client.recv(4096)
