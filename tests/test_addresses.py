"""Where webhooks may go: judged once, and the very address judged is called."""

import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network

import httpx
import pytest
import trustme

from daemon.addresses import AddressRefused, CheckedTransport, checked, is_allowed
from daemon.config import load
from daemon.service import Service
from daemon.subscribers import Failed
from daemon.webhook import WebhookCarrier
from schemas.subscription import ChannelKind, Subscription
from tests.map_store import made_store
from updater.clock import utc_now
from updater.subscriptions import new_id, new_secret, save

LOOPBACK = [ip_network("127.0.0.0/8")]


class Site:
    """An HTTP server that remembers what it was asked, over TLS where it has a certificate."""

    def __init__(self, tls=None):
        self.got = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((self.headers["host"], self.connection))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site():
    made = Site()
    yield made
    made.close()


def webhook(url):
    return Subscription(id=new_id(), name="x", channel="webhook", url=url, secrets=[new_secret()])


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::", "::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1"),
        *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "64:ff9b:1::808:808", "::8.8.8.8"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
        *("64:ff9b::7f00:1", "64:ff9b::192.168.0.1", "2001:0:808:808::1"),
    ],
)
def test_what_is_not_public_is_refused_in_every_form(address):
    assert not is_allowed(ip_address(address))
    assert not is_allowed(ip_address(address), [ip_network("172.31.255.0/24")])


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "93.184.216.34", "2606:4700::1"),
        *("::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"),
    ],
)
def test_what_is_public_is_allowed(address):
    assert is_allowed(ip_address(address))


def test_a_network_of_the_settings_is_allowed_and_nothing_beside_it():
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00:1::5"):
        assert is_allowed(ip_address(address), networks)
    for address in ("10.2.0.1", "fd00:2::5", "127.0.0.1", "::1"):
        assert not is_allowed(ip_address(address), networks)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "::1"]
)
def test_loopback_is_recognised_however_it_is_written(host):
    with pytest.raises(AddressRefused, match=r"address not allowed.*webhook_networks"):
        checked(host, 80)


def test_one_bad_address_among_good_ones_refuses_the_host():
    found = [ip_address("93.184.216.34"), ip_address("10.0.0.1")]
    with pytest.raises(AddressRefused):
        checked("hook.example", 443, resolve=lambda *_: found)
    assert checked("hook.example", 443, resolve=lambda *_: found[:1]) == found[:1]


def test_a_carrier_does_not_call_the_own_machine_unless_it_may(site):
    wanted = webhook(f"http://127.0.0.1:{site.port}/")
    carrier = WebhookCarrier()
    with pytest.raises(Failed, match="address not allowed"):
        carrier.post_test(wanted, utc_now())
    carrier.close()
    assert site.got == []
    allowed = WebhookCarrier(LOOPBACK)
    allowed.post_test(wanted, utc_now())
    allowed.close()
    assert len(site.got) == 1


def test_a_name_that_leads_elsewhere_after_the_check_changes_nothing(site):
    answers, asked = [["127.0.0.1"], ["127.0.0.2"], ["10.0.0.1"]], []

    def resolve(host, port):
        asked.append(host)
        return [ip_address(text) for text in answers[len(asked) - 1]]

    transport = CheckedTransport(LOOPBACK, resolve=resolve)
    with httpx.Client(transport=transport, timeout=5) as client:
        url = f"http://hook.example:{site.port}/"
        assert client.post(url, headers={"connection": "close"}).status_code == 200
        with pytest.raises(httpx.ConnectError):  # nobody listens on 127.0.0.2
            client.post(url)
        with pytest.raises(AddressRefused):
            client.post(url)
    # resolved once for each connection, and that answer is what was called
    assert asked == ["hook.example"] * 3
    assert [host for host, _ in site.got] == [f"hook.example:{site.port}"]


def test_tls_speaks_of_the_name_and_names_share_no_session():
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hook.example").configure_cert(context)
    asked = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    site = Site(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    transport = CheckedTransport(
        LOOPBACK, tls=trusting, resolve=lambda *_: [ip_address("127.0.0.1")]
    )
    with httpx.Client(transport=transport, timeout=5) as client:
        for _ in range(2):
            assert client.post(f"https://hook.example:{site.port}/").status_code == 200
        assert asked == ["hook.example"]  # kept open for the same name
        with pytest.raises(httpx.ConnectError, match="certificate"):
            client.post(f"https://other.example:{site.port}/")
        assert asked == ["hook.example", "other.example"]
    site.close()


def test_an_unknown_name_is_a_failure_like_any_other():
    carrier = WebhookCarrier()
    with pytest.raises(Failed, match="ConnectError"):
        carrier.post_test(webhook("http://nowhere.invalid/"), utc_now())
    with pytest.raises(Failed):
        carrier.post_test(webhook(f"http://{'a' * 70}.example/"), utc_now())
    carrier.close()


def test_a_receiver_that_answers_byte_by_byte_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip():
            connection, _ = server.accept()
            with connection:
                while not stop.is_set():
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        transport = CheckedTransport(LOOPBACK, longest=0.5)
        started = time.monotonic()
        with httpx.Client(transport=transport, timeout=5) as client, pytest.raises(httpx.HTTPError):
            client.post(f"http://127.0.0.1:{server.getsockname()[1]}/")
        assert time.monotonic() - started < 3
        stop.set()
        thread.join()


def test_the_setting_is_a_list_of_networks(monkeypatch):
    assert load().webhook_networks == []
    monkeypatch.setenv("MILLESIMED_WEBHOOK_NETWORKS", '["10.1.0.0/16", "fd00::/8"]')
    assert load().webhook_networks == [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]


def test_service_and_commands_go_by_the_setting(site, tmp_path, monkeypatch):
    store, _ = made_store(tmp_path / "D032.duckdb")
    wanted = webhook(f"http://127.0.0.1:{site.port}/")
    save(store, wanted)
    store.close()
    for number, networks in enumerate(["[]", '["127.0.0.0/8"]']):
        monkeypatch.setenv("MILLESIMED_WEBHOOK_NETWORKS", networks)
        relay = Service(load(db=[store.path])).subscribers()
        carrier = relay.carriers[ChannelKind.WEBHOOK]
        assert list(carrier.allowed) == LOOPBACK[:number]
        relay.close()
        command = [sys.executable, "-m", "daemon.cli", "subscriptions", "test", wanted.id]
        done = subprocess.run(
            [*command, "--db", str(store.path), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 - number, done.stderr
        assert ("address not allowed" in done.stdout) == (number == 0)
        assert len(site.got) == number
