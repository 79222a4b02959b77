"""HTTP: subscriptions made, read, changed and ended by whoever holds a token for it.

A token with the scope ``subscribe`` sees and changes the subscriptions that were made with it, one
with ``admin`` all of them; neither ever sees a signing key but the one it has just made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field

from daemon.config import Scope
from daemon.problems import problems
from daemon.served import Behind, Departement, Page, PageNumber, Served, base, page_of
from daemon.subscribers import Failed, replay
from daemon.tokens import Caller, needs
from daemon.webhook import WebhookCarrier
from daemon.wishes import WishPart, check, merged
from schemas.subscription import ChannelKind, Subscription, Wish
from updater.errors import NotFound
from updater.store import Store
from updater.subscriptions import (
    accepted,
    amended,
    change,
    end,
    find,
    rotated,
    save,
    subscriptions,
    unknown,
)

PAGE: Final = 100
MOST_CALLS: Final = 4
"""Webhooks called at once on behalf of HTTP callers: a receiver that hangs keeps a thread waiting,
and there are forty for all requests together."""
CALLS: Final = threading.BoundedSemaphore(MOST_CALLS)
BUSY_SECONDS: Final = 10
KEY: Final = "The webhook's signing key where a new one was made; it is not shown again."
SUBSCRIBE: Final = Depends(needs(Scope.SUBSCRIBE))
Whoever = Annotated[Caller, SUBSCRIBE]

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"], dependencies=[SUBSCRIBE])


class SubscriptionView(Wish):
    """A subscription without its keys."""

    id: str
    active: bool = Field(description="False once it has ended.")
    departement: str = Field(description="Whose map it is about.")
    owner: str | None = Field(
        description="Name of the token it was made with; none where it was made at the machine."
    )


class Subscribed(SubscriptionView):
    """A subscription just made or changed."""

    secret: str | None = Field(default=None, description=KEY)


class Subscriptions(Page):
    """A page of subscriptions, by id."""

    subscriptions: list[SubscriptionView]


class Keys(BaseModel):
    """Keys after a change of them."""

    id: str
    keys: int = Field(description="How many sign now.")
    secret: str | None = Field(description=KEY)


class Tested(BaseModel):
    """The receiver took a test message."""

    id: str
    url: str
    answer: str


class Replayed(BaseModel):
    """What became of the messages that had been given up."""

    id: str
    taken: int
    parked: int = Field(description="Still given up: the receiver refused one.")


@router.post("", status_code=201, responses=problems(400, 401, 403, 413, 422, 429))
def subscribe(
    behind: Behind,
    caller: Whoever,
    request: Request,
    response: Response,
    wish: Wish,
    departement: Annotated[
        str | None, Query(max_length=8, description="As in D032, where several are served.")
    ] = None,
) -> Subscribed:
    """Tell someone of alerts from now on. Where several départements are served, ``departement``
    says which it is about, or the territories named do: one that knows them all."""
    check(behind, wish)
    store = _store_for(behind, wish, departement)
    made = accepted(wish, owner=caller.name)
    try:
        save(store, made)
    except NotFound as error:
        raise HTTPException(422, str(error)) from None
    response.headers["Location"] = f"{base(request)}/subscriptions/{made.id}"
    return _subscribed(store, made, next(iter(made.secrets), None))


@router.get("", responses=problems(401, 403, 413, 422, 429))
def every(
    behind: Behind,
    caller: Whoever,
    request: Request,
    departement: Departement = None,
    ended: Annotated[bool, Query(description="Those that have ended too.")] = False,
    page: PageNumber = 1,
) -> Subscriptions:
    """Subscriptions made with this token, by id; all of them for an admin."""
    found = [
        (wanted, store)
        for store in behind.some(departement)
        for wanted in subscriptions(store, active=not ended)
        if caller.may_see(wanted.owner)
    ]
    shown = found[(page - 1) * PAGE : page * PAGE]
    return Subscriptions(
        **dict(page_of(request, len(found), page, PAGE)),
        subscriptions=[_view(store, wanted) for wanted, store in shown],
    )


@router.get("/{subscription}", responses=problems(401, 403, 404, 413, 422, 429))
def one(behind: Behind, caller: Whoever, subscription: str) -> SubscriptionView:
    """One subscription."""
    store, found = _found(behind, caller, subscription)
    return _view(store, found)


@router.patch("/{subscription}", responses=problems(400, 401, 403, 404, 409, 413, 422, 429))
def amend(behind: Behind, caller: Whoever, subscription: str, part: WishPart) -> Subscribed:
    """Change what a subscription asks for; it is judged as a whole. A null takes the default."""
    store, found = _found(behind, caller, subscription)
    given = part.model_dump(mode="json", exclude_unset=True)
    check(behind, merged(found, given), found)
    made: list[str] = []

    def next_form(known: Subscription) -> Subscription:
        _refuse_ended(known)
        fresh = amended(known, merged(known, given))
        made.extend(key for key in fresh.secrets if key not in known.secrets)
        return fresh

    try:
        fresh = change(store, subscription, next_form)
    except NotFound as error:
        raise HTTPException(422, str(error)) from None
    return _subscribed(store, fresh, next(iter(made), None))


@router.delete("/{subscription}", status_code=204, responses=problems(401, 403, 404, 413, 422, 429))
def finish(behind: Behind, caller: Whoever, subscription: str) -> None:
    """End a subscription: nothing more is sent. A second time changes nothing."""
    store, found = _found(behind, caller, subscription)
    end(store, found.id)


@router.post("/{subscription}/rotate", responses=problems(401, 403, 404, 409, 413, 422, 429))
def rotate(
    behind: Behind,
    caller: Whoever,
    subscription: str,
    drop_old: Annotated[bool, Query(description="Stop signing with the older key.")] = False,
) -> Keys:
    """Give a webhook a new key; both sign until the old one is dropped."""
    store, _ = _found(behind, caller, subscription)

    def next_form(known: Subscription) -> Subscription:
        _refuse_no_webhook(known)
        return rotated(known, drop_old=drop_old)

    secrets = change(store, subscription, next_form).secrets
    return Keys(id=subscription, keys=len(secrets), secret=None if drop_old else secrets[0])


@router.post(
    "/{subscription}/test", responses=problems(401, 403, 404, 409, 413, 422, 429, 502, 503)
)
def test(behind: Behind, caller: Whoever, subscription: str) -> Tested:
    """Send a signed test message to a webhook; 502 says why it was not taken."""
    store, found = _found(behind, caller, subscription)
    _refuse_no_webhook(found)
    try:
        with _calling(behind) as carrier:
            carrier.post_test(found, store.clock())
    except Failed as error:
        raise HTTPException(502, f"The webhook did not take the message: {error}.") from None
    return Tested(id=found.id, url=found.url or "", answer="taken")


@router.post("/{subscription}/replay", responses=problems(401, 403, 404, 409, 413, 422, 429, 503))
def again(behind: Behind, caller: Whoever, subscription: str) -> Replayed:
    """Send once more, in order, what a webhook did not take for three days, until it refuses."""
    store, found = _found(behind, caller, subscription)
    _refuse_no_webhook(found)
    with _calling(behind) as carrier:
        taken, parked = replay(store, carrier, subscription)
    return Replayed(id=subscription, taken=taken, parked=parked)


def _found(behind: Served, caller: Caller, subscription: str) -> tuple[Store, Subscription]:
    """A subscription the caller may see; one of somebody else is not there."""
    nothing = HTTPException(
        404, "There is no subscription of that id; GET /subscriptions lists them."
    )
    try:
        store, found = behind.holding(lambda store: find(store, subscription))
    except NotFound:
        raise nothing from None
    if not caller.may_see(found.owner):
        raise nothing
    return store, found


def _store_for(behind: Served, wish: Wish, departement: str | None) -> Store:
    """The store given, the only one, or the only one that knows every territory named.

    Raises:
        HTTPException: 422, none or several.
    """
    if departement is not None:
        return behind.store_of(departement)
    if len(behind.stores) == 1:
        return behind.stores[0]
    knowing = [s for s in behind.stores if wish.territories and not unknown(s, wish.territories)]
    if len(knowing) == 1:
        return knowing[0]
    served = ", ".join(store.territory for store in behind.stores)
    raise HTTPException(422, f"departement: say which of {served} the subscription is about.")


def _refuse_ended(known: Subscription) -> None:
    if not known.active:
        raise HTTPException(409, "This subscription has ended; make a new one.")


def _refuse_no_webhook(known: Subscription) -> None:
    _refuse_ended(known)
    if known.channel is not ChannelKind.WEBHOOK:
        raise HTTPException(409, f"Only a webhook is called; this is a {known.channel.value}.")


@contextmanager
def _calling(behind: Served) -> Iterator[WebhookCarrier]:
    """A carrier for one request.

    Raises:
        HTTPException: 503, too many are at it.
    """
    if not CALLS.acquire(blocking=False):
        detail = "Too many webhooks are being called; try again."
        raise HTTPException(503, detail, {"Retry-After": str(BUSY_SECONDS)})
    try:
        with closing(WebhookCarrier(behind.allowed)) as carrier:
            yield carrier
    finally:
        CALLS.release()


def _view(store: Store, found: Subscription) -> SubscriptionView:
    return SubscriptionView.model_validate(_shown(store, found))


def _subscribed(store: Store, found: Subscription, secret: str | None) -> Subscribed:
    return Subscribed.model_validate({**_shown(store, found), "secret": secret})


def _shown(store: Store, found: Subscription) -> dict[str, Any]:
    return {**found.public(), "departement": store.territory}
