"""Looking at what does not report itself: files, backlogs, progress of the millésime.

In a thread of its own, apart from what it looks at: a relay that hangs must not keep its own
backlog from being seen.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Final

import structlog

from daemon.config import Settings
from daemon.families import PUBLICATION_STATES, STAGES, SUBSCRIBER_CHANNELS
from daemon.metrics import Metrics
from daemon.publish.underway import publications
from daemon.relay import Channel, measure
from daemon.sources import Source
from daemon.subscribers import due, last_digest
from schemas.envelope import ALERT_TYPE
from schemas.subscription import ChannelKind, Rhythm
from updater import asked, outbox, progress
from updater.errors import CheckpointPostponed
from updater.store import Store, log_bytes
from updater.subscriptions import channel_name, subscriptions

log = structlog.get_logger()

BEFORE_PUBLISH: Final = STAGES[:-1]
"""Stages an event has behind it once it is committed."""
PROGRESS_SHARE: Final = 0.05
"""Part of the time that may go into measuring progress, which reads the whole map."""


class Watch:
    """Keeps the gauges of a running service fresh."""

    def __init__(
        self,
        metrics: Metrics,
        settings: Settings,
        stores: Sequence[Store],
        channels: Sequence[Channel],
        source: Source,
    ) -> None:
        self._metrics = metrics
        self._settings = settings
        self._stores = stores
        self._channels = channels
        self._source = source
        self._partitions: set[str] = set()
        self._images: dict[str, int] = {}
        self._areas: dict[str, float] = {}
        self._rest_until: dict[str, float] = {}

    def begin(self) -> None:
        """Say what the stores remember of earlier runs, and look for the first time."""
        metrics = self._metrics
        heard = [at for store in self._stores if (at := progress.last_heard(store)) is not None]
        metrics.last_event.set(max(heard or [self._stores[0].clock()]).timestamp())
        metrics.loop.set_to_current_time()
        for store in self._stores:
            name = store.territory
            metrics.departement(name)
            metrics.shown(name, progress.newest_image(store))
            self._areas[name] = progress.area(store)
            metrics.map_area.labels(name).set(self._areas[name])
            acquired = progress.newest_event(store)
            if acquired is not None:
                for stage in BEFORE_PUBLISH:
                    metrics.acquired(stage, acquired)
            place = progress.middle(store)
            if place is not None:
                metrics.departement_info.labels(name, f"{place[1]:.3f}", f"{place[0]:.3f}").set(1)
        self.look()

    def look(self) -> None:
        """Everything once."""
        for store in self._stores:
            self._files(store)
            self._progress(store)
        measure(self._stores, self._channels, self._metrics)
        self._subscribers()
        self._waiting()
        self._publications()

    def checkpoint(self) -> None:
        """Fold every store's log into its file; what a long reader keeps from it is folded in the
        next time."""
        for store in self._stores:
            try:
                with self._metrics.checkpoint_seconds.labels(store.territory).time():
                    store.checkpoint()
            except CheckpointPostponed as error:
                log.warning("checkpoint_postponed", store=store.path.name, error=str(error))

    def _files(self, store: Store) -> None:
        name = store.territory
        file = store.path.stat()
        self._metrics.store_bytes.labels(name).set(file.st_size)
        self._metrics.checkpoint_at.labels(name).set(file.st_mtime)  # commits go to the log
        self._metrics.free_bytes.labels(name).set(shutil.disk_usage(store.path.parent).free)
        self._metrics.wal_bytes.labels(name).set(log_bytes(store.path))

    def _progress(self, store: Store) -> None:
        name, known = store.territory, progress.known_images(store)
        whole = self._areas[name]
        if known == self._images.get(name) or not whole:
            return
        started = monotonic()
        if started < self._rest_until.get(name, 0.0):
            return
        for year, ground in progress.looked_at(store).items():
            self._metrics.covered.labels(name, str(year)).set(ground / whole)
        self._images[name] = known
        now = monotonic()
        self._rest_until[name] = now + (now - started) / PROGRESS_SHARE

    def _subscribers(self) -> None:
        for channel in SUBSCRIBER_CHANNELS:
            count, parked, longest = 0, 0, 0.0
            for store in self._stores:
                lacking, waited, given_up = self._backlog(store, ChannelKind(channel))
                count, parked = count + lacking, parked + given_up
                longest = max(longest, waited)
            self._metrics.subscription_backlog.labels(channel).set(count)
            self._metrics.subscription_waiting.labels(channel).set(longest)
            self._metrics.parked.labels(channel).set(parked)
        refused = sum(outbox.given_up(store, ["kafka"]) for store in self._stores)
        self._metrics.parked.labels("kafka").set(refused)

    def _backlog(self, store: Store, kind: ChannelKind) -> tuple[int, float, int]:
        """Alerts due that subscriptions of a kind lack, seconds the oldest has been due, alerts
        parked."""
        hour, now = self._settings.digest_hour, store.clock()
        wanted = [s for s in subscriptions(store) if s.channel is kind]
        count, longest = 0, 0.0
        for rhythm in Rhythm:
            names = [channel_name(s.id) for s in wanted if s.rhythm is rhythm]
            if not names:
                continue
            until = last_digest(now, rhythm, hour)
            lacking, oldest = outbox.backlog(store, names, type_=ALERT_TYPE, until=until)
            count += lacking
            if oldest is not None:
                longest = max(longest, (now - due(oldest, rhythm, hour)).total_seconds())
        return count, longest, outbox.given_up(store, [channel_name(s.id) for s in wanted])

    def _publications(self) -> None:
        states = Counter(row["state"] for row in publications(self._settings))
        for state in PUBLICATION_STATES:
            self._metrics.publications.labels(state).set(states[state])

    def _waiting(self) -> None:
        found = self._source.backlog()
        for partition, lag in found.lag.items():
            self._metrics.source_lag.labels(partition).set(lag)
        for partition in self._partitions - found.lag.keys():  # another process has it now
            self._metrics.source_lag.remove(partition)
        self._partitions = set(found.lag)
        now = self._stores[0].clock()
        oldest = [asked.waiting(store) for store in self._stores]
        since = [at for _, at in oldest if at is not None]
        out = max(((now - at).total_seconds() for at in since), default=0.0)
        self._metrics.asked.set(sum(count for count, _ in oldest))
        self._metrics.asked_waiting.set(out)
        waited = (now - found.oldest).total_seconds() if found.oldest is not None else 0.0
        self._metrics.source_waiting.set(max(0.0, waited, out))
