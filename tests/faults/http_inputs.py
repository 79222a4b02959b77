"""HTTP requests gone wrong: drawn from the service's own description, and written byte by byte."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from daemon.config import HttpSettings, Scope
from daemon.http import application
from daemon.problems import MEDIA, MOST_BODY
from daemon.tokens import Buckets, Rate
from tests.faults.inputs import ODD, ODD_BYTES, changed, scrambled
from tests.map_store import building, made_store, patched
from tests.receivers import Receiver
from tests.served import LOOPBACK, Running, known, listening
from updater.reads import alerts_now
from updater.store import Store
from updater.subscriptions import find

TOKENS = {scope.value: f"msm_{scope.value}" for scope in Scope}
UNLIMITED = Rate(1e9, 10**9)
TOO_LARGE = 413
DEADLINE_SECONDS = 10.0
"""For one answer, on a machine that does other things too; most take milliseconds."""
PROMISED = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)
"""What every answer is held to, whatever was sent."""
CALLS_OUT = (502, 503)
"""A webhook that does not answer is no error of the service, and is documented where it can be."""
METHODS = (
    *("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT"),
    *("get", "PROPFIND", "A" * 300, "G\0T", ""),
)  # fmt: skip
BODIES = (
    *(b"", b"{}", b"[]", b"null", b"0", b'"', b"\xff\xfe{", b"\0" * 100, b"[" * 50_000, b"NaN"),
    *(b'{"a":' * 20_000, b'{"name":"\\ud800","channel":"feed"}', b"List-Unsubscribe=One-Click"),
    *(b'{"name":"a\\u0000b","channel":"feed"}', b'{"min_area":1e999,"name":"a","channel":"feed"}'),
    b" " * 1_000_001,
    b"--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\n" + b"a" * 70_000,
)  # fmt: skip
TYPES = (
    *("application/json", "text/plain", "application/json; charset=utf-16", ""),
    *("application/x-www-form-urlencoded", "multipart/form-data"),
    "multipart/form-data; boundary=x",
)  # fmt: skip
HEADERS = (
    ("Content-Length", b"-1"), ("Content-Length", b"9" * 30), ("Content-Length", b"0x10"),
    ("Transfer-Encoding", b"chunked"), ("Transfer-Encoding", b"gzip"), ("Expect", b"100-continue"),
    ("Content-Encoding", b"gzip"), ("Host", b""), ("Host", b"a b"), ("Host", b"\xff"),
    ("Host", b"[::1"), ("Host", b"h:99999"), ("X-Forwarded-For", b"127.0.0.1"),
    ("X-Forwarded-Host", b"evil.example"), ("If-None-Match", b"*"), ("If-None-Match", b'"' * 9000),
    ("Connection", b"Upgrade"), ("Upgrade", b"h2c"), ("Upgrade", b"websocket"),
    ("Range", b"bytes=0-0,5-"), ("Accept", b"\0"), ("Cookie", b"a" * 9000), ("A" * 9000, b"a"),
    ("", b"a"), ("A b", b"c"), ("X", b"a\r\nSet-Cookie: b"), ("X", b"a" * 70_000),
)  # fmt: skip

KNOWN = 9
"""So many of the methods are HTTP's."""
VERSION = b"HTTP/1.1"
FRAMING = {"Content-Length", "Transfer-Encoding"}
"""Headers that say where a request ends."""


@dataclass(frozen=True)
class Target:
    """A service that listens, and what is there to be asked for."""

    url: str
    store: Store
    receiver: Receiver

    def fresh(self) -> dict[str, list[str]]:
        """Values of the addresses' placeholders that lead somewhere, by name."""
        made = []
        wishes = ({"channel": "feed"}, {"channel": "webhook", "url": self.receiver.url},
                  {"channel": "mail", "address": "a@example.org"})  # fmt: skip
        for wish in wishes:
            answer = requests.post(
                f"{self.url}/subscriptions",
                json={"name": "Auch", **wish},
                headers=bearer("admin"),
                timeout=DEADLINE_SECONDS,
            )
            made.append(answer.json()["id"])
        return {
            "subscription": made,
            "token": [find(self.store, one).token for one in made],
            "alert": [record.id for record in alerts_now(self.store)],
            "departement": ["D032"],
            "code": ["D032"],
        }


def bearer(token: str) -> dict[str, str]:
    """The header a token is sent in, by the name of its scope."""
    return {"Authorization": f"Bearer {TOKENS[token]}"}


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """A service over a map with two alerts, to which everybody may come as often as they like."""
    folder.mkdir(parents=True, exist_ok=True)
    store, _ = made_store(folder / "D032.duckdb", seed=9)
    patched(store, 1, [building(80, 80, 25, 20), building(220, 220, 25, 20)])
    tokens = {name: known(Scope(name), token=token) for name, token in TOKENS.items()}
    app = application(Running(), [store], HttpSettings(tokens=tokens), LOOPBACK)
    app.state.gate.by_token = Buckets(UNLIMITED)
    app.state.gate.by_address = Buckets(UNLIMITED)
    receiver = Receiver()
    try:
        with store, listening(app) as url:
            yield Target(url, store, receiver)
    finally:
        receiver.close()


