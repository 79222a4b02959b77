"""Mail through a real server in its own process: at once and as digests, in order, same id."""

import io
import json
import re
import shutil
import ssl
import subprocess
from datetime import UTC, datetime

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from PIL import Image
from pydantic import SecretStr
from structlog.testing import capture_logs
from typer.testing import CliRunner

from daemon.cli import app
from daemon.config import HttpSettings, Settings, SmtpSettings
from daemon.mail import MailCarrier, message_number
from daemon.mail_text import LONGEST_SUBJECT, latest
from daemon.service import Service
from daemon.subscribers import Failed, replay
from schemas.alert import Alert, AlertKind, AlertState
from schemas.errors import UsageError
from schemas.subscription import ChannelKind, Subscription
from tests.mail_server import HANG_SECONDS, MailServer, free_port
from tests.map_store import building, made_store, patched
from tests.receivers import Clock, OneChannel
from updater import outbox
from updater.revert import revert
from updater.subscriptions import new_id, save

PLACES = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]
WEDNESDAY = datetime(2026, 11, 18, 15, tzinfo=UTC)
URL = "https://alertes.example.org/millesimed/"
SECRET = "Tr0ub4dor-and-3"


@pytest.fixture
def clock():
    return Clock(WEDNESDAY)


@pytest.fixture
def server(tmp_path):
    made = MailServer(tmp_path)
    yield made
    made.stop()


def settings(server, **changes):
    values = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "sender": "Alertes du sol <alertes@example.org>",
    }
    return SmtpSettings.model_validate(values | changes)


def carrier_of(server, clock, public_url=URL, **changes):
    made = MailCarrier(settings(server, **changes), public_url, clock=lambda: clock().timestamp())
    made.timeout = 10.0
    return made


@pytest.fixture
def relay(server, clock):
    return OneChannel({ChannelKind.MAIL: carrier_of(server, clock)}, clock=clock)


@pytest.fixture
def store(tmp_path, clock):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    made.clock = clock
    yield made
    made.close()


def subscribed(store, **changes):
    wanted = Subscription.model_validate(
        {
            "id": new_id(),
            "name": "Auch",
            "channel": "mail",
            "address": "mairie@example.org",
            "token": "Zm9ydHktdHdvLWlzLXRoZS1hbnN3ZXI0",
            "kinds": list(AlertKind),
        }
        | changes
    )
    save(store, wanted)
    return wanted


def raised(store, first=0, count=3):
    """That many events, each with a building, and the ids of all outbox rows of alerts."""
    for number in range(first, first + count):
        patched(store, number, [building(*PLACES[number])])
    rows = store.execute("SELECT id FROM outbox WHERE type LIKE '%alert%' ORDER BY seq").fetchall()
    return [row[0] for row in rows]


def alerts_of(store):
    rows = store.execute("SELECT body FROM outbox WHERE type LIKE '%alert%' ORDER BY seq")
    return [Alert.model_validate_json(row[0]) for row in rows.fetchall()]


def number_of(wanted, rows):
    return f"<{message_number(wanted.id, rows)}@example.org>"


def text_of(mail):
    return mail.get_body(("plain",)).get_content()


def html_of(mail):
    return mail.get_body(("html",)).get_content()


def picture_of(mail):
    (part,) = [p for p in mail.walk() if p.get_content_type() == "image/png"]
    return part


def test_each_alert_is_a_mail_with_everything_that_explains_it(store, server, relay, clock):
    raised(store, 0, 2)
    wanted = subscribed(store)
    ids = raised(store, 2, 3)[2:]
    assert relay.once(store) == 3 and relay.once(store) == 0
    mails = server.mails()
    assert [m["Message-ID"] for m in mails] == [number_of(wanted, [row]) for row in ids]
    for mail, alert in zip(mails, alerts_of(store)[2:], strict=True):
        assert mail["From"] == "Alertes du sol <alertes@example.org>"
        assert mail["To"] == mail["X-RcptTo"] == "mairie@example.org"
        assert mail["X-MailFrom"] == "alertes@example.org"
        assert mail["Date"].datetime == clock()
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["List-Id"] == f"<{wanted.id.lower()}.subscriptions.example.org>"
        assert mail.get_content_type() == "multipart/alternative"
        for body in (text_of(mail), html_of(mail)):
            assert f"{URL}alerts/{alert.id}/chips.png" in body
            assert f"{URL}feed/subscriptions/{wanted.id}.atom" in body
            assert alert.id in body and alert.acquisitions[0] in body and "test/1" in body
            assert f"{alert.area:.0f} m²" in body and f"{alert.rank:.0f}" in body
            assert f"{100 * alert.probability:.0f}\N{NO-BREAK SPACE}%" in body
            assert str(alert.seen_first) in body and "2026-11-18 15:00 UTC" in body
            assert "Zones bâties (CS1.1.1.1" in body
        assert f"cid:{picture_of(mail)['Content-ID'][1:-1]}" in html_of(mail)
        assert 'alt="Carte' in html_of(mail)


