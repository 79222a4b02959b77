"""The command line: ``millesimed``. Thin: each command calls one function of a room."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import structlog
import typer

from daemon import __version__
from daemon.commands import acquire as commands_acquire
from daemon.commands import bench as commands_bench
from daemon.commands import corrections as commands_corrections
from daemon.commands import data as commands_data
from daemon.commands import doctor as commands_doctor
from daemon.commands import export as commands_export
from daemon.commands import history as commands_history
from daemon.commands import map as commands_map
from daemon.commands import publish as commands_publish
from daemon.commands import recovery as commands_recovery
from daemon.commands import run as commands_run
from daemon.commands import standards as commands_standards
from daemon.commands import status as commands_status
from daemon.commands import subscriptions as commands_subscriptions
from daemon.commands import token as commands_token
from daemon.logs import as_json, configure
from daemon.output import CONSOLE
from schemas.errors import MillesimedError, UsageError
from updater.trouble import explained

log = structlog.get_logger()

app = typer.Typer(
    name="millesimed",
    help="Keeps the OCS GE land-cover map alive: acquisitions in, changed polygons patched, "
    "alerts out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands_run.add_to(app)
commands_status.add_to(app)
commands_map.add_to(app)
commands_export.add_to(app)
commands_history.add_to(app)
commands_publish.add_to(app)
commands_recovery.add_to(app)
commands_data.add_to(app)
commands_corrections.add_to(app, commands_data.alerts)
commands_acquire.add_to(app)
commands_subscriptions.add_to(app)
commands_token.add_to(app)
commands_doctor.add_to(app)
commands_standards.add_to(app)
commands_bench.add_to(app)


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"millesimed {__version__}\n")
        raise typer.Exit


@app.callback()
def _common(
    log_json: Annotated[bool, typer.Option(help="Write logs as JSON lines.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    configure(as_json=log_json, level=log_level)


def main() -> None:
    """Entry point: 0 done, 1 it failed, 2 wrong use; every error is one sentence on stderr."""
    try:
        app()
    except MillesimedError as error:
        _failed(str(error), code=2 if isinstance(error, UsageError) else 1)
    except OSError as error:  # a full disk, a folder that may not be written
        if (trouble := explained(error)) is None:
            raise
        _failed(str(trouble), code=1)


def _failed(sentence: str, *, code: int) -> NoReturn:
    if as_json():
        log.error("failed", message=sentence, code=code)
    else:
        CONSOLE.print(
            f"millesimed: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True
        )
    sys.exit(code)


if __name__ == "__main__":
    main()
