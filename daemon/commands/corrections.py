"""Commands about what people say the ground is: corrections, and decisions on alerts."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.options import Config, Db, Json, store_path
from daemon.output import emit, show, show_figures
from schemas.alert import FalseAlarm
from schemas.change import ChangeKind

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

    from daemon.submit import Intake

corrections = typer.Typer(help="What people say the ground is.", no_args_is_help=True)
AlertId = Annotated[str, typer.Argument(help="Id of the alert.")]
By = Annotated[str | None, typer.Option(help="Who says so; else the user of this machine.")]
Inbox = Annotated[Path | None, typer.Option(help="Inbox folder.")]
Kafka = Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")]


def add_to(app: typer.Typer, alerts: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(corrections, name="corrections")
    corrections.command("submit")(submit)
    corrections.command("list")(list_)
    alerts.command("accept")(accept)
    alerts.command("reject")(reject)
    alerts.command("causes")(causes)


def submit(  # noqa: PLR0913, PLR0917 - each argument is a flag
    file: Annotated[Path, typer.Argument(help="Polygons with code_cs and code_us (vector).")],
    source: Annotated[str, typer.Option(help="What they were drawn from, as in `BD TOPO`.")],
    observed: Annotated[
        str | None, typer.Option(help="Date of the ground, where no column `observed` says it.")
    ] = None,
    by: By = None,
    kind: Annotated[ChangeKind, typer.Option(help="What they are.")] = ChangeKind.CORRECTION,
    comment: Annotated[str | None, typer.Option(help="On the whole batch.")] = None,
    territory: Annotated[str | None, typer.Option(help="Département; else by the ground.")] = None,
    inbox: Inbox = None,
    kafka: Kafka = None,
    db: Db = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Send polygons that say what the ground is; the service redraws the map by them.

    Example: millesimed corrections submit ocs.gpkg --source "OCS communale" --observed 2024-05-02
    """
    from daemon.submit import Batch, event_of, submissions

    batch = Batch(source, observed, kind, territory, comment)
    made = [event_of(one, by or getpass.getuser()) for one in submissions(file, batch)]
    place = _place(config, db, inbox, kafka)
    sent = [
        {
            "id": str(event.get_id()),
            "polygons": len(_data(event)["features"]),
            "observed": _data(event)["observed"],
            "destination": place.deliver(event),
        }
        for event in made
    ]
    if json_:
        emit({"events": sent})
    else:
        show("Submitted", sent)


def _data(event: CloudEvent) -> dict[str, Any]:
    found = event.get_data()
    return found if isinstance(found, dict) else {}


def _place(config: Path | None, db: Path | None, inbox: Path | None, kafka: str | None) -> Intake:
    """Where the service reads its events."""
    from daemon.config import KafkaSettings, load
    from daemon.submit import Intake

    settings = load(config, db=[db] if db else None)
    if kafka is not None:
        return Intake(KafkaSettings(servers=kafka), None)
    return Intake(None, inbox) if inbox is not None else Intake.of(settings)


def list_(
    author: Annotated[str | None, typer.Option(help="Only those of one author.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only those of which this came.")] = None,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Ground that people drew, newest first: who, from what, as of when, and what came of it.

    Example: millesimed corrections list --outcome below-minimum-unit --db D032.duckdb
    """
    from updater.corrections import Wanted
    from updater.corrections import corrections as found
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        rows = [
            {
                "id": row.id,
                "author": row.author,
                "source": row.source,
                "kind": row.kind.value,
                "code_cs": row.code_cs,
                "code_us": row.code_us,
                "area": round(float(row.geometry.area), 2),
                "observed": row.observed.isoformat(),
                "outcome": row.outcome,
                "alert": row.alert,
                "comment": row.comment,
                "event": row.event,
                "recorded": row.recorded.isoformat() if row.recorded else None,
            }
            for row in found(store, Wanted(author=author, outcome=outcome))
        ]
    if json_:
        emit(rows)
    else:
        show("Corrections", rows)


def accept(alert: AlertId, by: By = None, db: Db = None, json_: Json = False) -> None:
    """Say that an alert is right: it is confirmed, in your name.

    Example: millesimed alerts accept AL0123456789ABCDEF0123 --by "A. Martin" --db D032.duckdb
    """
    from updater.review import accept_alert
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        record = accept_alert(store, alert, by=by or getpass.getuser())
    _decided("Accepted", {"state": record.state.value, "sequence": record.sequence}, alert, json_)


def reject(  # noqa: PLR0913, PLR0917 - each argument is a flag
    alert: AlertId,
    reason: Annotated[str, typer.Option(help="Why: what is really there.")],
    cause: Annotated[FalseAlarm | None, typer.Option(help="What misled the detector.")] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put the ground back as it was before the alert.")
    ] = False,
    by: By = None,
    inbox: Inbox = None,
    kafka: Kafka = None,
    config: Config = None,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Reject an alert; the same ground never raises it again. With --restore a correction goes to
    the service, which puts the ground back.

    Example: millesimed alerts reject AL0123456789ABCDEF0123 --reason "a tent" --cause temporary
    """
    from updater.review import find_alert, reject_alert
    from updater.store import Store

    name = by or getpass.getuser()
    path = store_path(db)
    with Store.open(path) as store:
        known = find_alert(store, alert)
        sent = None
        if restore:
            from daemon.submit import event_of, restoring

            event = event_of(restoring(known, reason, store.territory), name)
            sent = _place(config, path, inbox, kafka).deliver(event)
        record = reject_alert(store, alert, reason=reason, cause=cause, by=name)
    figures = {"state": record.state.value, "sequence": record.sequence}
    _decided("Rejected", figures | ({"restoring": sent} if sent else {}), alert, json_)


def _decided(title: str, figures: dict[str, Any], alert: str, json_: bool) -> None:
    figures = {"id": alert} | figures
    if json_:
        emit(figures)
    else:
        show_figures(title, figures)


def causes(db: Db = None, json_: Json = False) -> None:
    """The false-alarm table: rejected alerts by kind and cause, and their share of those decided.

    Example: millesimed alerts causes --db D032.duckdb
    """
    from updater.review import false_alarms
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        rows = [asdict(row) for row in false_alarms(store)]
    if json_:
        emit(rows)
    else:
        show("False alarms", rows)