def test_one_click_ends_it_in_a_header_that_any_program_can_read(store, server, relay):
    wanted = subscribed(store)
    raised(store, 0, 1)
    relay.once(store)
    (raw,) = server.raw()
    link = f"List-Unsubscribe: <{URL}subscriptions/{wanted.id}/unsubscribe/{wanted.token}>"
    assert link.encode() in re.split(rb"\r?\n", raw)  # neither folded nor encoded
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in raw
    assert max(map(len, raw.splitlines())) <= 200 and raw.isascii()


def test_without_an_address_of_its_own_there_are_no_links(store, server, clock):
    subscribed(store)
    raised(store, 0, 1)
    OneChannel({ChannelKind.MAIL: carrier_of(server, clock, public_url=None)}, clock=clock).once(
        store
    )
    (mail,) = server.mails()
    assert mail["List-Unsubscribe"] is None and mail["List-Unsubscribe-Post"] is None
    assert "http" not in text_of(mail) and "href" not in html_of(mail)


def test_languages(store, server, relay):
    subscribed(store, language="fr")
    subscribed(store, language="en", address="hall@example.org")
    subscribed(store, language="en", address="digest@example.org", rhythm="daily")
    alerts = raised(store, 0, 2)
    relay.once(store)
    relay.clock.later(days=1)
    relay.once(store)
    by = {}
    for mail in server.mails():
        by.setdefault(mail["To"], []).append(mail)
    assert {to: len(mails) for to, mails in by.items()} == {
        "mairie@example.org": len(alerts),
        "hall@example.org": len(alerts),
        "digest@example.org": 1,
    }
    french, english = by["mairie@example.org"][0], by["hall@example.org"][0]
    assert "confirmée" in french["Subject"] and "Probabilité" in text_of(french)
    assert '<html lang="fr">' in html_of(french) and french["Content-Language"] == "fr"
    assert "confirmed" in english["Subject"] and "Probability: 95%" in text_of(english)
    assert '<html lang="en">' in html_of(english) and "Images before and after" in html_of(english)
    assert by["digest@example.org"][0]["Subject"] == "Daily digest: 2 alerts, Auch"


def test_a_daily_digest_comes_after_its_hour_and_once(store, server, relay, clock):
    wanted = subscribed(store, rhythm="daily")
    ids = raised(store, 0, 4)
    for _ in range(14):  # until five in the morning
        assert relay.once(store) == 0
        clock.later(hours=1)
    clock.later(hours=1)
    late = raised(store, 4, 1)[4:]
    assert relay.once(store) == 4 and relay.once(store) == 0
    (mail,) = server.mails()
    assert mail["Message-ID"] == number_of(wanted, ids)
    alerts = alerts_of(store)[:4]
    ordered = sorted(alerts, key=lambda a: (-a.rank, a.id))
    assert len({a.rank for a in alerts}) > 1
    for body in (text_of(mail), html_of(mail)):
        places = [body.index(f"/alerts/{a.id}/") for a in ordered]
        assert places == sorted(places)
        assert alerts_of(store)[4].id not in body
    assert mail["Subject"] == "Résumé du jour : 4 alertes, Auch"
    clock.later(days=1)
    assert relay.once(store) == 1
    assert server.mails()[1]["Message-ID"] == number_of(wanted, late)
    clock.later(days=1)
    assert relay.once(store) == 0 and len(server.mails()) == 2  # nothing to say, no mail


def test_a_weekly_digest_comes_on_monday(store, server, relay, clock):
    subscribed(store, rhythm="weekly")
    raised(store, 0, 1)
    days = []
    for hour in range(24 * 8):
        if relay.once(store):
            days.append(f"{clock():%A %H}")
        if hour == 48:
            raised(store, 1, 1)
        clock.later(hours=1)
    assert days == ["Monday 06"]
    (mail,) = server.mails()
    assert mail["Subject"] == "Résumé de la semaine : 2 alertes, Auch"


