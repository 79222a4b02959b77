"""Calling the API Entrepôt: entities by kind and name, files, tags, logs.

Routes and bodies are those of sdk-entrepot and of the platform's public documentation, as of
2024-03; they were not tried against the real service. No call is repeated here: whoever calls looks
at the platform again before the next try, because a call whose answer was lost may have had its
effect. Errors name host and path and what the platform says, never what it was sent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import httpx
import structlog

from daemon.acquire.http import (
    FIRST_WAIT,
    LONGEST_ASKED,
    LONGEST_BACKOFF,
    PASSING,
    TRIES,
    Passing,
    asked_seconds,
)
from daemon.addresses import AddressRefused, CheckedTransport
from daemon.publish.settings import PublicationSettings
from daemon.publish.token import Bearer, PlatformRefused, PublishError, json_of, place_of
from schemas.errors import MillesimedError

log = structlog.get_logger()

TIMEOUT: Final = 60.0
"""Seconds without a byte."""
SEND_SECONDS: Final = 12 * 3600.0
"""Longest one file may take to send: 40 GB at a megabyte a second."""
EXECUTIONS: Final = "processings/executions"
PAGE: Final = 50
"""Entities of one answer."""
MOST_PAGES: Final = 200
LOG_LINES: Final = 2000
"""Lines of a log that are read; its end says what went wrong."""
SAID: Final = 300
"""Characters of the platform's own words that are passed on."""

Entity = dict[str, Any]
Tick = Callable[[int], None]
"""Told of bytes as they go."""


Wait = Callable[[float], None]
T = TypeVar("T")


def patiently(wait: Wait, call: Callable[[], T]) -> T:
    """What a call that changes nothing, or may be repeated, gives in the end.

    Raises:
        PublishError: it does not go well in ``TRIES``.
    """
    failures = 0
    while True:
        try:
            return call()
        except Passing as error:
            failures += 1
            bear(error, failures, wait)


def bear(error: Passing, failures: int, wait: Wait) -> None:
    """Wait after a call that failed: as long as the platform asks, else longer each time.

    Raises:
        PublishError: it was one too many.
    """
    asked = error.after or 0.0
    if failures >= TRIES or asked > LONGEST_ASKED:
        raise PublishError(f"{error}; run this again later to go on, nothing is lost.")
    log.info("publish_retry", error=str(error), number=failures)
    spread = random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it
    wait(max(asked, min(LONGEST_BACKOFF, FIRST_WAIT * 2 ** (failures - 1)) * spread))


