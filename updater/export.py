"""The map and its differential as files: GPKG, Shapefile, GeoParquet, FlatGeobuf, COG.

Files are written beside their target and moved into place, so that a reader never meets half a
file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin

from schemas.nomenclature import COUVERTURE, CS_FROM_INDEX, CS_INDEX
from updater.artificialisation import statuses
from updater.diff import Differential
from updater.generalise import as_multi
from updater.types import MapPolygon

VECTOR_DRIVERS: Final[dict[str, str]] = {
    "gpkg": "GPKG",
    "shp": "ESRI Shapefile",
    "fgb": "FlatGeobuf",
}
FORMATS: Final = (*VECTOR_DRIVERS, "geoparquet", "cog")
COG_PIXEL_M: Final = 1.0
"""Pixel of the raster export: a fifth of the narrowest road, so that none is lost."""
LAYER: Final = "OCCUPATION_SOL"


def frame_of(polygons: Sequence[MapPolygon], crs: str) -> gpd.GeoDataFrame:
    """OCCUPATION_SOL with the columns of the artificialisation layer."""
    legal = statuses(polygons)
    return gpd.GeoDataFrame(
        {
            "id": [p.id for p in polygons],
            "code_cs": [p.code_cs for p in polygons],
            "code_us": [p.code_us for p in polygons],
            "millesime": [str(p.millesime) for p in polygons],
            "source": [p.source for p in polygons],
            "ossature": np.array([int(p.ossature) for p in polygons], dtype=np.int32),
            "id_origine": [p.id_origine for p in polygons],
            "code_or": [p.code_or for p in polygons],
            "aire": [float(p.geometry.area) for p in polygons],
            "artif": [s.status.value for s in legal],
            "crit_seuil": [s.by_threshold for s in legal],
        },
        geometry=[p.geometry for p in polygons],
        crs=crs,
    )


def differential_frame(differential: Differential, crs: str) -> gpd.GeoDataFrame:
    """The OCS GE differential layer: codes before and after, legal effect, surface."""
    pieces = differential.pieces
    return gpd.GeoDataFrame(
        {
            "id_avant": [p.id_before for p in pieces],
            "id_apres": [p.id_after for p in pieces],
            "cs_avant": [p.cs_before for p in pieces],
            "us_avant": [p.us_before for p in pieces],
            "cs_apres": [p.cs_after for p in pieces],
            "us_apres": [p.us_after for p in pieces],
            "nature": [p.kind.value for p in pieces],
            "artificialisation": np.array([p.artificialisation for p in pieces], dtype=np.int32),
            "surface": [float(p.geometry.area) for p in pieces],
        },
        geometry=[as_multi(p.geometry) for p in pieces],
        crs=crs,
    )


def write_vector(frame: gpd.GeoDataFrame, path: Path, *, format_: str, layer: str = LAYER) -> None:
    """A frame as one vector file, complete or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        staged = Path(folder) / path.name
        if format_ == "geoparquet":
            frame.to_parquet(staged)
        else:
            frame.to_file(staged, driver=VECTOR_DRIVERS[format_], layer=layer, engine="pyogrio")
        for part in sorted(Path(folder).iterdir()):  # a Shapefile is several files
            shutil.move(part, path.parent / part.name)


def write_cog(polygons: Sequence[MapPolygon], path: Path, *, crs: str) -> None:
    """Cover classes as a 1 m Cloud Optimized GeoTIFF with the official colours."""
    shapes = [p.geometry for p in polygons]
    west, south, east, north = shapely.total_bounds(shapes)
    west, north = np.floor(west), np.ceil(north)
    size = (int(np.ceil(north - south)), int(np.ceil(east - west)))
    values = ((p.geometry, CS_INDEX.get(p.code_cs or "", 0)) for p in polygons)
    transform = from_origin(west, north, COG_PIXEL_M, COG_PIXEL_M)
    raster = rasterize(values, out_shape=size, transform=transform, fill=0, dtype="uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        plain, staged = Path(folder) / "plain.tif", Path(folder) / path.name
        profile = {
            "driver": "GTiff",
            "height": size[0],
            "width": size[1],
            "count": 1,
            "dtype": "uint8",
            "crs": crs,
            "transform": transform,
            "nodata": 0,
        }
        with rasterio.open(plain, "w", **profile) as target:
            target.write(raster, 1)
            target.write_colormap(1, colour_table())
            target.set_band_description(1, "code_cs")
        copy_raster(plain, staged, driver="COG", compress="deflate", overview_resampling="mode")
        shutil.move(staged, path)


def colour_table() -> dict[int, tuple[int, int, int, int]]:
    """Official colour of each raster value; 0 is transparent."""
    table = {0: (0, 0, 0, 0)}
    for value, code in CS_FROM_INDEX.items():
        table[value] = (*COUVERTURE[code].rgb, 255)
    return table


def write(polygons: Sequence[MapPolygon], path: Path, *, format_: str, crs: str) -> None:
    """The map in one of ``FORMATS``."""
    if format_ == "cog":
        write_cog(polygons, path, crs=crs)
    else:
        write_vector(frame_of(polygons, crs), path, format_=format_)
