"""HTTP: health, metrics, feeds and the API. Loopback unless configured otherwise."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Protocol

import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from daemon import __version__, problems
from daemon.addresses import Network
from daemon.api import router as api
from daemon.backups import Backups
from daemon.config import HttpSettings, Scope
from daemon.jobs.jobs import Exports
from daemon.metrics import Metrics
from daemon.page import pages as page
from daemon.page.atlas import warming
from daemon.served import Served
from daemon.submit import Intake
from daemon.tokens import Gate, needs
from schemas.errors import MillesimedError
from updater.store import Store

START_SECONDS = 10.0
"""How long the server may take to listen before that is an error."""
FINISH_SECONDS = 3
"""How long open requests may take once the service stops: containers are granted ten seconds."""
UNWELL: dict[int | str, dict[str, Any]] = {
    503: {"description": "It is not.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


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


def application(
    service: Running,
    stores: Sequence[Store],
    settings: HttpSettings | None = None,
    allowed: Sequence[Network] = (),
    backups: Backups | None = None,
    exports: Exports | None = None,
    intake: Intake | None = None,
) -> FastAPI:
    """The HTTP application of a running service; ``allowed`` are networks that webhooks may call
    though they are not public, ``backups`` and ``exports`` where requests for such go, ``intake``
    where what people correct does."""
    settings = settings or HttpSettings()
    app = FastAPI(
        title="millesimed",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=warming,
    )
    app.state.gate = Gate(settings.tokens, public_read=settings.public_read)
    app.state.served = Served(stores, settings.public_url, allowed, backups, exports, intake)
    problems.add_to(app)

    @app.get("/healthz", response_class=PlainTextResponse, responses=UNWELL)
    def healthz() -> Response:
        """200 while the process turns, 503 when it hangs: restart it then."""
        return PlainTextResponse(
            "ok\n" if service.alive else "hung\n", status_code=200 if service.alive else 503
        )

    @app.get("/readyz", response_class=PlainTextResponse, responses=UNWELL)
    def readyz() -> Response:
        """200 when stores are open and the source is read."""
        return PlainTextResponse(
            "ready\n" if service.ready else "not ready\n",
            status_code=200 if service.ready else 503,
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Prometheus exposition."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/openapi.json", dependencies=[Depends(needs(Scope.READ))], include_in_schema=False)
    def description() -> JSONResponse:
        """What there is."""
        return JSONResponse(app.openapi())

    app.include_router(api.router)
    page.add_to(app)
    if not settings.public_read:
        _ask_for_tokens(app.openapi())
    return app


def _ask_for_tokens(document: dict[str, Any]) -> None:
    """Take back, in an OpenAPI description, that reading needs no token; a link that is a key of
    its own stays open."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if "security" in operation and "{token}" not in path:
                operation["security"] = [needed for needed in operation["security"] if needed]


class HttpServer:
    """uvicorn in a thread, stopped with the service."""

    def __init__(self, app: FastAPI, settings: HttpSettings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level="error",
            log_config=None,  # its lines take the form of all others
            access_log=False,
            timeout_graceful_shutdown=FINISH_SECONDS,
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
        """Finish open requests, but for those that take too long, and stop listening."""
        self._server.should_exit = True
        self._thread.join(timeout=2 * FINISH_SECONDS)
