"""Files of maps: whole or not there, and the columns of the product.

Files are written in a folder beside their target and moved into place, so that a reader never
meets half a file; what a killed export left there goes with the next one of the same target. Whole
products are written square by square (``updater.export_write``); what is small, from frames.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from updater import faults
from updater.artificialisation import Status, statuses
from updater.clip import clipped, touching
from updater.crs import WGS84, reproject
from updater.errors import ExportFailed
from updater.trouble import explained
from updater.types import MapPolygon

UNWRITTEN: Final = (
    DataSourceError,
    DataLayerError,
    FeatureError,
    RasterioError,
    CPLE_BaseError,
)
"""What GDAL raises when a file cannot be written or finished."""
VECTOR_DRIVERS: Final[dict[str, str]] = {
    "gpkg": "GPKG",
    "shp": "ESRI Shapefile",
    "fgb": "FlatGeobuf",
}
GPKG_OPTIONS: Final = {"VERSION": "1.3"}
"""The newest version that GDAL 3.6 (Debian 12, QGIS 3.22) opens without a warning."""
LAYER: Final = "OCCUPATION_SOL"


def frame_of(
    polygons: Sequence[MapPolygon],
    crs: str,
    *,
    ground: BaseGeometry | None = None,
    legal: Sequence[Status] | None = None,
) -> gpd.GeoDataFrame:
    """OCCUPATION_SOL with the columns of the artificialisation layer, cut to a territory.

    ``legal``: statuses of the polygons where they are known; else they are told here, from the map
    around the territory too.
    """
    if legal is None:
        if ground is not None:
            polygons = touching(polygons, ground)
        legal = statuses(polygons)
    if ground is not None:
        kept = clipped(polygons, ground)
        legal = [legal[index] for index, _ in kept]
        polygons = [polygon for _, polygon in kept]
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


def write_vector(frame: gpd.GeoDataFrame, path: Path, *, layer: str = LAYER) -> None:
    """A frame as a GeoPackage, complete or not there at all."""
    write_layers({layer: frame}, path)


def write_parquet(frame: gpd.GeoDataFrame, path: Path) -> None:
    """A frame as GeoParquet, complete or not there at all."""
    with staging(path) as folder:
        frame.to_parquet(folder / path.name)
        put(folder, path)


def write_layers(layers: Mapping[str, gpd.GeoDataFrame], path: Path) -> None:
    """Layers as one GeoPackage, complete or not there at all."""
    with staging(path) as folder:
        staged = folder / path.name
        for layer, frame in layers.items():
            pyogrio.write_dataframe(
                frame, staged, layer=layer, driver="GPKG", dataset_options=GPKG_OPTIONS
            )
        for layer, frame in layers.items():
            check_whole(staged, len(frame), layer)
        put(folder, path)


def put(folder: Path, path: Path) -> None:
    """Everything of a folder into its place. A Shapefile is several files: without its main one
    there is none, so that goes first and comes last, and no reader meets parts of two."""
    faults.reached("in-export")
    parts = sorted(folder.iterdir(), key=lambda part: (part.name == path.name, part.name))
    if path.suffix.lower() == ".shp":
        path.unlink(missing_ok=True)
    for part in parts:
        part.replace(path.parent / part.name)
        faults.reached("between-parts")


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A folder beside a file in which it is made; gone afterwards. It is locked meanwhile, which
    tells what a killed export left from what another is still writing.

    Raises:
        NoRoom, StoreError, ExportFailed: what the disk does not take.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".export-{path.name}-"
        for left in path.parent.glob(f"{glob.escape(prefix)}*"):
            with suppress(OSError), _locked(left):
                shutil.rmtree(left)
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder,
            _locked(Path(folder)),
        ):
            yield Path(folder)
    except (OSError, *UNWRITTEN) as error:
        text = " ".join(str(error).split())[:120].rstrip(".")
        raise explained(error) or ExportFailed(
            f"{path.name} could not be written ({text}); see whether the disk is full, then export "
            "again."
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A folder nobody else has; the lock goes with the process, however that ends.

    Raises:
        OSError: another process has it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def check_whole(path: Path, rows: int, layer: str | None = None) -> None:
    """What GDAL writes when it closes a file (the spatial index of a GeoPackage, the ends of a
    Shapefile's parts) may be missing where the disk is full by then, and nobody says so.

    Raises:
        OSError: an index or the last row is missing.
    """
    found = pyogrio.read_info(path, layer=layer, force_feature_count=True)
    whole = found["features"] == rows
    if whole and rows:
        last = pyogrio.read_dataframe(path, layer=layer, skip_features=rows - 1)
        whole = len(last) == 1 and last.geometry.notna().all() and last.iloc[:, 0].notna().all()
    if found["driver"] == "GPKG":
        whole &= not rows or found["capabilities"]["fast_spatial_filter"]
    if not whole:
        raise OSError(errno.ENOSPC, "the file is not whole", path.name)


def world_bounds(shapes: Sequence[BaseGeometry], crs: str) -> tuple[float, float, float, float]:
    """West, south, east, north of some geometries in degrees."""
    extent = box(*shapely.total_bounds(list(shapes)))
    west, south, east, north = reproject(shapely.segmentize(extent, 10_000), crs, WGS84).bounds
    return west, south, east, north
