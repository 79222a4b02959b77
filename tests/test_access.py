"""Who sees what over HTTP: each token its own subscriptions, and services that are not public."""

from __future__ import annotations

import pytest

from daemon.config import HttpSettings, Scope
from schemas.subscription import Wish
from tests.map_store import building, made_store, patched
from tests.receivers import Receiver
from tests.served import api, known
from updater.reads import alerts_now
from updater.subscriptions import accepted, find, save

TOWN, BUREAU, READER, BOSS = "token-town", "token-bureau", "token-reader", "token-boss"
TOKENS = {
    "town": known(Scope.SUBSCRIBE, token=TOWN),
    "bureau": known(Scope.SUBSCRIBE, token=BUREAU),
    "reader": known(Scope.READ, token=READER),
    "boss": known(Scope.ADMIN, token=BOSS),
}
OPEN_TO_ALL = {"/healthz", "/readyz", "/metrics"}


@pytest.fixture
def map_(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    with made:
        patched(made, 1, [building(80, 80)])
        yield made


@pytest.fixture
def call(map_):
    with api([map_], TOKENS) as client:
        yield client


def subscribed(call, token, **wish):
    answer = call("POST", "/subscriptions", {"name": "x", "channel": "feed", **wish}, token=token)
    assert answer.status == 201, answer.body
    return answer.json


def listed(call, token, query=""):
    answer = call("GET", f"/subscriptions{query}", token=token)
    assert answer.json["total"] == len(answer.json["subscriptions"])
    return {one["id"] for one in answer.json["subscriptions"]}


def test_a_token_sees_and_ends_its_own_subscriptions_and_an_admin_all(call, map_):
    mine, other = subscribed(call, TOWN), subscribed(call, BUREAU)
    local = accepted(Wish.model_validate({"name": "here", "channel": "feed"}))
    save(map_, local)  # as the command line makes it
    assert (mine["owner"], other["owner"], find(map_, local.id).owner) == ("town", "bureau", None)
    assert listed(call, TOWN) == {mine["id"]} and listed(call, BUREAU) == {other["id"]}
    assert listed(call, BOSS) == {mine["id"], other["id"], local.id}
    assert call("DELETE", f"/subscriptions/{mine['id']}", token=TOWN).status == 204
    assert listed(call, TOWN) == set() and listed(call, TOWN, "?ended=true") == {mine["id"]}
    assert call("DELETE", f"/subscriptions/{local.id}", token=BOSS).status == 204
    assert find(map_, other["id"]).active


def test_what_is_somebody_elses_is_not_there(call, map_):
    receiver = Receiver()
    made = subscribed(call, BUREAU, channel="webhook", url=receiver.url)
    kept, path = find(map_, made["id"]), f"/subscriptions/{made['id']}"
    calls = [("GET", "", None), ("PATCH", "", {"name": "mine"}), ("DELETE", "", None)]
    calls += [("POST", f"/{verb}", None) for verb in ("rotate", "test", "replay")]
    for method, rest, body in calls:
        answer = call(method, path + rest, body, token=TOWN)
        missing = call(method, f"/subscriptions/SU{20 * '0'}{rest}", body, token=TOWN)
        assert answer.status == missing.status == 404 and answer.json == missing.json
    assert find(map_, made["id"]) == kept and not receiver.got
    assert call("GET", path, token=BUREAU).status == call("GET", path, token=BOSS).status == 200
    receiver.close()


def test_whoever_changes_a_subscription_it_stays_with_its_owner(call, map_):
    made = subscribed(call, TOWN)
    path = f"/subscriptions/{made['id']}"
    assert call("PATCH", path, {"name": "changed"}, token=BOSS).json["owner"] == "town"
    assert call("PATCH", path, {"owner": "boss"}, token=BOSS).status == 422
    assert call("POST", "/subscriptions", {"name": "x", "channel": "feed", "owner": "bureau"},
                token=TOWN).status == 422  # fmt: skip
    assert listed(call, TOWN) == {made["id"]}


def test_a_subscription_of_an_earlier_version_has_no_owner(call, map_):
    made = subscribed(call, TOWN)
    with map_.transaction() as cursor:
        cursor.execute(
            "UPDATE subscriptions SET document = json_merge_patch(document, '{\"owner\": null}')"
        )
    assert '"owner"' not in map_.execute("SELECT document FROM subscriptions").fetchone()[0]
    assert listed(call, TOWN) == set() and listed(call, BOSS) == {made["id"]}


APART = ("/ogc", "/stac", "/map", "/tiles", "/figures", "/assets", "/exports")
"""What judges callers once for all its addresses, and is tried where it is tested."""


def paths_of(call, map_, subscription):
    """Every address that is read, with something there."""
    there = {
        "{subscription}": subscription,
        "{alert}": alerts_now(map_)[0].id,
        "{picture}": "after",
        "{departement}": "D032",
        "{code}": "D032",
        "{suffix}": "atom",
        "{token}": find(map_, subscription).token,
    }
    for template, methods in call.described["paths"].items():
        if "get" in methods and template != "/" and not template.startswith(APART):
            path = template
            for name, value in there.items():
                path = path.replace(name, value)
            assert "{" not in path, f"say what {template} is to be called with"
            yield template, path


def test_a_service_that_is_not_public_wants_a_token_with_the_scope_for_reading(map_):
    with api([map_], TOKENS, public_read=False) as call:
        made = subscribed(call, TOWN)
        read = [*paths_of(call, map_, made["id"]), ("/openapi.json", "/openapi.json")]
        assert len(read) > 10
        for template, path in read:
            nobody, wrong = call("GET", path), call("GET", path, token="msm_wrong")
            found = call("GET", path, token=READER)
            if template in OPEN_TO_ALL:
                assert nobody.status == wrong.status == 200, path
                continue
            assert wrong.status == 401, path
            if "{token}" in template:  # the link in a mail is a key of its own
                assert nobody.status == 200
                continue
            assert nobody.status == 401 and "WWW-Authenticate" in nobody.headers, path
            if template.startswith("/subscriptions"):
                assert found.status == 403
                continue
            assert found.status == call("GET", path, token=BOSS).status == 200, path
            assert call("GET", path, token=TOWN).status == 403, path
            security = call.described["paths"].get(template, {}).get("get", {}).get("security")
            assert template == "/openapi.json" or security == [{"bearer": []}], path


def test_a_public_service_is_read_without_a_token(call, map_):
    assert HttpSettings().public_read
    made = subscribed(call, TOWN)
    for template, path in [*paths_of(call, map_, made["id"]), ("", "/openapi.json")]:
        expected = 401 if template.startswith("/subscriptions") and "token" not in template else 200
        assert call("GET", path).status == expected, path


def test_a_closed_service_without_tokens_says_how_to_make_one(map_):
    with api([map_], {}, public_read=False) as call:
        answer = call("GET", "/alerts")
        assert answer.status == 403 and "--scope read" in answer.json["detail"]