def drawn(goal: Target, examples: int, number: int) -> Counter[int]:
    """Requests drawn from the service's description, right and wrong ones in turn, so many for
    each address, method and kind; gives the answers' statuses."""
    seen: Counter[int] = Counter()
    schema = schemathesis.openapi.from_url(f"{goal.url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:
            caller = Caller(goal, goal.fresh(), seen)
            cases = operation.as_strategy(generation_mode=mode)
            limited = settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            try:
                limited(seed(number)(given(cases, st.integers(0, 5), st.booleans())(caller.send)))()
            except Unsatisfiable:  # nothing that is sent there can be wrong
                assert mode is GenerationMode.NEGATIVE, operation.label
    return seen


class Caller:
    """Sends drawn requests and judges what comes back."""

    def __init__(self, goal: Target, places: dict[str, list[str]], seen: Counter[int]) -> None:
        self._goal, self._places, self._seen = goal, places, seen
        self._session = requests.Session()

    def send(self, case: Case, who: int, there: bool) -> None:
        """``who``: 0 and 1 have lesser tokens; ``there``: what the address names exists."""
        for name in case.path_parameters if there else {}:
            if name in self._places:
                case.path_parameters[name] = self._places[name][who % len(self._places[name])]
        # in the case, not beside it: a header that was drawn wrong is right again
        case.headers.update(bearer("admin" if who > 1 else [*TOKENS][who]))
        answer = case.call(base_url=self._goal.url, session=self._session, timeout=DEADLINE_SECONDS)
        self._seen[answer.status_code] += 1
        outside = answer.status_code in CALLS_OUT
        checks = [c for c in PROMISED if not (outside and c is not_a_server_error)]
        if (
            not there and answer.status_code != TOO_LARGE
        ):  # a refusal of what no one has looked into
            checks.append(negative_data_rejection)
        case.validate_response(answer, checks=checks)
        kind = next(iter(answer.headers.get("content-type", [])), None)
        says_why(answer.status_code, kind, answer.content)


def says_why(status: int, kind: str | None, body: bytes) -> None:
    """A refusal is a problem document with one sentence; the server's own, of what is no HTTP, is
    one in plain text."""
    if status < 400 or not body:
        return
    if kind == MEDIA:
        document = json.loads(body)
        assert document["status"] == status and document["title"]
        text = document["detail"]
    else:
        assert status == 400 and kind is not None and kind.startswith("text/plain"), (status, kind)
        text = body.decode()
    assert text.endswith((".", "?")) and "\n" not in text and 10 < len(text) < 1200, text


@dataclass(frozen=True)
class Request:
    """A request as bytes. ``is_http``: it must have an answer. ``is_endless``: where it ends cannot
    be told from it, so the line is closed behind it."""

    body: bytes
    is_http: bool
    is_endless: bool


def raw(places: dict[str, list[str]], chance: random.Random) -> Request:
    """A request that may be wrong in its method, address, headers, token or body."""
    body = _body(chance)
    kind = TYPES[0] if chance.random() < 0.8 else chance.choice(TYPES)
    lines = [("Content-Type", kind.encode()), ("Host", b"127.0.0.1")]
    lines += [("Connection", b"close")]
    lines += [("Authorization", _token(chance))] if chance.random() < 0.9 else []
    sized = chance.random() < 0.95
    lines += [("Content-Length", str(len(body)).encode())] if sized else []
    more = [chance.choice(HEADERS)] if chance.random() < 0.2 else []
    version = VERSION if chance.random() < 0.97 else chance.choice((b"HTTP/9.9", b"", b"\0"))
    method, address = _address(places, chance)
    method = method if chance.random() < 0.75 else chance.choice(METHODS)
    head = b" ".join((method.encode(), address, version))
    head += b"".join(b"\r\n" + name.encode() + b": " + value for name, value in lines + more)
    broken = chance.random() < 0.05
    whole = sized and not (broken or more) and method in METHODS[:KNOWN] and version == VERSION
    whole &= all(re.fullmatch(rb"[ -~]{,4000}", text) for text in (address, *dict(lines).values()))
    endless = broken or any(name in FRAMING for name, _ in more)
    head = scrambled(head, chance) if broken else head
    return Request(head + b"\r\n\r\n" + body, whole, endless)


def _address(places: dict[str, list[str]], chance: random.Random) -> tuple[str, bytes]:
    """An address and the method it takes."""
    one = {name: chance.choice(values) for name, values in places.items()}
    subscription, alert = f"/subscriptions/{one['subscription']}", f"/alerts/{one['alert']}"
    method, path = chance.choice(
        (
            *(("POST", "/subscriptions"), ("POST", "/subscriptions"), ("GET", "/subscriptions")),
            *(("GET", subscription), ("PATCH", subscription), ("DELETE", subscription)),
            *(("POST", f"{subscription}/{verb}") for verb in ("rotate", "test", "replay")),
            *((verb, f"{subscription}/unsubscribe/{one['token']}") for verb in ("GET", "POST")),
            *(("GET", alert), ("GET", f"{alert}/after.png"), ("POST", f"{alert}/reject")),
            *(("GET", "/alerts"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/")),
            *(("GET", "/feed/alerts-D032.atom"), ("GET", f"/feed{subscription}.geojson")),
        )
    )
    if chance.random() < 0.25:
        odd = str(chance.choice(ODD)).encode("utf-8", "surrogatepass")[:5000]
        written = odd if chance.random() < 0.2 else quote(odd, safe="").encode()
        parts = path.encode().split(b"/")
        parts[chance.randrange(len(parts))] = written
        return method, b"/".join(parts)
    names = ("state", "kind", "page", "bbox", "since", "departement", "lang", "min_area", "ended")
    asked = [
        (chance.choice(names), str(chance.choice(ODD)).encode("utf-8", "surrogatepass")[:2000])
        for _ in range(chance.choice((0, 0, 1, 2)))
    ]
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked)
    return method, (path + ("?" + query if query else "")).encode()


def _token(chance: random.Random) -> bytes:
    good = f"Bearer {TOKENS['admin']}".encode()
    if chance.random() < 0.7:
        return good
    odd = (
        b"Bearer",
        b"Bearer ",
        b"Bearer \xff\xfe",
        b"Basic YTpi",
        b"Bearer " + b"a" * 9000,
        b"\0",
    )
    return chance.choice((*odd, scrambled(good, chance), f"Bearer {TOKENS['read']}".encode()))


def _body(chance: random.Random) -> bytes:
    if chance.random() < 0.25:
        return chance.choice(BODIES)
    wish = {"name": "Auch", "channel": "feed", "states": ["confirmed"], "min_area": 10.0,
            "territories": ["D032"], "reason": "tent", "rhythm": "immediate", "language": "fr",
            "polygon": {"type": "Polygon", "coordinates": [[[0, 43], [1, 43], [1, 44], [0, 43]]]},
            "url": "http://10.0.0.1/", "address": "a@b.fr"}  # fmt: skip
    kept = {
        name: wish[name] for name in wish if name in {"name", "channel"} or chance.random() < 0.15
    }
    document = kept if chance.random() < 0.4 else changed(kept, chance)
    text = json.dumps(document).encode()
    if chance.random() < 0.1:
        text = scrambled(text, chance)
    return text + (chance.choice(ODD_BYTES) if chance.random() < 0.03 else b"")


def answered(url: str, request: Request) -> int | None:
    """What a service answers; None where it says nothing, to what is no HTTP.

    Raises:
        AssertionError: no HTTP, an error of the service, a refusal without a sentence, or late.
    """
    place = urlsplit(url)
    began = time.monotonic()
    method = request.body[:4].decode("latin-1").strip()
    with socket.create_connection((place.hostname, place.port), DEADLINE_SECONDS) as line:
        answer, cut = http.client.HTTPResponse(line, method=method), False
        try:
            line.sendall(request.body)
            if request.is_endless:
                line.shutdown(socket.SHUT_WR)
        except OSError:
            cut = True  # it has heard enough, and its answer may be lost
        try:
            answer.begin()
            body = answer.read()
        except (http.client.RemoteDisconnected, ConnectionResetError):
            # of a body that is too large the rest is not read: its refusal may be lost on the way
            assert cut or not request.is_http or len(request.body) > MOST_BODY
            return None
    assert time.monotonic() - began < DEADLINE_SECONDS
    assert answer.status < 500 or answer.status in CALLS_OUT, (answer.status, body[:500])
    says_why(answer.status, answer.headers.get("Content-Type"), body)
    return answer.status


def thrown(goal: Target, count: int, number: int) -> Counter[Any]:
    """So many requests gone wrong; gives the answers' statuses."""
    chance, seen = random.Random(number), Counter()
    places = goal.fresh()
    for turn in range(count):
        if turn % 200 == 0:
            places = goal.fresh()
        request = raw(places, chance)
        try:
            seen[answered(goal.url, request)] += 1
        except Exception as error:
            raise AssertionError(f"input {turn} of {number}: {request.body[:600]!r}") from error
    return seen