class Entrepot:
    """One datastore of the platform."""

    def __init__(self, settings: PublicationSettings) -> None:
        self._root = f"{settings.url}/datastores/{settings.datastore}"
        self._gap, self._free = 1.0 / settings.calls_per_second, 0.0
        self._client = httpx.Client(
            transport=CheckedTransport(settings.networks, longest=SEND_SECONDS),
            timeout=TIMEOUT,
            follow_redirects=False,  # a redirected POST would arrive as a GET
            trust_env=False,
            headers={"User-Agent": "millesimed", "Accept": "application/json"},
        )
        self._auth = Bearer(settings, self._answer)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def find(self, kind: str, **wanted: str) -> Entity | None:
        """The first entity whose fields are these, whole; None where there is none.

        Raises:
            Passing, PlatformRefused, PublishError: as every call.
        """
        for found in self.every(kind, wanted):
            if all(found.get(name) == value for name, value in wanted.items()):
                return self.get(kind, str(found["_id"]))
        return None

    def every(self, kind: str, wanted: Mapping[str, str]) -> list[Entity]:
        """What a list gives for some filters, page after page."""
        found: list[Entity] = []
        for page in range(1, MOST_PAGES + 1):
            params = {**wanted, "page": str(page), "limit": str(PAGE)}
            answer = self._call("GET", kind, params=params)
            rows = json_of(answer)
            if not isinstance(rows, list):
                raise PublishError(f"{place_of(answer.request.url)} gives no list; check the url.")
            found += [row for row in rows if isinstance(row, dict) and "_id" in row]
            whole = answer.headers.get("content-range", "").rpartition("/")[2]
            if not rows or not whole.isdigit() or page * PAGE >= int(whole):
                break
        return found

    def get(self, kind: str, id_: str) -> Entity:
        """One entity."""
        return self._entity(self._call("GET", f"{kind}/{id_}"))

    def create(self, kind: str, body: Entity) -> Entity:
        """A new entity."""
        return self._entity(self._call("POST", kind, json=body))

    def replace(self, kind: str, id_: str, body: Entity | None = None) -> None:
        """Give an entity another content; an offering has none and takes up its configuration's."""
        more = {} if body is None else {"json": body}
        self._call("PUT", f"{kind}/{id_}", **more)

    def delete(self, kind: str, id_: str) -> None:
        """Remove an entity."""
        self._call("DELETE", f"{kind}/{id_}")

    def tag(self, kind: str, id_: str, tags: Mapping[str, str]) -> None:
        """Add tags, or give them other values."""
        self._call("POST", f"{kind}/{id_}/tags", json=dict(tags))

    def do(self, kind: str, id_: str, verb: str, body: list[str] | None = None) -> None:
        """Have something done to an entity: open, close, launch, checks."""
        more = {} if body is None else {"json": body}
        self._call("POST", f"{kind}/{id_}/{verb}", **more)

    def tree(self, upload: str) -> dict[str, int]:
        """Paths of a delivery's files and their sizes in bytes, without the leading ``data/``."""
        answer = self._call("GET", f"uploads/{upload}/tree")
        return dict(_files(json_of(answer)))

    def checks(self, upload: str) -> dict[str, list[Entity]]:
        """Checks of a delivery: asked, in_progress, passed, failed."""
        found = json_of(self._call("GET", f"uploads/{upload}/checks"))
        known = ("asked", "in_progress", "passed", "failed")
        return {name: list(found.get(name) or []) for name in known}

    def offerings(self, configuration: str) -> list[Entity]:
        """The offerings of a configuration."""
        rows = json_of(self._call("GET", f"configurations/{configuration}/offerings"))
        return [self.get("offerings", str(row["_id"])) for row in rows]

    def log(self, kind: str, id_: str) -> list[str]:
        """Lines of an execution's log; none where it has none."""
        try:
            params = {"page": "1", "limit": str(LOG_LINES)}
            lines = json_of(self._call("GET", f"{kind}/{id_}/logs", params=params))
        except (MillesimedError, Passing):
            return []
        return [str(line) for line in lines] if isinstance(lines, list) else []

    def send(self, upload: str, path: Path, *, remote: str | None, tick: Tick) -> None:
        """A file of a delivery, or without ``remote`` the file of its MD5."""
        verb, params = ("md5", {}) if remote is None else ("data", {"path": remote})
        with path.open("rb") as stream:
            files = {"file": (path.name, _Counted(stream, tick), "application/octet-stream")}
            self._call("POST", f"uploads/{upload}/{verb}", params=params, files=files)

    def unsend(self, upload: str, remote: str) -> None:
        """Remove a file of a delivery."""
        verb = "data" if "/" in remote else "md5"
        self._call("DELETE", f"uploads/{upload}/{verb}", params={"path": remote})

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        return self._answer(method, f"{self._root}/{path}", auth=self._auth, **more)

    def _answer(self, method: str, url: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        """A whole answer of a status below 300.

        Raises:
            Passing: it may go well on another try. PlatformRefused, PublishError.
        """
        now = time.monotonic()
        self._free = max(self._free, now) + self._gap
        time.sleep(max(0.0, self._free - self._gap - now))
        place = place_of(httpx.URL(url))
        try:
            answer = self._client.request(method, url, **more)
        except AddressRefused:
            raise PublishError(
                f"{place} leads to an address that is not public; name its network in "
                "`publication.networks` if that is meant."
            ) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise PublishError(f"{place} is no address that can be called.") from None
        except httpx.TransportError as error:
            raise Passing(f"{place} does not answer ({type(error).__name__})") from None
        if answer.status_code in PASSING:
            raise Passing(
                f"{place} answers with status {answer.status_code}", asked_seconds(answer)
            )
        if answer.status_code >= 300:
            raise PlatformRefused(
                answer.status_code,
                f"{place} answers with status {answer.status_code}{_said(answer)}; "
                f"{_advice(answer.status_code)}.",
            )
        return answer

    def _entity(self, answer: httpx.Response) -> Entity:
        found = json_of(answer)
        if not isinstance(found, dict) or "_id" not in found:
            raise PublishError(f"{place_of(answer.request.url)} gives no entity; check the url.")
        return found


def fed_with(api: Entrepot, stored: Entity, kind: str, **wanted: str) -> list[Entity]:
    """Executions that made or changed stored data of some input, oldest first."""
    rows = api.every(EXECUTIONS, {"output_stored_data": str(stored["_id"])})
    found = [api.get(EXECUTIONS, str(row["_id"])) for row in rows]
    ours = [
        one
        for one in found
        if any(
            all(entry.get(name) == value for name, value in wanted.items())
            for entry in (one.get("inputs") or {}).get(kind) or []
        )
    ]
    return sorted(ours, key=lambda one: str(one.get("creation")))


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, stream: IO[bytes], tick: Tick) -> None:
        self._stream, self._tick = stream, tick

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        found = self._stream.read(size)
        self._tick(len(found))
        return found

    def seek(self, to: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._stream.seek(to, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._stream.tell()

    def fileno(self) -> int:
        """Of the file below, by which its length is known."""
        return self._stream.fileno()


def _files(tree: Any, under: str = "") -> list[tuple[str, int]]:  # noqa: ANN401 - as JSON comes
    found: list[tuple[str, int]] = []
    for node in tree:
        path = f"{under}{node['name']}"
        if str(node.get("type")).upper() == "DIRECTORY":
            found += _files(node.get("children") or [], "" if path == "data" else f"{path}/")
        else:
            found.append((path, int(node["size"])))
    return found


def _said(answer: httpx.Response) -> str:
    """The platform's own words about a refusal, in brackets, without the token should it repeat
    that."""
    try:
        found = answer.json().get("error_description")
    except (ValueError, RecursionError, AttributeError):
        return ""
    words = "; ".join(map(str, found)) if isinstance(found, list) else str(found or "")
    sent = answer.request.headers.get("authorization", "").rpartition(" ")[2]
    words = words.replace(sent, "…") if sent else words
    text = " ".join(words.split())[:SAID].rstrip(".")
    return f" ({text})" if text else ""


def _advice(status: int) -> str:
    if 300 <= status < 400:
        return "it has moved, correct `publication.url`"
    return {
        401: "check the token, it may have expired",
        403: "check the rights of the account in this datastore",
        404: "check the ids in [publication]",
        409: "something of that name is in the way, see the datastore",
    }.get(status, "check [publication] in the configuration")
