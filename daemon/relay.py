"""Emptying the outbox: at least once, in order, to every channel.

Each channel has its own position in the outbox, so a broken one holds up nobody else. A message is
noted as delivered after the channel accepted it; a crash between the two sends it again with the
same id. A message a channel will never take, however often it is offered, is parked with the
reason, so that those behind it go on; a restart offers it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Protocol

import structlog
from cloudevents.core.v1.event import CloudEvent

from daemon.chip_words import Language
from daemon.feeds import every, feature, written
from daemon.files import write_parts, write_whole
from daemon.metrics import Metrics
from daemon.pictures import draw_beside
from daemon.subscribers import Failed, Note
from schemas.envelope import ALERT_TYPE, TASK_TYPE, cloud_event, to_structured
from schemas.subscription import Subscription
from updater import faults, outbox
from updater.alert_search import Asked, first
from updater.outbox import Pending
from updater.store import Store

log = structlog.get_logger()

SOURCE = "urn:millesimed:updater"
FEED_SHARE = 0.05
"""Part of the time that may go into writing the feed, which holds every alert there is."""
FEED_REST_SECONDS = 5.0
"""Least rest between two feeds of a store: nobody reads a file more often."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a channel says to some messages, by their sequence numbers: accepted, and refused for
    good with the reason; the others are to be offered again."""

    accepted: Sequence[int]
    refused: Mapping[int, str] = field(default_factory=dict)


class Channel(Protocol):
    """Somewhere messages go."""

    name: str

    def send(self, store: Store, rows: Sequence[Pending]) -> Answer:
        """Publish messages in order."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


def event_of(store: Store, row: Pending) -> CloudEvent:
    """The CloudEvent of an outbox row."""
    return cloud_event(
        type_=row.type,
        id_=row.id,
        source=f"{SOURCE}:{store.territory}",
        data=json.loads(row.body),
        time=row.created,
        key=row.key,
    )


class FolderChannel:
    """One file per message, and the alert feed as GeoJSON beside them.

    The file is named by the message's id, so a second delivery writes the same file again.
    """

    name = "folder"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stale: dict[str, Store] = {}
        self._rest_until: dict[str, float] = {}

    def send(self, store: Store, rows: Sequence[Pending]) -> Answer:
        """Write the messages; when alerts are among them the feed is due. What the disk does not
        take comes again."""
        written: list[int] = []
        try:
            for row in rows:
                if row.type == TASK_TYPE:  # between the roles, through Kafka only
                    written.append(row.seq)
                    continue
                kind = row.topic.removeprefix("millesimed.")
                body = to_structured(event_of(store, row))
                write_whole(self.folder / kind / f"{row.id}.json", body)
                written.append(row.seq)
        except OSError as error:
            self._refused(error)
        if any(row.type == ALERT_TYPE for row in rows[: len(written)]):
            self._stale[store.territory] = store
        return Answer(written)

    def settle(self, stores: Sequence[Store]) -> None:
        """Write the feeds that are due and not resting: the longer one takes to write, the longer
        it rests, so that a feed of many alerts is no brake. The first time all are due, for the
        last process may have been killed before."""
        for store in stores:
            if store.territory not in self._rest_until:
                self._stale[store.territory] = store
        for territory in list(self._stale):
            if monotonic() >= self._rest_until.get(territory, 0.0):
                self._write(territory)

    def _write(self, territory: str) -> None:
        started = monotonic()
        path = self.folder / "feed" / f"alerts-{territory}.geojson"
        store = self._stale[territory]
        try:
            if first(store, Asked(), 0)[0] or path.exists():
                write_parts(path, written(every(store)))
        except OSError as error:
            self._refused(error)
        else:
            del self._stale[territory]
        now = monotonic()
        self._rest_until[territory] = now + max((now - started) / FEED_SHARE, FEED_REST_SECONDS)

    def _refused(self, error: OSError) -> None:
        log.warning("outbox_folder_refuses", folder=str(self.folder), error=error.strerror)

    def close(self) -> None:
        """Write the feeds that are still due."""
        for territory in list(self._stale):
            self._write(territory)


class FolderCarrier:
    """The folder of one subscription: a GeoJSON feature and a picture for each alert, in its latest
    state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def deliver(self, store: Store, wanted: Subscription, notes: Sequence[Note]) -> None:
        """Write each alert; a second delivery writes the same file again.

        Raises:
            Failed: the disk does not take it.
        """
        for note in notes:
            body = json.dumps(feature(note.alert), ensure_ascii=False).encode()
            try:
                write_whole(self.folder / wanted.id / f"{note.alert.id}.geojson", body)
            except OSError as error:
                raise Failed(f"{type(error).__name__}: {error.strerror}") from None
            picture = self.folder / wanted.id / f"{note.alert.id}.png"
            draw_beside(store, note.alert.id, picture, Language(wanted.language))

    def close(self) -> None:
        """Nothing to let go of."""


def relay_once(stores: Sequence[Store], channels: Sequence[Channel], metrics: Metrics) -> int:
    """One round over every store and channel; gives how many messages were published."""
    total = 0
    for store in stores:
        for channel in channels:
            total += _relay_channel(store, channel, metrics)
    for channel in channels:
        if isinstance(channel, FolderChannel):
            channel.settle(stores)
    measure(stores, channels, metrics)
    return total


def measure(stores: Sequence[Store], channels: Sequence[Channel], metrics: Metrics) -> None:
    """How much each channel lacks of all stores, and since when. Where none lacks anything, what
    was committed before is published."""
    committed, waiting = metrics.newest("commit"), 0
    for channel in channels:
        found = [(store, *_depth(store, channel)) for store in stores]
        ages = [(store.clock() - since).total_seconds() for store, _, since in found if since]
        depth = sum(count for _, count, _ in found)
        waiting += depth
        metrics.outbox_depth.labels(channel.name).set(depth)
        metrics.outbox_age.labels(channel.name).set(max(ages, default=0.0))
    if committed is not None and not waiting:
        metrics.acquired("publish", committed)


def _relay_channel(store: Store, channel: Channel, metrics: Metrics) -> int:
    total = 0
    while _depth(store, channel)[0] and (rows := outbox.pending(store, channel.name)):
        with metrics.stage("publish"):
            answer = channel.send(store, rows)
        faults.reached("in-relay")
        outbox.delivered(store, channel.name, answer.accepted)
        _park(store, channel, rows, answer)
        now = store.clock()
        taken = set(answer.accepted)
        for row in (row for row in rows if row.seq in taken):
            metrics.event_to_publish.observe((now - row.created).total_seconds())
            metrics.told(channel.name, row.id, now)
        metrics.published.labels(channel.name).inc(len(taken))
        total += len(taken)
        if len(taken) + len(answer.refused) < len(rows):
            break
    return total


def _depth(store: Store, channel: Channel) -> tuple[int, datetime | None]:
    """How many messages a channel lacks, and since when."""
    return store.kept(f"depth {channel.name}", lambda: outbox.depth(store, channel.name))


def _park(store: Store, channel: Channel, rows: Sequence[Pending], answer: Answer) -> None:
    outbox.park(store, channel.name, answer.refused)
    for row in (row for row in rows if row.seq in answer.refused):
        reason = answer.refused[row.seq]
        log.error("message_parked", channel=channel.name, message=row.id, reason=reason)