def test_a_digest_counts_by_kind_and_state_and_shows_last_states_only(store, server, relay, clock):
    subscribed(store, rhythm="daily")
    raised(store, 0, 3)
    revert(store, "bench-1", reason="wrong <image>\r\nBcc: eve@example.org")
    clock.later(days=1)
    assert relay.once(store) == 4
    (mail,) = server.mails()
    shown = latest(alerts_of(store))
    states = [a.state for a in shown]
    assert len(shown) == 3 and sorted(states) == [*2 * [AlertState.CONFIRMED], "superseded"]
    told = text_of(mail)
    for alert in shown:
        assert told.count(f"/alerts/{alert.id}/") == 1
    assert "3 alertes" in mail["Subject"]
    assert sum(int(n) for n in re.findall(r"^\D*[ée]\s: (\d)$", told, re.M)) == 3
    assert re.search(r"remplacée\s: 1$", told, re.M)
    assert re.search(r"Motif\s: reverted: wrong <image> Bcc: eve@example.org;", told)
    assert "wrong &lt;image&gt;" in html_of(mail) and mail["Bcc"] is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("rcpt 550 no such user", "recipient refused, status 550"),
        ("rcpt 450 later", "recipient refused, status 450"),
        ("data 554 you said Tr0ub4dor-and-3", "status 554"),
        ("data 421 going away", "status 421"),
        ("data hang", "no answer in time, or cut off"),
        ("data cut", "no answer in time, or cut off"),
    ],
)
def test_a_failure_is_tried_again_under_the_same_id(store, server, relay, clock, answer, why):
    wanted = subscribed(store)
    ids = raised(store)
    server.answers(answer)
    if answer == "data hang":
        relay.carrier.timeout = HANG_SECONDS / 4
    with capture_logs() as logs:
        assert relay.once(store) == 0
        assert relay.once(store) == 0  # it waits
    relay.carrier.timeout = 10.0
    assert [entry["error"] for entry in logs] == [why]
    assert SECRET not in str(logs)
    server.answers(None)
    clock.later(minutes=1)
    assert relay.once(store) == 3
    taken = [m["Message-ID"] for m in server.mails()]
    expected = [number_of(wanted, [row]) for row in ids]
    if answer == "data cut":  # it took the mail and could not say so: twice, and one can tell
        assert taken == [expected[0], *expected]
    else:
        assert taken == expected


def test_once_a_mail_is_taken_it_does_not_matter_how_they_part(store, server, relay):
    subscribed(store)
    raised(store, 0, 2)
    server.answers("quit cut")
    assert relay.once(store) == 2 and relay.once(store) == 0
    assert len(server.mails()) == 2


def test_a_digest_sent_twice_has_one_id(store, server, relay, clock):
    subscribed(store, rhythm="daily")
    raised(store)
    clock.later(days=1)
    server.answers("data cut")
    assert relay.once(store) == 0
    server.answers(None)
    clock.later(minutes=1)
    assert relay.once(store) == 3
    first, second = server.mails()
    assert first["Message-ID"] == second["Message-ID"] and html_of(first) == html_of(second)


def test_an_hour_without_a_server_loses_nothing(store, server, relay, clock):
    wanted = subscribed(store)
    ids = raised(store)
    server.stop()
    for _ in range(720):  # five seconds at a time
        assert relay.once(store) == 0
        clock.later(seconds=5)
    server.start()
    for _ in range(40):
        relay.once(store)
        clock.later(minutes=5)
    assert [m["Message-ID"] for m in server.mails()] == [number_of(wanted, [row]) for row in ids]


def test_a_server_that_is_not_there_is_asked_once_for_all_subscriptions(store, server, relay):
    for number in range(3):
        subscribed(store, address=f"mairie{number}@example.org")
    raised(store, 0, 1)
    server.stop()
    with capture_logs() as logs:
        relay.once(store)
    asked = [entry["error"] for entry in logs]
    assert asked == ["ConnectionRefusedError", *2 * ["the mail server was not there a moment ago"]]
    server.start()
    relay.clock.later(minutes=1)
    assert relay.once(store) == 3 and len(server.mails()) == 3


