"""Subscriptions: who is matched with what, quickly, and what is refused."""

import time

import numpy as np
import pytest
from pydantic import ValidationError
from shapely.geometry import box, mapping

from schemas.alert import AlertKind, AlertState
from schemas.policy import Sensor
from schemas.subscription import ChannelKind, Subscription
from tests.map_store import building, made_store, patched
from updater.alert_rows import message
from updater.crs import WGS84, reproject
from updater.errors import NotFound
from updater.reads import alerts_now
from updater.subscriptions import (
    Matcher,
    Subject,
    find,
    new_id,
    new_secret,
    save,
    subject,
    subscriptions,
    wants,
)

CRS = "EPSG:2154"


def subscription(**changes):
    values = {"id": new_id(), "name": "Auch", "channel": ChannelKind.FEED} | changes
    return Subscription.model_validate(values)


def square(x, y, side):
    shape = reproject(box(x, y, x + side, y + side), CRS, WGS84)
    return mapping(shape)


@pytest.fixture(scope="module")
def alert(tmp_path_factory):
    store, _ = made_store(tmp_path_factory.mktemp("alert") / "D032.duckdb", seed=9)
    patched(store, 1, [building(150, 150)])
    (record,) = alerts_now(store)
    store.close()
    return message(record, departement="D032", crs=CRS)


def test_kind_state_size_and_certainty_decide(alert):
    assert wants(subscription(), alert) == (alert.kind is not AlertKind.OTHER)
    every = {"kinds": list(AlertKind)}
    assert wants(subscription(**every), alert)
    assert not wants(subscription(**every, min_area=alert.area + 1), alert)
    assert not wants(subscription(**every, min_probability=0.99), alert)
    assert not wants(subscription(**every, states=["first"]), alert)
    small = alert.model_copy(update={"area": 900.0})
    assert wants(subscription(**every), small)  # aerial: the minimum unit
    coarse = small.model_copy(update={"sensors": [Sensor.SENTINEL_2]})
    assert not wants(subscription(**every), coarse)  # Sentinel-2: from 1 000 m²


def test_places_by_code_by_polygon_and_everywhere(alert):
    wide = {"kinds": list(AlertKind)}
    wanted = [
        subscription(**wide, territories=["32013"]),
        subscription(**wide, territories=["32107"]),
        subscription(**wide, polygon=square(100, 100, 200)),
        subscription(**wide, polygon=square(400, 400, 50)),
        subscription(**wide),
        subscription(**wide, territories=["D032"], polygon=square(400, 400, 50)),
    ]
    grounds = {"32013": box(0, 0, 300, 600), "32107": box(300, 0, 600, 600)}
    found = {j for _, j in Matcher(wanted, grounds, CRS).matches([subject(alert, CRS)])}
    assert found == {0, 2, 4, 5}
    assert list(Matcher([], {}, CRS).matches([subject(alert, CRS)])) == []
    assert list(Matcher(wanted, grounds, CRS).matches([])) == []


def test_ten_thousand_alerts_meet_five_thousand_subscriptions_in_seconds(alert):
    rng = np.random.default_rng(0)
    grounds = {
        f"{i:05d}": box(x, y, x + 4_000, y + 4_000)
        for i, (x, y) in enumerate(rng.uniform(0, 100_000, (600, 2)))
    }
    codes = list(grounds)
    wanted = [
        subscription(polygon=square(*rng.uniform(0, 100_000, 2), 3_000))
        if i % 2
        else subscription(territories=[str(rng.choice(codes))])
        for i in range(5_000)
    ]
    alerts = []
    for x, y in rng.uniform(0, 100_000, (10_000, 2)):
        other = alert.model_copy(update={"kind": AlertKind.ARTIFICIALISATION})
        alerts.append(Subject(other, box(x, y, x + 30, y + 30)))
    started = time.perf_counter()
    found = list(Matcher(wanted, grounds, CRS).matches(alerts))
    assert time.perf_counter() - started < 5
    assert len(found) > 10_000
    for i, j in found[:: len(found) // 50]:  # each is truly there
        place = wanted[j]
        ground = (
            grounds[place.territories[0]]
            if place.territories
            else reproject(box(0, 0, 0, 0), CRS, CRS)
        )
        if place.territories:
            assert ground.intersects(alerts[i].ground)


def test_a_subscription_keeps_its_history_and_its_key(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb")
    secret = new_secret()
    hook = subscription(
        channel="webhook", url="https://example.org/hook", secrets=[secret], territories=["D032"]
    )
    save(store, hook)
    assert find(store, hook.id) == hook and secret not in str(hook.public())
    save(store, hook.model_copy(update={"active": False}))
    assert subscriptions(store) == [] and len(subscriptions(store, active=False)) == 1
    assert store.execute("SELECT count(*) FROM subscriptions").fetchone() == (2,)
    with pytest.raises(NotFound, match="territory add"):
        save(store, subscription(territories=["99999"]))
    with pytest.raises(NotFound, match="subscriptions list"):
        find(store, "SU0")
    store.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"channel": "webhook", "secrets": ["whsec_eA=="]}, "needs its url"),
        ({"channel": "webhook", "url": "https://a.example/x"}, "needs a"),
        ({"url": "ftp://a.example/x"}, "begins with http"),
        ({"secrets": ["password"]}, "begins with whsec_"),
        ({"min_probability": 2}, "less than or equal to 1"),
        ({"id": "x"}, "pattern"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, why):
    with pytest.raises(ValidationError, match=why):
        subscription(**changes)


def test_states_that_withdraw_an_alert_are_told_by_default():
    assert {AlertState.REJECTED, AlertState.SUPERSEDED} <= set(subscription().states)
