"""What a processing does to the tables of a database: structure, deletes, updates, inserts."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely

from tests.entrepot.state import Table


def apply(tables: dict[str, Table], files: list[Path], parameters: dict[str, Any]) -> None:
    """Structure, deletes, updates, inserts."""
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        by_suffix.setdefault(path.suffix, []).append(path)
    for path in by_suffix.get(".sql", []):
        for name, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", path.read_text(), re.S):
            key = re.search(r"(\w+) [\w ]+ PRIMARY KEY", columns)
            tables[name] = Table(key[1] if key else None, gpd.GeoDataFrame())
    for path in by_suffix.get(".delete", []) if parameters.get("delete") else []:
        table = tables[path.stem]
        for row in csv.DictReader(io.StringIO(path.read_text())):
            hit = pd.Series(True, index=table.frame.index)
            for column, value in row.items():
                hit &= table.frame[column].astype(str) == value
            table.frame = table.frame[~hit]
    for path in by_suffix.get(".update", []) if parameters.get("update") else []:
        table = tables[path.stem]
        if table.key is None:
            raise ValueError(f"{path.stem} has no primary key")
        update(table, list(csv.DictReader(io.StringIO(path.read_text()))))
    for path in by_suffix.get(".gpkg", []):
        for layer, shape in pyogrio.list_layers(path):
            if shape is None:
                continue
            rows = gpd.read_file(path, layer=layer)
            table = tables.setdefault(layer.lower(), Table(None, gpd.GeoDataFrame()))
            both = pd.concat([table.frame, rows], ignore_index=True) if len(table.frame) else rows
            if table.key and both[table.key].duplicated().any():
                raise ValueError("duplicate key value violates unique constraint")
            table.frame = both


def update(table: Table, rows: list[dict[str, str]]) -> None:
    frame = table.frame.set_index(table.key)
    for row in rows:
        name = row.pop(table.key)
        if name not in frame.index:
            raise KeyError(f"no row {name}")
        for column, text in row.items():
            place = "geometry" if column == "geom" else column
            kind = frame[place].dtype
            if place == "geometry":
                frame.at[name, place] = shapely.from_wkt(text)
            elif pd.api.types.is_bool_dtype(kind):
                frame.at[name, place] = {"true": True, "false": False}[text]
            elif pd.api.types.is_numeric_dtype(kind):
                frame.at[name, place] = float(text) if kind.kind == "f" else int(text)
            else:
                frame.at[name, place] = text
    table.frame = frame.reset_index()
