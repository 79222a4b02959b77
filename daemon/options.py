"""Options several commands share, so that they mean and read the same everywhere."""

from __future__ import annotations

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
