"""What people do to what the store keeps: look up, reject, take a dead letter out again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import duckdb

from schemas.alert import AlertKind, AlertState, FalseAlarm, Verdict
from schemas.dead_letter import DeadLetter
from updater.alert_rows import record_from_row
from updater.alerts import accepted, rejected
from updater.commit import alert_row, write_alert, write_outbox
from updater.errors import NotFound, Settled
from updater.reads import alerts_now
from updater.store import Store
from updater.types import AlertRecord


def find_alert(store: Store, alert: str) -> AlertRecord:
    """An alert in its latest state.

    Raises:
        NotFound: no alert has that id.
    """
    row = store.execute(
        "SELECT record, ST_AsWKB(geom) FROM alerts_now WHERE id = ?", [alert]
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no alert {alert}; see `millesimed alerts list`.")
    return record_from_row(row[0], bytes(row[1]))


def alert_history(store: Store, alert: str) -> list[AlertRecord]:
    """Every state an alert has had, oldest first.

    Raises:
        NotFound: no alert has that id.
    """
    rows = store.execute(
        "SELECT record, ST_AsWKB(geom) FROM alerts WHERE id = ? ORDER BY sequence", [alert]
    ).fetchall()
    if not rows:
        raise NotFound(f"There is no alert {alert}; see `millesimed alerts list`.")
    return [record_from_row(row[0], bytes(row[1])) for row in rows]


def reject_alert(
    store: Store,
    alert: str,
    *,
    reason: str,
    cause: FalseAlarm | None = None,
    by: str | None = None,
) -> AlertRecord:
    """Reject an alert and tell everyone; a second rejection changes nothing but a cause that was
    not given before.

    Raises:
        NotFound: no alert has that id.
    """
    with store.transaction() as cursor:
        known = find_alert(store, alert)
        said = known.review
        if known.state is AlertState.REJECTED and said is not None:
            if cause is None or said.cause is not None:
                return known
            reason = said.reason
        now = store.clock()
        record = rejected(known, reason=reason, at=now, by=by, cause=cause)
        _write(store, cursor, record)
    return record


def accept_alert(store: Store, alert: str, *, by: str | None = None) -> AlertRecord:
    """Say that an alert is right: it is confirmed. Everyone is told where it was not so before; a
    second time changes nothing.

    Raises:
        NotFound: no alert has that id.
        Settled: another alert has taken its place.
    """
    with store.transaction() as cursor:
        known = find_alert(store, alert)
        if known.state is AlertState.SUPERSEDED:
            by_whom = f" {known.superseded_by}" if known.superseded_by else " what came later"
            raise Settled(f"The alert {alert} gave way to{by_whom}; decide on that.")
        if known.review is not None and known.review.verdict is Verdict.ACCEPTED:
            return known
        record = accepted(known, at=store.clock(), by=by)
        _write(store, cursor, record, told=record.state is not known.state)
    return record


def _write(
    store: Store, cursor: duckdb.DuckDBPyConnection, record: AlertRecord, *, told: bool = True
) -> None:
    now = record.known_at
    write_alert(cursor, record, event=f"review#{record.id}.{record.sequence}", now=now)
    if told:
        write_outbox(cursor, [alert_row(store, record)], now)


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Alerts of one kind that people rejected for one cause (None: none was given); ``share`` of
    those of that kind that people decided on."""

    kind: AlertKind
    cause: FalseAlarm | None
    count: int
    share: float


def false_alarms(store: Store) -> list[FalseAlarms]:
    """The false-alarm table: what people rejected by kind and cause, the most frequent first."""
    reviewed = [r for r in alerts_now(store) if r.review is not None]
    decided = Counter(r.kind for r in reviewed)
    no = Counter(
        (r.kind, r.review.cause)
        for r in reviewed
        if r.review is not None and r.review.verdict is Verdict.REJECTED
    )
    order = sorted(no.items(), key=lambda pair: (-pair[1], pair[0][0], pair[0][1] or ""))
    return [
        FalseAlarms(kind, cause, found, round(found / decided[kind], 4))
        for (kind, cause), found in order
    ]


@dataclass(frozen=True, slots=True)
class Retry:
    """When the event of a dead letter was given another chance, and where it went."""

    at: datetime
    destination: str


def dead_letters(store: Store, *, reason: str | None = None) -> list[DeadLetter]:
    """Dead letters, newest first: all, or those of a reason."""
    rows = store.execute(
        "SELECT letter FROM dead_letters WHERE ?::VARCHAR IS NULL OR reason = ? "
        "ORDER BY received DESC, id",
        [reason, reason],
    ).fetchall()
    return [DeadLetter.model_validate_json(row[0]) for row in rows]


def retries(store: Store) -> dict[str, Retry]:
    """Dead letters that were given another chance, by their ids."""
    rows = store.execute("SELECT letter, recorded, destination FROM retries").fetchall()
    return {str(row[0]): Retry(row[1], str(row[2])) for row in rows}


def mark_retried(store: Store, letter: str, destination: str) -> None:
    """Note that the event of a dead letter went back, and where to."""
    with store.transaction() as cursor:
        cursor.execute(
            "INSERT OR IGNORE INTO retries VALUES (?, ?, ?)", [letter, destination, store.clock()]
        )


def find_dead_letter(store: Store, letter: str) -> DeadLetter:
    """One dead letter.

    Raises:
        NotFound: no dead letter has that id.
    """
    row = store.execute("SELECT letter FROM dead_letters WHERE id = ?", [letter]).fetchone()
    if row is None:
        raise NotFound(f"There is no dead letter {letter}; see `millesimed dead-letters list`.")
    return DeadLetter.model_validate_json(row[0])
