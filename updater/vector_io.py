"""Reading a delivered map: layers and columns found by content, codes checked, nothing guessed
silently. Formats: whatever GDAL reads (GPKG, Shapefile, FlatGeobuf, GeoJSON) and GeoParquet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import geopandas as gpd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from updater.errors import ImportFailed

CS_COLUMNS: Final = ("code_cs", "couverture", "cs", "cd_cs")
US_COLUMNS: Final = ("code_us", "usage", "us", "cd_us")
"""Names the cover and usage columns had in deliveries, newest first; case does not matter."""


def column(frame: gpd.GeoDataFrame, names: tuple[str, ...]) -> str | None:
    """The first column that carries one of these names, whatever its case."""
    lower = {str(c).lower(): str(c) for c in frame.columns}
    return next((lower[name] for name in names if name in lower), None)


def read(path: Path, *, layer: str | None = None) -> gpd.GeoDataFrame:
    """Any vector file as a frame.

    Raises:
        ImportFailed: no such file, or nothing GDAL or pyarrow can read.
    """
    if not path.exists():
        raise ImportFailed(f"There is no file {path}; check the path.")
    try:
        if path.suffix.lower() in {".parquet", ".geoparquet", ".pq"}:
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
    if path.suffix.lower() in {".parquet", ".geoparquet", ".pq"} or not path.exists():
        return _with_cover(read(path), path)
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    except DataSourceError:
        return _with_cover(read(path), path)
    ordered = sorted(layers, key=lambda name: "occupation" not in name.lower())
    for name in ordered:
        fields = {str(f).lower() for f in pyogrio.read_info(path, layer=name)["fields"]}
        if fields & set(CS_COLUMNS):
            return read(path, layer=name)
    raise ImportFailed(
        f"No layer of {path.name} has a cover column ({', '.join(CS_COLUMNS)}); "
        "give the OCCUPATION_SOL layer."
    )


def _with_cover(frame: gpd.GeoDataFrame, path: Path) -> gpd.GeoDataFrame:
    if column(frame, CS_COLUMNS) is None:
        raise ImportFailed(
            f"{path.name} has no cover column ({', '.join(CS_COLUMNS)}); "
            "give the OCCUPATION_SOL layer."
        )
    return frame
