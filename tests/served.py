"""The HTTP application on a real socket, and a client that holds it to its own description."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from ipaddress import ip_network
from typing import Any

import jsonschema
from fastapi import FastAPI

from daemon.config import HttpSettings, Scope, TokenSettings
from daemon.http import HttpServer, application
from daemon.metrics import Metrics
from daemon.submit import Intake
from daemon.tokens import digest
from updater.store import Store

LOOPBACK = [ip_network("127.0.0.0/8")]


class Running:
    """The little that HTTP knows of a service."""

    def __init__(self) -> None:
        self.metrics, self.alive, self.ready = Metrics(), True, True


def known(*scopes: Scope, token: str) -> TokenSettings:
    """A token as the configuration has it."""
    return TokenSettings(sha256=digest(token), scopes=list(scopes))


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of an application while it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = HttpServer(app, HttpSettings(host="127.0.0.1", port=port))
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@contextmanager
def api(
    stores: list[Store],
    tokens: dict[str, TokenSettings],
    *,
    intake: Intake | None = None,
    **settings: Any,
) -> Iterator[Api]:
    """A served API whose webhooks may call this machine."""
    http = HttpSettings(tokens=tokens, **settings)
    app = application(Running(), stores, http, LOOPBACK, intake=intake)
    with listening(app) as url:
        yield Api(url, app.openapi())


@dataclass
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """A client; every answer must be one that the OpenAPI document announces."""

    url: str
    described: dict[str, Any]

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, body, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as found:
                answer = Answer(found.status, found.headers, found.read())
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, error.headers, error.read())
        self.hold(method, path.partition("?")[0], answer)
        return answer

    def hold(self, method: str, path: str, answer: Answer) -> None:
        """Check that an answer is described: its status, its media type, its body, its headers."""
        operation = self.operation(method, path)
        if operation is None:
            described = path == "/openapi.json"  # by itself
            assert answer.status in {404, 405} or described, (method, path, answer.status)
            return
        announced = operation["responses"]
        assert str(answer.status) in announced, (method, path, answer.status, answer.body)
        response = announced[str(answer.status)]
        for name in response.get("headers", {}):
            assert answer.headers[name], (path, name)
        kind = answer.headers.get_content_type() if answer.body else None
        assert kind in (response.get("content") or {None: {}}), (method, path, kind, answer.status)
        if kind is not None and kind.endswith("json"):
            schema = response["content"][kind]["schema"]
            root = {**schema, "components": self.described["components"]}
            jsonschema.Draft202012Validator(root).validate(answer.json)

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The description of a call; the template with the fewest placeholders wins."""
        paths = sorted(self.described["paths"].items(), key=lambda item: item[0].count("{"))
        for template, methods in paths:
            pattern = "".join(
                "[^/]+" if part.startswith("{") else re.escape(part)
                for part in re.split(r"(\{\w+\})", template)
            )
            if method.lower() in methods and re.fullmatch(pattern, path):
                found: dict[str, Any] = methods[method.lower()]
                return found
        return None
