"""Deliveries of IGN: tiles of BD ORTHO, and the mosaic graph that says when each was flown.

A tile is named ``32-2022-0505-6280-LA93-0M20-E080.jp2``: département, millésime, left and top edge
in kilometres. The millésime is not the date of observation: flights of one département spread over
months, and the graph has the day for every polygon. Names of files, layers and columns have changed
between deliveries, so what can be is told by content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Final

import geopandas as gpd
import pandas as pd
import pystac
import structlog
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from daemon.acquire.archives import IMAGES
from daemon.acquire.watcher import AcquireError
from daemon.announce import item_of
from detectors.raster import open_dataset
from schemas.policy import Sensor
from updater.errors import ImportFailed
from updater.vector_io import read, texts

log = structlog.get_logger()

TILE: Final = re.compile(
    r"^(?P<departement>\d{2,3}|2[AB])-(?P<year>(?:19|20)\d{2})-(?P<x>\d{4})-(?P<y>\d{4})-(?P<rest>.+)$",
    re.IGNORECASE,
)
EDGE_M: Final = 50.0
"""How far a tile's corner may lie from the one its name gives before somebody is told."""
LEAST_GROUND_M2: Final = 50.0
"""Polygons of the graph that show less of an image do not date it: the smallest building the map
takes."""
INDEX: Final = "dalle"
"""How the index of a delivery's tiles begins; dates in it are not those of flights."""
NOON: Final = time(12, tzinfo=UTC)


class NoDate(AcquireError):
    """Nobody knows when the image was taken."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What the name of a tile says. ``x``, ``y``: left and top edge, kilometres."""

    departement: str
    year: int
    x: int
    y: int
    infrared: bool


def tile_of(name: str) -> Tile | None:
    """A tile by its file name, None where that is none."""
    found = TILE.match(Path(name).stem)
    if found is None:
        return None
    code = found["departement"].upper().zfill(3)
    infrared = "IRC" in found["rest"].upper().split("-")
    return Tile(f"D{code}", int(found["year"]), int(found["x"]), int(found["y"]), infrared)


def day_of(value: object) -> date | None:
    """A day in any of the ways deliveries have written one; None where it is none."""
    if value is None or value is pd.NaT:
        return None
    if isinstance(value, date):  # a Timestamp is one too
        return date(value.year, value.month, value.day)
    text = str(value).strip().removesuffix(".0")
    for pattern in (r"(\d{4})-?(\d{2})-?(\d{2})(?:[T ].*)?", r"(\d{4})/(\d{2})/(\d{2})(?: .*)?"):
        if found := re.fullmatch(pattern, text):
            return _day(*found.groups())
    if found := re.fullmatch(r"(\d{2})/(\d{2})/(\d{4})", text):
        return _day(*reversed(found.groups()))
    return None


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


@dataclass(slots=True)
class Graph:
    """Polygons of the mosaic with the day each was flown (column ``day``)."""

    frame: gpd.GeoDataFrame

    def days(self, footprint: BaseGeometry, crs: str) -> tuple[date, date] | None:
        """First and last day the ground of an image was flown; None where the graph lacks it."""
        if self.frame.crs is not None and self.frame.crs != crs:
            self.frame = self.frame.to_crs(crs)
        near = self.frame.iloc[self.frame.sindex.query(footprint, predicate="intersects")]
        shown = near[near.geometry.intersection(footprint).area >= LEAST_GROUND_M2]
        return None if shown.empty else (min(shown["day"]), max(shown["day"]))


