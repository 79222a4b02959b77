"""The pipeline of an update process: it owns the map and has images judged by others.

An acquisition is located, and a task goes out with everything a detector needs; the judgement that
comes back is planned against the map as it is then and committed. Tasks are judged by anybody in
any order, yet a map ends up as one process alone would have drawn it:

- judgements are applied in the order in which their acquisitions came;
- an acquisition whose task would turn out otherwise after an earlier one (they share ground, or the
  earlier one alters the map this one is compared with) is held back until that one is done with.

Every step is one transaction, so whoever opens the store next goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

import shapely
import structlog
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from daemon.config import KafkaSettings, Settings
from daemon.correcting import footprint_of_batch
from daemon.exchange import ClaimMissing, Exchange
from daemon.freight import DamagedFreight, context_bytes, judged_from, located_from
from daemon.journey import about, part
from daemon.judging import context_of
from daemon.locate import compared, footprint_of, placed
from daemon.metrics import Metrics
from daemon.outcomes import Outcome, PassedBy, failure
from daemon.pipeline import Pipeline, again, place_of
from daemon.sources import Message
from daemon.update_rules import departement_of, must_wait, waited_for
from detectors.types import Progress
from schemas.dead_letter import Origin
from schemas.envelope import (
    AcquisitionEvent,
    CorrectionEvent,
    Event,
    parse_acquisition,
    parse_event,
    parse_judgement,
)
from schemas.errors import MillesimedError
from schemas.policy import CAMPAIGN_DAYS, CONTEXT_M
from schemas.task import CONTEXT_MISSING, Judgement, Task, task_id
from updater import asked, commit, reads
from updater.asked import Arrival, Asked
from updater.errors import AlertMissing, OutsideMap
from updater.store import Store

log = structlog.get_logger()

ATTEMPTS: Final = 5
"""How often a task is given out whose files detect workers cannot read."""
NOTE_EVERY: Final = 500
"""Messages after which every store learns how far the topics are read, also one that had none: so
many are read again, and recognised, after a kill."""
NOTE_SECONDS: Final = 30.0
"""The same in seconds, where nothing comes: a hundred stores take a second of commits."""
SERVED_SECONDS: Final = 5.0
"""Between two looks at who owns which département."""


class Updating(Pipeline):
    """Carries acquisitions as far as the task, and judgements into the map."""

    def __init__(
        self,
        stores: Sequence[Store],
        settings: Settings,
        metrics: Metrics,
        *,
        kafka: KafkaSettings,
        exchange: Exchange,
        stopping: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(stores, settings, metrics, stopping=stopping, progress=progress)
        self._kafka = kafka
        self._exchange = exchange
        self._own = {store.territory: store for store in stores}
        self._read: dict[tuple[str, int], Origin] = {}
        self._since_note = 0
        self._noted = -math.inf
        self._others: dict[str, BaseGeometry] = {}
        self._looked = -math.inf

    def begin(self) -> None:
        """Say whose maps these are, go on where the process before stopped, give out again what has
        waited long, and sweep the exchange folder."""
        for store in self._stores:
            self._exchange.serve(store)
            patience = timedelta(seconds=self._settings.ask_again_seconds)
            for row in asked.unanswered(store, offered_before=store.clock() - patience):
                self._give_out(store, row)
            self._advance(store)
            self._exchange.sweep(store.territory, asked.tasks(store))

    def handle(self, message: Message) -> Outcome:
        """Take one message, an acquisition or a judgement, as far as it goes.

        Raises:
            Interrupted: asked to stop; the message must come again.
            StoreError: the store, or the disk anything is worked out on, fails; likewise.
        """
        outcome = super().handle(message)
        origin = message.origin
        self._read[origin.topic, origin.partition] = origin
        self._since_note += 1
        if self._since_note >= NOTE_EVERY:
            self._note()
        return outcome

    def left_over(self) -> Iterator[Message]:
        """Nothing: what was asked for is judged by workers, also after a restart."""
        return iter(())

    def rest(self) -> bool:
        """Every store learns now and then how far the topics are read; True where no judgement is
        waited for."""
        if monotonic() - self._noted >= NOTE_SECONDS:
            self._note()
        return not any(self._waiting(store) for store in self._stores)

    def leave(self) -> None:
        """Every store learns how far the topics are read."""
        self._note()

    def full(self) -> bool:
        """True where so much is asked for already that no more should be."""
        return sum(self._waiting(s) for s in self._stores) >= self._settings.asked_at_once

    def _waiting(self, store: Store) -> int:
        """Arrivals that wait in a store; it is asked before every message, of every store."""
        return store.kept("waiting", lambda: asked.waiting(store)[0])

    def _note(self) -> None:
        if self._read:
            for store in self._stores:
                commit.commit_offsets(store, list(self._read.values()))
        self._read.clear()
        self._since_note, self._noted = 0, monotonic()

    def _carried(self, message: Message) -> Outcome:
        try:
            if not self._may_concern(message.key):
                raise PassedBy
            if message.origin.topic == self._kafka.judgements:
                return self._answered(message)
            return super()._carried(message)
        except PassedBy:
            return Outcome.ELSEWHERE

    # whose it is

    def _may_concern(self, key: str) -> bool:
        """False for what is keyed to a département that another process owns."""
        departement = departement_of(key)
        if departement is None or departement in self._own:
            return True
        return self._kafka.catch_all and departement not in self._served()

    def _served(self) -> dict[str, BaseGeometry]:
        """Départements of all update processes; looked up now and then."""
        if monotonic() - self._looked > SERVED_SECONDS:
            self._others, self._looked = self._exchange.served(), monotonic()
        return self._others

    def _stores_of(self, event: Event, message: Message) -> list[Store]:
        try:
            return super()._stores_of(event, message)
        except (OutsideMap, AlertMissing):
            wanted = _departement(event) or departement_of(message.key)
            if wanted in self._own:
                raise
            ground, served = _world_of(event), self._served()
            elsewhere = (
                wanted in served
                if wanted is not None
                else any(ground.intersects(bounds) for bounds in served.values())
            )
            if elsewhere or not self._kafka.catch_all:
                raise PassedBy from None
            raise

    def _dead_letter(
        self, message: Message, event: Event | None, reason: str, text: str
    ) -> Outcome:
        unread = event is None and departement_of(message.key) not in self._own
        if unread and not self._kafka.catch_all:
            raise PassedBy
        return super()._dead_letter(message, event, reason, text)

    # acquisitions

    def _apply_to(self, store: Store, event: Event, message: Message) -> Outcome:
        about(store=store.territory)
        read = place_of(message)
        arrival = Arrival(
            event=event.key,
            payload=message.value or b"",
            headers=message.headers,
            origin=message.origin,
            sent=message.sent,
            acquired=_when(event),
            footprint=_where(store, event),
        )
        if asked.of_event(store, event.key):
            asked.note(store, arrival, None, read)
            log.info("event_duplicate")
            return Outcome.DUPLICATE
        drawn = isinstance(event, CorrectionEvent)
        if self._is_behind(store) if drawn else self._must_wait(store, arrival):
            asked.note(store, arrival, None, read)
            return Outcome.ASKED
        if isinstance(event, CorrectionEvent) or self._has_history(event):
            return super()._apply_to(store, event, message)
        asked.note(store, arrival, self._task(store, event, attempt=1), read)
        return Outcome.ASKED

    def _is_behind(self, store: Store, *, before: int | None = None) -> bool:
        """True while anything waits that came before a correction: it draws, and so in its turn."""
        everywhere = (-math.inf, -math.inf, math.inf, math.inf)
        return bool(asked.rivals(store, everywhere, before=before))

    def _must_wait(self, store: Store, arrival: Arrival, *, before: int | None = None) -> bool:
        around = arrival.footprint.buffer(CONTEXT_M).bounds
        return must_wait(
            arrival.footprint,
            max(arrival.acquired - timedelta(days=CAMPAIGN_DAYS), reads.end_of(store.millesime)),
            asked.rivals(store, around, before=before),
        )

    def _task(self, store: Store, event: AcquisitionEvent, *, attempt: int) -> Task:
        """The task of an acquisition, its context written."""
        with self._metrics.stage("locate", acquired=event.item.acquired):
            located = compared(store, event.item, roots=self._settings.asset_roots)
            name = task_id(store.territory, event.key)
            body = context_bytes(context_of(store, event.item, located))
            claim = self._exchange.put(store.territory, name, "context", body)
        return Task(
            task=name,
            attempt=attempt,
            event=event.key,
            item=event.item.id,
            departement=store.territory,
            context=claim,
            asked=store.clock(),
        )

    # judgements

    def _answered(self, message: Message) -> Outcome:
        """Keep a judgement and apply what can be applied now."""
        try:
            judgement = parse_judgement(message.value or b"", dict(message.headers))
        except MillesimedError as error:
            log.error("judgement_refused", error=str(error), offset=message.origin.offset)
            return Outcome.REFUSED
        store = self._own.get(judgement.departement)
        if store is None:
            raise PassedBy
        row = next(iter(asked.of_event(store, judgement.event)), None)
        if row is None or not waited_for(row, judgement):
            known = row.judgement.result if row is not None and row.judgement else None
            if judgement.result != known:
                self._exchange.discard(store.territory, judgement.result)
            commit.commit_offset(store, message.origin)
            log.info("judgement_duplicate", task=judgement.task)
            return Outcome.DUPLICATE
        if judgement.reason == CONTEXT_MISSING and judgement.attempt < ATTEMPTS:
            self._give_out(store, row, message.origin)
            return Outcome.JUDGED
        asked.answer(store, row.seq, judgement, message.origin)
        self._advance(store)
        return Outcome.JUDGED

    def _advance(self, store: Store) -> None:
        """Apply every judgement whose turn it is, and take up what waited for that."""
        self._take_up(store)
        while self._settle_first(store):
            self._take_up(store)

    def _settle_first(self, store: Store) -> bool:
        """Apply the judgement of the oldest arrival; False where there is none yet."""
        row = asked.first(store)
        if row is None or row.judgement is None or row.task is None:
            return False
        message = again(row)
        event = parse_acquisition(row.arrival.payload, dict(row.arrival.headers))
        with part(event_id=event.id, item=event.item.id, store=store.territory):
            try:
                self._settle(store, event, row.task, row.judgement, message)
            except (ClaimMissing, DamagedFreight) as error:
                if row.task.attempt < ATTEMPTS:
                    log.warning("judgement_lost", task=row.task.task, error=str(error))
                    self._give_out(store, row)
                    return False
                self._refuse(store, event, error.reason, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, it has a name
                self._refuse(store, event, *failure(error))
        self._exchange.remove(store.territory, row.task.task)
        return True

    def _settle(
        self,
        store: Store,
        event: AcquisitionEvent,
        task: Task,
        judgement: Judgement,
        message: Message,
    ) -> None:
        """The effect of a judged acquisition, or its dead letters.

        Raises:
            ClaimMissing, DamagedFreight: a file of it is lost.
        """
        if judgement.result is None:
            reason = judgement.reason or "internal"
            self._refuse(store, event, reason, judgement.message or "It could not be judged.")
            return
        located = located_from(self._exchange.get(store.territory, task.context))
        judged = judged_from(self._exchange.get(store.territory, judgement.result))
        with part(detector=judged.detector):
            self._commit(store, event, located, judged, message)
        self._ended(Outcome.PROCESSED)

    def _take_up(self, store: Store) -> None:
        """Go on with what was held back and no longer needs to be."""
        while any(self._taken_up(store, row) for row in asked.held(store)):
            pass

    def _taken_up(self, store: Store, row: Asked) -> bool:
        """True where an arrival is done with at once, which others may have waited for."""
        event = parse_event(row.arrival.payload, dict(row.arrival.headers))
        drawn = isinstance(event, CorrectionEvent)
        if drawn and self._is_behind(store, before=row.seq):
            return False
        if not drawn and self._must_wait(store, row.arrival, before=row.seq):
            return False
        if isinstance(event, AcquisitionEvent) and not self._has_history(event):
            return not self._give_out(store, row)
        with part(event_id=event.id, item=event.subject, store=store.territory):
            try:
                self._ended(super()._apply_to(store, event, again(row)))
            except Exception as error:  # noqa: BLE001
                self._refuse(store, event, *failure(error))
        return True

    def _give_out(self, store: Store, row: Asked, read: Origin | None = None) -> bool:
        """Send out the task of an arrival, for the first time or again; False where it became a
        dead letter."""
        event = parse_acquisition(row.arrival.payload, dict(row.arrival.headers))
        attempt = row.task.attempt + 1 if row.task else 1
        try:
            asked.give_out(store, row.seq, self._task(store, event, attempt=attempt), read)
        except Exception as error:  # noqa: BLE001
            self._refuse(store, event, *failure(error))
            return False
        return True

    def _refuse(self, store: Store, event: Event, reason: str, text: str) -> None:
        """Every arrival of an event becomes a dead letter."""
        for row in asked.of_event(store, event.key):
            self._ended(self._dead_letter(again(row), event, reason, text))
            asked.forget(store, row.seq)


def _departement(event: Event) -> str | None:
    if isinstance(event, CorrectionEvent):
        return event.correction.departement
    return event.item.properties.departement


def _when(event: Event) -> datetime:
    """When the ground was seen."""
    if isinstance(event, CorrectionEvent):
        return event.correction.observed
    return event.item.acquired


def _where(store: Store, event: Event) -> BaseGeometry:
    """The ground of an event in the store's CRS."""
    if isinstance(event, CorrectionEvent):
        return footprint_of_batch(store, event.correction)
    return placed(store, event.item)


def _world_of(event: Event) -> BaseGeometry:
    """The ground of an event, EPSG:4326; empty for the bare answer to an alert."""
    if isinstance(event, CorrectionEvent):
        shapes = [shape(f.geometry.model_dump()) for f in event.correction.features]
        return shapely.union_all([shapely.make_valid(one) for one in shapes])
    return footprint_of(event.item)
