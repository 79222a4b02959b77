"""What HTTP answers when something is wrong: problem+json (RFC 9457), one sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import MillesimedError
from updater.errors import NotFound

log = structlog.get_logger()

MEDIA: Final = "application/problem+json"
MOST_BODY: Final = 1_000_000
"""Bytes of a request: a wish with a polygon of 10 000 vertices has less than half of it."""
MOST_DETAIL: Final = 1000
"""Characters of a sentence: what callers sent may stand in it, however long it was."""
MOST_DROPPED: Final = 4_000_000
"""Bytes read and dropped before a body that is too large is refused: a client that is still sending
when the connection closes would not see the answer."""
SENTENCES: Final = {
    400: "The body cannot be read; send what /openapi.json describes for this address.",
    404: "There is nothing at this address; /openapi.json lists what there is.",
    405: "This address does not take that method; /openapi.json lists what there is.",
    413: f"A request has at most {MOST_BODY:,} bytes; send less.",
    500: "The service failed; its log says why.",
}
HEADERS: Final = {
    401: {"WWW-Authenticate": "Which kind of token is asked for."},
    429: {"Retry-After": "Seconds until the next call is taken."},
    503: {"Retry-After": "Seconds until the next call is taken."},
}


class Problem(BaseModel):
    """What is wrong, and what to do."""

    type: str = Field(default="about:blank", description="No further kinds than the status.")
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="One sentence: what is wrong and what to do.")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer."""
    found = Problem(title=HTTPStatus(status).phrase, status=status, detail=_one_line(detail))
    body = found.model_dump_json()
    return Response(body, status, headers=dict(headers or {}), media_type=MEDIA)


def _one_line(text: str) -> str:
    """A sentence without line breaks and control characters; a long one without its middle."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = MOST_DETAIL // 2
    return words if len(words) <= MOST_DETAIL else f"{words[:half]}…{words[-half + 1 :]}"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these statuses are answered with a problem. Where a token may be wrong (401) it
    may be right and lack the scope (403)."""
    schema = Problem.model_json_schema()
    statuses = tuple(sorted({*statuses, *([403] if 401 in statuses else [])}))
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA: {"schema": schema}},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in HEADERS.get(status, {}).items()
            },
        }
        for status in statuses
    }


def sentence(error: ValidationError | RequestValidationError) -> str:
    """The first thing that is wrong with what was sent, without repeating what was sent."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"] if part not in {"body", "query", "path"})
    return f"{where or 'The request'}: {found['msg']}."


def add_to(app: FastAPI) -> None:
    """Answer every error of an application with a problem, and refuse bodies that are too large."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(MillesimedError, _ours)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(BodyLimit)


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    detail = str(error.detail)
    if not detail.endswith("."):  # the framework's own words
        detail = SENTENCES.get(error.status_code, f"{detail}.")
    return problem(error.status_code, detail, error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return problem(422, sentence(error))


def _ours(request: Request, error: Exception) -> Response:
    if isinstance(error, NotFound):
        return problem(404, str(error))
    route = request.scope.get("route")  # its pattern: the path itself may hold a token
    log.error("http_failed", route=getattr(route, "path", None), error=str(error))
    return problem(500, SENTENCES[500])


def _unexpected(request: Request, error: Exception) -> Response:
    return problem(500, SENTENCES[500])


class BodyLimit:
    """Reads a request's body, at most so many bytes of it, before the application sees any."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, size, more = bytearray(), 0, True
        while more and size <= MOST_BODY + MOST_DROPPED:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= MOST_BODY:
                body += part
        if size > MOST_BODY:
            await problem(413, SENTENCES[413])(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def rest() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, rest, send)
