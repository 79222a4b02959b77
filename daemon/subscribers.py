"""Carrying alerts to subscribers: in order, at least once, each by its own channel.

A subscription keeps a position in the outbox. What does not arrive is tried again with exponential
backoff and jitter, and nothing overtakes it; after three days it is parked and can be replayed.
Digests gather what was committed before their hour, so that a late service sends the same digest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from schemas.alert import Alert
from schemas.envelope import ALERT_TYPE
from schemas.subscription import ChannelKind, Rhythm, Subscription
from updater import faults, outbox
from updater.outbox import Pending
from updater.store import Store
from updater.subscriptions import channel_name, end, find, matcher, subject, subscriptions

log = structlog.get_logger()

FIRST_WAIT: Final = timedelta(seconds=5)
LONGEST_WAIT: Final = timedelta(hours=3)
GIVE_UP_AFTER: Final = timedelta(days=3)
"""From the alert's commit on; then it is parked."""
DIGEST_WEEKDAY: Final = 0
"""Weekly digests go out on Mondays."""
MOST_IN_A_DIGEST: Final = 500
"""Alerts in one digest; what is left comes in the next one, which follows at once."""


class Failed(Exception):
    """The receiver did not take a message; the text says why."""


class Gone(Failed):
    """The receiver says the address is given up."""


@dataclass(frozen=True, slots=True)
class Note:
    """One alert on its way: the outbox row and the alert in it."""

    row: Pending
    alert: Alert


