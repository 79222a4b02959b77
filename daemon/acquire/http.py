"""Calling the servers images come from: paced, patient, over judged addresses only.

What passes is tried again (no connection, 429, 5xx): with exponential backoff and jitter, or after
the time the server asks for. Errors name host and path, never the query: it may hold a signature.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from xml.etree import ElementTree as Xml

import httpx
import structlog

from daemon.acquire.watcher import AcquireError, Stopped
from daemon.addresses import AddressRefused, CheckedTransport, Network

log = structlog.get_logger()

TRIES: Final = 5
FIRST_WAIT: Final = 0.5
LONGEST_BACKOFF: Final = 60.0
LONGEST_ASKED: Final = 300.0
"""A server that asks for more seconds than this is left until the next look."""
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that pass."""
TIMEOUT: Final = 60.0
ANSWER_SECONDS: Final = 300.0
"""Longest a whole answer takes to come; downloads are another matter."""
DOWNLOAD_SECONDS: Final = 6 * 3600.0
"""Longest one connection may carry a download; it is resumed on the next."""
MOST_ANSWER: Final = 64 << 20
"""Bytes of a listing; a page of a thousand STAC items has about ten million."""
AGENT: Final = "millesimed"

Wait = Callable[[float], bool]
"""Waits some seconds; True where the service is asked to stop."""


class Refused(AcquireError):
    """The server answers, but with a status that another try will not change."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Unreachable(AcquireError):
    """The server does not answer, or not now."""


def pause(seconds: float) -> bool:
    """Wait with nobody to say stop."""
    time.sleep(seconds)
    return False


class Caller:
    """An HTTP client of one source; threads may share it."""

    def __init__(
        self,
        networks: Sequence[Network] = (),
        *,
        per_second: float = 5.0,
        wait: Wait = pause,
        tries: int = TRIES,
    ) -> None:
        """``networks``: those that may be called though they are not public."""
        self._wait, self._tries, self._gap = wait, tries, 1.0 / per_second
        self._turn = threading.Lock()
        self._free = 0.0
        self._clients = [
            httpx.Client(
                transport=CheckedTransport(networks, longest=longest),
                timeout=TIMEOUT,
                follow_redirects=True,
                trust_env=False,
                headers={"User-Agent": AGENT},
                event_hooks={"response": [keeps_tls]},
            )
            for longest in (ANSWER_SECONDS, DOWNLOAD_SECONDS)
        ]

    def close(self) -> None:
        """Let go of connections."""
        for client in self._clients:
            client.close()

    def get(self, url: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - as httpx has it
        """A whole answer; arguments as ``httpx.Client.request``.

        Raises:
            Refused, Unreachable, AcquireError, Stopped.
        """
        return self.call("GET", url, **more)

    def call(self, method: str, url: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        """A whole answer of at most ``MOST_ANSWER`` bytes.

        Raises:
            Refused, Unreachable, AcquireError, Stopped.
        """
        for number in range(1, self._tries + 1):
            try:
                with self._opened(self._clients[0], method, url, more) as answer:
                    body = bytearray()
                    for part in answer.iter_bytes():
                        body += part
                        if len(body) > MOST_ANSWER:
                            raise AcquireError(
                                f"{_place(url)} answers with more than {MOST_ANSWER >> 20} MiB; "
                                "ask it for smaller pages."
                            )
                    return httpx.Response(
                        answer.status_code,
                        headers=_decoded(answer.headers),
                        content=bytes(body),
                        request=answer.request,
                    )
            except Passing as error:
                self.retry(number, error, url)
        raise AssertionError("the last try raises")

    @contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str], auth: httpx.Auth | None = None
    ) -> Iterator[httpx.Response]:
        """One try at an answer whose bytes are read as they come; any status below 400, and 416.

        Raises:
            Passing: try again. Refused, AcquireError, Stopped.
        """
        more: dict[str, Any] = {"headers": dict(headers)}
        if auth is not None:
            more["auth"] = auth
        with self._opened(self._clients[1], "GET", url, more) as answer:
            yield answer

    def retry(self, number: int, error: Passing, url: str) -> None:
        """Wait before the next try.

        Raises:
            Unreachable: this was the last one. Stopped.
        """
        asked = error.after or 0.0
        if number >= self._tries or asked > LONGEST_ASKED:
            raise Unreachable(f"{_place(url)} cannot be had ({error}); it is tried again later.")
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it
        backoff = min(LONGEST_BACKOFF, FIRST_WAIT * 2 ** (number - 1)) * spread
        log.info("acquire_retry", place=_place(url), error=str(error), number=number)
        self.sleep(max(asked, backoff))

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: the service is asked to stop.
        """
        if self._wait(seconds):
            raise Stopped

    @contextmanager
    def _opened(
        self, client: httpx.Client, method: str, url: str, more: dict[str, Any]
    ) -> Iterator[httpx.Response]:
        self._take_turn()
        try:
            with client.stream(method, url, **more) as answer:
                _judge(answer, url)
                yield answer
        except AddressRefused:
            raise AcquireError(
                f"{_place(url)} leads to an address that is not public; name its network in "
                "`acquire_networks` if that is meant."
            ) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise AcquireError(f"{_place(url)} is no address that can be called.") from None
        except httpx.TooManyRedirects:
            raise AcquireError(f"{_place(url)} redirects without end.") from None
        except httpx.DecodingError:
            raise AcquireError(f"{_place(url)} answers with bytes that cannot be read.") from None
        except httpx.TransportError as error:
            raise Passing(type(error).__name__) from None

    def _take_turn(self) -> None:
        with self._turn:
            now = time.monotonic()
            mine = max(self._free, now)
            self._free = mine + self._gap
        if mine > now:
            self.sleep(mine - now)


