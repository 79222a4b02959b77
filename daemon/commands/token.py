"""Command about who may call the service: token."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from daemon.config import Scope
from daemon.options import Json
from daemon.output import emit


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(token)


def token(
    name: Annotated[str, typer.Argument(help="Whose it is, as in town-hall.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it allows; may be repeated.")
    ] = None,
    territory: Annotated[
        list[str] | None,
        typer.Option(help="Code of a territory it may correct; may be repeated; else all."),
    ] = None,
    json_: Json = False,
) -> None:
    """A fresh token for the HTTP API, shown once, and the lines to paste into millesimed.toml.

    Example: millesimed token town-hall --scope subscribe --scope read
    """
    from daemon.tokens import digest, made

    scopes = scope or [Scope.SUBSCRIBE]
    fresh, lines = made(name, scopes, territory or [])
    if json_:
        scopes_ = [s.value for s in scopes]
        emit({"name": name, "token": fresh, "sha256": digest(fresh), "scopes": scopes_})
    else:
        sys.stdout.write(f"{fresh}\n\n# millesimed.toml; the token itself stands nowhere\n{lines}")
