"""A pull subscription of the Copernicus Data Space: a queue of notices, read and acknowledged.

An acknowledgement takes everything before it out of the queue, so it is only given once the events
are durably written; what could not be fetched is by then a debt of this service's own.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pystac
import structlog

from daemon.acquire.archives import unpack
from daemon.acquire.bands import in_product, stack, wanted_of
from daemon.acquire.files import Checksum, Downloads, safe_name
from daemon.acquire.http import Caller, json_of
from daemon.acquire.items import acquired_of
from daemon.acquire.settings import CopernicusSource, secret, secret_name
from daemon.acquire.watcher import AcquireError, Cursor, Page, Ref
from daemon.announce import item_of
from schemas.policy import Sensor

log = structlog.get_logger()

MOST_READ: Final = 20
"""Notifications of one answer, the most the service gives."""
MOST_ROUNDS: Final = 5_000
"""Answers of one look: as many as the longest queue has."""
NEWS: Final = frozenset({"created", "modified"})
"""Events that mean an image; a deletion takes nothing back that the map has seen."""
EARLY_SECONDS: Final = 30.0
"""A token is renewed so long before it ends."""
PUBLIC_CLIENT: Final = "cdse-public"
KEPT: Final = ("Id", "Name", "ContentLength", "Checksum", "ContentDate", "Online")
"""What of a product is needed to fetch it."""


class CopernicusWatcher:
    """One subscription."""

    def __init__(
        self,
        settings: CopernicusSource,
        folder: Path,
        caller: Caller,
        downloads: Downloads,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._folder = settings, folder
        self._caller, self._downloads = caller, downloads
        self._auth = _Token(settings, caller, clock)

    def poll(self, cursor: Cursor) -> Iterator[Page]:
        """What is in the queue, oldest first; acknowledged when the caller comes back for more."""
        root = f"{self._settings.catalogue}/Subscriptions({self._settings.subscription})"
        for _ in range(MOST_ROUNDS):
            answer = self._caller.get(
                f"{root}/Read", params={"$top": str(MOST_READ)}, auth=self._auth
            )
            messages = json_of(answer)
            messages = messages.get("value") if isinstance(messages, dict) else messages
            if not isinstance(messages, list):
                raise AcquireError(f"{root}/Read does not answer with a list; check `catalogue`.")
            if not messages:
                return
            last = messages[-1].get("AckId")
            # announced already where a crash came before the acknowledgement
            known = last == cursor.get("ack")
            refs = [ref for m in messages if not known and (ref := _ref(m)) is not None]
            cursor = {"ack": last}
            yield Page(refs, dict(cursor))
            done = self._caller.call(
                "POST", f"{root}/Ack", params={"$ackid": str(last)}, auth=self._auth
            )
            left = json_of(done)
            log.info(
                "acknowledged", source=self._settings.name, left=left.get("CurrentQueueLength")
            )
            if not left.get("AckMessagesNum"):
                raise AcquireError(
                    f"The subscription {self._settings.subscription} acknowledges nothing; "
                    "see the state of it."
                )

    def fetch(self, ref: Ref) -> list[pystac.Item]:
        """Download a product, take its bands out, make one image of them."""
        product = ref.data.get("product") or self._product(ref.data["id"])
        if product.get("Online") is False:
            raise AcquireError(f"{ref.label} is not online yet.")
        name = safe_name(str(product["Name"]).removesuffix(".SAFE"))
        image = self._folder / f"{name}.tif"
        if not image.is_file():
            self._make(product, image)
        dates = product.get("ContentDate") or {}
        found = acquired_of({"id": name, "properties": {"datetime": dates.get("Start")}})
        return [
            item_of(
                image,
                acquired=found,
                sensor=self._settings.sensor or Sensor.SENTINEL_2,
                departement=self._settings.departement,
            )
        ]

    def _make(self, product: dict[str, Any], image: Path) -> None:
        archive, unpacked = image.with_suffix(".zip"), image.with_suffix(".SAFE")
        sums = {str(c.get("Algorithm")).upper(): c.get("Value") for c in product["Checksum"] or []}
        checksum = Checksum.md5(sums.get("MD5")) if self._settings.verify else None
        self._downloads.fetch(
            f"{self._settings.download}/Products({product['Id']})/$value",
            archive,
            checksum=checksum,
            size=product.get("ContentLength") or None if checksum else None,
            auth=self._auth,
        )
        wanted = wanted_of(self._settings.bands)
        unpack(
            [archive],
            unpacked,
            wanted=lambda member: wanted.search(member) is not None,
            most=self._settings.max_bytes,
        )
        stack(in_product(unpacked, self._settings.bands), image)
        archive.unlink()
        shutil.rmtree(unpacked)

    def _product(self, id_: str) -> dict[str, Any]:
        """A product whose details have left the queue; they stay there for three days."""
        answer = self._caller.get(f"{self._settings.catalogue}/Products({id_})", auth=self._auth)
        found = _product(json_of(answer))
        if found is None:
            raise AcquireError(f"The catalogue does not describe the product {id_}.")
        return found

    def close(self) -> None:
        """Let go of connections."""
        self._caller.close()


def _ref(message: dict[str, Any]) -> Ref | None:
    """A notification that means an image."""
    events = message.get("SubscriptionEvent") or "created"
    words = {events} if isinstance(events, str) else set(events)
    id_ = message.get("ProductId")
    if not words & NEWS or not isinstance(id_, str):
        return None
    product = _product(message.get("value"))
    stamp = (product or {}).get("stamp") or message.get("NotificationDate") or ""
    label = str((product or {}).get("Name") or message.get("ProductName") or id_)
    return Ref(f"{id_}@{stamp}", label, {"id": id_, "product": product})


def _product(found: object) -> dict[str, Any] | None:
    """What is needed of a product's description."""
    if not isinstance(found, dict) or not found.get("Id") or not found.get("Name"):
        return None
    kept = {key: found.get(key) for key in KEPT}
    return {**kept, "stamp": found.get("ModificationDate")}