class Passing(Exception):
    """What may be gone on the next try; ``after``: seconds the server asks for."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


def _judge(answer: httpx.Response, url: str) -> None:
    status = answer.status_code
    if status < 400 or status == 416:
        return
    if status in PASSING:
        raise Passing(f"status {status}", asked_seconds(answer))
    advice = {
        401: "check its credentials",
        403: "check its credentials and rights",
        404: "it may be withdrawn",
        410: "it is withdrawn",
    }.get(status, "check the source's settings")
    raise Refused(status, f"{_place(url)} answers with status {status}; {advice}.")


def asked_seconds(answer: httpx.Response) -> float | None:
    """Seconds of Retry-After, given as such or as a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def keeps_tls(answer: httpx.Response) -> None:
    """A redirect from https to http would show the answer to everyone on the way."""
    if answer.has_redirect_location and answer.url.scheme == "https":
        to = answer.url.join(answer.headers["location"])
        if to.scheme != "https":
            raise AcquireError(f"{_place(str(answer.url))} redirects to an unprotected address.")


def _decoded(headers: httpx.Headers) -> list[tuple[str, str]]:
    gone = {"content-encoding", "content-length", "transfer-encoding"}
    return [(k, v) for k, v in headers.multi_items() if k.lower() not in gone]


def _place(url: str) -> str:
    """Host and path, without query and credentials."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "The address"
    return f"{parsed.host}{parsed.path}"[:200]


def json_of(answer: httpx.Response) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The JSON of an answer.

    Raises:
        AcquireError: it is none.
    """
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise AcquireError(
            f"{_place(str(answer.request.url))} does not answer in JSON; check the source's url."
        ) from None


def xml_of(body: bytes, place: str) -> Xml.Element:
    """The root of an XML document; entities, and with them bombs, are refused.

    Raises:
        AcquireError: no XML, or with a document type.
    """
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise AcquireError(f"{place} has a document type, which is not read.")
    try:
        return Xml.fromstring(body)  # noqa: S314 - without entities, as just seen
    except Xml.ParseError as error:
        raise AcquireError(f"{place} is no XML ({error}).") from None
