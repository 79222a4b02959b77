"""A gate in front of a broker that wants a login: SASL/PLAIN over TLS, which the test broker lacks.

It speaks the three requests of a Kafka login itself (ApiVersions, SaslHandshake, SaslAuthenticate)
and passes everything after it to the broker; what the broker says of its own address is changed to
the gate's. The login can expire: connections are cut and refused until it is good again.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

HERE = ("127.0.0.1", 0)
API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
UNSUPPORTED_VERSION, UNSUPPORTED_MECHANISM, REFUSED = 35, 33, 58
LOGIN_APIS = struct.pack(">hhhhhh", HANDSHAKE, 1, 1, AUTHENTICATE, 0, 1)


@dataclass
class Gate:
    """A listening gate; ``login``: the user and password that pass, None for nobody."""

    behind: int
    context: ssl.SSLContext
    login: tuple[str, str] | None
    refused: int = 0
    _listening: socket.socket = field(
        default_factory=lambda: socket.create_server(("127.0.0.1", 0))
    )
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    def expire(self, login: tuple[str, str] | None) -> None:
        """Another login from now on; whoever is inside is thrown out."""
        self.login = login
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Take connections until the gate is closed."""
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._guarded, args=(plain,), daemon=True).start()

    def close(self) -> None:
        """Close the gate and everything that goes through it."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.expire(None)

    def _guarded(self, plain: socket.socket) -> None:
        with suppress(OSError, EOFError), plain:
            client = self.context.wrap_socket(plain, server_side=True)
            self._open.add(client)
            try:
                with socket.create_connection(("127.0.0.1", self.behind)) as broker:
                    self._let_in(client, broker)
                    back = threading.Thread(target=self._pass_back, args=(broker, client))
                    back.start()
                    with suppress(OSError, EOFError):
                        while True:
                            _send(broker, _frame(client))
                    broker.shutdown(socket.SHUT_RDWR)
                    back.join(5)
            finally:
                self._open.discard(client)
                client.close()

    def _let_in(self, client: socket.socket, broker: socket.socket) -> None:
        """Answer until the login is good.

        Raises:
            EOFError: it is not, or the client went away.
        """
        while True:
            request = _frame(client)
            api, version, correlation, name = struct.unpack(">hhih", request[:10])
            body = request[10 + max(name, 0) :]
            head = struct.pack(">i", correlation)
            if api == API_VERSIONS and version:
                _send(client, head + struct.pack(">hi", UNSUPPORTED_VERSION, 0))
            elif api == API_VERSIONS:
                _send(broker, request)
                answer = _frame(broker)
                (count,) = struct.unpack(">i", answer[6:10])
                known = answer[10 : 10 + 6 * count] + LOGIN_APIS
                _send(client, answer[:6] + struct.pack(">i", count + 2) + known)
            elif api == HANDSHAKE:
                error = 0 if body[2:] == b"PLAIN" else UNSUPPORTED_MECHANISM
                _send(client, head + struct.pack(">hih5s", error, 1, 5, b"PLAIN"))
            elif api == AUTHENTICATE:
                _, user, password = body[4:].decode().split("\0")
                good = (user, password) == self.login
                self.refused += not good
                refusal = f"Authentication failed: {user}/{password} refused"
                text = b"" if good else refusal.encode()  # such brokers exist
                length = struct.pack(">hh", 0 if good else REFUSED, len(text))
                lifetime = struct.pack(">q", 0) if version else b""
                _send(client, head + length + text + struct.pack(">i", 0) + lifetime)
                if good:
                    return
                raise EOFError
            else:
                raise EOFError

    def _pass_back(self, broker: socket.socket, client: socket.socket) -> None:
        here, there = (struct.pack(">i", port) for port in (self.port, self.behind))
        with suppress(OSError, EOFError):
            while True:
                answer = _frame(broker)
                for host in (b"127.0.0.1", b"localhost"):
                    answer = answer.replace(host + there, host + here)
                _send(client, answer)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _frame(source: socket.socket) -> bytes:
    (length,) = struct.unpack(">i", _exactly(source, 4))
    return _exactly(source, length)


def _exactly(source: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = source.recv(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def _send(target: socket.socket, frame: bytes) -> None:
    target.sendall(struct.pack(">i", len(frame)) + frame)


@contextmanager
def gate(behind: int, context: ssl.SSLContext, login: tuple[str, str] | None) -> Iterator[Gate]:
    """A gate before the broker on a port, while it is needed."""
    found = Gate(behind, context, login)
    threading.Thread(target=found.serve, daemon=True).start()
    try:
        yield found
    finally:
        found.close()
