"""Who may do what over HTTP, and how often: bearer tokens, of which only the SHA-256 is kept.

A token is 32 random bytes, so a plain hash is enough: there is nothing to guess. What is sent is
compared with every configured token in constant time. Calls are counted for each token, and for
each address where no known token comes with them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets as randomness
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Annotated, Final

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from daemon.config import Scope, TokenSettings
from schemas.errors import UsageError

TOKEN_PREFIX: Final = "msm_"  # noqa: S105 - what all of them begin with
"""So that a scanner for leaked secrets knows one when it sees it."""
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A bare key of TOML, so that what is printed can be pasted."""
MOST_BUCKETS: Final = 10_000
"""Callers remembered (a megabyte or so); the one not heard from for longest is forgotten, and one
who is forgotten is no worse off than a new one."""
IPV6_SITE: Final = 64
"""Bits of an IPv6 address that name a caller: whoever has one address has all below it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls a second in the long run, and how many may come at once."""

    per_second: float
    burst: int


TOKEN_RATE: Final = Rate(10.0, 200)
"""A script that carries a few thousand subscriptions over is done within minutes; one that loops
without end leaves most of the store's time, which writers share, to the service."""
ADDRESS_RATE: Final = Rate(2.0, 120)
"""Dozens of people behind one office address who open a page at once; guessing tokens, which 32
random bytes make hopeless anyway, stays far from any load."""

BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="A token made with `millesimed token NAME`. Scopes: `read`, `subscribe`, `review`, "
    "and `admin` for all of them.",
)


class Buckets:
    """Token buckets by caller."""

    def __init__(
        self, rate: Rate, *, most: int = MOST_BUCKETS, clock: Callable[[], float] = monotonic
    ) -> None:
        self._rate, self._most, self._clock = rate, most, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, caller: str) -> float:
        """Count a call: 0 where it may go on, else the seconds until one may."""
        rate = self._rate
        with self._lock:
            now = self._clock()
            level, then = self._levels.pop(caller, (float(rate.burst), now))
            level = min(float(rate.burst), level + (now - then) * rate.per_second)
            missing = 1.0 - level
            self._levels[caller] = (level if missing > 0 else level - 1.0, now)
            while len(self._levels) > self._most:
                self._levels.popitem(last=False)
        return missing / rate.per_second if missing > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the name of the token, none without one, whether it is an admin's, and the
    territories it may correct (none: everywhere)."""

    name: str | None
    is_admin: bool = False
    territories: tuple[str, ...] = ()

    def may_see(self, owner: str | None) -> bool:
        """True for what was made with the caller's own token, and for an admin."""
        return self.is_admin or (self.name is not None and owner == self.name)


@dataclass(slots=True)
class Gate:
    """Lets callers in by their token, not too often."""

    tokens: Mapping[str, TokenSettings] = field(default_factory=dict)
    by_token: Buckets = field(default_factory=lambda: Buckets(TOKEN_RATE))
    by_address: Buckets = field(default_factory=lambda: Buckets(ADDRESS_RATE))
    public_read: bool = True
    """What ``read`` allows needs no token."""

    def admit(self, token: str | None, client: str, scope: Scope | None) -> str | None:
        """Count a call and let it pass; gives the name of its token. Without a ``scope``, and for
        reading where that is public, none is needed, but one that is sent must be known.

        Raises:
            HTTPException: 401, 403 or 429, with the headers that go with it.
        """
        name = self.name_of(token)
        _count(self.by_address, site(client)) if name is None else _count(self.by_token, name)
        return self.judged(token, scope)

    def judged(self, token: str | None, scope: Scope | None) -> str | None:
        """The same without counting: for what comes by the dozen and is bounded elsewhere.

        Raises:
            HTTPException: 401 or 403, with the headers that go with it.
        """
        name = self.name_of(token)
        is_open = scope is None or (scope is Scope.READ and self.public_read)
        if name is not None:
            allowed = {scope, Scope.ADMIN} & set(self.tokens[name].scopes)
            if scope is not None and not is_open and not allowed:
                raise HTTPException(
                    403,
                    f"This token may not do that; take one with the scope {scope.value!r}.",
                    {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
                )
            return name
        if token is None and is_open:
            return None
        if not self.tokens:
            raise HTTPException(
                403,
                f"This service has no tokens, so nobody may do that; make one with "
                f"`millesimed token NAME --scope {scope or Scope.READ}` and paste its lines into "
                "the configuration.",
            )
        raise HTTPException(
            401,
            "Send a token this service knows, as `Authorization: Bearer …`; `millesimed token "
            "NAME` makes one.",
            {"WWW-Authenticate": "Bearer" if token is None else 'Bearer error="invalid_token"'},
        )

    def caller(self, name: str | None) -> Caller:
        """Whoever has the token of that name."""
        if name is None:
            return Caller(None)
        known = self.tokens[name]
        return Caller(name, Scope.ADMIN in known.scopes, tuple(known.territories))

    def name_of(self, token: str | None) -> str | None:
        """The name of a token; every configured one is compared, whichever it is."""
        if token is None:
            return None
        sent, found = digest(token), None
        for name, known in self.tokens.items():
            if hmac.compare_digest(sent, known.sha256):
                found = name
        return found


def needs(scope: Scope | None, *, counted: bool = True) -> Callable[..., Awaitable[Caller]]:
    """A FastAPI dependency: the caller may do this, and has not called too often. Without a
    ``scope`` everybody may, also where nothing is public. Not ``counted`` is what clients call by
    the hundred, page by page, and is bounded elsewhere."""

    async def check(
        request: Request,
        sent: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    ) -> Caller:
        gate: Gate = request.app.state.gate
        client = request.client.host if request.client else ""
        token = sent.credentials if sent else None
        name = gate.admit(token, client, scope) if counted else gate.judged(token, scope)
        return gate.caller(name)

    return check


def site(client: str) -> str:
    """What an address is counted by: itself, or for IPv6 the network it is in."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{int(address) >> (128 - IPV6_SITE):x}/{IPV6_SITE}"
    return str(address)


def _count(buckets: Buckets, caller: str) -> None:
    wait = buckets.wait(caller)
    if wait > 0:
        seconds = math.ceil(wait)
        raise HTTPException(
            429,
            f"Too many calls; call again in {seconds} s.",
            {"Retry-After": str(seconds)},
        )


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def made(name: str, scopes: Sequence[Scope], territories: Sequence[str] = ()) -> tuple[str, str]:
    """A fresh token, and the lines of configuration that make the service know it; ``territories``
    bind it.

    Raises:
        UsageError: the name is no bare key of TOML.
    """
    if not NAME.fullmatch(name):
        raise UsageError("A token's name has up to 64 letters, digits, - and _; choose another.")
    token = TOKEN_PREFIX + randomness.token_urlsafe(32)
    listed = json.dumps([scope.value for scope in dict.fromkeys(scopes)])
    bound = f"territories = {json.dumps(list(territories))}\n" if territories else ""
    lines = f'[http.tokens.{name}]\nsha256 = "{digest(token)}"\nscopes = {listed}\n{bound}'
    return token, lines
