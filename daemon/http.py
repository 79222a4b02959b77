"""HTTP: health, metrics and the alert feed. Loopback unless configured otherwise."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from time import monotonic, sleep
from typing import Protocol

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from daemon import __version__, chips_http, feeds
from daemon.config import HttpSettings
from daemon.metrics import Metrics
from schemas.alert import Alert
from schemas.errors import MillesimedError
from updater.store import Store
from updater.subscriptions import subscriptions

START_SECONDS = 10.0
"""How long the server may take to listen before that is an error."""


class Suffix(StrEnum):
    """Forms of a feed."""

    ATOM = "atom"
    GEOJSON = "geojson"


MEDIA = {Suffix.ATOM: "application/atom+xml", Suffix.GEOJSON: "application/geo+json"}


class CannotListen(MillesimedError):
    """The HTTP port cannot be opened."""

    reason = "http-port"


class Running(Protocol):
    """What the HTTP room needs to know of the service."""

    metrics: Metrics

    @property
    def alive(self) -> bool:
        """The main loop turns."""
        ...

    @property
    def ready(self) -> bool:
        """Stores open, source read."""
        ...


def application(service: Running, stores: Sequence[Store]) -> FastAPI:
    """The HTTP application of a running service."""
    app = FastAPI(title="millesimed", version=__version__, docs_url=None, redoc_url=None)

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> Response:
        """200 while the process turns, 503 when it hangs: restart it then."""
        return PlainTextResponse(
            "ok\n" if service.alive else "hung\n", status_code=200 if service.alive else 503
        )

    @app.get("/readyz", response_class=PlainTextResponse)
    def readyz() -> Response:
        """200 when stores are open and the source is read."""
        return PlainTextResponse(
            "ready\n" if service.ready else "not ready\n",
            status_code=200 if service.ready else 503,
        )

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus exposition."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def answer(
        alerts: Sequence[Alert] | None, request: Request, name: str, language: str
    ) -> Response:
        """A page of a feed, or 304 where the reader has it already."""
        if alerts is None:
            raise HTTPException(404, f"This service has no feed of {name[:40]}.")
        suffix = request.path_params["suffix"]
        try:
            page = max(1, int(request.query_params.get("page", "1")))
        except ValueError:
            raise HTTPException(422, "page is a whole number.") from None
        url = str(request.url.replace(query="")).removesuffix(f".{suffix}")
        feed = feeds.paged(alerts, name=name, url=url, page=page, language=language)
        body = feeds.atom(feed) if suffix == Suffix.ATOM else feeds.geojson(feed)
        tag = feeds.etag(body)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=MEDIA[suffix], headers=headers)

    @app.get("/feed/alerts-{departement}.{suffix}")
    def alerts(departement: str, suffix: Suffix, request: Request) -> Response:
        """Alerts of a département in their latest state, most important first."""
        found = next((s for s in stores if s.territory == departement), None)
        every = feeds.alerts_of(found) if found else None
        return answer(every, request, departement, "fr")

    @app.get("/feed/territories/{code}.{suffix}")
    def of_territory(code: str, suffix: Suffix, request: Request) -> Response:
        """Alerts that touch a commune, an EPCI, a SCOT or a département."""
        found = [a for a in (feeds.of_territory(store, code) for store in stores) if a is not None]
        every = [alert for part in found for alert in part]
        return answer(every if found else None, request, code, "fr")

    @app.get("/feed/subscriptions/{subscription}.{suffix}")
    def of_subscription(subscription: str, suffix: Suffix, request: Request) -> Response:
        """Alerts a subscription asks for."""
        for store in stores:
            for wanted in subscriptions(store):
                if wanted.id == subscription:
                    every = feeds.of_subscription(store, wanted)
                    return answer(every, request, wanted.name, wanted.language)
        return answer(None, request, subscription, "fr")

    app.include_router(chips_http.router(stores))
    return app


class HttpServer:
    """uvicorn in a thread, stopped with the service."""

    def __init__(self, app: FastAPI, settings: HttpSettings) -> None:
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, log_level="warning", access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def _serve(self) -> None:
        with suppress(SystemExit):  # uvicorn's way of saying that it could not listen
            self._server.run()

    def start(self) -> None:
        """Listen in the background; returns once the socket is open.

        Raises:
            CannotListen: the port is taken or may not be opened.
        """
        self._thread.start()
        deadline = monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > deadline:
                place = f"{self._server.config.host}:{self._server.config.port}"
                raise CannotListen(
                    f"HTTP cannot listen on {place}; free the port or set http.port to another."
                )
            sleep(0.01)

    def stop(self) -> None:
        """Finish open requests and stop listening."""
        self._server.should_exit = True
        self._thread.join(timeout=START_SECONDS)