class _Token(httpx.Auth):
    """Bearer tokens that last ten minutes: had when needed, renewed before they end, and once more
    where the server says 401 all the same."""

    def __init__(
        self, settings: CopernicusSource, caller: Caller, clock: Callable[[], float]
    ) -> None:
        self._settings, self._caller, self._clock = settings, caller, clock
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header; once more with a fresh token after 401."""
        token = self._current("")
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        if answer.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self._current(token)}"
            yield request

    def _current(self, refused: str) -> str:
        """A token that holds, other than the refused one."""
        with self._lock:
            if self._token in {"", refused} or self._clock() >= self._ends:
                document = json_of(
                    self._caller.call("POST", self._settings.token_url, data=self._credentials())
                )
                token = document.get("access_token") if isinstance(document, dict) else None
                if not isinstance(token, str):
                    raise AcquireError("The token service gives no token; check the credentials.")
                self._token = token
                lasts = float(document.get("expires_in") or 0)
                self._ends = self._clock() + max(0.0, lasts - EARLY_SECONDS)
            return self._token

    def _credentials(self) -> dict[str, str]:
        name = self._settings.name
        found = {
            word: held.get_secret_value()
            for word in ("client_id", "client_secret", "user", "password")
            if (held := secret(name, word)) is not None
        }
        if {"client_id", "client_secret"} <= found.keys():
            return {
                "grant_type": "client_credentials",
                "client_id": found["client_id"],
                "client_secret": found["client_secret"],
            }
        if {"user", "password"} <= found.keys():
            return {
                "grant_type": "password",
                "client_id": found.get("client_id", PUBLIC_CLIENT),
                "username": found["user"],
                "password": found["password"],
            }
        raise AcquireError(
            f"{name} has no credentials; set {secret_name(name, 'user')} and "
            f"{secret_name(name, 'password')} in the environment."
        )
