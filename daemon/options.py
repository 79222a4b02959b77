"""Options several commands share, so that they mean and read the same everywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from daemon.config import load
from schemas.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Db = Annotated[Path | None, typer.Option("--db", help="Store; else the configured one.")]
Config = Annotated[Path | None, typer.Option("--config", help="Configuration file (TOML).")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Weight file of siamese; else the package's.")
]
TerritoryCode = Annotated[
    str | None,
    typer.Option("--territory", help="Code of a territory, or a vector file; else everything."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def store_path(db: Path | None) -> Path:
    """The store given, or the one the configuration names.

    Raises:
        UsageError: neither.
    """
    if db is not None:
        return db
    found = load().db
    if not found:
        raise UsageError("No store is given; add --db FILE or write `db` in millesimed.toml.")
    return found[0]


def moment(text: str) -> datetime:
    """A time given as text; UTC where it does not say.

    Raises:
        UsageError: no ISO 8601 time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time; give it as in 2026-11-21T08:00:00Z.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def instant(text: str) -> datetime:
    """A millésime (the end of its year) or a time.

    Raises:
        UsageError: neither.
    """
    from updater.reads import end_of

    return end_of(int(text)) if re.fullmatch(r"\d{4}", text) else moment(text)