def graph_in(folders: Sequence[Path]) -> Graph | None:
    """The mosaic graph among the vector files of some folders: whichever has polygons and a column
    of days. None where there is none."""
    found: list[gpd.GeoDataFrame] = []
    for path in _files(folders, {".shp", ".gpkg"}):
        if path.stem.lower().startswith(INDEX):
            continue
        try:
            frame = read(path)
        except ImportFailed as error:
            log.warning("vector_unreadable", file=path.name, error=str(error))
            continue
        column = _day_column(frame)
        if column is None:
            continue
        days = [day_of(value) for value in frame[column]]
        dated = frame.assign(day=days)[["day", "geometry"]].dropna()
        dated = dated[dated.geometry.geom_type.isin(["Polygon", "MultiPolygon"])]
        if len(dated):
            valid = dated.set_geometry(dated.geometry.make_valid())
            found.append(valid if not found else valid.to_crs(found[0].crs))
    return Graph(gpd.GeoDataFrame(pd.concat(found, ignore_index=True))) if found else None


def _day_column(frame: gpd.GeoDataFrame) -> str | None:
    """The column of flight days: ``date_vol``, else one whose name says date and whose values are
    days."""
    columns = [str(c) for c in frame.columns if c != frame.active_geometry_name]
    columns = [c for c in columns if "date" in c.lower() or c.lower().startswith("dat")]
    columns.sort(key=lambda c: "vol" not in c.lower())
    return next((c for c in columns if any(day_of(v) for v in frame[c])), None)


def index_in(folders: Sequence[Path]) -> set[str] | None:
    """Stems of the tiles that a delivery's own index (``dalles.shp``, column NOM) names."""
    for path in _files(folders, {".shp"}):
        if path.stem.lower().startswith(INDEX):
            try:
                named = texts(read(path), "nom", "name")
            except ImportFailed:
                continue
            return {Path(text).stem for text in named if text}
    return None


def images_in(folders: Sequence[Path], *, infrared: bool = False) -> list[Path]:
    """Images of a delivery in order of their names; infrared tiles only where they are wanted."""
    found = sorted(_files(folders, IMAGES), key=lambda path: path.name)
    tiles = {path: tile_of(path.name) for path in found}
    return [p for p in found if infrared or not (t := tiles[p]) or not t.infrared]


def _files(folders: Sequence[Path], suffixes: set[str] | frozenset[str]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix.lower() in suffixes and not hidden and path.is_file():
                yield path


def missing(images: Sequence[Path], folders: Sequence[Path]) -> set[str]:
    """Tiles that the delivery's index names and the delivery lacks."""
    named = index_in(folders)
    return set() if named is None else named - {path.stem for path in images}


def tile_item(
    path: Path, graph: Graph | None, *, sensor: Sensor, departement: str | None
) -> pystac.Item:
    """The Item of an image dated by the graph. Where several flights made it, its date is the last
    one, and ``start_datetime`` and ``end_datetime`` hold all of them.

    Raises:
        NoDate: no graph, or none that shows the ground.
        MillesimedError: no image.
    """
    if graph is None:
        raise NoDate(
            f"{path.name} has no date: its delivery holds no mosaic graph; add the graph of its "
            "millésime, or announce it with `millesimed announce --acquired`."
        )
    with open_dataset(path) as image:
        bounds, crs = image.bounds, image.crs.to_string()
    days = graph.days(box(*bounds), crs)
    if days is None:
        raise NoDate(
            f"The mosaic graph does not show the ground of {path.name}; add the right one."
        )
    tile = tile_of(path.name)
    if tile is not None and not _in_place(tile, bounds.left, bounds.top):
        log.warning("tile_out_of_place", image=path.name, left=bounds.left, top=bounds.top)
    first, last = days
    item = item_of(
        path,
        acquired=datetime.combine(last, NOON),
        sensor=sensor,
        departement=departement or (tile.departement if tile else None),
    )
    if first != last:
        item.properties["start_datetime"] = f"{first.isoformat()}T00:00:00Z"
        item.properties["end_datetime"] = f"{last.isoformat()}T23:59:59Z"
    return item


def _in_place(tile: Tile, left: float, top: float) -> bool:
    return abs(left - 1000 * tile.x) <= EDGE_M and abs(top - 1000 * tile.y) <= EDGE_M
