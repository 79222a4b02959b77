"""One export as one file, from its plan and its parts as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile

import geopandas as gpd
import pyarrow as pa
import pyarrow.ipc
import shapely
from shapely.geometry import box

from schemas.change import ChangeKind
from schemas.export import ExportFormat, ExportProduct
from updater.diff import Differential, DiffPiece
from updater.diff_files import artificialisation_frame, correction_frame, differential_frame
from updater.errors import ExportFailed
from updater.export import UNWRITTEN, put, staging, world_bounds
from updater.export_layers import (
    CHANGELOG,
    CORRECTION,
    DIFFERENTIAL,
    MAP,
    TEXT,
    Layer,
    Written,
    evolutions,
    write_layer,
    write_styles,
)
from updater.export_made import Tell, changelog_batches, map_batches, pieces, zone_layer
from updater.export_plan import Plan
from updater.export_raster import write_raster
from updater.export_rows import Part, parts
from updater.product import metadata
from updater.reads import Bounds
from updater.store import Store
from updater.trouble import explained

Frame = Callable[[Differential], gpd.GeoDataFrame]
_CODES: Final = ("id_before", "id_after", "cs_before", "us_before", "cs_after", "us_after")
PIECES: Final = pa.schema(
    [*((name, TEXT) for name in _CODES), ("kind", TEXT), ("wkb", pa.binary())]
)
"""Pieces of a differential between being found and being written: three layers are made of them."""


def write_export(
    plan: Plan, given: Iterable[Part], folder: Path, tell: Tell, name: str | None = None
) -> tuple[Path, int]:
    """The file of an export in an empty folder, and how many rows (or pixels) it has; ``name``:
    the file's, else the product's own. A Shapefile comes as its parts unless it is called .zip.

    Raises:
        NoRoom, StoreError, ExportFailed: what the disk does not take.
    """
    path = folder / (name or plan.file_name)
    try:
        if plan.request.product is ExportProduct.RASTER:
            return path, _raster(plan, given, path, tell)
        if plan.request.format is ExportFormat.SHP and path.suffix.lower() == ".zip":
            return path, _zipped(plan, iter(given), path, tell)
        return path, _vector(plan, iter(given), path, tell)
    except (OSError, pa.ArrowException, *UNWRITTEN) as error:
        text = " ".join(str(error).split())[:120].rstrip(".")
        raise explained(error) or ExportFailed(
            f"{path.name} could not be written ({text}); see whether the disk is full, then export "
            "again."
        ) from None


def export_to(store: Store, plan: Plan, out: Path, tell: Tell) -> tuple[Path, int]:
    """The file of an export, in its place complete or not at all, and its rows (or pixels).

    ``out``: the file, or a folder in which the file gets the product's name.
    """
    path = out / plan.file_name if out.is_dir() else out
    with staging(path) as folder:
        _, rows = write_export(plan, parts(store, plan), folder, tell, path.name)
        put(folder, path)
    return path, rows


def _zipped(plan: Plan, given: Iterator[Part], path: Path, tell: Tell) -> int:
    """A Shapefile with its parts in one archive."""
    rows = _vector(plan, given, path.with_suffix(".shp"), tell)
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for part in sorted(p for p in path.parent.iterdir() if p != path):
            archive.write(part, part.name)
            part.unlink()
    return rows


def _raster(plan: Plan, given: Iterable[Part], path: Path, tell: Tell) -> int:
    pixels = write_raster(plan, given, path, tell)
    holds = f"image de {plan.grid.columns} × {plan.grid.rows} pixels ({plan.theme.value})"
    _describe(plan, path, plan.bounds, plan.crs, holds)
    return pixels


def _vector(plan: Plan, given: Iterator[Part], path: Path, tell: Tell) -> int:
    product = plan.request.product
    if product is ExportProduct.CHANGELOG:
        return _layer(plan, path, CHANGELOG, changelog_batches(plan, given, tell)).rows
    if product is ExportProduct.MAP:
        return _map(plan, given, path, tell)
    return _differential(plan, given, path, tell)


def _layer(plan: Plan, path: Path, layer: Layer, batches: Iterable[pa.RecordBatch]) -> Written:
    format_ = plan.request.format
    return write_layer(path, layer, batches, format_=format_, crs=plan.crs, target=plan.target)


def _map(plan: Plan, given: Iterator[Part], path: Path, tell: Tell) -> int:
    zones = next(given)
    rows, bounds = _layer(plan, path, MAP, map_batches(plan, given, tell))
    if plan.request.format is ExportFormat.GPKG:
        write_styles(path)
        built = zone_layer(plan, zones.rows)
        if built is not None:
            _layer(plan, path, built[0], [built[1]])
    holds = f"{rows} polygones de couverture et d'usage"
    if bounds is None:
        _describe(plan, path, plan.bounds, plan.crs, holds)
    else:
        _describe(plan, path, bounds, plan.target, holds)
    return rows


def _describe(plan: Plan, path: Path, bounds: Bounds, crs: str, holds: str) -> None:
    """Metadata beside a file."""
    text = metadata(plan.product, world_bounds([box(*bounds)], crs), holds=holds)
    path.with_suffix(".xml").write_text(text, encoding="utf-8")


def _differential(plan: Plan, given: Iterator[Part], path: Path, tell: Tell) -> int:
    """The layers of a differential; the formats with one layer get the first."""
    before, after = (str(year) for year in plan.request.years)
    wanted: list[tuple[Layer, Frame]] = [
        (DIFFERENTIAL, lambda d: differential_frame(d, plan.crs)),
        (
            evolutions(before, after),
            lambda d: artificialisation_frame(d, plan.crs, years=(before, after)),
        ),
        (CORRECTION, lambda d: correction_frame(d, plan.crs)),
    ]
    if plan.request.product is ExportProduct.CORRECTIVE:
        wanted = wanted[2:]
    elif plan.request.format is not ExportFormat.GPKG:
        wanted = wanted[:1]
    kept = path.with_name(".pieces.arrow")
    with pa.ipc.new_file(kept, PIECES) as writer:
        for found in pieces(plan, given, tell):
            writer.write_batch(_packed(found))
    counts = []
    for layer, make in wanted:
        frames = (make(found) for found in _unpacked(kept))
        batches = (layer.batch(frame) for frame in frames if len(frame))
        counts.append(_layer(plan, path, layer, batches).rows)
    kept.unlink()
    return counts[0]


def _packed(found: list[DiffPiece]) -> pa.RecordBatch:
    columns = [pa.array([getattr(p, name) for p in found], TEXT) for name in _CODES]
    kinds = pa.array([p.kind.value for p in found], TEXT)
    shapes = pa.array(shapely.to_wkb([p.geometry for p in found]), pa.binary())
    return pa.RecordBatch.from_arrays([*columns, kinds, shapes], schema=PIECES)


def _unpacked(path: Path) -> Iterator[Differential]:
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches):
            rows = reader.get_batch(number).to_pydict()
            shapes = shapely.from_wkb(rows.pop("wkb"))
            kinds = [ChangeKind(kind) for kind in rows.pop("kind")]
            columns = [rows[name] for name in _CODES]
            yield Differential(
                [
                    DiffPiece(old, new, cs, us, cs_now, us_now, kind, shape)
                    for old, new, cs, us, cs_now, us_now, kind, shape in zip(
                        *columns, kinds, shapes, strict=True
                    )
                ]
            )
