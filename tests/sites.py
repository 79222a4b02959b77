"""A web server on loopback that does what each test tells it to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from daemon.acquire.files import Downloads
from daemon.acquire.http import Caller

LOOPBACK = [ip_network("127.0.0.0/8")]


@dataclass
class Request:
    """One call."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(self.body.decode()).items()}


@dataclass
class Reply:
    """One answer. ``cut``: the connection breaks after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def as_json(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


Handler = Callable[[Request], Reply]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what some tests are about."""


class Site:
    """Paths and what answers them; every call is kept."""

    def __init__(self) -> None:
        self.calls: list[Request] = []
        self.handlers: dict[str, Handler] = {}
        self.url = ""
        self._server: _Server | None = None
        self._port = 0

    def on(self, path: str, handler: Handler | Reply) -> None:
        """Answer a path; a fixed reply or a function of the request."""
        self.handlers[path] = handler if callable(handler) else lambda _: handler

    def asked(self, path: str) -> list[Request]:
        return [call for call in self.calls if call.path == path]

    def up(self) -> Site:
        """Listen, on the port of the last time where there was one."""
        site = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
                asked = Request(self.command, unquote(parts.path), query, self.headers, body)
                site.calls.append(asked)
                handler = site.handlers.get(asked.path, lambda _: Reply(404))
                reply = handler(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if not {"Content-Length", "Transfer-Encoding"} & reply.headers.keys():
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body[: reply.cut])
                if reply.cut is not None:
                    self.close_connection = True

            do_GET = do_POST = do_HEAD = _do  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", self._port), Answers)
        self._port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self._port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextmanager
def site() -> Iterator[Site]:
    found = Site().up()
    try:
        yield found
    finally:
        found.down()


class Held:
    """A file on a site, served as a good server does: ranges, If-Range, ETag. ``cuts``: after how
    many bytes of each answer in turn the connection breaks."""

    def __init__(self, body: bytes, *, cuts: tuple[int, ...] = (), ranges: bool = True) -> None:
        self.body, self.cuts, self.ranges = body, list(cuts), ranges

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'

    def __call__(self, request: Request) -> Reply:
        wanted = request.headers.get("Range")
        begin = 0
        if wanted and self.ranges and request.headers.get("If-Range") in {None, self.etag}:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(self.body):
                return Reply(416)
        headers = {"ETag": self.etag} if self.ranges else {}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(self.body) - 1}/{len(self.body)}"
        cut = self.cuts.pop(0) if self.cuts else None
        return Reply(206 if begin else 200, self.body[begin:], headers, cut)


def caller(*, per_second: float = 1000, **more: Any) -> Caller:
    """A client that may call this machine, and waits no longer than it must."""
    return Caller(LOOPBACK, per_second=per_second, **more)


def downloads(most: int = 1 << 30, **more: Any) -> Downloads:
    return Downloads(caller(**more), most)
