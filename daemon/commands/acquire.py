"""Commands about where images come from: acquire poll, list."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.options import Config, Json
from daemon.output import emit, show

acquire = typer.Typer(help="Where images come from.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(acquire, name="acquire")
    acquire.command("poll")(poll)
    acquire.command("list")(list_)


def poll(
    name: Annotated[str | None, typer.Argument(help="Name of the source; else all.")] = None,
    once: Annotated[
        bool, typer.Option("--once", help="One look each, then stop; else as the service does.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try at once what is owed, and what was given up.")
    ] = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Look at the sources of [[acquire]], without a map: fetch what is new and announce it.

    Example: millesimed acquire poll deliveries --once --json
    """
    from daemon.acquire.sources import chosen
    from daemon.config import load

    settings = load(config)
    sources = chosen(settings, name)
    if not once:
        _forever(settings.model_copy(update={"acquire": sources}))
        return
    tallies = _looks(settings, sources, retry=retry)
    if json_:
        emit(tallies)
    else:
        short = ("name", "kind", "announced", "failed", "owed", "given_up", "error")
        show("Sources", [{key: row[key] for key in short} for row in tallies])
    if any(row["error"] for row in tallies):
        raise typer.Exit(1)


def list_(config: Config = None, json_: Json = False) -> None:
    """Sources of the configuration: when each last answered, what it owes and why.

    Example: millesimed acquire list --config millesimed.toml
    """
    from daemon.acquire.sources import standing
    from daemon.config import load

    settings = load(config)
    rows = [standing(settings, source) for source in settings.acquire]
    if json_:
        emit(rows)
        return
    short = ("name", "kind", "every_seconds", "last_success", "announced")
    counts = ("owed", "given_up")
    show("Sources", [{k: r[k] for k in short} | {k: len(r[k]) for k in counts} for r in rows])
    for row in rows:
        for part in counts:
            if row[part]:
                title = f"{row['name']}: {part.replace('_', ' ')}"
                show(title, [{k: debt[k] for k in ("what", "since", "why")} for debt in row[part]])


def _looks(settings: Any, sources: list[Any], *, retry: bool) -> list[dict[str, Any]]:  # noqa: ANN401
    """One look at each."""
    from contextlib import closing

    from daemon.acquire.sources import acquirer

    rows = []
    for source in sources:
        with closing(acquirer(settings, source, ground=_ground(settings))) as one:
            rows.append(one.once(retry_all=retry).figures())
    return rows


def _ground(settings: Any) -> Any:  # noqa: ANN401
    """Ground of the configured stores, read only when a source asks.

    Raises:
        StoreLocked: the service holds one; then a source wants a `bbox` or an `area`.
    """
    from daemon.acquire.sources import ground_of
    from updater.store import Store

    def ground(departement: str | None) -> Any:  # noqa: ANN401
        from contextlib import ExitStack

        with ExitStack() as stack:
            stores = [stack.enter_context(Store.open(path)) for path in settings.db]
            return ground_of(stores)(departement)

    return ground


def _forever(settings: Any) -> None:  # noqa: ANN401
    """Look at the sources until told to stop, as the service does."""
    import signal
    import threading

    from apscheduler.schedulers.background import BackgroundScheduler

    from daemon.acquire.sources import close_all, schedule
    from daemon.metrics import Metrics

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    scheduler = BackgroundScheduler(timezone="UTC")
    made = schedule(scheduler, settings, metrics=Metrics(), ground=_ground(settings), stop=stop)
    scheduler.start()
    try:
        stop.wait()
    finally:
        scheduler.shutdown(wait=True)
        close_all(made)
