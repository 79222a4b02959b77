"""Reading vector files: layers and columns found by content, nothing guessed silently.

Formats: whatever GDAL reads (GPKG, Shapefile, FlatGeobuf, GeoJSON) and GeoParquet; a folder stands
for the files in it, as deliveries are unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import geopandas as gpd
import pandas as pd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from updater.errors import ImportFailed

CS_COLUMNS: Final = ("code_cs", "couverture", "cs", "cd_cs")
US_COLUMNS: Final = ("code_us", "usage", "us", "cd_us")
"""Names the cover and usage columns had in deliveries, newest first; case does not matter."""
YEAR_COLUMNS: Final = ("millesime", "annee")
PARQUET: Final = frozenset({".parquet", ".geoparquet", ".pq"})
VECTOR: Final = PARQUET | {".gpkg", ".shp", ".fgb", ".geojson", ".json"}


def column(frame: gpd.GeoDataFrame, names: tuple[str, ...]) -> str | None:
    """The first column that carries one of these names, whatever its case."""
    lower = {str(c).lower(): str(c) for c in frame.columns}
    return next((lower[name] for name in names if name in lower), None)


def texts(frame: gpd.GeoDataFrame, *names: str) -> list[str | None]:
    """A column as text, whatever its type and the case of its name: None where it is null, blank
    or not there; whole numbers without a point."""
    found = column(frame, names)
    if found is None:
        return [None] * len(frame)
    values = frame[found]
    if pd.api.types.is_float_dtype(values):
        values = values.map(lambda v: None if pd.isna(v) else f"{v:g}")
    lost = values.isna().tolist()
    stripped = [str(v).strip() for v in values.tolist()]
    return [None if gone else text or None for text, gone in zip(stripped, lost, strict=True)]


def read(path: Path, *, layer: str | None = None) -> gpd.GeoDataFrame:
    """Any vector file as a frame.

    Raises:
        ImportFailed: no such file, or nothing GDAL or pyarrow can read.
    """
    if not path.exists():
        raise ImportFailed(f"There is no file {path}; check the path.")
    try:
        if path.suffix.lower() in PARQUET:
            return gpd.read_parquet(path)
        return gpd.read_file(path, layer=layer) if layer else gpd.read_file(path)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise ImportFailed(
            f"{path.name} cannot be read as a vector layer ({str(error)[:120]}); "
            "give a GPKG, SHP, FlatGeobuf, GeoJSON or GeoParquet file."
        ) from None


def read_cover(path: Path) -> gpd.GeoDataFrame:
    """The layer that carries cover codes (OCCUPATION_SOL, whatever it is called).

    Raises:
        ImportFailed: no layer has a cover column.
    """
    if not path.exists():
        return read(path)
    found = _find(path, "occupation", lambda fields: bool(fields & set(CS_COLUMNS)))
    if found is not None:
        return found
    if path.is_file() and path.suffix.lower() not in PARQUET:
        read(path)  # says so where it is no vector file at all
    raise ImportFailed(
        f"No layer of {path.name} has a cover column ({', '.join(CS_COLUMNS)}); "
        "give the OCCUPATION_SOL layer."
    )


def read_zone(path: Path) -> gpd.GeoDataFrame | None:
    """The built-up zones delivered with a map: a layer of the same file, or a file beside a
    Shapefile, that is called so and carries no cover; None where there is none."""
    place = path.parent if path.suffix.lower() == ".shp" else path
    return _find(place, "zone_construite", lambda fields: not fields & set(CS_COLUMNS), strict=True)


def _find(
    path: Path, name: str, fits: Callable[[set[str]], bool], *, strict: bool = False
) -> gpd.GeoDataFrame | None:
    """The layer whose columns fit, one with ``name`` in its name first; ``strict``: only such."""
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in VECTOR)
    candidates: list[tuple[Path, str | None, str]] = []
    for file in files:
        if file.suffix.lower() in PARQUET:
            candidates.append((file, None, file.stem))
            continue
        try:
            layers = [str(n) for n, kind in pyogrio.list_layers(file) if kind is not None]
        except DataSourceError:
            continue
        candidates += [
            (file, layer, f"{layer} {file.stem if len(layers) == 1 else ''}") for layer in layers
        ]
    candidates.sort(key=lambda c: name not in c[2].lower())
    for file, layer, called in candidates:
        if strict and name not in called.lower():
            continue
        if layer is None:
            frame = read(file)
            if fits({str(c).lower() for c in frame.columns}):
                return frame
        elif fits({str(f).lower() for f in pyogrio.read_info(file, layer=layer)["fields"]}):
            return read(file, layer=layer)
    return None
