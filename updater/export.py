"""The map as files: GPKG, Shapefile, GeoParquet, FlatGeobuf, COG.

Files are written in a folder beside their target and moved into place, so that a reader never
meets half a file; what a killed export left there goes with the next one of the same target. A
GeoPackage carries QGIS styles in the official colours; beside each product lies its
metadata.
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
from zipfile import ZIP_DEFLATED, ZipFile

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from schemas.nomenclature import COUVERTURE, CS_FROM_INDEX, CS_INDEX
from updater import faults
from updater.artificialisation import Status, statuses
from updater.clip import clipped, touching
from updater.crs import WGS84, reproject
from updater.errors import ExportFailed
from updater.product import SUFFIXES, Product, metadata, styles
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
FORMATS: Final = (*VECTOR_DRIVERS, "geoparquet", "cog")
COG_PIXEL_M: Final = 1.0
"""Pixel of the raster export: a fifth of the narrowest road, so that none is lost."""
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


def write_vector(frame: gpd.GeoDataFrame, path: Path, *, format_: str, layer: str = LAYER) -> None:
    """A frame as one vector file, complete or not there at all."""
    write_layers({layer: frame}, path, format_=format_)


def write_layers(
    layers: Mapping[str, gpd.GeoDataFrame],
    path: Path,
    *,
    format_: str,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Layers as one product, complete or not there at all.

    A GeoPackage holds them all, with styles; the other formats hold the first only, a Shapefile as
    its parts, or zipped where ``path`` ends so. ``beside``: texts by suffix (metadata) written with
    the same name.
    """
    zipped = path.suffix.lower() == ".zip"
    with staging(path) as folder:
        staged = folder / (f"{path.stem}.shp" if zipped else path.name)
        first = next(iter(layers.values()))
        if format_ == "geoparquet":
            first.to_parquet(staged)
        elif format_ == "gpkg":
            for layer, frame in layers.items():
                pyogrio.write_dataframe(
                    frame, staged, layer=layer, driver="GPKG", dataset_options=GPKG_OPTIONS
                )
            if LAYER in layers:
                pyogrio.write_dataframe(styles(LAYER), staged, layer="layer_styles", driver="GPKG")
            for layer, frame in layers.items():
                check_whole(staged, len(frame), layer)
        else:
            layer = next(iter(layers))
            pyogrio.write_dataframe(first, staged, layer=layer, driver=VECTOR_DRIVERS[format_])
            check_whole(staged, len(first))
        _write_beside(folder, path, beside)
        if zipped:
            parts = sorted(folder.iterdir())
            with ZipFile(folder / path.name, "w", ZIP_DEFLATED) as archive:
                for part in parts:
                    archive.write(part, part.name)
                    part.unlink()
        put(folder, path)


def _write_beside(folder: Path, path: Path, texts: Mapping[str, str] | None) -> None:
    for suffix, text in (texts or {}).items():
        (folder / f"{path.stem}{suffix}").write_text(text, encoding="utf-8")


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


def write_cog(
    polygons: Sequence[MapPolygon], path: Path, *, crs: str, beside: Mapping[str, str] | None = None
) -> None:
    """Cover classes as a 1 m Cloud Optimized GeoTIFF with the official colours; ``beside`` as in
    ``write_layers``."""
    shapes = [p.geometry for p in polygons]
    west, south, east, north = shapely.total_bounds(shapes)
    west, north = np.floor(west), np.ceil(north)
    size = (int(np.ceil(north - south)), int(np.ceil(east - west)))
    values = ((p.geometry, CS_INDEX.get(p.code_cs or "", 0)) for p in polygons)
    transform = from_origin(west, north, COG_PIXEL_M, COG_PIXEL_M)
    raster = rasterize(values, out_shape=size, transform=transform, fill=0, dtype="uint8")
    with staging(path) as folder:
        plain, staged = folder / ".plain.tif", folder / path.name
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
        plain.unlink()
        _write_beside(folder, path, beside)
        put(folder, path)


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


def write_product(
    polygons: Sequence[MapPolygon],
    out: Path,
    product: Product,
    *,
    format_: str,
    ground: BaseGeometry | None = None,
    zones: Sequence[BaseGeometry] = (),
    legal: Sequence[Status] | None = None,
) -> tuple[Path, int]:
    """The map of a territory as IGN would deliver it, with its metadata; gives the file and how
    many polygons it holds.

    ``out``: the file, or a folder in which the file gets the product's name.
    """
    path = out / f"{product.name(format_)}{SUFFIXES[format_]}" if out.is_dir() else out
    if format_ == "cog":
        kept = list(polygons) if ground is None else [p for _, p in clipped(polygons, ground)]
        bounds = world_bounds([p.geometry for p in kept], product.crs)
        text = metadata(product, bounds, polygons=len(kept))
        write_cog(kept, path, crs=product.crs, beside={".xml": text})
        return path, len(kept)
    frame = frame_of(polygons, product.crs, ground=ground, legal=legal)
    layers = {LAYER: frame}
    if zones:
        built = gpd.GeoDataFrame(
            {
                "id": [f"ZC{number:06d}" for number in range(1, len(zones) + 1)],
                "millesime": [str(product.millesime)] * len(zones),
            },
            geometry=list(zones),
            crs=product.crs,
        )
        layers["ZONE_CONSTRUITE"] = built if ground is None else built.clip(ground)
    bounds = world_bounds(frame.geometry.tolist(), product.crs)
    text = metadata(product, bounds, polygons=len(frame))
    write_layers(layers, path, format_=format_, beside={".xml": text})
    return path, len(frame)


def world_bounds(shapes: Sequence[BaseGeometry], crs: str) -> tuple[float, float, float, float]:
    """West, south, east, north of some geometries in degrees."""
    extent = box(*shapely.total_bounds(list(shapes)))
    west, south, east, north = reproject(shapely.segmentize(extent, 10_000), crs, WGS84).bounds
    return west, south, east, north
