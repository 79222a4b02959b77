"""Commands about the map: init, reference, territory, announce, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import shapely
import typer

from daemon.options import Config, Db, Json, store_path
from daemon.output import bar, busy, emit, show, show_figures, write_rows
from schemas.policy import Sensor
from schemas.territory import TerritoryKind

Elevation = Annotated[
    Path | None, typer.Option(help="Surface model (MNS, metres) of the same date.")
]
reference = typer.Typer(help="Reference images of the millésime.", no_args_is_help=True)
territory = typer.Typer(help="Communes, EPCI, SCOT, départements.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(init)
    app.add_typer(reference, name="reference")
    reference.command("add")(reference_add)
    app.command()(announce)
    app.command()(verify)
    app.add_typer(territory, name="territory")
    territory.command("add")(territory_add)
    territory.command("list")(territory_list)


def init(
    map_: Annotated[Path, typer.Argument(metavar="MAP", help="Delivered map (vector).")],
    millesime: Annotated[int, typer.Option(min=1900, max=2200, help="Year of the map.")],
    territory: Annotated[str, typer.Option(help="Département, as in D032.")],
    db: Annotated[Path, typer.Option(help="Store to make.")],
    zone_construite: Annotated[Path | None, typer.Option(help="ZONE_CONSTRUITE layer.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    report_: Annotated[
        Path | None, typer.Option("--report", help="CSV of every repair, polygon by polygon.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a store from a delivered map.

    Example: millesimed init --db D032.duckdb --millesime 2021 --territory D032 OCCUPATION_SOL.gpkg
    """
    from updater.importer import create_store, prepare

    with bar("init") as progress:
        if dry_run:
            _, report = prepare(map_, millesime=millesime, territory=territory, progress=progress)
        else:
            report = create_store(
                db,
                map_,
                territory=territory,
                millesime=millesime,
                zone=zone_construite,
                progress=progress,
            )
    if report_ is not None:
        write_rows(report_, ("repair", "polygon"), report.details)
    figures = {
        "polygons": report.polygons,
        "repaired": dict(report.repaired),
        "area": report.area,
        "valid": report.valid,
    }
    if json_:
        emit(figures)
        return
    show("Repaired", [{"what": kind, "polygon": name} for kind, name in report.details[:200]])
    if len(report.details) > 200:
        show("Repaired", [{"what": "and more; see --report", "polygon": len(report.details) - 200}])
    show_figures("Would import" if dry_run else "Imported", figures)


def reference_add(
    images: Annotated[list[Path], typer.Argument(help="Images of the ground at one date.")],
    acquired: Annotated[str, typer.Option(help="Date of the flight, as in 2021-06-15.")],
    sensor: Annotated[Sensor, typer.Option(help="Sensor family.")],
    elevation: Elevation = None,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Tell the store which images show the ground its map describes.

    Example: millesimed reference add tiles/*.tif --acquired 2021-06-15 --sensor pva
    """
    from shapely.geometry import shape

    from daemon.announce import item_of, when
    from updater.commit import add_image
    from updater.crs import WGS84, reproject
    from updater.reads import ImageRecord
    from updater.store import Store

    footprints = []
    with Store.open(store_path(db)) as store, bar("reference") as progress:
        for done, path in enumerate(images, start=1):
            item = item_of(path, acquired=when(acquired), sensor=sensor, elevation=elevation)
            footprint = reproject(shape(item.geometry), WGS84, store.crs)
            footprints.append(footprint)
            add_image(
                store,
                ImageRecord(
                    item=item.id,
                    path=path.resolve(),
                    sensor=sensor,
                    acquired=when(acquired),
                    gsd=float(item.properties["gsd"]),
                    footprint=footprint,
                    elevation=elevation.resolve() if elevation else None,
                ),
            )
            progress("images", done, len(images))
    figures = {"images": len(images), "area": float(shapely.union_all(footprints).area)}
    if json_:
        emit(figures)
    else:
        show_figures("Reference", figures)


def announce(  # noqa: PLR0913, PLR0917 - each argument is a flag
    images: Annotated[list[Path], typer.Argument(help="New images.")],
    acquired: Annotated[str, typer.Option(help="Date of the flight, as in 2024-06-15.")],
    sensor: Annotated[Sensor, typer.Option(help="Sensor family.")],
    inbox: Annotated[Path | None, typer.Option(help="Inbox folder.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    territory: Annotated[str | None, typer.Option(help="Département; else by footprint.")] = None,
    elevation: Elevation = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Announce new images to the service.

    Example: millesimed announce new.tif --acquired 2024-06-15 --sensor pva --inbox inbox
    """
    from daemon.announce import drop, event_bytes, item_of, to_topic, when
    from daemon.config import KafkaSettings, load

    settings = load(config)
    servers = KafkaSettings(servers=kafka) if kafka else (None if inbox else settings.kafka)
    announced = []
    with bar("announce") as progress:
        for done, path in enumerate(images, start=1):
            item = item_of(
                path,
                acquired=when(acquired),
                sensor=sensor,
                departement=territory,
                elevation=elevation,
            )
            if servers is not None:
                event_id, destination = item.id, to_topic(item, servers)
            else:
                event_id, body = event_bytes(item)
                destination = str(drop(inbox or settings.inbox_folder(), event_id, body))
            announced.append({"id": event_id, "destination": destination})
            progress("images", done, len(images))
    if json_:
        emit(announced[0] if len(announced) == 1 else {"events": announced})
    else:
        show("Announced", list(announced))


def verify(
    db: Db = None,
    deep: Annotated[bool, typer.Option("--deep", help="Check every past state too.")] = False,
    json_: Json = False,
) -> None:
    """Check that the map is a coverage and its history adds up.

    Example: millesimed verify --db D032.duckdb --deep
    """
    from updater.store import Store
    from updater.verify import verify as check

    with Store.open(store_path(db)) as store, busy("verify: every state" if deep else "verify"):
        verdict = check(store, deep=deep).as_dict()
    if json_:
        emit(verdict)
    else:
        show_figures("Verification", verdict)
    if not verdict["valid"]:
        raise typer.Exit(1)


def territory_add(
    files: Annotated[list[Path], typer.Argument(help="Vector files of territories.")],
    kind: Annotated[TerritoryKind, typer.Option(help="What they are.")],
    db: Db = None,
    json_: Json = False,
) -> None:
    """Tell the store which territories people will ask for.

    Example: millesimed territory add communes.gpkg --kind commune --db D032.duckdb
    """
    from updater.store import Store
    from updater.territories import add_territories

    with Store.open(store_path(db)) as store, bar("territory") as progress:
        added = 0
        for done, path in enumerate(files, start=1):
            added += add_territories(store, path, kind)
            progress("files", done, len(files))
    figures = {"territories": added, "kind": kind.value}
    if json_:
        emit(figures)
    else:
        show_figures("Territories", figures)


def territory_list(db: Db = None, json_: Json = False) -> None:
    """Territories the store knows.

    Example: millesimed territory list --db D032.duckdb
    """
    from updater.store import Store
    from updater.territories import territories

    with Store.open(store_path(db)) as store:
        rows = [
            {"kind": t.kind.value, "code": t.code, "name": t.name, "area": t.geometry.area}
            for t in territories(store)
        ]
    if json_:
        emit(rows)
    else:
        show("Territories", rows)
