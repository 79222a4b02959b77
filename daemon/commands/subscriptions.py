"""Commands about who is told: subscriptions add, list, end, rotate, test, replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.options import Db, Json, store_path
from daemon.output import emit, show, show_figures
from schemas.alert import AlertKind, AlertState
from schemas.errors import UsageError
from schemas.subscription import ChannelKind, Rhythm

if TYPE_CHECKING:
    from daemon.mail import MailCarrier
    from daemon.webhook import WebhookCarrier
    from schemas.subscription import Subscription

subscriptions = typer.Typer(help="Who is told of which alerts.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Id of the subscription.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(subscriptions, name="subscriptions")
    subscriptions.command("add")(add)
    subscriptions.command("list")(list_)
    subscriptions.command("end")(end)
    subscriptions.command("rotate")(rotate)
    subscriptions.command("test")(test)
    subscriptions.command("replay")(replay)


def add(  # noqa: PLR0913, PLR0917 - each argument is a flag
    name: Annotated[str, typer.Option(help="Who asks.")],
    channel: Annotated[ChannelKind, typer.Option(help="How they are told.")],
    territory: Annotated[
        list[str] | None, typer.Option(help="Code of a territory; may be repeated.")
    ] = None,
    polygon: Annotated[Path | None, typer.Option(help="Ground, a GeoJSON geometry.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of the webhook.")] = None,
    address: Annotated[str | None, typer.Option(help="Address of the mail.")] = None,
    rhythm: Annotated[Rhythm, typer.Option(help="Mail: at once or as a digest.")] = (
        Rhythm.IMMEDIATE
    ),
    kind: Annotated[list[AlertKind] | None, typer.Option(help="May be repeated.")] = None,
    state: Annotated[list[AlertState] | None, typer.Option(help="May be repeated.")] = None,
    min_area: Annotated[float | None, typer.Option(min=0, help="Square metres.")] = None,
    min_probability: Annotated[float, typer.Option(min=0, max=1, help="0 to 1.")] = 0.5,
    language: Annotated[str, typer.Option(help="fr or en.")] = "fr",
    db: Db = None,
    json_: Json = False,
) -> None:
    """Tell someone of alerts from now on; the signing key is shown once.

    Example: millesimed subscriptions add --name Auch --channel webhook --url https://example.org/x
    """
    from pydantic import ValidationError

    from schemas.subscription import Wish
    from updater.store import Store
    from updater.subscriptions import accepted, save

    wanted: dict[str, Any] = {
        "name": name,
        "channel": channel,
        "territories": territory or [],
        "polygon": _geometry(polygon) if polygon else None,
        "url": url,
        "address": address,
        "rhythm": rhythm,
        "min_area": min_area,
        "min_probability": min_probability,
        "language": language,
    }
    wanted |= {"kinds": kind} if kind else {}
    wanted |= {"states": state} if state else {}
    try:
        subscription = accepted(Wish.model_validate(wanted))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "subscription"
        raise UsageError(f"{where}: {problem['msg']}.") from None
    with Store.open(store_path(db)) as store:
        save(store, subscription)
    figures = {**subscription.public(), "secret": next(iter(subscription.secrets), None)}
    if json_:
        emit(figures)
    else:
        show_figures("Subscribed", figures)


def _geometry(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UsageError(f"{path} is no GeoJSON geometry; check the file.") from None


def list_(db: Db = None, json_: Json = False) -> None:
    """Subscriptions that hold, without their keys.

    Example: millesimed subscriptions list --db D032.duckdb
    """
    from updater.store import Store
    from updater.subscriptions import subscriptions as every

    with Store.open(store_path(db)) as store:
        rows = [s.public() for s in every(store)]
    if json_:
        emit(rows)
    else:
        short = ("id", "name", "channel", "territories", "url", "min_area")
        show("Subscriptions", [{key: row[key] for key in short} for row in rows])


def end(subscription: Id, db: Db = None, json_: Json = False) -> None:
    """End a subscription: nothing more is sent.

    Example: millesimed subscriptions end SU0123456789ABCDEF0123 --db D032.duckdb
    """
    from updater.store import Store
    from updater.subscriptions import end as end_in

    with Store.open(store_path(db)) as store:
        end_in(store, subscription)
    figures = {"id": subscription, "active": False}
    if json_:
        emit(figures)
    else:
        show_figures("Ended", figures)


def rotate(
    subscription: Id,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Stop signing with the older key.")
    ] = False,
    db: Db = None,
    json_: Json = False,
) -> None:
    """Give a webhook a new key; both sign until the old one is dropped.

    Example: millesimed subscriptions rotate SU0123456789ABCDEF0123 --db D032.duckdb
    """
    from updater.store import Store
    from updater.subscriptions import change, rotated

    with Store.open(store_path(db)) as store:
        secrets = change(store, subscription, lambda s: rotated(s, drop_old=drop_old)).secrets
    fresh = None if drop_old else secrets[0]
    figures = {"id": subscription, "keys": len(secrets), "secret": fresh}
    if json_:
        emit(figures)
    else:
        show_figures("Rotated", figures)


def test(subscription: Id, db: Db = None, json_: Json = False) -> None:
    """Send a test message to a webhook (signed) or by mail.

    Example: millesimed subscriptions test SU0123456789ABCDEF0123 --db D032.duckdb
    """
    from daemon.mail import MailCarrier
    from daemon.subscribers import Failed
    from updater.clock import utc_now
    from updater.store import Store
    from updater.subscriptions import find

    with Store.open(store_path(db)) as store:
        wanted = find(store, subscription)
    carrier, now, answer = _carrier(wanted), utc_now(), "taken"
    try:
        if isinstance(carrier, MailCarrier):
            carrier.trial(wanted, now)
        else:
            carrier.post_test(wanted, now)
    except Failed as error:
        answer = str(error)
    finally:
        carrier.close()
    place = {"url": wanted.url} if wanted.url else {"address": wanted.address}
    figures = {"id": subscription, **place, "answer": answer}
    if json_:
        emit(figures)
    else:
        show_figures("Test", figures)
    if answer != "taken":
        raise typer.Exit(1)


def replay(subscription: Id, db: Db = None, json_: Json = False) -> None:
    """Send once more what a webhook or a mail server did not take for three days.

    Example: millesimed subscriptions replay SU0123456789ABCDEF0123 --db D032.duckdb
    """
    from daemon.subscribers import replay as again
    from updater.store import Store
    from updater.subscriptions import find

    with Store.open(store_path(db)) as store:
        carrier = _carrier(find(store, subscription))
        try:
            taken, left = again(store, carrier, subscription)
        finally:
            carrier.close()
    figures = {"id": subscription, "taken": taken, "parked": left}
    if json_:
        emit(figures)
    else:
        show_figures("Replayed", figures)


def _carrier(wanted: Subscription) -> MailCarrier | WebhookCarrier:
    """What a subscription is sent messages by.

    Raises:
        UsageError: it is sent none, or no mail server is configured.
    """
    from daemon.config import load
    from daemon.mail import MailCarrier
    from daemon.webhook import WebhookCarrier

    settings = load()
    if wanted.channel is ChannelKind.WEBHOOK:
        return WebhookCarrier(settings.webhook_networks)
    if wanted.channel is not ChannelKind.MAIL:
        raise UsageError(f"{wanted.id} is a {wanted.channel}; only webhooks and mail are sent.")
    if settings.smtp is None:
        raise UsageError("No mail server is configured; write [smtp] in millesimed.toml.")
    return MailCarrier(settings.smtp, settings.http.public_url)