@pytest.mark.parametrize("rhythm", ["immediate", "daily"])
def test_after_three_days_it_is_parked_and_can_be_replayed(store, server, relay, clock, rhythm):
    wanted = subscribed(store, rhythm=rhythm)
    ids = raised(store)
    server.answers("rcpt 550 no")
    for _ in range(40):
        relay.once(store)
        clock.later(hours=4)
    parked = outbox.parked(store, f"subscription:{wanted.id}")
    assert [row.id for row, _ in parked] == ids
    assert {why for _, why in parked} == {"recipient refused, status 550"}
    assert replay(store, relay.carrier, wanted.id) == (0, 3)
    server.answers(None)
    assert relay.once(store) == 0 and server.mails() == []
    assert replay(store, relay.carrier, wanted.id) == (3, 0)
    assert replay(store, relay.carrier, wanted.id) == (0, 0)
    together = [ids] if rhythm == "daily" else [[row] for row in ids]
    assert [m["Message-ID"] for m in server.mails()] == [number_of(wanted, r) for r in together]


def test_names_can_neither_add_headers_nor_markup(store, server, relay):
    name = (
        "Auch\r\nBcc: eve@example.org\r\n\r\n<script>alert(1)</script>"
        "\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}X-Evil: 1 \x00&\"'"
    )
    subscribed(store, name=name, rhythm="daily")
    subscribed(store, name=200 * "é", address="long@example.org")
    subscribed(store, name="<b>x</b>\nX-Evil: 2", address="plain@example.org")
    raised(store, 0, 1)
    relay.clock.later(days=1)
    assert relay.once(store) == 3
    for mail in server.mails():
        assert mail["Bcc"] is None and mail["X-Evil"] is None
        assert "," not in mail["X-RcptTo"] and len(mail["Subject"]) <= LONGEST_SUBJECT
        html = html_of(mail)
        assert "<script" not in html and "<b>x" not in html
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html + text_of(mail) + mail["Subject"]
    (bad,) = [m for m in server.mails() if m["To"] == "mairie@example.org"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html_of(bad)
    assert "Bcc: eve@example.org" in bad["Subject"]  # as text


@pytest.mark.parametrize("address", ["a\x00b@example.org", "é@example.org", "..@example.org"])
def test_an_impossible_address_fails_alone(store, server, relay, address):
    subscribed(store, address=address)
    subscribed(store)
    raised(store, 0, 1)
    with capture_logs() as logs:
        assert relay.once(store) == 1
    assert [entry["error"] for entry in logs] == ["the address is none that mail can be sent to"]
    assert [m["To"] for m in server.mails()] == ["mairie@example.org"]


def test_the_picture_in_a_mail_is_a_small_png(store, server, relay, clock):
    subscribed(store, rhythm="daily")
    raised(store, 0, 5)
    clock.later(days=1)
    relay.once(store)
    part = picture_of(server.mails()[0])
    assert part.get_content_disposition() == "inline"
    body = part.get_content()
    assert 2_000 < len(body) < 100_000
    with Image.open(io.BytesIO(body)) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width == 600 and 300 <= picture.height <= 640
        assert len(set(picture.get_flattened_data())) > 4


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 made for this run, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.parametrize(
    ("security", "flags"),
    [("starttls", ("--tlscert", "--tlskey")), ("tls", ("--smtpscert", "--smtpskey"))],
)
def test_connections_are_protected_and_certificates_checked(
    tmp_path, store, clock, certificate, security, flags
):
    cert, key = certificate
    (tmp_path / "mail").mkdir()
    server = MailServer(tmp_path / "mail", flags[0], cert, flags[1], key)
    try:
        wanted = subscribed(store)
        stranger = carrier_of(server, clock, security=security)
        with pytest.raises(Failed, match="SSLCertVerificationError"):
            stranger.trial(wanted, clock())
        carrier = carrier_of(server, clock, security=security)
        carrier.tls = ssl.create_default_context(cafile=cert)
        carrier.trial(wanted, clock())
        plain = carrier_of(server, clock, security="none")
        with pytest.raises(Failed):
            plain.trial(wanted, clock())
        assert [m["Subject"] for m in server.mails()] == ["Message d'essai, Auch"]
    finally:
        server.stop()


def test_a_login_goes_over_tls_and_shows_in_no_log(store, clock, certificate):
    logins, got = [], []

    class Handler:
        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            got.append(envelope.content)
            return "250 OK"

    def judge(server, session, envelope, mechanism, data):
        logins.append((session.ssl is not None, data.login, data.password))
        known = data.password == SECRET.encode()
        return AuthResult(success=known, handled=known, message=None if known else f"535 {SECRET}")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    controller = Controller(
        Handler(),
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=judge,
        auth_required=True,
    )
    controller.start()
    try:
        wanted = subscribed(store)
        raised(store, 0, 1)
        for password, count in ((SECRET[::-1], 0), (SECRET, 1)):
            carrier = carrier_of(
                controller, clock, security="starttls", user="relay", password=password
            )
            carrier.tls = ssl.create_default_context(cafile=certificate[0])
            relay = OneChannel({ChannelKind.MAIL: carrier}, clock=clock)
            with capture_logs() as logs:
                assert relay.once(store) == count
            assert SECRET not in str(logs) and password not in str(logs) + repr(carrier)
            if not count:
                assert [entry["error"] for entry in logs] == ["login refused, status 535"]
        assert len(got) == 1 and wanted.id.lower().encode() in got[0]
        assert {over_tls for over_tls, _, _ in logins} == {True}
    finally:
        controller.stop()


def test_without_starttls_nothing_is_sent(store, server, clock):
    carrier = carrier_of(server, clock, security="starttls", user="relay", password=SECRET)
    with pytest.raises(Failed, match="SMTPNotSupportedError"):
        carrier.trial(subscribed(store), clock())
    assert server.mails() == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"user": "relay", "password": SECRET, "host": "mail.example.org"}, "starttls or tls"),
        ({"user": "relay", "password": SECRET, "host": "127.0.0.1.example.org"}, "starttls or tls"),
        ({"user": "relay"}, "MILLESIMED_SMTP__PASSWORD"),
        ({"user": "relay", "password": "mötley"}, "ASCII"),
        ({"sender": "nobody"}, "alerts@example.org"),
        ({"sender": "a@exämple.org"}, "alerts@example.org"),
        ({"sender": "x\x00y <a@example.org>"}, "alerts@example.org"),
    ],
)
def test_settings_that_cannot_work_or_show_the_password_are_refused(changes, why):
    values = {"host": "127.0.0.1", "security": "none", "sender": "a@example.org"}
    with pytest.raises(UsageError, match=why) as raised_:
        MailCarrier(SmtpSettings.model_validate(values | changes), None)
    assert SECRET not in str(raised_.value) and "mötley" not in str(raised_.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_password_may_go_to_this_machine(host):
    login = SmtpSettings(
        host=host, security="none", sender="a@example.org", user="x", password=SecretStr(SECRET)
    )
    assert SECRET not in repr(MailCarrier(login, None))


def test_the_service_mails_where_a_server_is_set(tmp_path):
    smtp = SmtpSettings(host="127.0.0.1", security="none", sender="a@example.org")
    common = {"db": [tmp_path / "x.duckdb"], "http": HttpSettings(public_url=URL)}
    carriers = Service(Settings(**common, smtp=smtp)).subscribers().carriers
    assert carriers[ChannelKind.MAIL].public_url == URL
    assert ChannelKind.MAIL not in Service(Settings(**common)).subscribers().carriers


def test_the_command_line_sends_a_test_and_replays(tmp_path, store, server, relay, clock):
    wanted = subscribed(store, language="en")
    ids = raised(store, 0, 1)
    server.answers("rcpt 550 no")
    for _ in range(40):
        relay.once(store)
        clock.later(hours=4)
    store.close()
    common = (wanted.id, "--db", str(tmp_path / "D032.duckdb"), "--json")
    environment = {
        "MILLESIMED_SMTP__HOST": "127.0.0.1",
        "MILLESIMED_SMTP__PORT": str(server.port),
        "MILLESIMED_SMTP__SECURITY": "none",
        "MILLESIMED_SMTP__SENDER": "alerts@example.org",
    }

    def command(name, environment):
        return CliRunner().invoke(app, ["subscriptions", name, *common], env=environment)

    unset = command("test", {})
    assert isinstance(unset.exception, UsageError) and "[smtp]" in str(unset.exception)
    refused = command("test", environment)
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["answer"] == "recipient refused, status 550"
    server.answers(None)
    done = command("test", environment)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "id": wanted.id,
        "address": "mairie@example.org",
        "answer": "taken",
    }
    again = command("replay", environment)
    assert json.loads(again.stdout) == {"id": wanted.id, "taken": 1, "parked": 0}
    trial, alert = server.mails()
    assert trial["Subject"] == "Test message, Auch" and wanted.id in text_of(trial)
    assert alert["Message-ID"] == number_of(wanted, ids)
