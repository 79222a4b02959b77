"""Subscriptions: kept in the store, and matched with alerts by place, kind, size and certainty."""

from __future__ import annotations

import base64
import secrets as randomness
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from schemas.alert import Alert
from schemas.subscription import SECRET_PREFIX, ChannelKind, Subscription, Wish
from updater.crs import WGS84, reproject
from updater.errors import NotFound
from updater.store import Store
from updater.territories import territories_of


def new_id() -> str:
    """A fresh subscription id."""
    return f"SU{randomness.token_hex(10).upper()}"


def new_secret() -> str:
    """A fresh signing key of 24 random bytes."""
    return SECRET_PREFIX + base64.b64encode(randomness.token_bytes(24)).decode()


def accepted(wish: Wish, *, owner: str | None = None) -> Subscription:
    """A wish with its id, and the keys its channel needs; nothing is stored yet. ``owner``: name
    of the token it comes with."""
    return Subscription(
        **wish.model_dump(),
        id=new_id(),
        secrets=[new_secret()] if wish.channel is ChannelKind.WEBHOOK else [],
        token=randomness.token_urlsafe(24),
        owner=owner,
    )


def amended(known: Subscription, wish: Wish) -> Subscription:
    """A subscription that asks for something else now: the same id, token and owner, the same keys
    where it still is a webhook, a first one where it becomes one."""
    webhook = wish.channel is ChannelKind.WEBHOOK
    return Subscription(
        **wish.model_dump(),
        id=known.id,
        secrets=(known.secrets or [new_secret()]) if webhook else [],
        token=known.token,
        active=known.active,
        owner=known.owner,
    )


def rotated(known: Subscription, *, drop_old: bool) -> Subscription:
    """A webhook's subscription with a new key beside the newest one it had, or, with ``drop_old``,
    with that one alone."""
    kept = known.secrets[:1]
    return known.model_copy(update={"secrets": kept if drop_old else [new_secret(), *kept]})


def save(store: Store, subscription: Subscription) -> None:
    """Add a subscription or its next form; earlier forms stay in the history. A new one begins
    with the next alert, not with the past.

    Raises:
        NotFound: a territory it names is not known.
    """
    _refuse_unknown(store, subscription)
    with store.transaction() as cursor:
        _write(cursor, subscription, store.clock())


def change(
    store: Store, subscription: str, make: Callable[[Subscription], Subscription]
) -> Subscription:
    """Give a subscription its next form, made from the latest one; nobody else writes in between.
    A form that is the same is not written again.

    Raises:
        NotFound: no such subscription, or a territory it names is not known.
    """
    with store.transaction() as cursor:
        known = find(store, subscription)
        fresh = make(known)
        _refuse_unknown(store, fresh)
        if fresh != known:
            _write(cursor, fresh, store.clock())
    return fresh


def end(store: Store, subscription: str) -> Subscription:
    """End a subscription; a second time changes nothing.

    Raises:
        NotFound: there is none of that id.
    """
    return change(store, subscription, lambda known: known.model_copy(update={"active": False}))


def unknown(store: Store, codes: Collection[str]) -> list[str]:
    """Codes of territories the store does not know."""
    known = {t.code for t in territories_of(store, codes)} | {store.territory}
    return [code for code in codes if code not in known]


def _refuse_unknown(store: Store, subscription: Subscription) -> None:
    for code in unknown(store, subscription.territories):
        raise NotFound(f"There is no territory {code!r}; add some with `millesimed territory add`.")


def _write(cursor: duckdb.DuckDBPyConnection, subscription: Subscription, now: datetime) -> None:
    row = cursor.execute(
        "SELECT max(sequence) FROM subscriptions WHERE id = ?", [subscription.id]
    ).fetchone()
    last = row[0] if row else None
    cursor.execute(
        "INSERT INTO subscriptions VALUES (?, ?, ?, ?)",
        [subscription.id, (last or 0) + 1, subscription.model_dump_json(), now],
    )
    if last is None:
        cursor.execute(
            "INSERT INTO positions SELECT ?, coalesce(max(seq), 0) FROM outbox",
            [channel_name(subscription.id)],
        )


