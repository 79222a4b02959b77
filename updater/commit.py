"""The one transaction of an event, and of a dead letter.

Everything an event does is committed together: patch, lineage, alerts, outbox rows, the event's
key and the offset it was read at. That is the delivery guarantee: an event has its effect once,
however often it arrives and wherever the process dies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb
import pyarrow as pa
import shapely

from schemas.change import Change, ChangedPiece, LineageLink
from schemas.dead_letter import DeadLetter, Origin
from schemas.envelope import (
    ALERT_TYPE,
    CHANGE_TYPE,
    DEAD_LETTER_TYPE,
    TOPIC_ALERTS,
    TOPIC_CHANGES,
    TOPIC_DEAD_LETTERS,
    Event,
)
from updater import faults
from updater.alert_rows import message, record_to_row
from updater.alerts import Step
from updater.corrections import CorrectionRow, write_corrections
from updater.crs import to_geojson
from updater.reads import ImageRecord
from updater.store import Store
from updater.types import PERSON, AlertRecord, MapPolygon, Patch, Rules


@dataclass(frozen=True, slots=True)
class Effect:
    """Everything one event does to one store; ``series``: the file that holds the history of each
    block an acquisition was taken into; ``corrections``: what a person drew."""

    event: Event
    rules: Rules
    patch: Patch
    alerts: Sequence[Step]
    image: ImageRecord | None
    origin: Origin
    series: Mapping[str, str] = field(default_factory=dict)
    corrections: Sequence[CorrectionRow] = ()


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message waiting to be published; ``id`` is what receivers deduplicate on."""

    id: str
    type: str
    topic: str
    key: str
    body: str


def commit(store: Store, effect: Effect) -> None:
    """Write an event's whole effect in one transaction."""
    with store.transaction() as cursor:
        now = store.clock()  # in here: what is recorded later is committed later
        effect = replace(effect, alerts=_not_overtaken(cursor, effect.alerts))
        _write_patch(cursor, effect, now)
        for step in effect.alerts:
            write_alert(cursor, step.after, event=effect.event.key, now=now)
        _write_image(cursor, effect.image, now)
        write_corrections(cursor, effect.corrections, event=effect.event.key, now=now)
        write_outbox(cursor, _messages(store, effect, now), now)
        event, rules = effect.event, effect.rules
        cursor.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                event.key,
                event.id,
                event.subject,
                rules.acquired,
                rules.sensor.value if rules.sensor else PERSON,
                rules.detector,
                rules.kind.value,
                len(effect.patch.pieces),
                json.dumps(effect.patch.ignored, sort_keys=True),
                now,
            ],
        )
        for block, file in effect.series.items():
            cursor.execute("INSERT OR REPLACE INTO series VALUES (?, ?, ?)", [block, file, now])
        cursor.execute("DELETE FROM asked WHERE event = ?", [event.key])
        write_offset(cursor, effect.origin)
        faults.reached("in-transaction")
    faults.reached("after-commit")


def commit_dead_letter(store: Store, letter: DeadLetter, *, read: bool = True) -> bool:
    """Keep an event that could not have its effect; False when it is kept already. ``read``: its
    place in the source is to be noted too, which it is already where it waited for a judgement."""
    with store.transaction() as cursor:
        if read:
            write_offset(cursor, letter.origin)
        known = cursor.execute("SELECT 1 FROM dead_letters WHERE id = ?", [letter.id]).fetchone()
        if known is not None:
            return False
        body = letter.model_dump_json()
        cursor.execute(
            "INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)",
            [letter.id, letter.event, letter.reason, letter.message, body, letter.received],
        )
        key = f"{store.territory}/dead"
        row = OutboxRow(letter.id, DEAD_LETTER_TYPE, TOPIC_DEAD_LETTERS, key, body)
        write_outbox(cursor, [row], letter.received)
        faults.reached("in-transaction")
    faults.reached("after-commit")
    return True


def commit_offset(store: Store, origin: Origin) -> None:
    """Note that a message was read and needs no effect (a duplicate)."""
    with store.transaction() as cursor:
        write_offset(cursor, origin)


def commit_offsets(store: Store, origins: Sequence[Origin]) -> None:
    """Note how far several partitions are read."""
    with store.transaction() as cursor:
        for origin in origins:
            write_offset(cursor, origin)


def append_polygons(
    cursor: duckdb.DuckDBPyConnection,
    polygons: Sequence[MapPolygon],
    *,
    valid_from: datetime,
    recorded: datetime,
    event: str | None,
) -> None:
    """Append versions in bulk; their numbers come from the store's sequence."""
    if not polygons:
        return
    table = pa.table(
        {
            "id": [p.id for p in polygons],
            "code_cs": pa.array([p.code_cs for p in polygons], pa.string()),
            "code_us": pa.array([p.code_us for p in polygons], pa.string()),
            "millesime": pa.array([p.millesime for p in polygons], pa.int16()),
            "source": [p.source for p in polygons],
            "ossature": pa.array([p.ossature for p in polygons], pa.bool_()),
            "id_origine": [p.id_origine for p in polygons],
            "code_or": [p.code_or for p in polygons],
            "geom": pa.array(shapely.to_wkb([p.geometry for p in polygons]), pa.binary()),
            "valid_from": pa.array(
                [p.valid_from or valid_from for p in polygons], pa.timestamp("us", tz="UTC")
            ),
        }
    )
    cursor.register("incoming", table)
    cursor.execute(
        "INSERT INTO polygons SELECT nextval('version_seq'), id, code_cs, code_us, millesime, "
        "source, ossature, id_origine, code_or, ST_GeomFromWKB(geom), valid_from, ?, ? "
        "FROM incoming",
        [recorded, event],
    )
    cursor.unregister("incoming")


