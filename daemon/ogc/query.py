"""What a call asks of a collection, taken apart strictly: what is not understood is refused (400),
never ignored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import HTTPException, Request, params

from daemon.ogc.crs import CRS84, ground_of, offered
from daemon.ogc.layers import Column, Key, Layer
from updater.map_pages import Part
from updater.reads import Bounds

DEFAULT: Final = 100
MOST: Final = 2_000
"""Features on a page: some megabytes of an ordinary map, within a second."""
ITEMS: Final = ("limit", "bbox", "bbox-crs", "crs", "datetime", "f", "as-of", "after")
"""What can be asked besides the columns."""
OPEN: Final = ("", "..")
DAY: Final = len("2024-06-15")
JSON: Final = ("application/json", "application/geo+json")
OPENAPI: Final = "application/vnd.oai.openapi+json"


@dataclass(frozen=True, slots=True)
class Query:
    """A page of a collection. ``known``: what was on record then."""

    limit: int
    crs: str
    known: datetime
    part: Part
    after: Key | None


def wrong(name: str, sentence: str) -> HTTPException:
    """A parameter is not understood."""
    return HTTPException(400, f"{name}: {sentence}")


def accepts(*media: str) -> params.Depends:
    """A FastAPI dependency: the caller takes one of these media types, or any of a kind of them.

    Raises:
        HTTPException: 406, it does not.
    """
    wide = {f"{kind.partition('/')[0]}/*" for kind in media} | {"*/*"}

    async def check(request: Request) -> None:
        sent = request.headers.get("accept", "*/*")
        asked = {part.split(";")[0].strip().lower() for part in sent.split(",") if part.strip()}
        if asked and not asked & {*media, *wide}:
            raise HTTPException(406, f"This address answers with {media[0]}; accept that.")

    return params.Depends(check)


def only(request: Request, known: Mapping[str, object] | tuple[str, ...]) -> dict[str, str]:
    """The parameters of a call.

    Raises:
        HTTPException: 400, one is unknown or given twice.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise HTTPException(
                400, f"There is no parameter {name[:40]!r} here; there are {', '.join(known)}."
            )
        if name in found:
            raise wrong(name, "give it once.")
        found[name] = value
    if found.get("f", "json") != "json":
        raise wrong("f", "the only format is json.")
    return found


def plain(request: Request) -> None:
    """FastAPI dependency of addresses that take no parameter but ``f``."""
    only(request, ("f",))


Plain = Annotated[None, params.Depends(plain)]


def query_of(request: Request, layer: Layer) -> Query:
    """What a call asks of the features of a collection.

    Raises:
        HTTPException: 400, something is not understood.
    """
    queryable = {name: c for name, c in layer.columns.items() if c.queryable}
    given = only(request, (*ITEMS, *queryable))
    crs = crs_of(layer, "crs", given.get("crs"))
    since, until = times(given.get("datetime"))
    equal = {name: _value(name, c, given[name]) for name, c in queryable.items() if name in given}
    ground = None
    if "bbox" in given:
        bbox = bbox_of(given["bbox"])
        bbox_crs = crs_of(layer, "bbox-crs", given.get("bbox-crs"))
        ground = ground_of(bbox, bbox_crs, layer.store.crs, layer.extent or (0, 0, 0, 0))
    part = Part(ground=ground, since=since, until=until, equal=equal)
    known = layer.latest() if "as-of" not in given else _instant("as-of", given["as-of"])
    return Query(limit_of(given.get("limit")), crs, known, part, _key(layer, given.get("after")))


def limit_of(text: str | None) -> int:
    """How many features are wanted; more than ``MOST`` gives that many."""
    if text is None:
        return DEFAULT
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise wrong("limit", "give a whole number from 1 on.")
    return min(int(text), MOST)


def crs_of(layer: Layer, name: str, text: str | None) -> str:
    """A CRS that is offered; CRS84 where none is asked for."""
    uris = offered(layer.store.crs)
    if text is None:
        return CRS84
    if text not in uris:
        raise wrong(name, f"this collection has {', '.join(uris)}.")
    return text


def bbox_of(text: str) -> Bounds:
    """Four numbers, or six with heights, which do not matter here."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise wrong("bbox", "give four numbers with commas between them.") from None
    if len(numbers) == 6:
        numbers = [*numbers[:2], *numbers[3:5]]
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise wrong("bbox", "give four numbers with commas between them.")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def times(text: str | None) -> tuple[datetime | None, datetime | None]:
    """Both ends of an instant, a day or an interval, as RFC 3339; ``..`` leaves an end open."""
    if text is None:
        return None, None
    parts = text.split("/")
    if len(parts) > 2 or all(part in OPEN for part in parts):
        raise wrong("datetime", "give a time, or two with / between them, one of which may be ..")
    first, last = parts[0], parts[-1]
    since = None if first in OPEN else _instant("datetime", first)
    until = None if last in OPEN else _instant("datetime", last, end=True)
    if since is not None and until is not None and until < since:
        raise wrong("datetime", "the interval ends before it begins.")
    return since, until


def _instant(name: str, text: str, *, end: bool = False) -> datetime:
    try:
        # a plus sign that was not written %2B arrives as a space
        found = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise wrong(name, "give a time as in 2024-06-15T10:00:00Z.") from None
    if len(text) <= DAY:
        found = found.replace(tzinfo=UTC)
        return found + timedelta(days=1, microseconds=-1) if end else found
    if found.tzinfo is None:
        raise wrong(name, "say the zone of the time, Z for UTC.")
    return found


def _value(name: str, column: Column, text: str) -> str | int:
    if column.type != "integer":
        return text
    try:
        return int(text[:20])
    except ValueError:
        raise wrong(name, "give a whole number.") from None


def _key(layer: Layer, text: str | None) -> Key | None:
    if text is None:
        return None
    try:
        return layer.key(json.loads(text))
    except (ValueError, RecursionError):
        raise wrong("after", "it comes from the link to the next page; follow that.") from None
