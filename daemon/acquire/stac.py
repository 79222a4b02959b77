"""A STAC API asked for what is new.

An acquisition may come into a catalogue weeks after it was made, so every look begins some way
behind the newest one, and what was seen is known by id and ``updated``: an Item that was changed
since is fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pystac
import structlog
from pystac.errors import STACError
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from daemon.acquire.bands import Band, stack
from daemon.acquire.files import Downloads, safe_name
from daemon.acquire.http import Caller
from daemon.acquire.items import acquired_of, parts_of, sensor_of
from daemon.acquire.settings import StacSource, aware, secret
from daemon.acquire.watcher import AcquireError, Cursor, Page, Ref
from daemon.announce import item_of
from detectors.raster import open_dataset

log = structlog.get_logger()

MOST_PAGES: Final = 10_000
"""Pages of one look: a server that leads in circles is left."""


class StacWatcher:
    """One API."""

    def __init__(
        self,
        settings: StacSource,
        folder: Path,
        caller: Caller,
        downloads: Downloads,
        *,
        ground: Callable[[], BaseGeometry | None],
        now: Callable[[], datetime],
    ) -> None:
        """``folder``: where images go; ``ground``: outline looked at, degrees, None for all."""
        self._settings, self._folder = settings, folder
        self._caller, self._downloads = caller, downloads
        self._ground, self._now = ground, now
        token = secret(settings.name, "token")
        own = urlsplit(settings.url).netloc
        self._auth = _Token(token.get_secret_value(), own) if token else None

    def poll(self, cursor: Cursor) -> Iterator[Page]:
        """Items behind the cursor that were not seen in this form, page by page."""
        seen: dict[str, list[str]] = dict(cursor.get("seen", {}))
        begin = cursor.get("from") or aware(self._settings.since or self._now()).isoformat()
        newest = datetime.fromisoformat(begin)
        for features in self._pages(newest - self._overlap):
            refs = []
            for item in features:
                if not isinstance(item.get("id"), str):
                    continue
                acquired, stamp = _acquired(item) or newest, _stamp(item)
                if item["id"] not in seen or seen[item["id"]][0] != stamp:
                    refs.append(Ref(f"{item['id']}@{stamp}", item["id"], {"item": item}))
                    seen[item["id"]] = [stamp, acquired.isoformat()]
                newest = max(newest, acquired)
            yield Page(refs, {"from": begin, "seen": dict(seen)})
        newest = min(newest, self._now())  # a date in the future would hide what comes before it
        oldest = newest - self._overlap
        kept = {k: v for k, v in seen.items() if datetime.fromisoformat(v[1]) >= oldest}
        yield Page([], {"from": newest.isoformat(), "seen": kept})

    @property
    def _overlap(self) -> timedelta:
        return timedelta(days=self._settings.overlap_days)

    def _pages(self, begin: datetime) -> Iterator[list[dict[str, Any]]]:
        settings = self._settings
        where: dict[str, Any] = {}
        if settings.bbox is not None:
            where["bbox"] = list(settings.bbox)
        elif (ground := self._ground()) is not None:
            where["intersects"] = mapping(ground)
        if settings.query:
            where["query"] = settings.query
        try:
            client = Client.open(settings.url, stac_io=_CheckedIO(self._caller, self._auth))
            search = client.search(
                method=settings.method,
                collections=list(settings.collections),
                datetime=f"{begin.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}/..",
                limit=settings.page_size,
                **where,
            )
            for number, page in enumerate(search.pages_as_dicts()):
                if number >= MOST_PAGES:
                    raise AcquireError(f"{settings.url} gives pages without end; see its provider.")
                features = page.get("features")
                yield [f for f in features if isinstance(f, dict)] if features else []
        except (APIError, STACError, NotImplementedError) as error:
            raise AcquireError(
                f"{settings.url} is no STAC API that can be searched "
                f"({' '.join(str(error).split())[:160]}); check `url` and `method`."
            ) from None
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise AcquireError(
                f"{settings.url} answers with no STAC ({type(error).__name__}); check `url`."
            ) from None

    def fetch(self, ref: Ref) -> list[pystac.Item]:
        """Download the assets of an Item, and put bands together."""
        item = ref.data["item"]
        sensor = self._settings.sensor or sensor_of(item)
        parts = parts_of(item, self._settings.assets, sensor)
        folder = self._folder / safe_name(ref.key)
        files = []
        for part in parts:
            name = safe_name(Path(urlsplit(part.href).path).name or part.name)
            files.append(
                self._downloads.fetch(
                    part.href,
                    folder / name,
                    checksum=part.checksum,
                    size=part.size,
                    auth=self._auth,
                )
            )
        if len(files) == 1:
            image = files[0]
            open_dataset(image).close()
        else:
            bands = [Band(p.name, f, p.scale, p.offset) for p, f in zip(parts, files, strict=True)]
            image = stack(bands, folder / f"{safe_name(item['id'])}.tif")
        made = item_of(
            image,
            acquired=acquired_of(item),
            sensor=sensor,
            departement=self._settings.departement,
        )
        return [made]

    def close(self) -> None:
        """Let go of connections."""
        self._caller.close()


def _acquired(item: dict[str, Any]) -> datetime | None:
    """When an Item was acquired; None where it does not say, of which fetching it complains."""
    try:
        return acquired_of(item)
    except AcquireError:
        return None


def _stamp(item: dict[str, Any]) -> str:
    """What changes when an Item does."""
    properties = item.get("properties") or {}
    return str(properties.get("updated") or properties.get("created") or "")


class _CheckedIO(StacApiIO):
    """pystac-client's requests over judged addresses; files of this machine are none of a server's
    business."""

    def __init__(self, caller: Caller, auth: httpx.Auth | None) -> None:
        super().__init__(max_retries=None)
        self._caller, self._auth = caller, auth

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """One answer as text."""
        body = (method or "GET").upper() in {"POST", "PUT", "PATCH"}
        more: dict[str, Any] = {"json": parameters or {}} if body else {}
        if parameters and not body:
            more["params"] = httpx.URL(href).params.merge(parameters)
        if self._auth is not None:
            more["auth"] = self._auth
        return self._caller.call(method or "GET", href, headers=headers or {}, **more).text

    def read_text(self, source: pystac.link.HREF, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401
        """Text at an address, never of a file."""
        href = source.href if isinstance(source, pystac.Link) else str(source)
        if not href.startswith(("http://", "https://")):
            raise AcquireError(f"The API leads to {href[:80]!r}, which is no address of the web.")
        return super().read_text(source, *args, **kwargs)


class _Token(httpx.Auth):
    """A bearer token, shown to the API's own host only."""

    def __init__(self, token: str, host: str) -> None:
        self._token, self._host = token, host

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        if request.url.netloc.decode() == self._host:
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request
