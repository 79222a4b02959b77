"""What every HTTP address needs of the service: stores, public address, networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from daemon.addresses import Network
from daemon.backups import Backups
from daemon.jobs.jobs import Exports
from daemon.submit import Intake
from updater.errors import NotFound
from updater.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """Behind the addresses."""

    stores: Sequence[Store]
    public_url: str | None = None
    allowed: Sequence[Network] = ()
    """Networks that webhooks may call though they are not public."""
    backups: Backups | None = None
    exports: Exports | None = None
    intake: Intake | None = None
    """Where events go that come in over HTTP."""

    def store_of(self, departement: str) -> Store:
        """The store of a département.

        Raises:
            HTTPException: 422, it is not served.
        """
        for store in self.stores:
            if store.territory == departement:
                return store
        known = ", ".join(store.territory for store in self.stores)
        raise HTTPException(422, f"departement: this service has {known}.")

    def some(self, departement: str | None) -> Sequence[Store]:
        """The store of a département, or all."""
        return self.stores if departement is None else [self.store_of(departement)]

    def holding(self, look: Callable[[Store], T]) -> tuple[Store, T]:
        """The first store in which a look-up finds something, and what it finds.

        Raises:
            NotFound: in none.
        """
        missing = NotFound("This service has no store.")
        for store in self.stores:
            try:
                return store, look(store)
            except NotFound as error:
                missing = error
        raise missing


def served(request: Request) -> Served:
    """FastAPI dependency: what the application serves."""
    found: Served = request.app.state.served
    return found


def base(request: Request) -> str:
    """The address of the service as its callers know it, without a slash at the end."""
    return (served(request).public_url or str(request.base_url)).rstrip("/")


Behind = Annotated[Served, Depends(served)]
Departement = Annotated[
    str | None, Query(max_length=8, description="As in D032; else every one that is served.")
]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000, description="From 1.")]


class Links(BaseModel):
    """Addresses of this page and its neighbours."""

    self: str
    next: str | None = None
    previous: str | None = None


class Page(BaseModel):
    """What every page of a list says of itself."""

    total: int = Field(ge=0, description="On all pages together.")
    page: int = Field(ge=1)
    pages: int = Field(ge=1)
    links: Links


def page_of(request: Request, total: int, page: int, size: int) -> Page:
    """A page's place among its neighbours; the filters of the request stay in the links."""
    pages = max(1, -(-total // size))
    kept = [(k, v) for k, v in request.query_params.multi_items() if k != "page"]

    def link(number: int) -> str:
        return f"{base(request)}{request.url.path}?{urlencode([*kept, ('page', number)])}"

    links = Links(
        self=link(page),
        next=link(page + 1) if page < pages else None,
        previous=link(page - 1) if page > 1 else None,
    )
    return Page(total=total, page=page, pages=pages, links=links)
