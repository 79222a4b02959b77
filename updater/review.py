"""What people do to what the store keeps: look up, reject, take a dead letter out again."""

from __future__ import annotations

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


def dead_letters(store: Store) -> list[DeadLetter]:
    """Every dead letter, newest first."""
    rows = store.execute("SELECT letter FROM dead_letters ORDER BY received DESC, id").fetchall()
    return [DeadLetter.model_validate_json(row[0]) for row in rows]


def find_dead_letter(store: Store, letter: str) -> DeadLetter:
    """One dead letter.

    Raises:
        NotFound: no dead letter has that id.
    """
    row = store.execute("SELECT letter FROM dead_letters WHERE id = ?", [letter]).fetchone()
    if row is None:
        raise NotFound(f"There is no dead letter {letter}; see `millesimed dead-letters list`.")
    return DeadLetter.model_validate_json(row[0])
