"""HTTP: feeds of a département, a territory, a subscription."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import Response

from daemon import feeds
from daemon.config import Scope
from daemon.problems import problems
from daemon.served import Behind, PageNumber, base
from daemon.tokens import needs
from schemas.alert import Alert, AlertKind, AlertState
from updater.alert_search import Asked
from updater.errors import NotFound
from updater.subscriptions import find


class Suffix(StrEnum):
    """Forms of a feed."""

    ATOM = "atom"
    GEOJSON = "geojson"


MEDIA: Final = {Suffix.ATOM: "application/atom+xml", Suffix.GEOJSON: "application/geo+json"}
FORMS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A page of the feed.",
        "content": {
            MEDIA[Suffix.ATOM]: {"schema": {"type": "string", "description": "RFC 4287"}},
            MEDIA[Suffix.GEOJSON]: {"schema": {"type": "object", "description": "RFC 7946"}},
        },
        "headers": {"ETag": {"schema": {"type": "string"}}},
    },
    304: {"description": "The reader has it already (If-None-Match)."},
    **problems(401, 404, 413, 422, 429),
}


Paged = tuple[Sequence[Alert], int]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a reader asks of a feed."""

    states: Sequence[AlertState]
    kinds: Sequence[AlertKind]
    language: str | None
    page: int

    def takes(self, alert: Alert) -> bool:
        """True where state and kind are asked for, or none is."""
        return (not self.states or alert.state in self.states) and (
            not self.kinds or bool({alert.kind, *alert.kinds} & set(self.kinds))
        )

    def cut(self, alerts: Sequence[Alert]) -> Paged:
        """The page of some alerts, and how many there are."""
        return feeds.page_of([alert for alert in alerts if self.takes(alert)], self.page)

    @property
    def wanted(self) -> Asked:
        """The same for the database."""
        return Asked(states=self.states, kinds=self.kinds)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """The same as a query, without the page."""
        found = [("state", state.value) for state in self.states]
        found += [("kind", kind.value) for kind in self.kinds]
        return found + ([("lang", self.language)] if self.language else [])


def shown(
    state: Annotated[list[AlertState] | None, Query(description="May be repeated.")] = None,
    kind: Annotated[list[AlertKind] | None, Query(description="May be repeated.")] = None,
    lang: Annotated[
        Literal["fr", "en"] | None,
        Query(description="Else the subscription's own, or French."),
    ] = None,
    page: PageNumber = 1,
) -> Shown:
    """FastAPI dependency."""
    return Shown(state or (), kind or (), lang, page)


Wanted = Annotated[Shown, Depends(shown)]
router = APIRouter(
    prefix="/feed",
    tags=["feeds"],
    dependencies=[Depends(needs(Scope.READ))],
    default_response_class=Response,
    responses=FORMS,
)
OPEN: Final[dict[str, Any]] = {"security": [{}]}


@router.get("/alerts-{departement}.{suffix}", openapi_extra=OPEN)
def alerts(
    departement: str, suffix: Suffix, wanted: Wanted, behind: Behind, request: Request
) -> Response:
    """Alerts of a département in their latest state, most important first."""
    found = next((s for s in behind.stores if s.territory == departement), None)
    paged = feeds.page_of_all(found, wanted.wanted, wanted.page) if found else None
    return _answer(paged, request, departement, wanted)


@router.get("/territories/{code}.{suffix}", openapi_extra=OPEN)
def of_territory(
    code: str, suffix: Suffix, wanted: Wanted, behind: Behind, request: Request
) -> Response:
    """Alerts that touch a commune, an EPCI, a SCOT or a département, most important first."""
    parts = [feeds.of_territory(store, code) for store in behind.stores]
    found = [part for part in parts if part is not None]
    every = sorted((a for part in found for a in part), key=lambda a: (-a.rank, a.id))
    return _answer(wanted.cut(every) if found else None, request, code, wanted)


@router.get("/subscriptions/{subscription}.{suffix}", openapi_extra=OPEN)
def of_subscription(
    subscription: str, suffix: Suffix, wanted: Wanted, behind: Behind, request: Request
) -> Response:
    """Alerts a subscription asks for, most important first, as long as it holds."""
    try:
        store, known = behind.holding(lambda store: find(store, subscription))
    except NotFound:
        return _answer(None, request, subscription, wanted)
    every = feeds.of_subscription(store, known) if known.active else None
    paged = wanted.cut(every) if every is not None else None
    return _answer(paged, request, known.name, wanted, known.language)


def _answer(
    paged: Paged | None,
    request: Request,
    name: str,
    wanted: Shown,
    language: str = "fr",
) -> Response:
    """A page of a feed, or 304 where the reader has it already."""
    if paged is None:
        raise HTTPException(404, f"This service has no feed of {name[:40]}.")
    suffix = Suffix(request.path_params["suffix"])
    page, pages = paged
    feed = feeds.Feed(
        name=name,
        base=base(request),
        path=request.url.path.removesuffix(f".{suffix}"),
        alerts=page,
        page=wanted.page,
        pages=pages,
        language=wanted.language or language,
        asked=wanted.asked,
    )
    body = feeds.atom(feed) if suffix is Suffix.ATOM else feeds.geojson(feed)
    headers = {"ETag": feeds.etag(body), "Cache-Control": "no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=MEDIA[suffix], headers=headers)
