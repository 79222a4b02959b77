"""The pictures of an alert over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import Response

from daemon import feeds
from daemon.chip_words import Language
from daemon.chips import Chips, Picture, draw_alert
from updater.errors import NotFound
from updater.store import Store

AlertId = Annotated[str, Path(pattern=r"^AL[0-9A-F]{20}$")]
AT_ONCE: Final = 2
"""Pictures drawn at the same time; more would take the cores from detection."""
CACHE: Final = "private, max-age=300"
"""A list that is scrolled back and forth asks once in five minutes; an alert rarely moves on
sooner."""


def router(stores: Sequence[Store]) -> APIRouter:
    """``/alerts/{alert}/before.png``, ``after.png`` and ``chips.png``."""
    routes, drawing = APIRouter(), threading.BoundedSemaphore(AT_ONCE)

    @routes.get("/alerts/{alert}/{picture}.png")
    def chip(
        alert: AlertId, picture: Picture, request: Request, lang: Language = Language.FR
    ) -> Response:
        """A picture of an alert, or 304 where the reader has it already."""
        with drawing:
            body = _found(stores, alert, lang).png(picture)
        headers = {"ETag": feeds.etag(body), "Cache-Control": CACHE}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="image/png", headers=headers)

    return routes


def _found(stores: Sequence[Store], alert: str, language: Language) -> Chips:
    for store in stores:
        with suppress(NotFound):
            return draw_alert(store, alert, language=language)
    raise HTTPException(404, f"There is no alert {alert}; see the feed for those there are.")
