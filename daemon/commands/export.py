"""The command that writes a millésime as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.options import Db, Json, TerritoryCode, moment, store_path
from daemon.output import bar, busy, emit, show_figures
from schemas.errors import UsageError
from schemas.export import (
    COARSEST_M,
    FINEST_M,
    ExportFormat,
    ExportProduct,
    ExportRequest,
    ExportTheme,
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)


def export(  # noqa: PLR0913, PLR0917 - each argument is a flag
    millesime: Annotated[int, typer.Option(help="Year of the map wanted.")],
    format_: Annotated[
        str, typer.Option("--format", help="gpkg, shp, geoparquet, fgb, cog or geotiff.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, or folder for IGN's own name.")],
    db: Db = None,
    territory: TerritoryCode = None,
    as_of: Annotated[str | None, typer.Option(help="As known at this time (ISO 8601).")] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Metres a pixel of a raster; else 1.")
    ] = None,
    theme: Annotated[
        ExportTheme | None, typer.Option(help="What its pixels say; else couverture.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a millésime as a file.

    Example: millesimed export --db D032.duckdb --millesime 2024 --format gpkg --out ocsge.gpkg
    """
    from updater.export import FORMATS, write_product
    from updater.legal_rows import statuses_of
    from updater.product import Product
    from updater.reads import FOREVER, end_of, zone_construite_parts
    from updater.reads import as_of as state
    from updater.store import Store
    from updater.territories import find_territory

    if format_ == "geotiff" or resolution is not None or theme is not None:
        asked = _raster(millesime, format_, resolution, theme)
        _export_raster(asked, out, store_path(db), territory, as_of, json_=json_)
        return
    if format_ not in FORMATS:
        raise UsageError(f"There is no format {format_!r}; use {', '.join(FORMATS)}, geotiff.")
    known = moment(as_of) if as_of else FOREVER
    with Store.open(store_path(db)) as store, busy(f"export: {millesime} as {format_}"):
        polygons = state(store, valid_at=end_of(millesime), recorded_at=known)
        if not polygons:
            raise UsageError(
                f"The store has no map for {millesime}; its first millésime is {store.millesime}."
            )
        place = find_territory(store, territory or store.territory)
        path, count = write_product(
            polygons,
            out,
            Product.of(store, place, millesime),
            format_=format_,
            ground=place.geometry if place else None,
            zones=zone_construite_parts(store),
            legal=None if format_ == "cog" else statuses_of(store, polygons),
        )
    figures = {"polygons": count, "path": str(path)}
    if json_:
        emit(figures)
    else:
        show_figures("Exported", figures)


def _raster(
    millesime: int, format_: str, resolution: float | None, theme: ExportTheme | None
) -> ExportRequest:
    try:
        return ExportRequest(
            product=ExportProduct.RASTER,
            millesime=millesime,
            format=ExportFormat(format_),
            resolution=1.0 if resolution is None else resolution,
            theme=theme,
        )
    except ValueError:
        raise UsageError(
            "A resolution or a theme goes with --format cog or geotiff; a resolution is "
            f"{FINEST_M:g} to {COARSEST_M:g} metres."
        ) from None


def _export_raster(
    asked: ExportRequest,
    out: Path,
    db: Path,
    territory: str | None,
    as_of: str | None,
    *,
    json_: bool,
) -> None:
    """The same file as the service writes, square by square."""
    from updater.export_plan import plan_of
    from updater.export_write import export_to
    from updater.store import Store
    from updater.territories import find_territory

    with Store.open(db) as store, bar("export") as progress:
        plan = plan_of(store, asked, find_territory(store, territory or store.territory))
        if as_of:
            plan = plan.model_copy(update={"known_at": moment(as_of)})
        done = 0

        def tell(pixels: int) -> None:
            nonlocal done
            done += pixels
            progress("pixels", done, plan.total)

        path, pixels = export_to(store, plan, out, tell)
    figures = {"pixels": pixels, "path": str(path)}
    if json_:
        emit(figures)
    else:
        show_figures("Exported", figures)
