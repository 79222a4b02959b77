"""The rows of an export as they leave the store: Arrow tables, one for each square.

Each is one short question with a cursor of its own thread: nothing is held open between two, so
neither commits nor checkpoints wait for an export, and all ask for what was known at one time, so
together they are one state of the map.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Final

import pyarrow as pa
import pyarrow.ipc

from schemas.change import ChangeKind
from schemas.export import ExportProduct
from updater.errors import ExportFailed
from updater.export_plan import Plan
from updater.reads import Bounds
from updater.store import Store

LENGTH: Final = struct.Struct("<Q")
"""What goes before each part on the way to another process: its bytes. 0 is the end."""
NEAR: Final = """
WITH near AS MATERIALIZED (
    SELECT version, id, code_cs, code_us, millesime, source, ossature, id_origine, code_or,
        valid_from, recorded, ST_AsWKB(geom) AS wkb
    FROM polygons WHERE ST_Intersects(geom, ST_MakeEnvelope($west, $south, $east, $north))
), ends AS (
    SELECT version, min(valid_to) AS ended, bool_or(kind = $correction) AS corrected
    FROM retirements WHERE recorded <= $known AND version IN (SELECT version FROM near)
    GROUP BY version
), held AS (
    SELECT near.*, coalesce(corrected, false) AS corrected,
        valid_from <= $before AND (ended IS NULL OR ended > $before) AS is_old,
        valid_from <= $after AND (ended IS NULL OR ended > $after) AS is_new
    FROM near LEFT JOIN ends USING (version) WHERE recorded <= $known
)
SELECT version, id, code_cs, code_us, millesime, source, ossature, id_origine, code_or, wkb,
    corrected, is_old, is_new FROM held
WHERE CASE $wanted WHEN 'new' THEN is_new WHEN 'same' THEN is_old AND is_new
    ELSE is_old <> is_new END
ORDER BY version
"""
"""Polygons of a window in the newer state, in one state alone, or in both. The window stands alone
in its own step, for beside a join the R-tree is not used."""
ZONES: Final = "SELECT ST_AsWKB(geom) AS wkb FROM zone_construite"


class Wanted(StrEnum):
    """Which polygons: those of the newer state, of one state alone, or of both."""

    NEW = "new"
    DIFFERENT = "different"
    SAME = "same"


class Kind(StrEnum):
    """What a part holds."""

    SQUARE = "square"
    ZONES = "zones"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of an export: a square, the built-up zones, or everything that changed."""

    kind: Kind
    square: Bounds
    rows: pa.Table


def parts(store: Store, plan: Plan) -> Iterator[Part]:
    """Everything an export is made of, square by square.

    A changelog has what changed first, whole: its two sides are found by their ids, not by place.
    """
    product = plan.request.product
    if product is ExportProduct.MAP:
        yield Part(Kind.ZONES, plan.bounds, store.cursor.execute(ZONES).to_arrow_table())
    if product is ExportProduct.CHANGELOG:
        yield Part(Kind.CHANGED, plan.bounds, _window(store, plan, Wanted.DIFFERENT, plan.bounds))
    wanted = {
        ExportProduct.DIFFERENTIAL: Wanted.DIFFERENT,
        ExportProduct.CORRECTIVE: Wanted.DIFFERENT,
        ExportProduct.CHANGELOG: Wanted.SAME,
    }.get(product, Wanted.NEW)
    for square in plan.squares():
        yield Part(Kind.SQUARE, square, _window(store, plan, wanted, square))


def _window(store: Store, plan: Plan, wanted: Wanted, square: Bounds) -> pa.Table:
    west, south, east, north = square
    before, after = plan.span
    values = {
        "west": west - plan.margin,
        "south": south - plan.margin,
        "east": east + plan.margin,
        "north": north + plan.margin,
        "known": plan.known_at,
        "before": before,
        "after": after,
        "correction": ChangeKind.CORRECTION.value,
        "wanted": wanted.value,
    }
    found: pa.Table = store.cursor.execute(NEAR, values).to_arrow_table()
    return found


def send(stream: IO[bytes], plan: Plan, given: Iterator[Part]) -> None:
    """Write a plan and its parts to another process."""
    _frame(stream, plan.model_dump_json().encode())
    for part in given:
        said = json.dumps({"kind": part.kind.value, "square": part.square})
        table = part.rows.replace_schema_metadata({"part": said})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        _frame(stream, sink.getvalue())
    stream.write(LENGTH.pack(0))
    stream.flush()


def _frame(stream: IO[bytes], body: bytes | pa.Buffer) -> None:
    stream.write(LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def received(stream: IO[bytes]) -> tuple[Plan, Iterator[Part]]:
    """The plan another process sent, and its parts as they come.

    Raises:
        ExportFailed: the sender ended before it had sent everything; the iterator raises it too.
    """
    return Plan.model_validate_json(_taken(stream)), _parts(stream)


def _parts(stream: IO[bytes]) -> Iterator[Part]:
    while body := _taken(stream):
        table = pa.ipc.open_stream(io.BytesIO(body)).read_all()
        said = json.loads(table.schema.metadata[b"part"])
        yield Part(Kind(said["kind"]), tuple(said["square"]), table)


def _taken(stream: IO[bytes]) -> bytes:
    head = stream.read(LENGTH.size)
    size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 1
    body = stream.read(size)
    if len(head) < LENGTH.size or len(body) < size:
        raise ExportFailed("The service ended while the file was written; ask for it again.")
    return body
