"""Mail: one message for each alert, or one for a digest, over SMTP.

A message has plain text and HTML with a picture of the map inside. Its id follows from the
subscription and the outbox rows, so that one that is sent twice can be told. ``List-Unsubscribe``
is one click (RFC 8058).
"""

from __future__ import annotations

import hashlib
import smtplib
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import parseaddr
from ipaddress import ip_address
from typing import Final

from daemon import map_picture
from daemon.config import SmtpSettings
from daemon.mail_text import Letter, Links, digest, latest, single, trial
from daemon.subscribers import Failed, Note
from schemas.errors import UsageError
from schemas.subscription import Rhythm, Subscription
from updater.store import Store
from updater.subscriptions import subject

TIMEOUT_SECONDS: Final = 20.0
"""For each answer of the server; some look at a message for that long before they take it."""
PAUSE_SECONDS: Final = 30.0
"""A server that cannot be reached is left alone for so long, or each subscription would wait for
it in turn."""
REFUSALS: Final[dict[type[smtplib.SMTPException], str]] = {
    smtplib.SMTPSenderRefused: "sender refused, ",
    smtplib.SMTPAuthenticationError: "login refused, ",
}


class _Verbatim(UnstructuredHeader, BaseHeader):
    """A header that is never folded: the library would encode a long address as if it were text,
    and nothing could read it then."""

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


def _policy() -> Policy:
    registry = HeaderRegistry()
    for name in ("list-unsubscribe", "list-id"):
        registry.map_to_type(name, _Verbatim)
    return SMTP.clone(header_factory=registry)


POLICY: Final = _policy()


