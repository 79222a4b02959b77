"""No secret gets out: a whole service among servers that refuse it and repeat what it said."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
import trustme
from typer.testing import CliRunner

from daemon.cli import app
from daemon.config import KafkaSettings, Scope, SmtpSettings, load
from daemon.kafka_source import KafkaSource
from daemon.logs import configure
from daemon.tokens import digest
from schemas.errors import UsageError
from schemas.subscription import ChannelKind, Wish
from tests.faults.gate import gate
from tests.integration.broker import available, broker, free_port
from tests.map_store import building, made_store, patched
from tests.receivers import Receiver
from tests.secrets import leaks, repeating
from updater.subscriptions import accepted, save

ROOT = Path(__file__).parent.parent
SECONDS = 90.0
SECRETS = {
    "token": "msm_tokenZq7-3fYk1",
    "mail": "mailZq7-9hTw2",
    "kafka": "kafkaZq7-8dRv3",
    "stac": "stacZq7-7sBn4",
    "s3 key": "s3accessZq7-6aMx5",
    "s3 secret": "s3secretZq7-5gLp6",
    "copernicus": "cdseZq7-4jCd7",
}
ENVIRONMENT = {
    "MILLESIMED_SMTP__PASSWORD": SECRETS["mail"],
    "MILLESIMED_ACQUIRE_PLANET_TOKEN": SECRETS["stac"],
    "MILLESIMED_ACQUIRE_DEPOT_ACCESS_KEY": SECRETS["s3 key"],
    "MILLESIMED_ACQUIRE_DEPOT_SECRET_KEY": SECRETS["s3 secret"],
    "MILLESIMED_ACQUIRE_CDSE_USER": "somebody",
    "MILLESIMED_ACQUIRE_CDSE_PASSWORD": SECRETS["copernicus"],
}
CONFIGURATION = """
db = "D032.duckdb"
inbox = "inbox"
outbox = "outbox"
device = "cpu"
retry_seconds = 0.2
webhook_networks = ["127.0.0.0/8"]
acquire_networks = ["127.0.0.0/8"]

[http]
port = {port}
[http.tokens.boss]
sha256 = "{digest}"
scopes = ["admin"]

[smtp]
host = "127.0.0.1"
port = {mail}
security = "none"
user = "millesimed"
sender = "a@example.org"

[kafka]
servers = "127.0.0.1:{kafka}"
[kafka.options]
"security.protocol" = "SASL_SSL"
"ssl.ca.location" = "{authority}"
"sasl.mechanism" = "PLAIN"
"sasl.username" = "millesimed"
"sasl.password" = "{password}"
"message.timeout.ms" = 500

[[acquire]]
kind = "stac"
name = "planet"
url = "http://127.0.0.1:{web}/stac"
collections = ["ortho"]
[[acquire]]
kind = "s3"
name = "depot"
url = "http://127.0.0.1:{web}"
bucket = "images"
[[acquire]]
kind = "copernicus"
name = "cdse"
subscription = "01234567-0123-0123-0123-0123456789ab"
catalogue = "http://127.0.0.1:{web}/odata"
token_url = "http://127.0.0.1:{web}/token"
"""


def asked(url, path, *, token=None, body=None):
    """An answer with its headers, as text, whatever its status."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return f"{answer.headers}{answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.headers}{error.read().decode()}"


