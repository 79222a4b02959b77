"""Command for who is about to run the service, or wonders why it does not: doctor."""

from __future__ import annotations

import typer

from daemon.options import Config, Json
from daemon.output import emit, show
from schemas.errors import MillesimedError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


class NotHealthy(MillesimedError):
    """Something the service needs is not there."""

    reason = "not-healthy"


def doctor(config: Config = None, json_: Json = False) -> None:
    """Check versions, formats, card, disks, stores, broker and mail server; say what mends each.

    Example: millesimed doctor --config millesimed.toml
    """
    from daemon.config import load
    from daemon.doctor import Verdict, examine, report

    found = examine(load(config))
    if json_:
        emit(report(found))
    else:
        rows = [
            {"check": f.check, "": f.verdict.value, "found": f.found, "to do": f.mend or ""}
            for f in found
        ]
        show("millesimed doctor", rows)
    bad = [f.check for f in found if f.verdict is Verdict.BAD]
    if bad:
        raise NotHealthy(f"Not in order: {', '.join(bad)}; each line says what mends it.")