@dataclass(slots=True)
class MailCarrier:
    """Sends mail, each over a connection of its own.

    Raises:
        UsageError: settings that cannot work or would show the password.
    """

    settings: SmtpSettings
    public_url: str | None
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    clock: Callable[[], float] = time.monotonic
    timeout: float = TIMEOUT_SECONDS
    _sender: Address = field(init=False)
    _links: Links = field(init=False)
    _down_until: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._sender = _sender(self.settings.sender)
        self._links = Links(self.public_url)
        _check_login(self.settings)

    def deliver(self, store: Store, wanted: Subscription, notes: Sequence[Note]) -> None:
        """Send one mail.

        Raises:
            Failed: the server did not take it, or is not there.
        """
        self._expect_server()  # before the picture is drawn in vain
        alerts = latest([note.alert for note in notes])
        number = message_number(wanted.id, [note.row.id for note in notes])
        picture = map_picture.draw(store, [subject(a, store.crs).ground for a in alerts])
        if wanted.rhythm is Rhythm.IMMEDIATE and len(alerts) == 1:
            letter = single(alerts[0], wanted, self._links, cid=self._cid(number))
        else:
            letter = digest(alerts, wanted, self._links, cid=self._cid(number))
        self.post(wanted, number, store.clock(), letter, picture)

    def trial(self, wanted: Subscription, at: datetime) -> None:
        """Send a test message.

        Raises:
            Failed: the server did not take it, or is not there.
        """
        number = message_number(wanted.id, [f"test-{at.isoformat()}"])
        self.post(wanted, number, at, trial(wanted, self._links))

    def post(
        self,
        wanted: Subscription,
        number: str,
        at: datetime,
        letter: Letter,
        picture: bytes | None = None,
    ) -> None:
        """Send a letter.

        Raises:
            Failed: the server did not take it, or is not there.
        """
        message = self._message(wanted, number, at, letter, picture)
        try:
            with closing(self._connected()) as server:
                server.send_message(message, self._sender.addr_spec, [wanted.address or ""])
                with suppress(OSError):  # it is sent; how they part does not matter
                    server.quit()
        except (OSError, UnicodeError) as error:
            raise Failed(reason(error)) from None

    def close(self) -> None:
        """Nothing to let go of."""

    def _expect_server(self) -> None:
        if self.clock() < self._down_until:
            raise Failed("the mail server was not there a moment ago")

    def _connected(self) -> smtplib.SMTP:
        """A connection, protected and logged in as the settings say."""
        self._expect_server()
        try:
            return self._connect()
        except (OSError, UnicodeError):
            self._down_until = self.clock() + PAUSE_SECONDS
            raise

    def _connect(self) -> smtplib.SMTP:
        host, port, user = self.settings.host, self.settings.port, self.settings.user
        server = (
            smtplib.SMTP_SSL(host, port, timeout=self.timeout, context=self.tls)
            if self.settings.security == "tls"
            else smtplib.SMTP(host, port, timeout=self.timeout)
        )
        try:
            if self.settings.security == "starttls":
                server.starttls(context=self.tls)
            if user is not None and self.settings.password is not None:
                server.login(user, self.settings.password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server

    def _message(
        self,
        wanted: Subscription,
        number: str,
        at: datetime,
        letter: Letter,
        picture: bytes | None,
    ) -> EmailMessage:
        """The whole message.

        Raises:
            Failed: the address cannot stand in a header.
        """
        domain, message = self._sender.domain, EmailMessage(POLICY)
        message["From"] = self._sender
        try:
            message["To"] = Address(addr_spec=wanted.address or "")
        except (MessageError, ValueError, IndexError):
            raise Failed("the address is none that mail can be sent to") from None
        message["Subject"] = letter.subject
        message["Date"] = at
        message["Message-ID"] = f"<{number}@{domain}>"
        message["List-Id"] = f"<{wanted.id.lower()}.subscriptions.{domain}>"
        message["Auto-Submitted"] = "auto-generated"
        if (unsubscribe := self._links.unsubscribe(wanted)) is not None:
            message["List-Unsubscribe"] = f"<{unsubscribe}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(letter.text, cte="quoted-printable")
        message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
        message["Content-Language"] = wanted.language  # last: content takes such headers away
        html = message.get_body(("html",))
        if picture is not None and isinstance(html, EmailMessage):
            cid = f"<{self._cid(number)}>"
            html.add_related(
                picture, "image", "png", cid=cid, filename="map.png", disposition="inline"
            )
        return message

    def _cid(self, number: str) -> str:
        return f"map.{number}@{self._sender.domain}"


def message_number(subscription: str, rows: Sequence[str]) -> str:
    """What tells one message from all others: 32 hexadecimal characters."""
    return hashlib.sha256("\n".join([subscription, *rows]).encode()).hexdigest()[:32]


def reason(error: Exception) -> str:
    """Why a message was not taken, without a word of the server's (which may repeat what it was
    sent)."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = sorted({code for code, _ in error.recipients.values()})
        return f"recipient refused, status {', '.join(map(str, codes))}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{REFUSALS.get(type(error), '')}status {error.smtp_code}"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "no answer in time, or cut off"
    return type(error).__name__


def _sender(text: str) -> Address:
    name, address = parseaddr(text)
    try:
        sender = Address(name, addr_spec=address)
    except (MessageError, ValueError, IndexError):
        sender = Address()
    if not sender.domain.isascii() or not sender.domain or not name.isprintable():
        raise UsageError(
            f"smtp.sender {text!r} is no mail address; write it as in alerts@example.org."
        )
    return sender


def _check_login(settings: SmtpSettings) -> None:
    """Refuse a login that cannot work or that anyone on the way could read."""
    if settings.user is None:
        return
    if settings.password is None:
        raise UsageError("smtp.user needs a password; set MILLESIMED_SMTP__PASSWORD.")
    if not (settings.user + settings.password.get_secret_value()).isascii():
        raise UsageError("smtp.user and its password may hold ASCII characters only; change them.")
    if settings.security == "none" and not _is_loopback(settings.host):
        raise UsageError(
            "smtp.security is none, which would show the password to anyone on the way; set it to "
            "starttls or tls."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
