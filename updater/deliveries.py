"""What is handed to a platform: folders of files, each with its MD5, made once and kept.

A folder is named after what it holds, so the same state of the map gives the same folder, and a run
that was killed finds what it had begun to send, byte for byte. Tables are named in small letters
from the start, for the platform makes them so.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import geopandas as gpd
import pyogrio
import shapely
from shapely.geometry.base import BaseGeometry

from updater.errors import ExportFailed
from updater.export import frame_of, write_layers
from updater.increments import GEOMETRY, KEY, Increment, write_increment
from updater.reads import FOREVER, as_of
from updater.store import Store
from updater.trouble import explained

TABLE: Final = "occupation_sol"
ZONES: Final = "zone_construite"
SUMS: Final = "ocsge.md5"
"""File that holds the MD5 of the others."""
REMOTE: Final = "ocsge"
"""Folder of a delivery the files lie in, on the platform's side; MD5 lines name it too."""
WRITTEN: Final = "2000-01-01T00:00:00.000Z"
"""What a GeoPackage says of its last change, so that equal content makes equal bytes."""
COLUMNS: Final = {
    "code_cs": "character varying",
    "code_us": "character varying",
    "millesime": "character varying",
    "source": "character varying",
    "ossature": "integer",
    "id_origine": "character varying",
    "code_or": "character varying",
    "aire": "double precision",
    "artif": "character varying",
    "crit_seuil": "boolean",
}
"""Columns of ``updater.export.frame_of`` behind the key, as PostgreSQL has them."""
ID_LENGTH: Final = 12
"""Hexadecimal digits of a state's or a delivery's id: 48 bits, a handful of which ever meet."""
CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a delivery."""

    name: str
    size: int
    md5: str

    @property
    def remote(self) -> str:
        """Its path on the platform."""
        return f"{REMOTE}/{self.name}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that are delivered and processed together. ``content``: what their bytes are known
    by."""

    folder: Path
    parts: tuple[Part, ...]

    @property
    def content(self) -> str:
        return short(sums(self.parts).encode())

    @property
    def size(self) -> int:
        """Bytes of all files, without their MD5."""
        return sum(part.size for part in self.parts)

    @property
    def suffixes(self) -> frozenset[str]:
        """What kinds of files it has."""
        return frozenset(Path(part.name).suffix for part in self.parts)


def frame_at(
    store: Store,
    valid_at: datetime,
    *,
    recorded_at: datetime = FOREVER,
    ground: BaseGeometry | None = None,
) -> gpd.GeoDataFrame:
    """A state of the map as it is delivered. Legal statuses are judged anew, so that the same state
    reads the same whenever it is asked for."""
    return frame_of(
        as_of(store, valid_at=valid_at, recorded_at=recorded_at), store.crs, ground=ground
    )


def fingerprint(frame: gpd.GeoDataFrame) -> str:
    """What a state of the map is known by: every value and every vertex of it."""
    ordered = frame.sort_values(KEY)
    digest = hashlib.sha256(ordered.drop(columns=ordered.geometry.name).to_csv().encode())
    for outline in shapely.to_wkb(ordered.geometry.to_numpy()):
        digest.update(outline)
    return digest.hexdigest()[:ID_LENGTH]


def short(text: bytes) -> str:
    """What some bytes are known by."""
    return hashlib.sha256(text).hexdigest()[:ID_LENGTH]


def write_structure(folder: Path, crs: str) -> None:
    """The tables with their primary keys: without one a table takes no updates."""
    srid = crs.rpartition(":")[2]
    columns = "".join(f"    {name} {kind},\n" for name, kind in COLUMNS.items())
    (folder / f"{TABLE}-init.sql").write_text(
        f"CREATE TABLE {TABLE} (\n    {KEY} character varying PRIMARY KEY,\n{columns}"
        f"    {GEOMETRY} geometry(Polygon,{srid})\n);\n\n"
        f"CREATE TABLE {ZONES} (\n    {KEY} character varying PRIMARY KEY,\n"
        f"    millesime character varying,\n    {GEOMETRY} geometry(Geometry,{srid})\n);\n",
        encoding="utf-8",
    )


def write_whole(folder: Path, frame: gpd.GeoDataFrame, zones: gpd.GeoDataFrame | None) -> None:
    """A whole state of the map as one GeoPackage."""
    layers = {TABLE: frame}
    if zones is not None and len(zones):
        layers[ZONES] = zones
    with _dated():
        write_layers(layers, folder / f"{TABLE}.gpkg")


def write_changes(folder: Path, found: Increment) -> None:
    """What changed between two states."""
    with _dated():
        write_increment(found, folder, table=TABLE)


@contextmanager
def _dated() -> Iterator[None]:
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": WRITTEN})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def batch(folder: Path, fill: Callable[[Path], None]) -> Batch:
    """A folder that is there whole or not at all: the one made before where its bytes are still
    what they were, else ``fill`` makes it.

    Raises:
        NoRoom, ExportFailed: the disk does not take it.
    """
    found = kept(folder)
    if found is not None:
        return found
    staged = folder.with_name(f".{folder.name}.part")
    try:
        for left in (staged, folder):
            if left.exists():
                shutil.rmtree(left)
        staged.mkdir(parents=True)
        fill(staged)
        parts = tuple(_part(path) for path in sorted(staged.iterdir()))
        (staged / SUMS).write_text(sums(parts), encoding="utf-8")
        staged.replace(folder)
    except OSError as error:
        raise explained(error) or ExportFailed(
            f"The delivery cannot be written to {folder} ({error.strerror}); make room, or name "
            "another `publication.folder`."
        ) from None
    return Batch(folder, parts)


def kept(folder: Path) -> Batch | None:
    """The delivery of a folder, None where there is none or its files are not what they were."""
    try:
        said = (folder / SUMS).read_text(encoding="utf-8")
        parts = tuple(_part(path) for path in sorted(folder.iterdir()) if path.name != SUMS)
    except (OSError, UnicodeDecodeError):
        return None
    return Batch(folder, parts) if sums(parts) == said else None


def sums(parts: Sequence[Part]) -> str:
    """The text of the MD5 file: one line a file, as ``md5sum`` writes it."""
    return "".join(f"{part.md5}  {part.remote}\n" for part in parts)


def _part(path: Path) -> Part:
    digest = hashlib.md5(usedforsecurity=False)  # what the platform checks files with
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Part(path.name, size, digest.hexdigest())
