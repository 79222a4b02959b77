"""HTTP: the pictures of an alert."""

from __future__ import annotations

import threading
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from daemon import feeds
from daemon.chip_words import Language
from daemon.chips import Picture, draw_alert
from daemon.config import Scope
from daemon.problems import problems
from daemon.served import Behind
from daemon.tokens import needs

AlertId = Annotated[str, Path(pattern=r"^AL[0-9A-F]{20}$")]
AT_ONCE: Final = 2
"""Pictures drawn at the same time; more would take the cores from detection."""
CACHE: Final = "private, max-age=300"
"""A list that is scrolled back and forth asks once in five minutes; an alert rarely moves on
sooner."""
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/png": {}}},
    304: {"description": "The reader has it already."},
    **problems(401, 404, 413, 422, 429),
}
router = APIRouter(tags=["alerts"])
drawing = threading.BoundedSemaphore(AT_ONCE)


@router.get(
    "/alerts/{alert}/{picture}.png",
    dependencies=[Depends(needs(Scope.READ))],
    response_class=Response,
    responses=ANSWERS,
    openapi_extra={"security": [{}]},
)
def chip(
    behind: Behind,
    alert: AlertId,
    picture: Picture,
    request: Request,
    lang: Language = Language.FR,
) -> Response:
    """A picture of an alert, or 304 where the reader has it already."""
    with drawing:
        _, chips = behind.holding(lambda store: draw_alert(store, alert, language=lang))
        body = chips.png(picture)
    headers = {"ETag": feeds.etag(body), "Cache-Control": CACHE}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="image/png", headers=headers)