def kafka_gate(folder, stack):
    """Where a broker refuses logins and repeats them, or nobody listens where there is none."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    if not available():
        return None, free_port()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    place = stack.enter_context(broker(folder))
    before = stack.enter_context(gate(int(place.rsplit(":", 1)[1]), context, None))
    return before, before.port


@pytest.mark.timeout(240)
def test_a_service_among_servers_that_repeat_what_it_says_tells_nobody(tmp_path):
    secrets, said, log = dict(SECRETS), [], tmp_path / "log.txt"
    with ExitStack() as stack:
        refuses, takes = Receiver(), Receiver()
        stack.callback(refuses.close)
        stack.callback(takes.close)
        refuses.answers = [500] * 1000
        before, kafka = kafka_gate(tmp_path, stack)
        web, heard = stack.enter_context(repeating("http"))
        mail, letters = stack.enter_context(repeating("mail"))
        prepare(tmp_path, secrets, refuses.url, takes.url)
        port = free_port()
        (tmp_path / "m.toml").write_text(
            CONFIGURATION.format(
                port=port,
                mail=mail,
                kafka=kafka,
                web=web,
                authority=tmp_path / "ca.pem",
                password=SECRETS["kafka"],
                digest=digest(SECRETS["token"]),
            )
        )
        command = [sys.executable, "-m", "daemon.cli", "--log-level", "debug", "run", "--config"]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*command, str(tmp_path / "m.toml")],
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
                env=os.environ | ENVIRONMENT,
            )
        stack.callback(process.kill)
        url = f"http://127.0.0.1:{port}"
        until(process, log, lambda: "running" in log.read_text() and takes.taken)
        wanted = ["delivery_failed", "acquire_failed"] + ["kafka_error"] * (before is not None)
        until(process, log, lambda: all(word in log.read_text() for word in wanted))
        until(process, log, lambda: log.read_text().count("acquire_failed") >= 3 and letters)
        for path in ("/metrics", "/openapi.json", "/subscriptions", "/alerts", "/no"):
            said += [asked(url, path, token=token) for token in (SECRETS["token"], None, "msm_x")]
        said.append(asked(url, "/feed/alerts-D032.geojson"))
        held = json.loads(asked(url, "/subscriptions", token=SECRETS["token"]).split("\n\n", 1)[1])
        for one in held["subscriptions"]:
            for verb in ("test", "replay"):
                path = f"/subscriptions/{one['id']}/{verb}"
                said.append(asked(url, path, token=SECRETS["token"], body=b""))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    assert heard_all(heard, letters) and (before is None or before.refused)
    said += [log.read_text(), *commands(tmp_path)]
    said += [p.read_text() for p in (tmp_path / "outbox").rglob("*.json*") if p.is_file()]
    for text in said:
        assert not (found := leaks(text, secrets)), (found, text[:3000])
    assert any("poison" in text for text in said)


def prepare(folder, secrets, *urls):
    """A store with an alert that two webhooks and a mail are due, and an event that is none."""
    store, _ = made_store(folder / "D032.duckdb", seed=9)
    with store:
        for number, url in enumerate(urls):
            made = accepted(Wish(name="Auch", channel=ChannelKind.WEBHOOK, url=url))
            save(store, made)
            secrets |= {f"key {number}": made.secrets[0].removeprefix("whsec_")}
        made = accepted(Wish(name="Auch", channel=ChannelKind.MAIL, address="a@example.org"))
        save(store, made)
        secrets["unsubscribe"] = made.token
        patched(store, 1, [building(80, 80, 40, 40)])
    (folder / "inbox").mkdir()
    (folder / "inbox" / "poison.json").write_bytes(b'{"specversion": "1.0", "id": "poison"}')


def until(process, log, there):
    """Wait until something has happened in a process that runs."""
    end = time.monotonic() + SECONDS
    while not there():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-4000:]
        time.sleep(0.05)


def heard_all(heard, letters):
    """The other side was really told: what is not in the logs was there to be leaked."""
    whole = "\n".join(heard)
    return leaks(whole, SECRETS) == ["stac", "s3 key", "copernicus"] and leaks(
        "\n".join(letters), SECRETS
    ) == ["mail"]


def commands(folder):
    """What the command line says of the store and the sources, for people and scripts."""
    db = ["--db", str(folder / "D032.duckdb")]
    wanted = [[*words, *db] for words in (
        ("subscriptions", "list"), ("alerts", "list"), ("dead-letters", "list"), ("verify",),
        ("events",), ("territory", "list"),
    )]  # fmt: skip
    wanted.append(["acquire", "list", "--config", str(folder / "m.toml")])
    for arguments in wanted:
        for form in ([], ["--json"]):
            done = CliRunner().invoke(app, [*arguments, *form], env=ENVIRONMENT)
            assert done.exit_code == 0, (arguments, done.output, done.exception)
            yield done.output


SECRET = "hiddenZq7-1qWe8"
KAFKA = '[kafka]\nservers = "127.0.0.1:1"\n[kafka.options]\n'
SMTP = '[smtp]\nhost = "h"\nsender = "a@b.fr"\n'
STAC = '[[acquire]]\nkind = "stac"\nname = "x"\ncollections = ["a"]\n'


@pytest.mark.parametrize(
    "text",
    [
        f'{KAFKA}"sasl.password" = ["{SECRET}"]',
        f'{KAFKA}"sasl.password" = {{ a = "{SECRET}" }}',
        f'{KAFKA}"sasl.password" = "{SECRET}\n',
        f'[kafka]\noptions = "{SECRET}"',
        f'{SMTP}password = ["{SECRET}"]',
        f'{SMTP}password = "{SECRET}',
        f'{SMTP}password = "{SECRET}"\npasswort = "{SECRET}"',
        f'[http.tokens.town]\nsha256 = "{SECRET}"\nscopes = ["read"]',
        f'[http.tokens]\ntown = "{SECRET}"',
        f'{STAC}url = "https://u:{SECRET}@h.example"',
        f'{STAC}url = "https://h.example?key={SECRET}"',
        f'{STAC}url = "https://h.example"\ntoken = "{SECRET}"',
        f'[[acquire]]\nkind = "s3"\nname = "x"\nurl = "https://h.example"\nsecret_key = "{SECRET}"',
        f'[[acquire]]\nkind = "copernicus"\nname = "x"\nsubscription = "{SECRET}"',
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_without_its_secret(tmp_path, text):
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(file)
    assert not leaks(str(caught.value), {"it": SECRET}), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILLESIMED_SMTP", f'{{"password": "{SECRET}"'),
        ("MILLESIMED_SMTP", f'{{"host": "h", "password": "{SECRET}", "port": "x"}}'),
        ("MILLESIMED_KAFKA__OPTIONS", f'{{"sasl.password": "{SECRET}"'),
        ("MILLESIMED_KAFKA__OPTIONS", f'["{SECRET}"]'),
        ("MILLESIMED_KAFKA", SECRET),
        ("MILLESIMED_HTTP__TOKENS", SECRET),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_without_its_secret(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        load()
    assert not leaks(str(caught.value), {"it": SECRET}), str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"sasl.pasword": SECRET},
        {"sasl.password": SECRET, "sasl.mechanism": "SCRAM-9", "security.protocol": "SASL_SSL"},
        {"ssl.key.pem": SECRET, "security.protocol": "SSL"},
        {"ssl.key.password": SECRET, "ssl.key.location": "/no", "security.protocol": "SSL"},
        {"sasl.oauthbearer.client.secret": SECRET, "sasl.oauthbearer.method": "x"},
        {"sasl.password": SECRET, "socket.timeout.ms": "x"},
    ],
)
def test_an_option_that_the_kafka_client_does_not_take_is_refused_without_it(options, capfd):
    settings = KafkaSettings(servers="127.0.0.1:1", options=options)
    assert not leaks(repr(settings), {"it": SECRET})
    try:
        KafkaSource(settings, dict).close()
    except UsageError as error:
        assert not leaks(str(error), {"it": SECRET}), str(error)
    assert not leaks("".join(capfd.readouterr()), {"it": SECRET})


def test_settings_show_no_password():
    settings = SmtpSettings(host="h", sender="a@b.fr", password=SECRET)
    assert not leaks(f"{settings!r} {settings} {settings.model_dump_json()}", {"it": SECRET})


@pytest.mark.parametrize("as_json", [False, True])
def test_a_traceback_in_the_log_shows_no_variables(as_json, capsys):
    configure(as_json=as_json)

    def fails(password):
        raise ValueError("no")

    try:
        fails(SECRET)
    except ValueError:
        structlog.get_logger().exception("failed")
    written = capsys.readouterr().err
    assert "ValueError" in written and not leaks(written, {"it": SECRET})


def test_a_new_token_is_told_once_and_kept_as_its_sum_only():
    done = CliRunner().invoke(app, ["token", "town", "--scope", Scope.READ.value, "--json"])
    assert done.exit_code == 0
    made = json.loads(done.stdout)
    token = next(v for v in made.values() if isinstance(v, str) and v.startswith("msm_"))
    assert done.stdout.count(token) == 1 and digest(token) in done.stdout
