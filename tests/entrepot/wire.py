"""The platform on a socket, and a configuration that publishes there."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.entrepot.answers import answer
from tests.entrepot.state import ENDPOINT, INTEGRATION, ROOT, TOKEN, Fault, Platform, Refusal


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that is killed is what some tests are about."""


def _handler(platform: Platform, turn: threading.Lock) -> type[BaseHTTPRequestHandler]:
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits for an acknowledgement

        def _do(self) -> None:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
            path = parts.path.removeprefix(ROOT)
            call = f"{self.command} {path}"
            fault = next((f for f in platform.faults if re.fullmatch(f.calls, call)), None)
            if fault is not None:
                fault.times -= 1
                if fault.times <= 0:
                    platform.faults.remove(fault)
            length = int(self.headers.get("Content-Length") or 0)
            if fault is not None and fault.cut is not None:
                self._cut(path, query, self.rfile.read(min(fault.cut, length)), fault)
                return
            raw = self.rfile.read(length)
            with turn:
                platform.calls.append(call)
                if fault is not None and fault.run is not None:
                    fault.run()
                try:
                    if fault is not None and fault.status is not None:
                        raise Refusal(fault.status, "on purpose", after=fault.after)
                    if path == "/token":
                        document, head = self._login(raw), {}
                    else:
                        self._admit()
                        body = self._body(raw)
                        document, head = answer(platform, self.command, path, query, body)
                    status = 200
                except Refusal as error:
                    document = {"error_description": error.words}
                    head = {"Retry-After": error.after} if error.after else {}
                    status = error.status
            if fault is not None and fault.drop:
                self.close_connection = True
                self.connection.close()
                return
            self._send(status, document, head)

        def _send(self, status: int, document: Any, head: dict[str, str]) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            for name, value in head.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _cut(self, path: str, query: dict[str, str], raw: bytes, fault: Fault) -> None:
            """Keep the half of a file that came."""
            upload = path.split("/")[1]
            with turn:
                platform.calls.append(f"{self.command} {path}")
                place = platform.home(upload) / query["path"]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(raw.partition(b"\r\n\r\n")[2])
            if fault.run is not None:
                fault.run()
            self.close_connection = True
            self.connection.close()

        def _login(self, raw: bytes) -> Any:
            form = {k: v[0] for k, v in parse_qs(raw.decode()).items()}
            platform.logins.append(form)
            if form.get("client_secret") != "right":
                raise Refusal(401, "invalid_client")
            token = f"{TOKEN}-{len(platform.logins)}"
            platform.tokens.add(token)
            return {"access_token": token, "expires_in": 300}

        def _admit(self) -> None:
            said = self.headers.get("Authorization", "")
            if said.removeprefix("Bearer ") not in platform.tokens:
                raise Refusal(401, f"you said {said}")

        def _body(self, raw: bytes) -> Any:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                boundary = kind.partition("boundary=")[2].encode()
                head, _, rest = raw.partition(b"\r\n\r\n")
                name = re.search(rb'filename="([^"]+)"', head)
                assert name is not None
                return name[1].decode(), rest[: rest.rindex(b"\r\n--" + boundary)]
            return json.loads(raw) if raw else None

        do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Answers


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """A platform that listens."""
    found = Platform(folder)
    server = _Server(("127.0.0.1", 0), _handler(found, threading.Lock()))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def configuration(found: Platform, folder: Path, **more: str) -> Path:
    """A configuration file that publishes there."""
    tables = {"service": f'type = "WFS"\nendpoint = "{ENDPOINT}"', **more}
    top = tables.pop("top", f'processing = "{INTEGRATION}"')
    path = folder / "m.toml"
    path.write_text(
        f'[publication]\nurl = "{found.url}/api"\ndatastore = "here"\n{top}\n'
        f'networks = ["127.0.0.0/8"]\ntoken_url = "{found.url}/token"\n'
        "poll_seconds = 0.01\ncalls_per_second = 1000\n"
        + "".join(f"[publication.{name}]\n{text}\n" for name, text in tables.items())
    )
    return path
