"""Reading vector files: layers and columns found by content, nothing guessed silently.

Formats are an allow-list, told by their first bytes: GPKG, Shapefile, FlatGeobuf, GeoJSON and
GeoParquet. What else GDAL opens stays closed: some of it points to other files, some runs commands.
A folder stands for the files in it, as deliveries are unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import shapely
from shapely.errors import ShapelyError

from schemas.policy import MAX_MAP_BYTES, MAX_MAP_POLYGONS, MAX_POLYGON_VERTICES
from updater.errors import ImportFailed

CS_COLUMNS: Final = ("code_cs", "couverture", "cs", "cd_cs")
US_COLUMNS: Final = ("code_us", "usage", "us", "cd_us")
"""Names the cover and usage columns had in deliveries, newest first; case does not matter."""
YEAR_COLUMNS: Final = ("millesime", "annee")
PARQUET: Final = frozenset({".parquet", ".geoparquet", ".pq"})
SIGNATURES: Final = {
    ".gpkg": (b"SQLite format 3\0", "GPKG"),
    ".shp": (b"\0\0\x27\x0a", "ESRI Shapefile"),
    ".fgb": (b"fgb\3", "FlatGeobuf"),
    ".geojson": (b"{", "GeoJSON"),
    ".json": (b"{", "GeoJSON"),
}
"""First bytes of each format by the suffix it comes with, and the one driver that may open it."""
VECTOR: Final = PARQUET | set(SIGNATURES)
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
"""What may stand before a JSON text: a byte order mark and white space."""
_UNREADABLE: Final = (
    *(RuntimeError, ValueError, TypeError, LookupError, OSError, ShapelyError),
    NameError,  # pyogrio, of a CRS that cannot be told
)
"""What GDAL, pyarrow and GEOS say of broken files."""


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
    """A vector file as a frame.

    Raises:
        ImportFailed: no such file, none of the formats, broken, or beyond the limits.
    """
    try:
        source = _source(path)
        if path.suffix.lower() in PARQUET:
            _check_count(path, pq.read_metadata(path).num_rows)
            frame = gpd.read_parquet(path)
        else:
            info = pyogrio.read_info(source, layer=layer)
            _check_driver(path, info["driver"])
            _check_count(path, info["features"])
            frame = gpd.read_file(source, layer=layer) if layer else gpd.read_file(source)
        if not isinstance(frame, gpd.GeoDataFrame):
            raise ValueError("no geometry")
        longest = int(shapely.get_num_coordinates(frame.geometry.to_numpy()).max(initial=0))
    except _UNREADABLE as error:
        raise ImportFailed(
            f"{path.name} cannot be read as a vector layer ({_short(error)}); "
            "give a GPKG, SHP, FlatGeobuf, GeoJSON or GeoParquet file."
        ) from None
    if longest > MAX_POLYGON_VERTICES:
        raise ImportFailed(
            f"{path.name} has a polygon of {longest} vertices, more than the "
            f"{MAX_POLYGON_VERTICES} allowed; cut it into parts."
        )
    return frame


def _source(path: Path) -> str:
    """What GDAL is to open for a file, after a look at its size and first bytes.

    Raises:
        ImportFailed: no file, too large, or none of the formats.
    """
    if not path.exists():
        raise ImportFailed(f"There is no file {path}; check the path.")
    if path.is_dir():
        raise ImportFailed(f"{path.name} is a folder; give the file in it.")
    if path.stat().st_size > MAX_MAP_BYTES:
        raise ImportFailed(f"{path.name} has more than {MAX_MAP_BYTES} bytes; cut it into parts.")
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return str(path)
    start, driver = SIGNATURES.get(suffix, (None, ""))
    with path.open("rb") as stream:
        head = stream.read(64)
    if start is None or not head.lstrip(_BLANK if start == b"{" else b"").startswith(start):
        raise ImportFailed(
            f"{path.name} cannot be read as a vector layer (it does not begin like one); "
            "give a GPKG, SHP, FlatGeobuf, GeoJSON or GeoParquet file."
        )
    # the prefix keeps a JSON text from every driver but this one
    return f"GeoJSON:{path.resolve()}" if driver == "GeoJSON" else str(path.resolve())


def _check_driver(path: Path, driver: str) -> None:
    allowed = SIGNATURES[path.suffix.lower()][1]
    if driver != allowed:
        raise ValueError(f"it is {driver}, not {allowed}")


def _check_count(path: Path, count: int) -> None:
    if count > MAX_MAP_POLYGONS:
        raise ImportFailed(
            f"{path.name} has {count} rows, more than the {MAX_MAP_POLYGONS} allowed; import one "
            "département at a time."
        )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".")


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
            source = _source(file)
            layers = [str(n) for n, kind in pyogrio.list_layers(source) if kind is not None]
        except (ImportFailed, *_UNREADABLE):
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
        elif fits(_fields(file, layer)):
            return read(file, layer=layer)
    return None


def _fields(path: Path, layer: str) -> set[str]:
    """Names of a layer's columns, in small letters; none where it cannot be read."""
    try:
        return {str(f).lower() for f in pyogrio.read_info(_source(path), layer=layer)["fields"]}
    except _UNREADABLE:
        return set()
