"""Who publishes: the token of every call, and what all calls to the platform share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import httpx

from daemon.acquire.http import Passing
from daemon.publish.settings import PublicationSettings, secret, secret_name
from schemas.errors import MillesimedError

EARLY_SECONDS: Final = 30.0
"""A token is renewed so long before it ends."""


class PublishError(MillesimedError):
    """The map cannot be published, or not now; what was done is kept, another run goes on."""

    reason = "publish"


class PlatformRefused(PublishError):
    """The platform answers, but with a status that another try will not change."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Bearer(httpx.Auth):
    """A token for every call: the one given, or one that is had for credentials, renewed before it
    ends and once more where the platform says 401 all the same."""

    def __init__(self, settings: PublicationSettings, call: Callable[..., httpx.Response]) -> None:
        self._settings, self._call = settings, call
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header; once more with a fresh token after 401. A file that went with the call
        was read to its end by then, so that is left to the next try."""
        token = self._current("")
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        if answer.status_code != 401:
            return
        fresh = self._current(token)
        if fresh == token:
            return
        if "multipart" in request.headers.get("content-type", ""):
            raise Passing(f"{place_of(request.url)} wanted a fresh token")
        request.headers["Authorization"] = f"Bearer {fresh}"
        yield request

    def _current(self, refused: str) -> str:
        """A token that holds, other than the refused one where there is another."""
        given = secret("token")
        if given is not None:
            return given.get_secret_value()
        if self._settings.token_file is not None:
            return _read(self._settings.token_file)
        with self._lock:
            if self._token in {"", refused} or time.monotonic() >= self._ends:
                self._renew()
            return self._token

    def _renew(self) -> None:
        try:
            found = json_of(
                self._call("POST", self._settings.token_url, data=self._credentials(), auth=None)
            )
        except PlatformRefused as error:
            raise PublishError(
                f"The token service refuses the credentials (status {error.status}); check "
                f"{secret_name('client_id')} and what goes with it."
            ) from None
        token = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str):
            raise PublishError("The token service gives no token; check `token_url`.")
        self._token = token
        lasts = float(found.get("expires_in") or 0)
        self._ends = time.monotonic() + max(0.0, lasts - EARLY_SECONDS)

    def _credentials(self) -> dict[str, str]:
        words: list[str] = ["client_id", "client_secret", "user", "password"]
        found = {w: held.get_secret_value() for w in words if (held := secret(w)) is not None}
        client = {word: found[word] for word in words[:2] if word in found}
        if {"client_id", "user", "password"} <= found.keys():
            person = {"username": found["user"], "password": found["password"]}
            return {"grant_type": "password", **client, **person}
        if {"client_id", "client_secret"} <= found.keys():
            return {"grant_type": "client_credentials", **client}
        raise PublishError(
            f"There is no token to publish with; set {secret_name('token')}, or "
            f"{secret_name('client_id')} and {secret_name('client_secret')}, in the environment."
        )


def _read(path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    if not found or not found.isascii() or not found.isprintable():
        raise PublishError(f"There is no token in {path}; check `publication.token_file`.")
    return found


def json_of(answer: httpx.Response) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The JSON of an answer.

    Raises:
        PublishError: it is none.
    """
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise PublishError(
            f"{place_of(answer.request.url)} does not answer in JSON; check `publication.url`."
        ) from None


def place_of(url: httpx.URL) -> str:
    """Host and path, without query and credentials."""
    return f"{url.host}{url.path}"[:200]
