"""The command that says how it goes."""

from __future__ import annotations

import time
from collections import deque
from typing import Annotated, Any, Final

import typer

from daemon.options import Config, Json
from daemon.output import emit

REFRESH_SECONDS: Final = 2.0
WINDOW_SECONDS: Final = 300.0
"""Live, the rate of events is that of the last five minutes that were watched."""
HOUR: Final = 3600.0


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(status)


def status(
    config: Config = None,
    url: Annotated[
        str | None, typer.Option(help="Address of the service; else the configured one.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Look again every two seconds.")] = False,
    json_: Json = False,
) -> None:
    """How the service goes: events, stages, lag, outbox, dead letters, stores, sources, drift, GPU,
    exports, publications.

    Where none runs, the stores are read. Exit code 1 where it is not well.

    Example: millesimed status --live --config millesimed.toml
    """
    from rich.console import Console

    from daemon.config import load
    from daemon.status_view import view
    from schemas.errors import UsageError

    settings = load(config)
    if live and json_:
        raise UsageError("--live is for people, --json for scripts; give one of them.")
    if live:
        _watch(settings, url)
        return
    found = _look(settings, url)
    if json_:
        emit(found.document())
    else:
        Console().print(view(found))
    if found.trouble is not None:
        raise typer.Exit(1)


def _look(settings: Any, url: str | None) -> Any:  # noqa: ANN401 - heavy types wait
    """The status of a service, or of the stores where none runs.

    Raises:
        NoAnswer: nothing answers, and there are no stores to read.
    """
    from daemon.status import NoAnswer, address, asked, with_sources
    from daemon.status_work import with_work

    if url is not None:
        return asked(url)
    try:
        found = asked(address(settings))
    except NoAnswer as error:
        from daemon.status_stores import read

        if not settings.db:
            raise
        found = read(settings, str(error))
    return with_work(with_sources(found, settings), settings)


def _watch(settings: Any, url: str | None) -> None:  # noqa: ANN401
    """Look until interrupted."""
    from rich.live import Live
    from rich.text import Text

    from daemon.status import NoAnswer
    from daemon.status_view import view

    seen: deque[tuple[float, float]] = deque()
    with Live(refresh_per_second=1, screen=True) as shown:
        try:
            while True:
                try:
                    found = _look(settings, url)
                except NoAnswer as error:  # it may come back
                    shown.update(Text(str(error), style="red"), refresh=True)
                else:
                    _pace(found, seen)
                    shown.update(view(found), refresh=True)
                time.sleep(REFRESH_SECONDS)
        except KeyboardInterrupt:
            return


def _pace(found: Any, seen: deque[tuple[float, float]]) -> None:  # noqa: ANN401
    """Put the rate of what was watched in place of the rate since the start."""
    if "per_hour" not in found.events:
        return
    total = sum(v for k, v in found.events.items() if k not in {"per_hour", "last"})
    now = found.taken.timestamp()
    if seen and total < seen[-1][1]:  # it was started anew
        seen.clear()
    seen.append((now, total))
    while now - seen[0][0] > WINDOW_SECONDS:
        seen.popleft()
    then, before = seen[0]
    if now > then:
        found.events["per_hour"] = (total - before) * HOUR / (now - then)
