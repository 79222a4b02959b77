"""Webhooks: alerts of a subscription, signed, in order, at least once.

Headers and signature follow the Standard Webhooks specification (``webhook-id``,
``webhook-timestamp``, ``webhook-signature``: HMAC-SHA256 over ``id.timestamp.body`` for each key).
A failed call is tried again with exponential backoff and jitter; after three days the message is
parked, and can be replayed. Order holds: nothing overtakes a message that waits. 410 ends the
subscription; a redirect is a failure, for it would carry a signed alert to another address.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import httpx
import structlog

from schemas.alert import Alert
from schemas.envelope import ALERT_TYPE
from schemas.subscription import SECRET_PREFIX, ChannelKind, Subscription
from updater import outbox
from updater.outbox import Pending
from updater.store import Store
from updater.subscriptions import channel_name, find, matcher, save, subject, subscriptions

log = structlog.get_logger()

TIMEOUT_SECONDS: Final = 10.0
FIRST_WAIT: Final = timedelta(seconds=5)
LONGEST_WAIT: Final = timedelta(hours=3)
GIVE_UP_AFTER: Final = timedelta(days=3)
"""From the alert's commit on; then it is parked."""
GONE: Final = 410
MOST_ANSWER: Final = 4_096
"""Bytes of an answer that are read: a receiver says yes or no, not more."""


class Failed(Exception):
    """The receiver did not take a message; the text says why."""


class Gone(Failed):
    """The receiver says the address is given up."""


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


def post(
    client: httpx.Client, wanted: Subscription, id_: str, type_: str, at: datetime, data: object
) -> None:
    """One call.

    Raises:
        Gone: 410.
        Failed: no connection, no answer in time, a redirect, or any status but 2xx.
    """
    body = payload(type_, at, data)
    sent = headers(wanted.secrets, id_, at, body)
    try:
        with client.stream("POST", wanted.url or "", content=body, headers=sent) as answer:
            status = answer.status_code
            for number, _ in enumerate(answer.iter_raw(MOST_ANSWER)):
                if number:
                    break
    except httpx.HTTPError as error:
        raise Failed(f"{type(error).__name__}") from None
    if status == GONE:
        raise Gone("410 Gone")
    if not 200 <= status < 300:
        raise Failed(f"status {status}")


@dataclass(slots=True)
class _Waiting:
    """What is known of a receiver that failed: how often in a row, and when to try again."""

    failures: int = 0
    until: datetime | None = None


@dataclass(slots=True)
class WebhookRelay:
    """Carries every subscription's alerts to its webhook; one round at a time."""

    clock: Callable[[], datetime] | None = None
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(
            timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
        )
    )
    chance: random.Random = field(default_factory=random.Random)
    _waiting: dict[str, _Waiting] = field(default_factory=dict)

    def once(self, store: Store) -> int:
        """One round over a store's subscriptions; gives how many messages were taken."""
        return sum(
            self._carry(store, wanted)
            for wanted in subscriptions(store)
            if wanted.channel is ChannelKind.WEBHOOK
        )

    def close(self) -> None:
        """Let go of connections."""
        self.client.close()

    def _now(self, store: Store) -> datetime:
        return (self.clock or store.clock)()

    def _carry(self, store: Store, wanted: Subscription) -> int:
        waiting = self._waiting.setdefault(wanted.id, _Waiting())
        if waiting.until is not None and self._now(store) < waiting.until:
            return 0
        channel, total = channel_name(wanted.id), 0
        while rows := outbox.after(store, outbox.position(store, channel), type_=ALERT_TYPE):
            alerts = [Alert.model_validate_json(row.body) for row in rows]
            subjects = [subject(alert, store.crs) for alert in alerts]
            chosen = {i for i, _ in matcher(store, [wanted]).matches(subjects)}
            for index, row in enumerate(rows):
                if index in chosen:
                    if not self._deliver(store, wanted, row, waiting):
                        return total
                    total += 1
                    outbox.advance(store, channel, row.seq)
            outbox.advance(store, channel, rows[-1].seq)
        return total

    def _deliver(self, store: Store, wanted: Subscription, row: Pending, waiting: _Waiting) -> bool:
        """Send one message; False where the round ends for this receiver."""
        now = self._now(store)
        try:
            post(self.client, wanted, row.id, row.type, row.created, json.loads(row.body))
        except Gone:
            save(store, wanted.model_copy(update={"active": False}))
            log.warning("subscription_gone", subscription=wanted.id)
            return False
        except Failed as error:
            if now - row.created >= GIVE_UP_AFTER:
                reason = str(error)
                outbox.advance(store, channel_name(wanted.id), row.seq, parked={row.seq: reason})
                log.warning("alert_parked", subscription=wanted.id, alert=row.id, reason=reason)
                waiting.failures, waiting.until = 0, None
                return False
            waiting.failures += 1
            waiting.until = now + self._pause(waiting.failures)
            log.info("webhook_failed", subscription=wanted.id, error=str(error))
            return False
        waiting.failures, waiting.until = 0, None
        return True

    def _pause(self, failures: int) -> timedelta:
        """Between half and all of a wait that doubles with each failure."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * int(2 ** min(failures - 1, 20)))
        return longest * self.chance.uniform(0.5, 1.0)


def replay(store: Store, client: httpx.Client, subscription: str) -> tuple[int, int]:
    """Send what was parked once more; gives how many were taken, and how many still are parked.

    Raises:
        NotFound: no such subscription.
    """
    wanted, taken = find(store, subscription), 0
    waiting = outbox.parked(store, channel_name(subscription))
    for row, _ in waiting:
        try:
            post(client, wanted, row.id, row.type, row.created, json.loads(row.body))
        except Failed:
            break
        outbox.unpark(store, channel_name(subscription), row.seq)
        taken += 1
    return taken, len(waiting) - taken
