"""Secrets, every form in which they could get out, and servers that repeat what they are sent."""

from __future__ import annotations

import base64
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote


def forms(secret: str) -> set[str]:
    """A secret as it is, for a URL, in base64 alone and at either place after other bytes."""
    found = {secret, quote(secret, safe="")}
    for before in ("", "a", "ab"):
        whole = base64.b64encode((before + secret).encode()).decode()
        found.add(whole[4 if before else 0 :].rstrip("=")[:-2])
    return found


def leaks(text: str, secrets: dict[str, str]) -> list[str]:
    """Names of the secrets that stand in a text, in any form."""
    return [name for name, secret in secrets.items() if any(f in text for f in forms(secret))]


class _Repeats(BaseHTTPRequestHandler):
    """Refuses, and says what it was asked."""

    def do_GET(self) -> None:
        asked = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = f"{self.requestline}\n{self.headers}\n".encode() + asked
        self.server.heard.append(body.decode(errors="replace"))  # type: ignore[attr-defined]
        self.send_response(401, "you said " + self.headers.get("authorization", "nothing"))
        self.send_header("content-length", str(len(body)))
        self.send_header("www-authenticate", self.headers.get("authorization", "nothing"))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _RepeatsMail(socketserver.StreamRequestHandler):
    """Wants a login, refuses it, and says which it was."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line.split(b" ", 1)[0].strip().upper()
            self.server.heard.append(line.decode().strip())  # type: ignore[attr-defined]
            if word == b"EHLO":
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                said = line.strip().split(b" ")[-1]
                plain = base64.b64decode(said + b"===", validate=False).replace(b"\0", b" ")
                self.wfile.write(b"535 5.7.8 refused: " + said + b" " + plain + b"\r\n")


@contextmanager
def repeating(kind: str) -> Iterator[tuple[int, list[str]]]:
    """A server (``http`` or ``mail``) that refuses everything and repeats it; gives its port and
    what it hears."""
    server: socketserver.BaseServer
    if kind == "http":
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Repeats)
    else:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _RepeatsMail)
    heard: list[str] = []
    server.heard = heard  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        server.server_close()
