"""Commands about what the store keeps: alerts, dead letters, the published schemas."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.chip_words import Language
from daemon.options import Config, Db, Json, store_path
from daemon.output import emit, show, show_figures
from schemas.errors import UsageError

Reason = Annotated[str | None, typer.Option(help="Only those of this reason; see `list`.")]
alerts = typer.Typer(help="Alerts in their latest state.", no_args_is_help=True)
dead_letters = typer.Typer(help="Events that could not have their effect.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(alerts, name="alerts")
    app.add_typer(dead_letters, name="dead-letters")
    app.command()(schemas)
    alerts.command("list")(alerts_list)
    alerts.command("show")(alerts_show)
    dead_letters.command("list")(dead_letters_list)
    dead_letters.command("show")(dead_letters_show)
    dead_letters.command("retry")(dead_letters_retry)


def alerts_list(db: Db = None, json_: Json = False) -> None:
    """Alerts, most important first.

    Example: millesimed alerts list --db D032.duckdb --json
    """
    from daemon.feeds import alerts_of
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        rows: list[dict[str, Any]] = [
            alert.model_dump(mode="json", exclude={"geometry"}) for alert in alerts_of(store)
        ]
    if json_:
        emit(rows)
        return
    short = ("id", "kind", "state", "area", "probability", "seen_first", "rank")
    show("Alerts", [{name: row[name] for name in short} for row in rows])


def alerts_show(
    alert: Annotated[str, typer.Argument(help="Id of the alert.")],
    picture: Annotated[
        Path | None, typer.Option(help="Write the ground before and after to this PNG file.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of the picture.")] = Language.FR,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Everything about one alert.

    Example: millesimed alerts show AL0123456789ABCDEF0123 --db D032.duckdb --picture chips.png
    """
    from updater.alert_rows import message
    from updater.lineage import heirs
    from updater.review import find_alert
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        record = find_alert(store, alert)
        found = message(record, departement=store.territory, crs=store.crs)
        now = heirs(store, record.polygons, record.geometry)
        if picture is not None:
            from daemon.chips import Picture, draw_alert

            _write_picture(picture, draw_alert(store, alert, language=lang).png(Picture.CHIPS))
    document = found.model_dump(mode="json") | {"polygons_now": now}
    if json_:
        emit(document)
    else:
        show_figures(alert, {k: v for k, v in document.items() if k != "geometry"})


def _write_picture(path: Path, body: bytes) -> None:
    from daemon.files import write_whole

    try:
        write_whole(path, body)
    except OSError as error:
        raise UsageError(
            f"The picture cannot be written to {path} ({error.strerror}); choose another file."
        ) from None


def dead_letters_list(
    reason: Reason = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only those that were not retried yet.")
    ] = False,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Dead letters, newest first.

    Example: millesimed dead-letters list --reason asset-missing --waiting --db D032.duckdb
    """
    from updater.review import dead_letters as letters
    from updater.review import retries
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        found, tried = letters(store, reason=reason), retries(store)
    rows = [
        {
            "id": letter.id,
            "reason": letter.reason,
            "message": letter.message,
            "received": letter.received.isoformat(),
            "retried": tried[letter.id].at.isoformat() if letter.id in tried else None,
        }
        for letter in found
        if not (waiting and letter.id in tried)
    ]
    if json_:
        emit(rows)
    else:
        show("Dead letters", rows)


def dead_letters_show(
    letter: Annotated[str, typer.Argument(help="Id of the dead letter.")],
    db: Db = None,
    json_: Json = False,
) -> None:
    """One dead letter with its original bytes.

    Example: millesimed dead-letters show DL0123456789ABCDEF0123 --db D032.duckdb
    """
    from updater.review import find_dead_letter, retries
    from updater.store import Store

    with Store.open(store_path(db)) as store:
        document = find_dead_letter(store, letter).model_dump(mode="json")
        tried = retries(store).get(letter)
    document["retried"] = tried.at.isoformat() if tried else None
    document["destination"] = tried.destination if tried else None
    if json_:
        emit(document)
    else:
        show_figures(letter, document)


def dead_letters_retry(
    letter: Annotated[str | None, typer.Argument(help="Id of the dead letter.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every letter not retried yet.")] = False,
    reason: Reason = None,
    inbox: Annotated[Path | None, typer.Option(help="Inbox the events go back to.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers instead.")] = None,
    config: Config = None,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Send the event of a dead letter, or of all, where events come from; each letter's once.

    Example: millesimed dead-letters retry --all --reason asset-missing --db D032.duckdb
    """
    from daemon.config import KafkaSettings, load
    from daemon.retry import back_to_inbox, back_to_topic, retry
    from updater.review import dead_letters as letters
    from updater.review import find_dead_letter, retries
    from updater.store import Store

    if (letter is None) != all_ or (reason is not None and not all_):
        raise UsageError("Say which: the id of a letter, or --all, with --reason or without.")
    settings = load(config)
    path = db or store_path(settings.db[0] if settings.db else None)
    servers = KafkaSettings(servers=kafka) if kafka else (None if inbox else settings.kafka)
    folder = inbox or settings.model_copy(update={"db": [path]}).inbox_folder()
    with Store.open(path) as store:
        if letter is not None:
            wanted = [find_dead_letter(store, letter)]
        else:
            known = retries(store)
            wanted = [one for one in letters(store, reason=reason) if one.id not in known]
        tried = retry(
            store,
            wanted,
            lambda one: back_to_topic(one, servers) if servers else str(back_to_inbox(one, folder)),
        )
    if letter is not None and tried[0].refused is not None:
        raise UsageError(tried[0].refused)
    if json_:
        rows = [asdict(one) for one in tried]
        emit(rows[0] if letter is not None else {"letters": rows})
    else:
        show("Retried", [asdict(one) for one in tried])


def schemas(
    out: Annotated[Path | None, typer.Option(help="Folder to write the files to.")] = None,
    json_: Json = False,
) -> None:
    """The JSON Schema and AsyncAPI files of everything that travels.

    Example: millesimed schemas --out schemas-out
    """
    from schemas.generate import documents, write

    if out is None:
        emit({"files": list(documents())})
        return
    paths = write(out)
    if json_:
        emit({"files": [str(path) for path in paths]})
    else:
        show("Schemas", [{"file": str(path)} for path in paths])
