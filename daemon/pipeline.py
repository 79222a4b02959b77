"""The way of one event: validate → locate → detect → plan → commit; a correction, which has no
pixels, is not detected.

``handle`` always ends in an outcome that is committed before it returns: the event has its effect,
had it already, or is a dead letter. Only trouble with the store itself, or a request to stop,
leaves it untouched; the source then hands it out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import structlog

from daemon.config import Settings
from daemon.correcting import correct, stores_of_correction
from daemon.journey import about, journey
from daemon.judging import Judged, context_of, judged_sealed
from daemon.locate import Located, locate, locate_alone, stores_of
from daemon.metrics import Metrics
from daemon.outcomes import Interrupted, Outcome, dead_letter, failure
from daemon.planning import effect_of
from daemon.sources import Message
from daemon.suspects import judged_warily, observed_warily
from daemon.tally import Tally
from detectors.types import Progress
from schemas.dead_letter import Origin
from schemas.envelope import AcquisitionEvent, CorrectionEvent, Event, parse_event
from schemas.errors import EventTooLarge
from schemas.policy import MAX_EVENT_BYTES, Sensor
from updater import alerts, asked, commit, faults, reads
from updater.store import Store

__all__ = ["Interrupted", "Outcome", "Pipeline"]

log = structlog.get_logger()


class Pipeline:
    """Carries messages through the stages for a set of stores."""

    def __init__(
        self,
        stores: Sequence[Store],
        settings: Settings,
        metrics: Metrics,
        *,
        stopping: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        self.counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._stores = stores
        self._settings = settings
        self._metrics = metrics
        self._tally = Tally(metrics)
        self._stopping = stopping
        self._progress = progress

    @journey
    def handle(self, message: Message) -> Outcome:
        """Take one message all the way.

        Raises:
            Interrupted: asked to stop; the message must come again.
            StoreError: the store, or the disk anything is worked out on, fails; likewise.
        """
        self._metrics.last_event.set(self._now().timestamp())
        outcome = self._carried(message)
        self._ended(outcome)
        return outcome

    def left_over(self) -> Iterator[Message]:
        """What detect workers were asked before the roles were put together again, each to be
        handled before the next."""
        for store in self._stores:
            while row := asked.first(store):
                yield again(row)
                asked.forget(store, row.seq)

    def rest(self) -> bool:
        """Nothing came: a moment for what can wait. True where nothing is under way."""
        return True

    def leave(self) -> None:
        """Nothing: what was handled is committed."""

    def _carried(self, message: Message) -> Outcome:
        event: Event | None = None
        try:
            with self._metrics.stage("validate"):
                event = self._validate(message)
            if isinstance(event, AcquisitionEvent):
                self._metrics.acquired("validate", event.item.acquired)
            about(event_id=event.id, item=event.subject)
            return self._apply(event, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has a name
            reason, text = failure(error)
            return self._dead_letter(message, event, reason, text)

    def _ended(self, outcome: Outcome) -> None:
        self.counts[outcome] += 1
        self._metrics.events.labels(outcome.value).inc()
        about(outcome=outcome.value)

    def _validate(self, message: Message) -> Event:
        if message.value is None:
            raise EventTooLarge(
                f"The event has {message.size} bytes, more than the {MAX_EVENT_BYTES} allowed; "
                "send the image by reference, not inside the event."
            )
        return parse_event(message.value, dict(message.headers))

    def _apply(self, event: Event, message: Message) -> Outcome:
        with self._metrics.stage("locate"):
            stores = self._stores_of(event, message)
        fresh = [store for store in stores if not reads.seen(store, event.key)]
        if not fresh:
            commit.commit_offset(stores[0], place_of(message))
            log.info("event_duplicate")
            return Outcome.DUPLICATE
        for store in fresh[:-1]:  # only the last one's commit says that the message is done with
            self._apply_to(store, event, replace(message, again=True))
        return self._apply_to(fresh[-1], event, message)

    def _stores_of(self, event: Event, message: Message) -> list[Store]:
        if isinstance(event, CorrectionEvent):
            return stores_of_correction(event, self._stores)
        return stores_of(event.item, self._stores)

    def _apply_to(self, store: Store, event: Event, message: Message) -> Outcome:
        about(store=store.territory)
        if isinstance(event, CorrectionEvent):
            return self._correct(store, event, message)
        acquired = event.item.acquired
        stage = self._metrics.stage
        with stage("locate", acquired=acquired):
            alone = self._has_history(event)
            where = locate_alone if alone else locate
            located = where(store, event.item, roots=self._settings.asset_roots)
        with stage("detect", acquired=acquired):
            look = self._observe if alone else self._detect
            judged = look(store, event, located)
            about(detector=judged.detector)
        faults.reached("after-detect")
        self._commit(store, event, located, judged, message)
        return Outcome.PROCESSED

    def _correct(self, store: Store, event: CorrectionEvent, message: Message) -> Outcome:
        """Redraw what a person drew."""
        with self._metrics.stage("plan"):
            effect = correct(store, event, place_of(message))
        self._check_stop()
        self._tally.expect(effect, message)
        with self._metrics.stage("commit"):
            commit.commit(store, effect)
        self._tally.corrected(effect)
        log.info(
            "corrections_applied",
            author=event.correction.author,
            source=event.correction.source,
            drawn=len(effect.corrections),
            changed=len(effect.patch.pieces),
            ignored=effect.patch.ignored,
        )
        return Outcome.PROCESSED

    def _commit(
        self,
        store: Store,
        event: AcquisitionEvent,
        located: Located,
        judged: Judged,
        message: Message,
    ) -> None:
        """Plan against the map as it is now and write the whole effect."""
        acquired = event.item.acquired
        with self._metrics.stage("plan", acquired=acquired):
            effect = effect_of(store, event, located, judged, place_of(message))
        self._check_stop()
        self._tally.expect(effect, message)
        with self._metrics.stage("commit", acquired=acquired):
            commit.commit(store, effect)
        if judged.series:
            from daemon.series import tidy

            tidy(store, judged.series)
        self._count(store, effect, judged)

    def _check_stop(self) -> None:
        if self._stopping():
            log.info("event_interrupted")
            raise Interrupted

    def _tick(self, stage: str, done: int, total: int) -> None:
        self._check_stop()
        if self._progress is not None:
            self._progress(stage, done, total)

    def _detect(self, store: Store, event: AcquisitionEvent, located: Located) -> Judged:
        context = context_of(store, event.item, located)
        return judged_warily(mark_of(store), event.key, context, self._settings, self._tick)

    def _has_history(self, event: Event) -> bool:
        """True for what is judged against a time series instead of one earlier image."""
        if isinstance(event, CorrectionEvent):
            return False
        sensor = event.item.properties.sensor
        return sensor is Sensor.SENTINEL_2 and self._settings.sentinel2 == "series"

    def _observe(self, store: Store, event: AcquisitionEvent, located: Located) -> Judged:
        from daemon.series import judge_series, read_through

        observe = partial(
            judge_series,
            store,
            located=located,
            item=event.item,
            event=event.key,
            outlines=alerts.outlines(reads.alerts_in(store, located.footprint.bounds)),
            progress=self._tick,
        )
        read = partial(read_through, located.image)
        return judged_sealed(
            located,
            lambda: observed_warily(mark_of(store), event.key, observe, read, self._tick),
        )

    def _count(self, store: Store, effect: commit.Effect, judged: Judged) -> None:
        self._tally.count(store, effect, judged)
        patch = effect.patch
        told = [step.after for step in effect.alerts if step.told]
        log.info(
            "event_processed",
            changed=len(patch.pieces),
            polygons=len(patch.created),
            alerts=len(told),
            ignored=patch.ignored,
        )

    def _dead_letter(
        self, message: Message, event: Event | None, reason: str, text: str
    ) -> Outcome:
        name = event.id if event else None
        letter = dead_letter(message, name, reason=reason, text=text, received=self._now())
        with self._metrics.stage("commit"):
            fresh = commit.commit_dead_letter(self._stores[0], letter, read=not message.again)
        if fresh:
            self._metrics.dead_letters.labels(reason).inc()
        log.warning("dead_letter", reason=reason, message=text)
        return Outcome.DEAD_LETTERED

    def _now(self) -> datetime:
        return self._stores[0].clock()


def mark_of(store: Store) -> Path:
    """Where it stands which image is being judged."""
    return store.path.with_name(f"{store.path.name}.judging")


def place_of(message: Message) -> Origin:
    """Where to go on reading after a message; nowhere, where that is known already."""
    return message.origin.model_copy(update={"offset": None}) if message.again else message.origin


def again(row: asked.Asked) -> Message:
    """The message of an arrival as it was; the store knows that it was read."""
    arrival = row.arrival
    return Message(
        value=arrival.payload,
        headers=arrival.headers,
        origin=arrival.origin,
        size=len(arrival.payload),
        sent=arrival.sent,
        again=True,
    )
