"""Where webhooks may go: to public addresses, and to the networks the settings name.

A subscriber chooses the address that this service calls, from inside the operator's network. So
the host is resolved once, every address it leads to is judged, and the connection is made to the
very address that was judged: a name that leads elsewhere a moment later changes nothing. TLS and
``Host`` still speak of the name.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from time import monotonic
from typing import Any, Final

import httpcore
import httpx

from schemas.errors import MillesimedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[Address]]

NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address meant."""
REFUSED: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments, 192.0.0.192 among them
        "192.88.99.0/24",  # 6to4 relays
        "2001::/32",  # Teredo: a tunnel whose other end nobody has judged
        "3fff::/20",  # documentation
        "fec0::/10",  # site-local, given up but still routed in places
    )
)
"""Special ranges that not every Python release counts as private."""


MOST_TRIED: Final = 2
"""Addresses of one host that are tried: one of each family. A name with a hundred dead ones would
hold everyone up."""
LONGEST_SECONDS: Final = 20.0
"""From the call to the end of its answer. Time-outs count from byte to byte, and a receiver that
sends one byte at a time would otherwise hold everyone up for days."""
_DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)


class AddressRefused(MillesimedError):
    """A webhook's host leads where the service may not call."""

    reason = "address-not-allowed"


def resolved(host: str, port: int) -> list[Address]:
    """Every address of a host, as the system's resolver gives them.

    Raises:
        OSError: the name is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(info[4][0]) for info in found))


def meant(address: Address) -> Address:
    """The IPv4 address inside a mapped, 6to4 or NAT64 one, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_allowed(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """True for a public address, and for one in a network that the settings name."""
    inner = meant(address)
    if any(inner in network or address in network for network in allowed):
        return True
    return (
        inner.is_global
        and not inner.is_multicast
        and not inner.is_reserved
        and not any(inner in network for network in REFUSED)
    )


def checked(
    host: str, port: int, allowed: Iterable[Network] = (), *, resolve: Resolve = resolved
) -> Sequence[Address]:
    """The addresses of a host, all of them allowed. One bad address refuses the host: which one
    is called must not be left to chance.

    Raises:
        AddressRefused: one is loopback, private, link-local or otherwise not public.
        OSError: the name is not known.
    """
    networks = list(allowed)
    found = resolve(host, port)
    if not all(is_allowed(address, networks) for address in found):
        raise AddressRefused(
            f"address not allowed: {host} is not a public address; choose another, or name its "
            "network in `webhook_networks`."
        )
    return found


class CheckedBackend(httpcore.NetworkBackend):
    """Opens connections to judged addresses only."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that answers.

        Raises:
            AddressRefused: the host may not be called.
            ConnectError, ConnectTimeout: nothing answers.
        """
        try:
            addresses = checked(host, port, self._allowed, resolve=self._resolve)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address ({error})") from None
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses[:MOST_TRIED]:
            try:
                stream = self._sockets.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
                return _Bounded(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Bounded(httpcore.NetworkStream):
    """A connection whose reads end with the call's deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore declares it
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, error: type[Exception]) -> float | None:
    """What is left of a time-out before the deadline, seconds."""
    left = min(math.inf if timeout is None else timeout, _DEADLINE.get() - monotonic())
    if left <= 0:
        raise error("the answer took too long")
    return None if left == math.inf else left


class CheckedTransport(httpx.BaseTransport):
    """HTTP/1.1 for ``httpx.Client`` over judged addresses; connections are kept by host name, so
    that two names at one address never share a TLS session."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolved,
        longest: float = LONGEST_SECONDS,
    ) -> None:
        """``tls``: whom to trust; none trusts what httpx does. ``longest``: seconds a call may
        take in all."""
        self._longest = longest
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(trust_env=False),
            network_backend=CheckedBackend(allowed, resolve),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            AddressRefused: the host may not be called.
            httpx.TransportError: no connection, or no answer in time.
        """
        url = request.url
        if not isinstance(request.stream, httpx.SyncByteStream):
            raise TypeError("only requests of httpx.Client are carried")
        deadline = monotonic() + self._longest
        with _as_httpx(), _until(deadline):
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer, deadline),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Let go of connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer as it comes."""

    def __init__(self, answer: httpcore.Response, deadline: float) -> None:
        self._answer, self._deadline = answer, deadline

    def __iter__(self) -> Iterator[bytes]:
        parts = self._answer.iter_stream()
        while True:
            with _as_httpx(), _until(self._deadline):
                part = next(parts, None)
            if part is None:
                return
            yield part

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _until(deadline: float) -> Iterator[None]:
    """Reads and writes of this thread end by a time of the monotonic clock."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


@contextmanager
def _as_httpx() -> Iterator[None]:
    """httpcore's errors under the names they have in httpx."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error
