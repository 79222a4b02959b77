"""HTTP: ending a subscription without a login, as the link in every mail does (RFC 8058).

The link carries the subscription's own token. Opening it shows a page with one button, and only
what the button sends ends anything: mail scanners open every link they see.
"""

from __future__ import annotations

import hmac
from html import escape
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Form
from fastapi.responses import HTMLResponse

from daemon.problems import problems
from daemon.served import Behind, Served
from daemon.tokens import needs
from schemas.subscription import Subscription
from updater.errors import NotFound
from updater.store import Store
from updater.subscriptions import end, find

WORDS: Final[dict[str, dict[str, str]]] = {
    "fr": {
        "title": "Se désabonner",
        "ask": "Ne plus recevoir les alertes « {name} » ?",
        "button": "Me désabonner",
        "done": "C'est fait : les alertes « {name} » ne vous seront plus envoyées.",
    },
    "en": {
        "title": "Unsubscribe",
        "ask": "Receive the alerts “{name}” no more?",
        "button": "Unsubscribe",
        "done": "Done: the alerts “{name}” will not be sent to you any more.",
    },
}
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
}
"""The address is a key: it is neither kept, nor handed on, nor listed; no other page may frame the
button."""
ADDRESS: Final = "/subscriptions/{subscription}/unsubscribe/{token}"
OPEN: Final = Depends(needs(None))
router = APIRouter(tags=["unsubscribe"], default_response_class=HTMLResponse)


@router.get(
    ADDRESS,
    dependencies=[OPEN],
    responses=problems(401, 404, 413, 422, 429),
    openapi_extra={"security": [{}]},
)
def ask(behind: Behind, subscription: str, token: str) -> HTMLResponse:
    """A page that asks whether to end the subscription; nothing has ended yet."""
    _, found = _known(behind, subscription, token)
    words = WORDS[found.language]
    return _page(
        found,
        f"<p>{escape(words['ask'].format(name=found.name))}</p>"
        '<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">'
        f"<button>{escape(words['button'])}</button></form>",
    )


@router.post(
    ADDRESS,
    dependencies=[OPEN],
    responses=problems(400, 401, 404, 413, 422, 429),
    openapi_extra={"security": [{}]},
)
def unsubscribe(
    behind: Behind,
    subscription: str,
    token: str,
    choice: Annotated[Literal["One-Click"], Form(alias="List-Unsubscribe")],
) -> HTMLResponse:
    """End the subscription; a second time changes nothing."""
    store, found = _known(behind, subscription, token)
    end(store, found.id)
    return _page(found, f"<p>{escape(WORDS[found.language]['done'].format(name=found.name))}</p>")


def _known(behind: Served, subscription: str, token: str) -> tuple[Store, Subscription]:
    """The subscription of a link.

    Raises:
        NotFound: no such subscription, or another token; which of the two is not told.
    """
    nothing = NotFound("This link ends no subscription; use the one of the latest mail.")
    try:
        store, found = behind.holding(lambda store: find(store, subscription))
    except NotFound:
        raise nothing from None
    if not found.token or not hmac.compare_digest(token.encode(), found.token.encode()):
        raise nothing
    return store, found


def _page(found: Subscription, content: str) -> HTMLResponse:
    title = escape(WORDS[found.language]["title"])
    return HTMLResponse(
        f'<!doctype html><html lang="{found.language}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><h1>{title}</h1>{content}</html>",
        headers=HEADERS,
    )
