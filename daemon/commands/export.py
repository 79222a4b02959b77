"""The command that writes a millésime as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from daemon.options import Db, Json, TerritoryCode, moment, store_path
from daemon.output import bar, emit, show_figures
from schemas.errors import UsageError
from schemas.export import (
    COARSEST_M,
    FINEST_M,
    RASTERS,
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
    crs: Annotated[
        str | None, typer.Option(help="CRS of the file, as in EPSG:4326; else the map's own.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a millésime as a file, the same as the service writes, square by square.

    Example: millesimed export --db D032.duckdb --millesime 2024 --format gpkg --out ocsge.gpkg
    """
    from updater.export_plan import plan_of
    from updater.export_write import export_to
    from updater.legal_rows import refresh
    from updater.store import Store
    from updater.territories import find_territory

    asked = _asked(millesime, format_, resolution, theme, crs)
    unit = "pixels" if asked.product is ExportProduct.RASTER else "polygons"
    known = moment(as_of) if as_of else None
    with Store.open(store_path(db)) as store, bar("export") as progress:
        place = find_territory(store, territory or store.territory)
        plan = plan_of(store, asked, place, known_at=known)
        if asked.product is ExportProduct.MAP and known is None:
            refresh(store)  # pages show statuses that thresholds decided where they are kept
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            progress(unit, done, plan.total)

        tell(0)
        path, rows = export_to(store, plan, out, tell)
    figures = {unit: rows, "path": str(path)}
    if json_:
        emit(figures)
    else:
        show_figures("Exported", figures)


def _asked(
    millesime: int,
    format_: str,
    resolution: float | None,
    theme: ExportTheme | None,
    crs: str | None,
) -> ExportRequest:
    """What the flags ask for.

    Raises:
        UsageError: there is no such format, or they do not go together.
    """
    known = [one.value for one in ExportFormat]
    if format_ not in known:
        raise UsageError(f"There is no format {format_!r}; use {', '.join(known)}.")
    kind = ExportFormat(format_)
    raster = kind in RASTERS
    if not raster and (resolution, theme) != (None, None):
        raise UsageError("A resolution or a theme goes with --format cog or geotiff.")
    metres = 1.0 if resolution is None else resolution
    if not FINEST_M <= metres <= COARSEST_M:
        raise UsageError(f"A resolution is {FINEST_M:g} to {COARSEST_M:g} metres.")
    try:
        return ExportRequest(
            product=ExportProduct.RASTER if raster else ExportProduct.MAP,
            millesime=millesime,
            format=kind,
            resolution=metres if raster else None,
            theme=theme,
            crs=crs,
        )
    except ValidationError as error:
        wrong = {part for one in error.errors() for part in one["loc"]}
        if "crs" in wrong:
            raise UsageError(f"--crs takes a code as in EPSG:4326, not {crs!r}.") from None
        raise UsageError(f"--millesime takes a year, not {millesime}.") from None
