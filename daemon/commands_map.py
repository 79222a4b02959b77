"""Commands about the map: init, reference, announce, verify, export, diff."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import shapely
import typer

from daemon.options import Config, Db, Json, store_path
from daemon.output import bar, emit, show, show_figures
from schemas.errors import UsageError
from schemas.policy import Sensor

reference = typer.Typer(help="Reference images of the millésime.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(init)
    app.add_typer(reference, name="reference")
    reference.command("add")(reference_add)
    app.command()(announce)
    app.command()(verify)
    app.command()(export)
    app.command()(diff)


def init(
    map_: Annotated[Path, typer.Argument(metavar="MAP", help="Delivered map (vector).")],
    millesime: Annotated[int, typer.Option(min=1900, max=2200, help="Year of the map.")],
    territory: Annotated[str, typer.Option(help="Département, as in D032.")],
    db: Annotated[Path, typer.Option(help="Store to make.")],
    zone_construite: Annotated[Path | None, typer.Option(help="ZONE_CONSTRUITE layer.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make a store from a delivered map.

    Example: millesimed init --db D032.duckdb --millesime 2021 --territory D032 OCCUPATION_SOL.gpkg
    """
    from updater.importer import create_store, prepare

    if dry_run:
        _, report = prepare(map_, millesime=millesime)
    else:
        report = create_store(
            db, map_, territory=territory, millesime=millesime, zone=zone_construite
        )
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
    show_figures("Would import" if dry_run else "Imported", figures)


def reference_add(
    images: Annotated[list[Path], typer.Argument(help="Images of the ground at one date.")],
    acquired: Annotated[str, typer.Option(help="Date of the flight, as in 2021-06-15.")],
    sensor: Annotated[Sensor, typer.Option(help="Sensor family.")],
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
            item = item_of(path, acquired=when(acquired), sensor=sensor)
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
                ),
            )
            progress("images", done, len(images))
    figures = {"images": len(images), "area": float(shapely.union_all(footprints).area)}
    if json_:
        emit(figures)
    else:
        show_figures("Reference", figures)


def announce(
    images: Annotated[list[Path], typer.Argument(help="New images.")],
    acquired: Annotated[str, typer.Option(help="Date of the flight, as in 2024-06-15.")],
    sensor: Annotated[Sensor, typer.Option(help="Sensor family.")],
    inbox: Annotated[Path | None, typer.Option(help="Inbox folder.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    territory: Annotated[str | None, typer.Option(help="Département; else by footprint.")] = None,
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
    for path in images:
        item = item_of(path, acquired=when(acquired), sensor=sensor, departement=territory)
        if servers is not None:
            event_id, destination = item.id, to_topic(item, servers)
        else:
            event_id, body = event_bytes(item)
            destination = str(drop(inbox or settings.inbox_folder(), event_id, body))
        announced.append({"id": event_id, "destination": destination})
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

    with Store.open(store_path(db)) as store:
        verdict = check(store, deep=deep).as_dict()
    if json_:
        emit(verdict)
    else:
        show_figures("Verification", verdict)
    if not verdict["valid"]:
        raise typer.Exit(1)


def export(
    millesime: Annotated[int, typer.Option(help="Year of the map wanted.")],
    format_: Annotated[str, typer.Option("--format", help="gpkg, shp, geoparquet, fgb or cog.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    db: Db = None,
    as_of: Annotated[str | None, typer.Option(help="As known at this time (ISO 8601).")] = None,
    json_: Json = False,
) -> None:
    """Write a millésime as a file.

    Example: millesimed export --db D032.duckdb --millesime 2024 --format gpkg --out ocsge.gpkg
    """
    from updater.export import FORMATS, write
    from updater.reads import FOREVER, end_of
    from updater.reads import as_of as state
    from updater.store import Store

    if format_ not in FORMATS:
        raise UsageError(f"There is no format {format_!r}; use {', '.join(FORMATS)}.")
    known = _moment(as_of) if as_of else FOREVER
    with Store.open(store_path(db)) as store:
        polygons = state(store, valid_at=end_of(millesime), recorded_at=known)
        if not polygons:
            raise UsageError(
                f"The store has no map for {millesime}; its first millésime is {store.millesime}."
            )
        write(polygons, out, format_=format_, crs=store.crs)
    figures = {"polygons": len(polygons), "path": str(out)}
    if json_:
        emit(figures)
    else:
        show_figures("Exported", figures)


def diff(
    from_: Annotated[str, typer.Argument(metavar="FROM", help="Millésime or date.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="Millésime or date.")],
    db: Db = None,
    out: Annotated[Path | None, typer.Option(help="GeoPackage for the pieces.")] = None,
    json_: Json = False,
) -> None:
    """What changed between two millésimes or dates.

    Example: millesimed diff --db D032.duckdb 2021 2024 --out diff.gpkg
    """
    from schemas.change import ChangeKind
    from updater.diff import differential
    from updater.export import differential_frame, write_vector
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        found = differential(store, _instant(from_), _instant(to))
        crs = store.crs
    if out is not None:
        frame = differential_frame(found, crs)
        write_vector(frame, out, format_="gpkg", layer="DIFFERENTIEL")
    figures = {
        "evolutions": found.count(ChangeKind.EVOLUTION),
        "corrections": found.count(ChangeKind.CORRECTION),
        "artificialised_m2": found.area(artificialisation=1),
        "desartificialised_m2": found.area(artificialisation=-1),
        "matrix": found.matrix(),
    }
    if json_:
        emit(figures)
    else:
        show_figures("Differential", figures)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time; give it as in 2026-11-21T08:00:00Z.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _instant(text: str) -> datetime:
    from updater.reads import end_of

    return end_of(int(text)) if re.fullmatch(r"\d{4}", text) else _moment(text)
