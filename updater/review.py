"""What people do to what the store keeps: look up, reject, take a dead letter out again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.alert import AlertState
from schemas.dead_letter import DeadLetter
from updater.alert_rows import record_from_row
from updater.alerts import rejected
from updater.commit import alert_row, write_alert, write_outbox
from updater.errors import NotFound
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


def reject_alert(store: Store, alert: str, *, reason: str) -> AlertRecord:
    """Reject an alert and tell everyone; a second rejection changes nothing.

    Raises:
        NotFound: no alert has that id.
    """
    with store.transaction() as cursor:
        known = find_alert(store, alert)
        if known.state is AlertState.REJECTED and known.review is not None:
            return known
        now = store.clock()
        record = rejected(known, reason=reason, at=now)
        write_alert(cursor, record, event=f"review#{record.id}.{record.sequence}", now=now)
        write_outbox(cursor, [alert_row(store, record)], now)
    return record


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
