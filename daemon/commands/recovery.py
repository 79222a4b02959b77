"""Commands for bad days: backup, restore, compact."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.options import Config, Db, Json, moment, store_path
from daemon.output import busy, emit, show_figures
from schemas.errors import MillesimedError, UsageError

TOKEN = "MILLESIMED_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable of the token a command shows a service: an argument could be read by every
user of the machine."""
ASK_SECONDS = 3600.0
"""How long a service may take over the backup of a département."""


class ServiceRefused(MillesimedError):
    """A running service did not do what it was asked."""

    reason = "service-refused"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(backup)
    app.command()(restore)
    app.command()(compact)


def backup(
    out: Annotated[Path | None, typer.Argument(help="File to write; not with --url.")] = None,
    db: Db = None,
    url: Annotated[
        str | None,
        typer.Option(help="Ask the service running there, which writes to its backup_folder."),
    ] = None,
    json_: Json = False,
) -> None:
    """Copy a store. One at work is asked with --url, and a token of the scope admin in
    MILLESIMED_TOKEN.

    Example: millesimed backup --db D032.duckdb backups/D032.duckdb
    """
    if (out is None) == (url is None):
        raise UsageError("Say where to: a file to write, or --url of the service that holds it.")
    figures = _ask(url) if url is not None else _backup(store_path(db), out or Path())
    if json_:
        emit(figures)
    else:
        show_figures("Backup", figures)


def _backup(db: Path, out: Path) -> dict[str, Any]:
    from updater.errors import StoreLocked
    from updater.recovery import backup as copy
    from updater.store import Store

    try:
        with Store.open(db, read_only=True) as store, busy("backup: copied and verified"):
            made = copy(store, out)
    except StoreLocked:
        raise StoreLocked(
            f"The store {db.name} is in use by another process; stop the service, or ask it with "
            "--url http://HOST:PORT."
        ) from None
    polygons = made.verdict.polygons
    return {"path": str(made.path), "bytes": made.size, "polygons": polygons, "newest": made.newest}


def _ask(url: str) -> dict[str, Any]:
    import httpx

    headers = {"Authorization": f"Bearer {os.environ[TOKEN]}"} if TOKEN in os.environ else {}
    try:
        with busy("backup: the service copies and verifies"):
            answer = httpx.post(f"{url.rstrip('/')}/backup", headers=headers, timeout=ASK_SECONDS)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServiceRefused(f"{url} does not answer as millesimed does ({error}).") from None
    if answer.status_code != 201:
        raise ServiceRefused(str(document.get("detail", answer.status_code)))
    found: dict[str, Any] = document
    return found


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="Backup to restore.")],
    db: Annotated[Path, typer.Option(help="Store to make.")],
    at: Annotated[
        str | None, typer.Option(help="As known at this time (ISO 8601); else all of it.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Set aside the store that is there, as NAME.replaced.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make a store from a backup, and verify it.

    Example: millesimed restore backups/D032.duckdb --db D032.duckdb --at 2026-11-20T18:00:00Z
    """
    from updater.recovery import restore as make

    with busy("restore: copied and verified"):
        made = make(source, db, at=moment(at) if at else None, force=force)
    figures = {"path": str(made.path), "newest": made.newest, **made.verdict.as_dict()}
    if json_:
        emit(figures)
    else:
        show_figures("Restored", figures)


def compact(db: Db = None, config: Config = None, json_: Json = False) -> None:
    """Write a store anew without dead space; prune messages that everyone has had for
    `outbox_days`. The service must not run.

    Example: millesimed compact --db D032.duckdb --json
    """
    from daemon.config import load
    from daemon.pictures import CHANNEL
    from updater.recovery import compact as write_anew

    settings = load(config)
    path = db or store_path(settings.db[0] if settings.db else None)
    with busy("compact: written anew and verified"):
        done = write_anew(
            path,
            channels=["folder", *(["kafka"] if settings.kafka else [])],
            alert_channels=[CHANNEL],
            outbox_days=settings.outbox_days,
        )
    if json_:
        emit(asdict(done))
    else:
        show_figures("Compacted", asdict(done))