class Carrier(Protocol):
    """One kind of channel."""

    def deliver(self, store: Store, wanted: Subscription, notes: Sequence[Note]) -> None:
        """Hand over one alert, or a digest of several, as one message.

        A message handed over twice must carry the same id both times.

        Raises:
            Gone: the subscriber wants no more.
            Failed: it did not arrive; the text says why.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(slots=True)
class _Waiting:
    """What is known of a receiver that failed: how often in a row, and when to try again."""

    failures: int = 0
    until: datetime | None = None


@dataclass(slots=True)
class SubscriberRelay:
    """Carries every subscription's alerts; one round at a time."""

    carriers: Mapping[ChannelKind, Carrier]
    clock: Callable[[], datetime] | None = None
    chance: random.Random = field(default_factory=random.Random)
    digest_hour: int = 6
    _waiting: dict[str, _Waiting] = field(default_factory=dict)

    def once(self, store: Store) -> dict[ChannelKind, int]:
        """One round over a store's subscriptions; gives how many alerts each channel took."""
        taken = dict.fromkeys(self.carriers, 0)
        for wanted in store.kept("subscriptions", lambda: subscriptions(store)):
            if wanted.channel in self.carriers:
                taken[wanted.channel] += self._carry(store, wanted)
        return taken

    def close(self) -> None:
        """Let go of connections."""
        for carrier in self.carriers.values():
            carrier.close()

    def _now(self, store: Store) -> datetime:
        return (self.clock or store.clock)()

    def _carry(self, store: Store, wanted: Subscription) -> int:
        waiting = self._waiting.setdefault(wanted.id, _Waiting())
        if waiting.until is not None and self._now(store) < waiting.until:
            return 0
        channel, total, behind = channel_name(wanted.id), 0, None
        until = last_digest(self._now(store), wanted.rhythm, self.digest_hour)
        for notes, seen in _messages(store, wanted, until=until):
            if not notes:
                behind = seen
                continue
            if not self._deliver(store, wanted.id, notes, waiting):
                return total
            total += len(notes)
            faults.reached("in-call")
            outbox.advance(store, channel, seen)
            behind = None
        if behind is not None:
            outbox.advance(store, channel, behind)
        return total

    def _deliver(
        self, store: Store, subscription: str, notes: Sequence[Note], waiting: _Waiting
    ) -> bool:
        """Send one message; False where the round ends for this receiver."""
        now, wanted = self._now(store), find(store, subscription)
        if not wanted.active:  # ended since the round began
            return False
        try:
            self.carriers[wanted.channel].deliver(store, wanted, notes)
        except Gone:
            end(store, wanted.id)
            log.warning("subscription_gone", subscription=wanted.id)
            return False
        except Failed as error:
            oldest, reason = notes[0].row, str(error)
            begun = max(oldest.created, due(oldest.created, wanted.rhythm, self.digest_hour))
            if now - begun >= GIVE_UP_AFTER:
                parked = {note.row.seq: reason for note in notes}
                outbox.advance(store, channel_name(wanted.id), notes[-1].row.seq, parked=parked)
                log.warning("alert_parked", subscription=wanted.id, alert=oldest.id, reason=reason)
                waiting.failures, waiting.until = 0, None
                return False
            waiting.failures += 1
            waiting.until = now + self._pause(waiting.failures)
            log.info(
                "delivery_failed", subscription=wanted.id, channel=wanted.channel, error=reason
            )
            return False
        waiting.failures, waiting.until = 0, None
        return True

    def _pause(self, failures: int) -> timedelta:
        """Between half and all of a wait that doubles with each failure."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * int(2 ** min(failures - 1, 20)))
        return longest * self.chance.uniform(0.5, 1.0)


def last_digest(now: datetime, rhythm: Rhythm, hour: int) -> datetime | None:
    """The latest digest hour that is not after ``now``; None where there are no digests."""
    if rhythm is Rhythm.IMMEDIATE:
        return None
    last = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    if last > now:
        last -= timedelta(days=1)
    if rhythm is Rhythm.WEEKLY:
        last -= timedelta(days=(last.weekday() - DIGEST_WEEKDAY) % 7)
    return last


def due(created: datetime, rhythm: Rhythm, hour: int) -> datetime:
    """When a message committed then was first to be sent."""
    step = {Rhythm.DAILY: timedelta(days=1), Rhythm.WEEKLY: timedelta(days=7)}
    before = last_digest(created, rhythm, hour)
    return created if before is None else before + step[rhythm]


def _messages(
    store: Store, wanted: Subscription, *, until: datetime | None
) -> Iterator[tuple[list[Note], int]]:
    """What a subscription has not had, message by message, each with the position behind it; a
    message without notes only moves the position."""
    gathered: list[Note] = []
    for chosen, row in _unread(store, wanted):
        if until is not None and row.created >= until:
            break
        if chosen is not None and until is None:
            yield [chosen], row.seq
        elif chosen is not None:
            gathered.append(chosen)
            if len(gathered) == MOST_IN_A_DIGEST:
                yield gathered, row.seq
                gathered = []
        elif not gathered:
            yield [], row.seq
    if gathered:
        yield gathered, gathered[-1].row.seq


def _unread(store: Store, wanted: Subscription) -> Iterator[tuple[Note | None, Pending]]:
    """Alerts behind the position, oldest first; None for what the subscription does not want."""
    position = outbox.position(store, channel_name(wanted.id))
    while rows := outbox.after(store, position, type_=ALERT_TYPE):
        alerts = [Alert.model_validate_json(row.body) for row in rows]
        subjects = [subject(alert, store.crs) for alert in alerts]
        chosen = {i for i, _ in matcher(store, [wanted]).matches(subjects)}
        for index, row in enumerate(rows):
            yield (Note(row, alerts[index]) if index in chosen else None), row
        position = rows[-1].seq


def replay(store: Store, carrier: Carrier, subscription: str) -> tuple[int, int]:
    """Send what was parked once more, digests again as digests; gives how many alerts were taken,
    and how many still are parked.

    Raises:
        NotFound: no such subscription.
    """
    wanted, taken = find(store, subscription), 0
    waiting = [row for row, _ in outbox.parked(store, channel_name(subscription))]
    together = 1 if wanted.rhythm is Rhythm.IMMEDIATE else MOST_IN_A_DIGEST
    for first in range(0, len(waiting), together):
        rows = waiting[first : first + together]
        try:
            carrier.deliver(
                store, wanted, [Note(row, Alert.model_validate_json(row.body)) for row in rows]
            )
        except Failed:
            break
        for row in rows:
            outbox.unpark(store, channel_name(subscription), row.seq)
        taken += len(rows)
    return taken, len(waiting) - taken
