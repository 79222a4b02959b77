"""Commands about what changed: diff, changelog, events, lineage, revert."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from daemon.options import Db, Json, TerritoryCode, instant, moment, store_path
from daemon.output import busy, emit, show, show_figures
from schemas.errors import UsageError

AsOf = Annotated[str | None, typer.Option("--as-of", help="As known at this time (ISO 8601).")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(diff)
    app.command()(changelog)
    app.command()(events)
    app.command()(lineage)
    app.command()(revert)


def diff(
    from_: Annotated[str, typer.Argument(metavar="FROM", help="Millésime or date.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="Millésime or date.")],
    db: Db = None,
    territory: TerritoryCode = None,
    out: Annotated[
        Path | None, typer.Option(help="GeoPackage: differential, artificialisation, corrections.")
    ] = None,
    matrix: Annotated[
        list[Path] | None, typer.Option(help="Evolution matrix, as .csv or .png; may be repeated.")
    ] = None,
    as_of: AsOf = None,
    json_: Json = False,
) -> None:
    """What changed between two millésimes or dates.

    Example: millesimed diff --db D032.duckdb 2021 2024 --out diff.gpkg --matrix matrix.png
    """
    from schemas.change import ChangeKind
    from updater.diff import differential
    from updater.diff_files import write_differential, write_matrix_csv, write_matrix_png
    from updater.store import Store
    from updater.territories import find_territory

    for path in matrix or []:
        if path.suffix.lower() not in {".csv", ".png"}:
            raise UsageError(f"The matrix is written as .csv or .png, not {path.name!r}.")
    with Store.open(store_path(db)) as store, busy(f"diff: {from_} to {to}"):
        place = find_territory(store, territory or store.territory)
        found = differential(
            store,
            instant(from_),
            instant(to),
            territory=place.geometry if place else None,
            recorded_at=moment(as_of) if as_of else None,
        )
        crs, name = store.crs, place.name if place else store.territory
    if out is not None:
        years = (from_[:4], to[:4])
        with busy(f"diff: {out.name}"):
            write_differential(found, out, crs=crs, years=years)
    for path in matrix or []:
        if path.suffix.lower() == ".csv":
            write_matrix_csv(found, path)
        else:
            write_matrix_png(found, path, title=f"{name}, {from_} → {to}")
    figures = {
        "evolutions": found.count(ChangeKind.EVOLUTION),
        "corrections": found.count(ChangeKind.CORRECTION),
        "artificialised_m2": found.area(artificialisation=1),
        "desartificialised_m2": found.area(artificialisation=-1),
        "net_evolution_m2": found.flux(ChangeKind.EVOLUTION),
        "net_correction_m2": found.flux(ChangeKind.CORRECTION),
        "stock_before_m2": found.stock_before,
        "stock_after_m2": found.stock_after,
        "unexplained_m2": found.unexplained,
    }
    flows = found.matrix()
    if json_:
        emit(figures | {"matrix": flows})
        return
    show(
        "Evolution matrix",
        [
            {"from": before, "to": after, "m²": area}
            for before, row in sorted(flows.items())
            for after, area in sorted(row.items(), key=lambda cell: -cell[1])
        ],
    )
    show_figures("Differential", figures)


def changelog(
    from_: Annotated[str, typer.Argument(metavar="FROM", help="Millésime or date.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="Millésime or date.")],
    out: Annotated[Path, typer.Option(help="GeoParquet file.")],
    db: Db = None,
    as_of: AsOf = None,
    json_: Json = False,
) -> None:
    """Every polygon of two states: added, removed, changed or unchanged.

    Example: millesimed changelog 2021 2024 --db D032.duckdb --out changelog.parquet
    """
    from updater.diff import differential
    from updater.diff_files import changelog_frame
    from updater.export import write_parquet
    from updater.reads import as_of as state
    from updater.store import Store

    with Store.open(store_path(db)) as store, busy(f"changelog: {from_} to {to}"):
        known = moment(as_of) if as_of else store.clock()
        first, last = instant(from_), instant(to)
        old = state(store, valid_at=first, recorded_at=known)
        new = state(store, valid_at=last, recorded_at=known)
        pieces = differential(store, first, last, recorded_at=known).pieces
        frame = changelog_frame(old, new, pieces, store.crs)
    with busy(f"changelog: {out.name}"):
        write_parquet(frame, out)
    counts = frame["status"].value_counts()
    figures = {
        **{s: int(counts.get(s, 0)) for s in ("added", "removed", "changed", "unchanged")},
        "path": str(out),
    }
    if json_:
        emit(figures)
    else:
        show_figures("Changelog", figures)


def events(db: Db = None, json_: Json = False) -> None:
    """Events that had their effect on the map, newest first.

    Example: millesimed events --db D032.duckdb
    """
    from updater.lineage import events as found
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        rows = [asdict(row) for row in found(store)]
    if json_:
        emit(rows)
    else:
        show("Events", rows)


def lineage(
    polygon: Annotated[str, typer.Argument(help="Id of a polygon, of now or of the past.")],
    db: Db = None,
    json_: Json = False,
) -> None:
    """Where a polygon comes from and what became of it.

    Example: millesimed lineage MLS0123456789ABCDEF0123 --db D032.duckdb
    """
    from updater.lineage import ancestors, descendants
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        back = [asdict(step) for step in ancestors(store, polygon)]
        on = [asdict(step) for step in descendants(store, polygon)]
    if json_:
        emit({"polygon": polygon, "ancestors": back, "descendants": on})
        return
    show(f"{polygon} comes from", back)
    show(f"{polygon} became", on)


def revert(
    event: Annotated[str, typer.Argument(help="Id of the event; see `millesimed events`.")],
    reason: Annotated[str, typer.Option(help="Why: it stands in the history.")],
    db: Db = None,
    json_: Json = False,
) -> None:
    """Undo one event; the undo is history too, and nothing is lost.

    Example: millesimed revert pva-20240618-0123456789abcdef --reason "wrong image" --db D032.duckdb
    """
    from updater.revert import revert as undo
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        figures = asdict(undo(store, event, reason=reason))
    if json_:
        emit(figures)
    else:
        show_figures("Reverted", figures)
