"""Webhooks: one signed HTTP call for each alert.

Headers and signature follow the Standard Webhooks specification (``webhook-id``,
``webhook-timestamp``, ``webhook-signature``: HMAC-SHA256 over ``id.timestamp.body`` for each key).
410 ends the subscription; a redirect is a failure, for it would carry a signed alert to another
address.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import httpx

from daemon.addresses import AddressRefused, CheckedTransport, Network
from daemon.subscribers import Failed, Gone, Note
from schemas.subscription import SECRET_PREFIX, Subscription
from updater.store import Store

TIMEOUT_SECONDS: Final = 10.0
GONE: Final = 410
TEST_TYPE: Final = "fr.millesimed.test.v1"
MOST_ANSWER: Final = 4_096
"""Bytes of an answer that are read: a receiver says yes or no, not more."""


def sign(secret: str, id_: str, timestamp: int, body: bytes) -> str:
    """One signature of a message, as ``v1,BASE64``."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def headers(secrets: Sequence[str], id_: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a message; while keys are being changed there is one signature for
    each."""
    timestamp = int(at.timestamp())
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(s, id_, timestamp, body) for s in secrets),
        "content-type": "application/json",
    }


def payload(type_: str, at: datetime, data: object) -> bytes:
    """The body: type, time and data, as the specification recommends."""
    document = {"type": type_, "timestamp": at.isoformat(), "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(slots=True)
class WebhookCarrier:
    """Calls webhooks at public addresses, and in the networks that are allowed besides."""

    allowed: Sequence[Network] = ()
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Open a pool of connections."""
        self.client = httpx.Client(
            transport=CheckedTransport(self.allowed),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )

    def deliver(self, store: Store, wanted: Subscription, notes: Sequence[Note]) -> None:
        """Call once for each note.

        Raises:
            Gone: 410.
            Failed: the receiver did not say 2xx.
        """
        for note in notes:
            row = note.row
            self.post(wanted, row.id, row.type, row.created, json.loads(row.body))

    def post(self, wanted: Subscription, id_: str, type_: str, at: datetime, data: object) -> None:
        """One call.

        Raises:
            Gone: 410.
            Failed: an address that may not be called, no connection, no answer in time, a
                redirect, or any status but 2xx.
        """
        body = payload(type_, at, data)
        sent = headers(wanted.secrets, id_, at, body)
        try:
            with self.client.stream("POST", wanted.url or "", content=body, headers=sent) as answer:
                status = answer.status_code
                for number, _ in enumerate(answer.iter_raw(MOST_ANSWER)):
                    if number:
                        break
        except AddressRefused as error:
            raise Failed(str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failed(f"{type(error).__name__}") from None
        if status == GONE:
            raise Gone("410 Gone")
        if not 200 <= status < 300:
            raise Failed(f"status {status}")

    def post_test(self, wanted: Subscription, at: datetime) -> None:
        """One signed message that tells of nothing.

        Raises:
            Gone, Failed: as `post`.
        """
        self.post(wanted, f"test-{at:%Y%m%dT%H%M%S%f}", TEST_TYPE, at, {"test": True})

    def close(self) -> None:
        """Let go of connections."""
        self.client.close()
