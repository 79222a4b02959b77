"""Webhooks against a real receiver that fails in every way: at least once, in order, same id."""

import base64
import hashlib
import hmac
import json
from ipaddress import ip_network

import pytest

from daemon.subscribers import replay
from daemon.webhook import WebhookCarrier
from schemas.alert import AlertKind
from schemas.subscription import ChannelKind, Subscription
from tests.map_store import building, made_store, patched
from tests.receivers import Clock, OneChannel, Receiver
from updater import outbox
from updater.clock import utc_now
from updater.revert import revert
from updater.subscriptions import find, new_id, new_secret, save, subscriptions

PLACES = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def clock():
    return Clock(utc_now())


@pytest.fixture
def relay(clock):
    carrier = WebhookCarrier(allowed=[ip_network("127.0.0.0/8")])
    carrier.client.timeout = 0.3
    made = OneChannel({ChannelKind.WEBHOOK: carrier}, clock=clock)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    yield made
    made.close()


def subscribed(store, receiver, **changes):
    wanted = Subscription.model_validate(
        {
            "id": new_id(),
            "name": "Auch",
            "channel": "webhook",
            "url": receiver.url,
            "secrets": [new_secret()],
            "kinds": list(AlertKind),
        }
        | changes
    )
    save(store, wanted)
    return wanted


def raised(store, first=0, count=3):
    """That many events, each with a building, and the ids of the alerts they raised."""
    for number in range(first, first + count):
        patched(store, number, [building(*PLACES[number])])
    rows = store.execute("SELECT id FROM outbox WHERE type LIKE '%alert%' ORDER BY seq").fetchall()
    return [row[0] for row in rows]


def checked(secrets, sent, body):
    """What a receiver does: a few lines with the standard library."""
    content = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + body
    given = {part.removeprefix("v1,") for part in sent["webhook-signature"].split()}
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        mine = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        if any(hmac.compare_digest(mine, other) for other in given):
            return True
    return False


def test_alerts_arrive_signed_in_order_and_only_from_now_on(store, receiver, relay):
    raised(store, 0, 2)
    wanted = subscribed(store, receiver)
    ids = raised(store, 2, 3)[2:]
    assert relay.once(store) == len(ids) == 3 and receiver.taken == ids
    assert relay.once(store) == 0
    for _, sent, body in receiver.got:
        assert checked(wanted.secrets, sent, body)
        assert not checked([new_secret()], sent, body)
        document = json.loads(body)
        assert document["type"].endswith("alert.v1")
        assert sent["webhook-id"].startswith(document["data"]["id"])
        assert abs(int(sent["webhook-timestamp"]) - relay.clock().timestamp()) < 3600


@pytest.mark.parametrize("failure", [500, 429, 302, "hang", "cut"])
def test_a_failure_is_tried_again_and_nothing_overtakes(store, receiver, relay, clock, failure):
    subscribed(store, receiver)
    ids = raised(store)
    receiver.answers = [200, failure, failure]
    assert relay.once(store) == 1
    assert relay.once(store) == 0  # it waits
    assert len(receiver.got) == 2
    clock.later(seconds=6)
    assert relay.once(store) == 0
    clock.later(seconds=11)
    assert relay.once(store) == 2
    assert receiver.taken == ids
    waits = [sent["webhook-id"] for _, sent, _ in receiver.got]
    assert waits == [ids[0], ids[1], ids[1], ids[1], ids[2]]  # the same id each time


def test_an_hour_of_silence_loses_nothing(store, receiver, relay, clock):
    subscribed(store, receiver)
    ids = raised(store)
    receiver.answers = [503] * 1_000
    tries = 0
    for _ in range(720):  # five seconds at a time
        before = len(receiver.got)
        relay.once(store)
        tries += len(receiver.got) - before
        clock.later(seconds=5)
    assert 5 < tries < 25  # few calls in an hour, thanks to the backoff
    receiver.answers = []
    for _ in range(40):
        relay.once(store)
        clock.later(minutes=5)
    assert receiver.taken == ids


def test_after_three_days_a_message_is_parked_and_can_be_replayed(store, receiver, relay, clock):
    wanted = subscribed(store, receiver)
    ids = raised(store)
    receiver.answers = [500] * 10_000
    for _ in range(40):
        relay.once(store)
        clock.later(hours=4)
    receiver.answers = []
    assert receiver.taken == []
    parked = outbox.parked(store, f"subscription:{wanted.id}")
    assert [row.id for row, _ in parked] == ids and {why for _, why in parked} == {"status 500"}
    receiver.answers = [200, 500]
    assert replay(store, relay.carrier, wanted.id) == (1, 2)
    assert replay(store, relay.carrier, wanted.id) == (2, 0)
    assert receiver.taken == ids


def test_gone_and_ended_subscriptions_are_sent_nothing_more(store, receiver, relay):
    gone = subscribed(store, receiver)
    raised(store, 0, 1)
    receiver.answers = [410]
    assert relay.once(store) == 0
    assert not find(store, gone.id).active and subscriptions(store) == []
    ended = subscribed(store, receiver)
    raised(store, 1, 1)
    save(store, ended.model_copy(update={"active": False}))
    assert relay.once(store) == 0 and len(receiver.got) == 1


def test_while_keys_change_both_sign(store, receiver, relay):
    wanted = subscribed(store, receiver)
    old, fresh = wanted.secrets[0], new_secret()
    save(store, wanted.model_copy(update={"secrets": [fresh, old]}))
    raised(store, 0, 1)
    relay.once(store)
    _, sent, body = receiver.got[0]
    assert checked([old], sent, body) and checked([fresh], sent, body)


def test_a_withdrawal_is_told_too(store, receiver, relay):
    subscribed(store, receiver)
    (alert,) = raised(store, 0, 1)
    revert(store, "bench-0", reason="wrong image")
    relay.once(store)
    states = [json.loads(body)["data"]["state"] for _, _, body in receiver.got]
    assert states == ["confirmed", "superseded"]
    assert receiver.taken == [alert, alert.replace(".1", ".2")]