def _write_patch(cursor: duckdb.DuckDBPyConnection, effect: Effect, now: datetime) -> None:
    patch, rules, key = effect.patch, effect.rules, effect.event.key
    if patch.is_empty:
        return
    since = effective_date(patch, rules)
    cursor.execute(
        "INSERT INTO retirements SELECT unnest(?::BIGINT[]), ?, ?, ?, ?",
        [[p.version for p in patch.retired], since, rules.kind.value, now, key],
    )
    created = [replace(p, valid_from=since) for p in patch.created]
    append_polygons(cursor, created, valid_from=since, recorded=now, event=key)
    if patch.lineage:
        cursor.execute(
            "INSERT INTO lineage SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), "
            "unnest(?::VARCHAR[]), ?, ?, ?",
            [
                [link.parent for link in patch.lineage],
                [link.child for link in patch.lineage],
                [link.operation.value for link in patch.lineage],
                key,
                rules.detector,
                now,
            ],
        )


def effective_date(patch: Patch, rules: Rules) -> datetime:
    """When the patch begins to hold on the ground: its acquisition, or later where it touches
    versions that a younger image of the same campaign opened (days at most: the planner leaves
    alone what a younger campaign says)."""
    opened = [p.valid_from for p in patch.retired if p.valid_from is not None]
    return max([rules.acquired, *opened])


def write_alert(
    cursor: duckdb.DuckDBPyConnection, record: AlertRecord, *, event: str, now: datetime
) -> None:
    """Append one state of an alert."""
    text, wkb = record_to_row(record)
    cursor.execute(
        "INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ST_GeomFromWKB(?), ?, ?)",
        [
            record.id,
            record.sequence,
            record.kind.value,
            record.state.value,
            text,
            wkb,
            event,
            now,
        ],
    )


def _not_overtaken(cursor: duckdb.DuckDBPyConnection, steps: Sequence[Step]) -> list[Step]:
    """The steps that still follow the latest state: a person may have rejected an alert while the
    image was being judged, and that holds."""
    rows = cursor.execute(
        "SELECT id, max(sequence) FROM alerts WHERE id IN (SELECT unnest(?::VARCHAR[])) "
        "GROUP BY id",
        [[step.after.id for step in steps]],
    ).fetchall()
    latest = dict(rows)
    return [
        step
        for step in steps
        if latest.get(step.after.id, 0) == (step.before.sequence if step.before else 0)
    ]


def _write_image(
    cursor: duckdb.DuckDBPyConnection, image: ImageRecord | None, now: datetime
) -> None:
    if image is None:
        return
    cursor.execute(
        "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ST_GeomFromWKB(?), ?, ?)",
        [
            image.item,
            str(image.path),
            image.sensor.value,
            image.acquired,
            image.gsd,
            shapely.to_wkb(image.footprint),
            now,
            str(image.elevation) if image.elevation else None,
        ],
    )


def add_image(store: Store, image: ImageRecord) -> None:
    """Make an image known as a reference (``millesimed reference add``)."""
    with store.transaction() as cursor:
        _write_image(cursor, image, store.clock())


def _messages(store: Store, effect: Effect, now: datetime) -> list[OutboxRow]:
    key = f"{store.territory}/{effect.event.subject}"
    rows = []
    if effect.patch.pieces:
        body = _change(store, effect, now).model_dump_json()
        # one event has one effect on a store: its key names the change for ever
        digest = hashlib.sha256(f"{store.territory}|{effect.event.key}".encode()).hexdigest()
        rows.append(OutboxRow(f"CH{digest[:20].upper()}", CHANGE_TYPE, TOPIC_CHANGES, key, body))
    return rows + [alert_row(store, step.after) for step in effect.alerts if step.told]


def alert_row(store: Store, record: AlertRecord) -> OutboxRow:
    """The message of one state of an alert."""
    alert = message(record, departement=store.territory, crs=store.crs)
    return OutboxRow(
        f"{record.id}.{record.sequence}",
        ALERT_TYPE,
        TOPIC_ALERTS,
        f"{store.territory}/{record.id}",
        alert.model_dump_json(),
    )


def _change(store: Store, effect: Effect, now: datetime) -> Change:
    patch, rules = effect.patch, effect.rules
    return Change(
        event=effect.event.id,
        departement=store.territory,
        millesime=rules.millesime,
        kind=rules.kind,
        acquired=rules.acquired,
        recorded=now,
        detector=rules.detector,
        retired=[p.id for p in patch.retired],
        created=[p.id for p in patch.created],
        lineage=[
            LineageLink(parent=link.parent, child=link.child, operation=link.operation)
            for link in patch.lineage
        ],
        pieces=[
            ChangedPiece(
                polygon=piece.polygon,
                cs_before=piece.cs_before,
                cs_after=piece.cs_after,
                us_before=piece.us_before,
                us_after=piece.us_after,
                area=round(float(piece.geometry.area), 2),
                probability=piece.probability,
                geometry=to_geojson(piece.geometry, store.crs),
            )
            for piece in patch.pieces
        ],
    )


def write_outbox(
    cursor: duckdb.DuckDBPyConnection, rows: Sequence[OutboxRow], now: datetime
) -> None:
    """Append messages to be published, in order."""
    for row in rows:
        cursor.execute(
            "INSERT INTO outbox VALUES (nextval('outbox_seq'), ?, ?, ?, ?, ?, ?)",
            [row.id, row.type, row.topic, row.key, row.body, now],
        )


def write_offset(cursor: duckdb.DuckDBPyConnection, origin: Origin) -> None:
    """Note that a message of Kafka was read; a file has no place to note."""
    if origin.offset is None:
        return
    cursor.execute(
        "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)",
        [origin.topic, origin.partition, origin.offset + 1],
    )
