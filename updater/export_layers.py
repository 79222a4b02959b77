"""Vector layers written batch by batch, whatever their length: GDAL or Parquet takes the next batch
when it has written the last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyogrio.raw
import shapely
from pyproj import CRS

from schemas.export import ExportFormat
from updater.crs import transformer
from updater.export import GPKG_OPTIONS, LAYER, VECTOR_DRIVERS, check_whole
from updater.product import styles
from updater.reads import Bounds

GEOMETRY: Final = "geometry"
DBF_NAME: Final = 10
"""Characters of a column's name in a Shapefile; longer ones are cut."""
TEXT: Final = pa.string()
NUMBER: Final = pa.float64()
WHOLE: Final = pa.int32()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer before it has rows: its columns but for the geometry, whose kind is as GDAL says."""

    name: str
    columns: Mapping[str, pa.DataType]
    geometry: str = "MultiPolygon"

    @property
    def schema(self) -> pa.Schema:
        """Of its batches."""
        return pa.schema([*self.columns.items(), (GEOMETRY, pa.binary())])

    def batch(self, frame: gpd.GeoDataFrame) -> pa.RecordBatch:
        """Rows of a frame that has these columns."""
        arrays = [
            pa.array(frame[name], type_, from_pandas=True) for name, type_ in self.columns.items()
        ]
        arrays.append(pa.array(shapely.to_wkb(frame.geometry.to_numpy()), pa.binary()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


MAP: Final = Layer(
    LAYER,
    {
        **dict.fromkeys(("id", "code_cs", "code_us", "millesime", "source"), TEXT),
        "ossature": WHOLE,
        "id_origine": TEXT,
        "code_or": TEXT,
        "aire": NUMBER,
        "artif": TEXT,
        "crit_seuil": pa.bool_(),
    },
    "Polygon",
)
ZONES: Final = Layer("ZONE_CONSTRUITE", {"id": TEXT, "millesime": TEXT}, "Polygon")
DIFFERENTIAL: Final = Layer(
    "DIFFERENTIEL",
    {
        **dict.fromkeys(("id_avant", "id_apres", "cs_avant", "us_avant"), TEXT),
        **dict.fromkeys(("cs_apres", "us_apres", "nature"), TEXT),
        "artificialisation": WHOLE,
        "surface": NUMBER,
    },
)
CORRECTION: Final = Layer(
    "PATCH_CORR",
    {
        **dict.fromkeys(("id", "code_cs", "code_us", "cs_corr", "us_corr"), TEXT),
        "surface": NUMBER,
    },
)
CHANGELOG: Final = Layer(
    "JOURNAL",
    {
        **dict.fromkeys(("id", "status", "cs_avant", "us_avant", "cs_apres", "us_apres"), TEXT),
        "codes_changed": NUMBER,
    },
    "Polygon",
)


def evolutions(first: str, last: str) -> Layer:
    """The layer of legal evolutions between two years."""
    names = [f"{what}_{year}" for year in (first, last) for what in ("id", "cs", "us", "artif")]
    return Layer(
        "ZAN_EVOL",
        {**dict.fromkeys(names, TEXT), "artificialisation": WHOLE, "surface": NUMBER},
    )


class Moved:
    """Batches on their way into the CRS of their file: how many rows they had, and where.

    Every vertex is moved by itself and none is rounded, so what two polygons share they share
    afterwards too; values, areas among them, stay those of the map's own CRS.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], source: str, target: str) -> None:
        self._batches, self._source, self._target = batches, source, target
        self.rows = 0
        self.bounds: Bounds | None = None
        """In the CRS of the file."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            place = batch.schema.get_field_index(GEOMETRY)
            shapes = shapely.from_wkb(batch.column(place).to_numpy(zero_copy_only=False))
            found = batch
            if self._source != self._target:
                move = transformer(self._source, self._target).transform
                shapes = shapely.transform(shapes, move, interleaved=False)
                column = pa.array(shapely.to_wkb(shapes), pa.binary())
                found = batch.set_column(place, batch.schema.field(place), column)
            self.rows += batch.num_rows
            self._widen(shapely.total_bounds(shapes).tolist())
            yield found

    def _widen(self, found: list[float]) -> None:
        here = [found] if self.bounds is None else [found, self.bounds]
        west, south, east, north = zip(*here, strict=True)
        self.bounds = (min(west), min(south), max(east), max(north))


class Written(NamedTuple):
    """A layer of a file: its rows, and their bounds in the CRS of the file, None without any."""

    rows: int
    bounds: Bounds | None


def write_layer(
    path: Path,
    layer: Layer,
    given: Iterable[pa.RecordBatch],
    *,
    format_: ExportFormat,
    crs: str,
    target: str,
) -> Written:
    """One layer of a file, beside those it has, from batches in ``crs`` to a file in ``target``.

    Raises:
        OSError, pyogrio's errors: the disk does not take it, or not whole.
    """
    batches = Moved(given, crs, target)
    if format_ is ExportFormat.GEOPARQUET:
        _parquet(path, layer, batches, target)
        return Written(batches.rows, batches.bounds)
    cut = format_ is ExportFormat.SHP
    schema = _short(layer.schema) if cut else layer.schema
    stream = pa.RecordBatchReader.from_batches(
        schema, (b.rename_columns(schema.names) if cut else b for b in batches)
    )
    pyogrio.raw.write_arrow(
        stream,
        str(path),
        layer=path.stem if cut else layer.name,
        driver=VECTOR_DRIVERS[format_.value],
        geometry_name=GEOMETRY,
        geometry_type=layer.geometry,
        crs=target,
        encoding="UTF-8" if cut else None,
        dataset_options=GPKG_OPTIONS if format_ is ExportFormat.GPKG else None,
    )
    check_whole(path, batches.rows, layer.name if format_ is ExportFormat.GPKG else None)
    return Written(batches.rows, batches.bounds)


def write_styles(path: Path) -> None:
    """QGIS styles of the map's layer into a GeoPackage."""
    pyogrio.write_dataframe(styles(LAYER), path, layer="layer_styles", driver="GPKG")


def _short(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(field.name[:DBF_NAME], field.type) for field in schema])


def _parquet(path: Path, layer: Layer, batches: Moved, crs: str) -> None:
    """What GeoParquet says of the geometries comes last: their bounds are known then."""
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [layer.geometry],
        "crs": json.loads(CRS.from_user_input(crs).to_json()),
    }
    about = {"version": "1.0.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: geometry}}
    with pq.ParquetWriter(path, layer.schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
        if batches.bounds is not None:
            geometry["bbox"] = batches.bounds
        writer.add_key_value_metadata({"geo": json.dumps(about)})
