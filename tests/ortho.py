"""Deliveries of IGN in miniature: real tiles, a real index, a real mosaic graph."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import py7zr
from shapely.geometry import Polygon, box

from tests.test_raster import written

CRS = "EPSG:2154"
KM = 1000.0
PIXELS, GSD = 64, 1.0
LEFT, TOP = 505, 6280
"""Corner of the first tile, kilometres: in the Gers."""


def tile_name(x: int = LEFT, y: int = TOP, *, suffix: str = ".tif", irc: bool = False) -> str:
    return f"32-2022-{x:04d}-{y:04d}-LA93{'-IRC' if irc else ''}-0M20-E080{suffix}"


def tile(folder: Path, x: int = LEFT, y: int = TOP, *, seed: int = 1, **more: bool) -> Path:
    """A small image at the corner its name gives; ``irc``, ``jp2`` choose the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed + x).integers(1, 255, (3, PIXELS, PIXELS)).astype("uint8")
    jp2, irc = more.get("jp2", False), more.get("irc", False)
    path = folder / tile_name(x, y, suffix=".jp2" if jp2 else ".tif", irc=irc)
    driver = {"driver": "JP2OpenJPEG"} if jp2 else {}
    return written(path, pixels, west=x * KM, north=y * KM, gsd=GSD, **driver)


def ground(x: int = LEFT, y: int = TOP) -> Polygon:
    """What a tile shows."""
    side = PIXELS * GSD
    return box(x * KM, y * KM - side, x * KM + side, y * KM)


def graph(
    folder: Path, flown: Iterable[tuple[Polygon, object]], *, column: str = "date_vol"
) -> Path:
    """A mosaic graph: which ground was flown on which day."""
    folder.mkdir(parents=True, exist_ok=True)
    polygons, days = zip(*flown, strict=True)
    frame = gpd.GeoDataFrame({"pva": 2022, column: list(days)}, geometry=list(polygons), crs=CRS)
    path = folder / "graphe.shp"
    frame.to_file(path)
    return path


def index(folder: Path, names: Sequence[str]) -> Path:
    """The index of a delivery's tiles, as IGN names it."""
    frame = gpd.GeoDataFrame(
        {"NOM": [f"./{name}" for name in names], "DATE_MAJ": "2024-01-01"},
        geometry=[ground() for _ in names],
        crs=CRS,
    )
    frame.to_file(folder / "dalles.shp")
    return folder / "dalles.shp"


def delivery(folder: Path, *, day: str = "2022-06-15", tiles: int = 1) -> Path:
    """A complete delivery of some tiles, all flown on one day."""
    for number in range(tiles):
        tile(folder, LEFT + number)
    index(folder, [tile_name(LEFT + number, suffix=".jp2") for number in range(tiles)])
    graph(folder, [(ground(LEFT + number), day) for number in range(tiles)])
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            target.write(path, f"{archive.stem}/{path.relative_to(folder)}")
    return archive


def sevenzipped(folder: Path, archive: Path) -> Path:
    with py7zr.SevenZipFile(archive, "w") as target:
        target.writeall(folder, archive.stem)
    return archive


def volumes(archive: Path, size: int) -> list[Path]:
    """An archive cut into volumes, as IGN delivers large ones; the whole is gone."""
    body = archive.read_bytes()
    made = []
    for number, begin in enumerate(range(0, len(body), size), 1):
        path = archive.with_name(f"{archive.name}.{number:03d}")
        path.write_bytes(body[begin : begin + size])
        made.append(path)
    archive.unlink()
    return made


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
