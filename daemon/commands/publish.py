"""The command that hands a map over to the Géoplateforme: publish."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.options import Config, Json, TerritoryCode
from daemon.output import bar, emit, show_figures
from schemas.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(publish)


def publish(
    millesime: Annotated[int, typer.Option(help="Year of the map wanted.")],
    db: Annotated[Path | None, typer.Option("--db", help="Store; else the configured one.")] = None,
    territory: TerritoryCode = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Also try again what the platform says has failed."),
    ] = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only what changed, onto what is published.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="With --incremental: what is published, a millésime or a time whose knowledge it "
            "was; else what the platform says."
        ),
    ] = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Publish a millésime on the Géoplateforme; run again, it goes on where it was.

    Example: millesimed publish --db D032.duckdb --millesime 2024 --config millesimed.toml
    """
    from daemon.config import load
    from daemon.publish.http import Entrepot
    from daemon.publish.prepare import Wish, prepared
    from daemon.publish.publishing import publish as run
    from daemon.publish.turns import Turns
    from daemon.publish.underway import alone

    if since is not None and not incremental:
        raise UsageError("--since says what --incremental goes on from; give both.")
    settings = load(config)
    if settings.publication is None:
        raise UsageError(
            "Nothing says where to publish; write a [publication] table, see docs/publication.md."
        )
    path = db or (settings.db[0] if settings.db else None)
    if path is None:
        raise UsageError("No store is given; add --db FILE or write `db` in millesimed.toml.")
    folder = settings.publication.folder or path.parent / "deliveries"
    wish = Wish(path, folder, millesime, territory, incremental, since)
    with closing(Entrepot(settings.publication)) as api, bar("publish") as progress:
        plan = prepared(api, settings.publication, wish)
        with alone(folder, plan.ground.name, millesime=millesime) as note:

            def told(stage: str, done: int, total: int) -> None:
                note(stage)
                progress(stage, done, total)

            turns = Turns(api, settings.publication, retry=resume, progress=told)
            done = run(turns, plan)
    figures: dict[str, Any] = {
        "map": plan.ground.name,
        "millesime": millesime,
        "state": plan.state.id,
        "polygons": len(plan.state.frame),
        **asdict(done),
    }
    if json_:
        emit(figures)
    else:
        show_figures("Published", figures)
