"""Contexts and judgements as bytes, and back: Arrow IPC files, exact to the last bit.

One table a file (the polygons of a map, the regions found), and everything else as JSON in the
metadata of its schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from daemon.judging import Context, Judged
from daemon.locate import Located
from detectors.types import Ground, Region
from schemas.acquisition import AcquisitionItem
from schemas.errors import MillesimedError
from schemas.policy import Sensor
from updater.reads import ImageRecord
from updater.types import MapPolygon

WORDS: Final = b"millesimed"
"""Key of the metadata that holds the JSON."""
_MOMENT: Final = pa.timestamp("us", tz="UTC")
_POLYGONS: Final = pa.schema(
    {
        "id": pa.string(),
        "code_cs": pa.string(),
        "code_us": pa.string(),
        "millesime": pa.int16(),
        "version": pa.int64(),
        "source": pa.string(),
        "ossature": pa.bool_(),
        "id_origine": pa.string(),
        "code_or": pa.string(),
        "valid_from": _MOMENT,
        "geometry": pa.binary(),
    }
)
_REGIONS: Final = pa.schema(
    {
        "from_cs": pa.string(),
        "to_cs": pa.string(),
        "probability": pa.float64(),
        "magnitude": pa.float64(),
        "looks": pa.int64(),
        "geometry": pa.binary(),
    }
)


_WRONG: Final = (AttributeError, KeyError, TypeError, ValueError)


class DamagedFreight(MillesimedError):
    """A file between the roles that is cut short, altered, or of another version."""

    reason = "damaged-freight"


def context_bytes(context: Context) -> bytes:
    """A context as a file; seals stay behind, for they hold on the machine that made them."""
    located = context.located
    words = {
        "item": context.item.model_dump_json(by_alias=True),
        "image": str(located.image),
        "elevation": _name(located.elevation),
        "footprint": _hex(located.footprint),
        "references": [_image(record) for record in located.references],
        "map_crs": context.map_crs,
        "outlines": {name: _hex(outline) for name, outline in context.outlines.items()},
    }
    return _file(_POLYGONS, context.polygons, words)


def context_from(body: bytes) -> Context:
    """The context a file holds.

    Raises:
        DamagedFreight: it holds none.
    """
    with _opened(body, _POLYGONS) as file:
        rows, words = _rows(file), _words(file)
        return Context(
            item=AcquisitionItem.model_validate_json(words["item"]),
            located=_located(words),
            map_crs=words["map_crs"],
            polygons=[_polygon(row) for row in rows],
            outlines={name: _shape(text) for name, text in words["outlines"].items()},
        )


def located_from(body: bytes) -> Located:
    """Where the acquisition of a context lies, and what it is compared with; its polygons are not
    looked at.

    Raises:
        DamagedFreight: it holds no context.
    """
    with _opened(body, _POLYGONS) as file:
        return _located(_words(file))


def _located(words: Mapping[str, Any]) -> Located:
    return Located(
        image=Path(words["image"]),
        footprint=_shape(words["footprint"]),
        references=[_record(image) for image in words["references"]],
        elevation=_path(words["elevation"]),
    )


def judged_bytes(judged: Judged) -> bytes:
    """What was judged as a file. It has no histories: those lie beside a store."""
    words = {
        "detector": judged.detector,
        "flagged": judged.flagged,
        "pixels_per_second": judged.pixels_per_second,
        "residual": judged.residual,
        "grounds": {name: [g.valid, g.changed] for name, g in judged.grounds.items()},
    }
    return _file(_REGIONS, judged.regions, words)


def judged_from(body: bytes) -> Judged:
    """What a file says was judged.

    Raises:
        DamagedFreight: it says nothing.
    """
    with _opened(body, _REGIONS) as file:
        rows, words = _rows(file), _words(file)
        return Judged(
            regions=[Region(**row) for row in rows],
            detector=str(words["detector"]),
            flagged=float(words["flagged"]),
            pixels_per_second=float(words["pixels_per_second"]),
            residual=None if words["residual"] is None else float(words["residual"]),
            grounds={name: Ground(*pair) for name, pair in words["grounds"].items()},
        )


def _file(
    schema: pa.Schema, values: Sequence[MapPolygon | Region], words: Mapping[str, Any]
) -> bytes:
    columns = {name: [getattr(value, name) for value in values] for name in schema.names}
    columns["geometry"] = shapely.to_wkb(columns["geometry"]).tolist() if values else []
    schema = schema.with_metadata({WORDS: json.dumps(words).encode()})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(pa.Table.from_pydict(columns, schema=schema))
    return bytes(sink.getvalue())


@contextmanager
def _opened(body: bytes, schema: pa.Schema) -> Iterator[pa.ipc.RecordBatchFileReader]:
    """A file with such columns; whatever is wrong with it or with what is made of it is damage."""
    try:
        file = pa.ipc.open_file(pa.BufferReader(body))
        if not file.schema.equals(schema):
            raise TypeError("other columns")
        yield file
    except (*_WRONG, pa.ArrowException, OSError, shapely.errors.GEOSException) as error:
        raise _damaged(error) from None


def _words(file: pa.ipc.RecordBatchFileReader) -> dict[str, Any]:
    words = json.loads((file.schema.metadata or {})[WORDS])
    if not isinstance(words, dict):
        raise TypeError("other words")
    return words


def _rows(file: pa.ipc.RecordBatchFileReader) -> Iterator[dict[str, Any]]:
    """The rows, with shapes."""
    table = file.read_all()
    table.validate(full=True)  # lengths that lie would break the reader itself
    columns = table.to_pydict()
    columns["geometry"] = shapely.from_wkb(columns["geometry"])
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _damaged(error: Exception) -> DamagedFreight:
    detail = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return DamagedFreight(
        f"A file of the exchange folder cannot be read ({detail}); run the same version in every "
        "role."
    )


def _polygon(row: Mapping[str, Any]) -> MapPolygon:
    if not isinstance(row["geometry"], Polygon):
        raise TypeError(f"polygon {row['id']} is {row['geometry']!r}")
    return MapPolygon(**row)


def _image(record: ImageRecord) -> dict[str, Any]:
    return {
        "item": record.item,
        "path": str(record.path),
        "sensor": record.sensor.value,
        "acquired": record.acquired.isoformat(),
        "gsd": record.gsd,
        "footprint": _hex(record.footprint),
        "elevation": _name(record.elevation),
    }


def _record(words: Mapping[str, Any]) -> ImageRecord:
    return ImageRecord(
        item=words["item"],
        path=Path(words["path"]),
        sensor=Sensor(words["sensor"]),
        acquired=datetime.fromisoformat(words["acquired"]),
        gsd=float(words["gsd"]),
        footprint=_shape(words["footprint"]),
        elevation=_path(words["elevation"]),
    )


def _hex(geometry: BaseGeometry) -> str:
    return str(shapely.to_wkb(geometry, hex=True))


def _shape(wkb: str | bytes) -> BaseGeometry:
    return shapely.from_wkb(wkb)


def _name(path: Path | None) -> str | None:
    return str(path) if path else None


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None
