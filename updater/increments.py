"""What turns one state of the map into another, as the three files of an incremental delivery.

``<table>.delete`` names the rows that go, ``<table>.update`` holds new values of rows that stay,
and a GeoPackage the rows that come; the receiver applies them in that order. Both texts are CSV. A
row of ``.update`` replaces every column it has, so the file has those columns that changed in any
row. It says nothing of NULL, for an empty cell may be read as an empty text: a row one of whose new
values is NULL goes and comes instead.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from updater.export import write_layers

KEY: Final = "id"
"""Column that tells rows apart, and the primary key of the receiver's table."""
GEOMETRY: Final = "geom"
"""Name of the outline's column, as GDAL calls it in a GeoPackage."""


@dataclass(frozen=True, slots=True)
class Increment:
    """Rows that go (their ids), rows that stay with other values (``updated``: those columns that
    changed in any of them), rows that come."""

    deleted: Sequence[str]
    updated: gpd.GeoDataFrame | pd.DataFrame
    inserted: gpd.GeoDataFrame

    @property
    def rows(self) -> int:
        """How many instructions it holds."""
        return len(self.deleted) + len(self.updated) + len(self.inserted)


def increment(old: gpd.GeoDataFrame, new: gpd.GeoDataFrame, *, outlines: bool = True) -> Increment:
    """What turns one export into another of the same columns, row by row.

    Not ``outlines``: a row whose outline changed goes and comes, for receivers whose updates
    cannot carry one.
    """
    old, new = _by_key(old), _by_key(new)
    stay = new.index.intersection(old.index)
    was, now = old.loc[stay], new.loc[stay]
    moved = ~shapely.equals_identical(was.geometry.to_numpy(), now.geometry.to_numpy())
    changed = {name: _differs(was[name], now[name]) for name in _columns(new)}
    touched = np.logical_or.reduce([moved, *changed.values()])
    replaced = np.logical_or.reduce([diff & now[name].isna() for name, diff in changed.items()])
    if not outlines:
        replaced |= moved
    columns = [name for name, diff in changed.items() if diff[touched & ~replaced].any()]
    replaced |= touched & now[columns].isna().to_numpy().any(axis=1)
    updated = touched & ~replaced
    if moved[updated].any():
        columns.append(now.geometry.name)
    again = set(stay[replaced])
    return Increment(
        deleted=sorted({*old.index.difference(new.index), *again}),
        updated=now.loc[updated, columns],
        inserted=new.loc[sorted({*new.index.difference(old.index), *again})].reset_index(),
    )


def _by_key(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    found = frame.set_index(KEY).sort_index()
    if not found.index.is_unique:
        raise ValueError("two rows have the same id")
    return found


def _columns(frame: gpd.GeoDataFrame) -> list[str]:
    return [name for name in frame.columns if name != frame.geometry.name]


def _differs(was: pd.Series, now: pd.Series) -> npt.NDArray[np.bool_]:
    """Where two columns differ; NULL is equal to itself."""
    missing = was.isna().to_numpy() & now.isna().to_numpy()
    found: npt.NDArray[np.bool_] = (was != now).to_numpy(bool) & ~missing
    return found


def write_increment(found: Increment, folder: Path, *, table: str) -> None:
    """The files that have rows, into a folder that exists."""
    if found.deleted:
        _write_csv(folder / f"{table}.delete", [KEY], [[name] for name in found.deleted])
    if len(found.updated):
        write_updates(found.updated, folder / f"{table}.update")
    if len(found.inserted):
        write_layers({table: found.inserted}, folder / f"{table}.gpkg")


def write_updates(updated: gpd.GeoDataFrame | pd.DataFrame, path: Path) -> None:
    """New values of rows as CSV: the key, then what changed; outlines as WKT without loss."""
    names, columns = [KEY], [updated.index.tolist()]
    for name in updated.columns:
        shape = isinstance(updated[name].dtype, gpd.array.GeometryDtype)
        names.append(GEOMETRY if shape else name)
        columns.append([_text(value) for value in updated[name].tolist()])
    _write_csv(path, names, list(zip(*columns, strict=True)))


def _text(value: object) -> str:
    """A value as the receiver's database reads it back exactly."""
    if isinstance(value, shapely.Geometry):
        return str(shapely.to_wkt(value, rounding_precision=-1))
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
