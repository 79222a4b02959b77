"""Tokens: who is let in, who is not, and how often; no token is ever repeated or written down."""

import json
import subprocess
import sys
import threading
import tomllib

import pytest
from fastapi import HTTPException

from daemon.config import HttpSettings, Scope, TokenSettings, load
from daemon.tokens import ADDRESS_RATE, Buckets, Gate, Rate, digest, made, site
from schemas.errors import UsageError
from tests.served import api, known


class Clock:
    """Time that the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def gate(clock, **scopes):
    tokens = {name: known(*given, token=f"token-{name}") for name, given in scopes.items()}
    return Gate(tokens, Buckets(Rate(1.0, 3), clock=clock), Buckets(Rate(0.5, 2), clock=clock))


def refused(gate, token, scope, client="192.0.2.1"):
    with pytest.raises(HTTPException) as caught:
        gate.admit(token, client, scope)
    assert not token or token not in str(caught.value.detail) + str(caught.value.headers)
    return caught.value


def test_a_token_allows_its_scopes_and_admin_all(clock):
    door = gate(clock, town=[Scope.SUBSCRIBE], agent=[Scope.REVIEW], boss=[Scope.ADMIN])
    assert door.admit("token-town", "192.0.2.1", Scope.SUBSCRIBE) == "town"
    assert door.admit("token-agent", "192.0.2.1", Scope.REVIEW) == "agent"
    for scope in (Scope.SUBSCRIBE, Scope.REVIEW, Scope.ADMIN):
        assert door.admit("token-boss", "192.0.2.1", scope) == "boss"
    error = refused(door, "token-town", Scope.REVIEW)
    assert error.status_code == 403 and 'scope="review"' in error.headers["WWW-Authenticate"]
    assert door.admit("token-town", "192.0.2.1", Scope.READ) == "town"


def test_no_token_or_an_unknown_one_is_a_401_with_a_challenge(clock):
    door = gate(clock, town=[Scope.ADMIN])
    absent = refused(door, None, Scope.SUBSCRIBE)
    assert absent.status_code == 401 and absent.headers["WWW-Authenticate"] == "Bearer"
    for number, token in enumerate(["", "token-tow", "token-town ", "TOKEN-TOWN", "é"]):
        error = refused(door, token, Scope.READ, client=f"192.0.2.{number}")
        assert error.status_code == 401
        assert error.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert door.admit(None, "192.0.2.9", Scope.READ) is None


def test_every_configured_token_is_compared_wherever_the_right_one_is(clock, monkeypatch):
    door, seen = gate(clock, a=[Scope.READ], b=[Scope.READ], c=[Scope.READ]), []
    import hmac

    true = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda x, y: seen.append(y) or true(x, y))
    for name in "abc":
        assert door.name_of(f"token-{name}") == name
    assert door.name_of("other") is None
    assert len(seen) == 4 * 3


def test_a_service_without_tokens_says_how_to_make_one():
    error = refused(Gate(), "anything", Scope.SUBSCRIBE)
    assert error.status_code == 403 and "millesimed token" in error.detail


def test_calls_are_counted_by_token_and_else_by_address(clock):
    door = gate(clock, town=[Scope.SUBSCRIBE], boss=[Scope.ADMIN])
    for _ in range(3):
        door.admit("token-town", "192.0.2.1", Scope.SUBSCRIBE)
    error = refused(door, "token-town", Scope.SUBSCRIBE, client="192.0.2.77")
    assert error.status_code == 429 and error.headers["Retry-After"] == "1"
    door.admit("token-boss", "192.0.2.1", Scope.SUBSCRIBE)
    for _ in range(2):
        door.admit(None, "192.0.2.1", Scope.READ)
    assert refused(door, None, Scope.READ).headers["Retry-After"] == "2"
    assert refused(door, "wrong", Scope.READ).status_code == 429  # guessing is counted too
    door.admit(None, "192.0.2.2", Scope.READ)
    clock.now += 2.0
    door.admit(None, "192.0.2.1", Scope.READ)
    door.admit("token-town", "192.0.2.1", Scope.SUBSCRIBE)


def test_waiting_as_told_is_enough_and_nothing_is_saved_beyond_the_burst(clock):
    buckets = Buckets(Rate(0.5, 4), clock=clock)
    clock.now = 1_000.0
    assert [buckets.wait("a") for _ in range(5)] == [0, 0, 0, 0, 2.0]
    clock.now += 1.0
    assert buckets.wait("a") == pytest.approx(1.0)
    clock.now += 1.0
    assert buckets.wait("a") == 0
    clock.now += 10_000.0
    assert [buckets.wait("a") for _ in range(5)][-1] == 2.0


def test_memory_is_bounded_and_threads_share_one_count(clock):
    buckets = Buckets(Rate(1.0, 1), most=100, clock=clock)
    for number in range(1_000):
        buckets.wait(str(number))
    assert len(buckets) == 100
    shared, passed = Buckets(Rate(1.0, 50), clock=clock), []

    def knock():
        passed.extend(shared.wait("x") == 0 for _ in range(40))

    threads = [threading.Thread(target=knock) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 50


def test_an_ipv6_site_is_one_caller():
    assert site("2001:db8:1:2::1") == site("2001:db8:1:2:ffff::9") != site("2001:db8:1:3::1")
    assert site("::ffff:192.0.2.1") == site("192.0.2.1") == "192.0.2.1"
    assert site("unix") == "unix"


def test_over_http_statuses_headers_and_problems(store):
    tokens = {"town": known(Scope.SUBSCRIBE, token="token-town")}
    with api([store], tokens) as call:
        answer = call("GET", "/subscriptions")
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json["title"] == "Unauthorized" and answer.json["status"] == 401
        answer = call("GET", "/subscriptions", token="token-tow")
        assert answer.status == 401 and b"token-tow" not in answer.body
        assert call("GET", "/subscriptions", token="token-town").status == 200
        assert call("GET", "/subscriptions", Authorization="Basic dG93bjp0b3du").status == 401
        answer = call("POST", "/alerts/AL0/reject", {"reason": "x"}, token="token-town")
        assert answer.status == 403
        statuses = [call("GET", "/alerts").status for _ in range(ADDRESS_RATE.burst + 5)]
        assert statuses[0] == 200 and statuses[-1] == 429
        assert call("GET", "/subscriptions", token="token-town").status == 200
    with api([store], {}) as call:
        answer = call("GET", "/subscriptions", token="token-town")
        assert answer.status == 403 and "millesimed token" in answer.json["detail"]
        assert call("GET", "/alerts").status == 200


def test_the_log_of_a_service_in_use_holds_no_token(store, capfd):
    tokens = {"town": known(Scope.SUBSCRIBE, token="token-town")}
    with api([store], tokens) as call:
        call("GET", "/subscriptions", token="token-town")
        call("GET", "/subscriptions", token="token-guess")
        call("GET", "/subscriptions/SU0/unsubscribe/token-link")
    written = "".join(capfd.readouterr())
    assert not any(token in written for token in ("token-town", "token-guess", "token-link"))


def test_the_command_makes_a_token_the_service_then_knows(tmp_path):
    command = [sys.executable, "-m", "daemon.cli", "token", "town-hall", "--scope", "subscribe"]
    shown = subprocess.run(
        [*command, "--scope", "read"], capture_output=True, text=True, check=True
    ).stdout
    token, lines = shown.split("\n", 1)
    file = tmp_path / "millesimed.toml"
    file.write_text(lines)
    assert token not in lines
    settings = load(file).http
    assert settings.tokens["town-hall"].scopes == [Scope.SUBSCRIBE, Scope.READ]
    assert Gate(settings.tokens).name_of(token) == "town-hall"
    other = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )
    assert other["sha256"] == digest(other["token"]) and other["token"] != token


def test_a_name_that_toml_would_not_take_is_wrong_use():
    for name in ("", "a b", 'x"', "é", "a" * 65, "a.b"):
        with pytest.raises(UsageError):
            made(name, [Scope.READ])
    token, lines = made("a", [Scope.READ, Scope.READ])
    assert tomllib.loads(lines)["http"]["tokens"]["a"]["scopes"] == ["read"]
    assert len(token) > 40 and HttpSettings.model_validate(tomllib.loads(lines)["http"])
    with pytest.raises(ValueError):
        TokenSettings(sha256=token, scopes=["read"])
    _, lines = made("b", [Scope.REVIEW], ["32013", "32012"])
    bound = HttpSettings.model_validate(tomllib.loads(lines)["http"])
    assert Gate(bound.tokens).caller("b").territories == ("32013", "32012")