def channel_name(subscription: str) -> str:
    """What the relay calls a subscription's channel."""
    return f"subscription:{subscription}"


def subscriptions(store: Store, *, active: bool = True) -> list[Subscription]:
    """Every subscription in its latest form; with ``active`` those that still hold."""
    rows = store.execute("SELECT document FROM subscriptions_now ORDER BY id").fetchall()
    found = [Subscription.model_validate_json(row[0]) for row in rows]
    return [s for s in found if s.active or not active]


def find(store: Store, subscription: str) -> Subscription:
    """One subscription in its latest form.

    Raises:
        NotFound: there is none of that id.
    """
    row = store.execute(
        "SELECT document FROM subscriptions_now WHERE id = ?", [subscription]
    ).fetchone()
    if row is None:
        raise NotFound(
            f"There is no subscription {subscription}; see `millesimed subscriptions list`."
        )
    return Subscription.model_validate_json(row[0])


@dataclass(frozen=True, slots=True)
class Subject:
    """What of an alert a subscription looks at; ``ground`` in the CRS of the store."""

    alert: Alert
    ground: BaseGeometry


def subject(alert: Alert, crs: str) -> Subject:
    """An alert ready to be matched."""
    return Subject(alert, reproject(shape(alert.geometry.model_dump()), WGS84, crs))


class Matcher:
    """Which subscriptions an alert is for: places by one R-tree, the rest by their own figures."""

    def __init__(
        self, wanted: Sequence[Subscription], grounds: dict[str, BaseGeometry], crs: str
    ) -> None:
        """``grounds``: territories by code in ``crs``; a code that is not there means the whole
        département."""
        self._wanted = list(wanted)
        self._everywhere: list[int] = []
        shapes: list[BaseGeometry] = []
        owners: list[int] = []
        for index, subscription in enumerate(self._wanted):
            named = subscription.territories
            nowhere = subscription.polygon is None and not named
            if nowhere or any(c not in grounds for c in named):
                self._everywhere.append(index)
                continue
            own = [grounds[c] for c in named]
            if subscription.polygon is not None:
                own.append(reproject(shape(subscription.polygon.model_dump()), WGS84, crs))
            shapes += own
            owners += [index] * len(own)
        shapely.prepare(shapes)
        self._tree = shapely.STRtree(shapes)
        self._owners = np.array(owners, np.intp)

    def matches(self, subjects: Sequence[Subject]) -> Iterator[tuple[int, int]]:
        """Pairs (index of the subject, index of the subscription)."""
        if not subjects:
            return
        shapes = np.array([s.ground for s in subjects], dtype=object)
        which, hit = self._tree.query(shapes, predicate="intersects")
        pairs = set(zip(which.tolist(), self._owners[hit].tolist(), strict=True))
        pairs |= {(i, j) for i in range(len(subjects)) for j in self._everywhere}
        for i, j in sorted(pairs):
            if wants(self._wanted[j], subjects[i].alert):
                yield i, j


def wants(subscription: Subscription, alert: Alert) -> bool:
    """True where kind, state, size and probability are what the subscriber asked for."""
    return (
        not set(alert.kinds).isdisjoint(subscription.kinds)
        and alert.state in subscription.states
        and alert.area >= subscription.smallest(alert.sensors)
        and alert.probability >= subscription.min_probability
    )


def matcher(store: Store, wanted: Sequence[Subscription]) -> Matcher:
    """A matcher for some subscriptions of a store."""
    codes = {code for s in wanted for code in s.territories}
    grounds = {t.code: t.geometry for t in territories_of(store, codes)}
    return Matcher(wanted, grounds, store.crs)
