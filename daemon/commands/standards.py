"""Commands about what others read the maps with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from daemon.options import Json, store_path
from daemon.output import emit, show_figures
from schemas.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(qgis)


def qgis(
    out: Annotated[Path, typer.Option(help="Project file to write (.qgs).")],
    url: Annotated[str, typer.Option(help="Address of the service that will serve the stores.")],
    db: Annotated[
        list[Path] | None, typer.Option(help="Store; may be repeated. Else the configured one.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a QGIS project whose layers a service serves; a running one has it at
    /ogc/project.qgs.

    Example: millesimed qgis --db D032.duckdb --url http://maps.example.org --out ocsge.qgs
    """
    from daemon.files import write_whole
    from daemon.ogc.catalogue import layers
    from daemon.ogc.qgis import project
    from updater.store import Store

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is no address; give it as in http://127.0.0.1:8460.")
    with ExitStack() as opened:
        paths = db or [store_path(None)]
        stores = [opened.enter_context(Store.open(path, read_only=True)) for path in paths]
        found = layers(stores)
        text = project(found, url.rstrip("/"))
    write_whole(out, text.encode())
    figures = {"layers": len(found), "path": str(out)}
    if json_:
        emit(figures)
    else:
        show_figures("QGIS project", figures)
