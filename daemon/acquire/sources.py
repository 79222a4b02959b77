"""The sources of the configuration, put together: watchers, their files, where events go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pystac
import shapely
import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.base import BaseScheduler
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from daemon.acquire.copernicus import CopernicusWatcher
from daemon.acquire.files import Downloads
from daemon.acquire.folder import FolderWatcher
from daemon.acquire.geoplateforme import GeoplateformeWatcher
from daemon.acquire.http import Caller
from daemon.acquire.round import Acquirer, Meter, Tally, Unmetered
from daemon.acquire.s3 import S3Watcher
from daemon.acquire.settings import (
    AcquireSettings,
    CopernicusSource,
    FolderSource,
    GeoplateformeSource,
    StacSource,
)
from daemon.acquire.state import Busy, StateFile
from daemon.acquire.watcher import Stopped, Watcher
from daemon.announce import drop, event_bytes, to_topic
from daemon.config import Settings
from daemon.metrics import Metrics
from schemas.errors import UsageError
from updater.clock import utc_now
from updater.crs import WGS84, reproject
from updater.reads import extent
from updater.store import Store
from updater.vector_io import read

log = structlog.get_logger()

JITTER: Final = 0.1
"""Share of the interval by which a look is moved at random: not everybody calls on the hour."""
SIMPLE_DEGREES: Final = 1e-3
"""How far an outline that is looked for may lie from the one in the file: a hundred metres."""

Ground = Callable[[str | None], BaseGeometry | None]
"""Ground of the service's maps (of one département, where it is named), degrees."""


def state_file(settings: Settings, source: AcquireSettings) -> StateFile:
    """Where the state of a source lies."""
    return StateFile(settings.acquired_folder() / "state", source.name, source.identity())


def announcer(settings: Settings) -> Callable[[pystac.Item], object]:
    """Writes events where the service reads them: to its topic, or into its inbox."""
    kafka = settings.kafka
    if kafka is not None and settings.inbox is None:
        return lambda item: to_topic(item, kafka)
    return lambda item: drop(settings.inbox_folder(), *event_bytes(item))


def chosen(settings: Settings, name: str | None) -> list[AcquireSettings]:
    """The source of a name, or all of them.

    Raises:
        UsageError: there is none.
    """
    found = [s for s in settings.acquire if name in {None, s.name}]
    if not found:
        known = ", ".join(s.name for s in settings.acquire) or "none"
        raise UsageError(
            f"There is no source {name or 'at all'}; the configuration has: {known} ([[acquire]])."
        )
    return found


def acquirer(
    settings: Settings,
    source: AcquireSettings,
    *,
    ground: Ground,
    stop: threading.Event | None = None,
    meter: Meter | None = None,
    brought: Callable[[int], None] = lambda _: None,
    now: Callable[[], datetime] = utc_now,
) -> Acquirer:
    """What looks at one source. ``brought``: told of bytes as they come."""
    stop = stop or threading.Event()
    folder = settings.acquired_folder() / source.name
    caller = Caller(settings.acquire_networks, per_second=source.calls_per_second, wait=stop.wait)
    downloads = Downloads(caller, source.max_bytes, brought, stop.is_set)
    return Acquirer(
        settings=source,
        watcher=_watcher(source, folder, caller, downloads, ground=ground, now=now),
        file=state_file(settings, source),
        announce=announcer(settings),
        now=now,
        meter=meter or Unmetered(),
    )


def _watcher(
    source: AcquireSettings,
    folder: Path,
    caller: Caller,
    downloads: Downloads,
    *,
    ground: Ground,
    now: Callable[[], datetime],
) -> Watcher:
    if isinstance(source, StacSource):
        from daemon.acquire.stac import StacWatcher  # its client takes a second to load

        return StacWatcher(
            source, folder, caller, downloads, ground=lambda: _outline(source, ground), now=now
        )
    if isinstance(source, CopernicusSource):
        return CopernicusWatcher(source, folder, caller, downloads)
    if isinstance(source, GeoplateformeSource):
        return GeoplateformeWatcher(source, folder, caller, downloads, now=now)
    if isinstance(source, FolderSource):
        caller.close()
        return FolderWatcher(source, folder)
    return S3Watcher(source, folder, caller, downloads)


def _outline(source: StacSource, ground: Ground) -> BaseGeometry | None:
    """Outline a source looks for: of its file, or the ground of the maps."""
    if source.area is None:
        return ground(source.departement)
    frame = read(source.area)
    frame = frame if frame.crs is None else frame.to_crs(WGS84)
    return shapely.union_all(frame.geometry.make_valid()).simplify(SIMPLE_DEGREES)


def ground_of(stores: Sequence[Store]) -> Ground:
    """The ground of some stores' maps."""

    def ground(departement: str | None) -> BaseGeometry | None:
        found = []
        for store in stores:
            bounds = extent(store) if departement in {None, store.territory} else None
            if bounds is not None:
                found.append(reproject(box(*bounds), store.crs, WGS84))
        return shapely.union_all(found) if found else None

    return ground


@dataclass(slots=True)
class SourceMeter:
    """Counts what one source brings."""

    metrics: Metrics
    source: AcquireSettings

    def announced(self, kind: str, count: int) -> None:
        """Images were announced."""
        self.metrics.acquired_images.labels(kind, self.source.name).inc(count)

    def failed(self, kind: str) -> None:
        """An image, or a whole look, failed."""
        self.metrics.acquire_failures.labels(kind, self.source.name).inc()

    def brought(self, count: int) -> None:
        """Bytes came in."""
        self.metrics.acquired_bytes.labels(self.source.kind, self.source.name).inc(count)

    def looked(self, tally: Tally) -> None:
        """A look is over."""
        labels = (self.source.kind, self.source.name)
        self.metrics.acquire_owed.labels(*labels).set(tally.owed)
        if tally.error is None:
            self.metrics.acquire_success.labels(*labels).set_to_current_time()


def schedule(
    scheduler: BaseScheduler,
    settings: Settings,
    *,
    metrics: Metrics,
    ground: Ground,
    stop: threading.Event,
) -> list[Acquirer]:
    """Look at every source of the configuration from now on, each in a thread of its own: one that
    hangs holds up nobody else. What is given back wants to be closed."""
    made: list[Acquirer] = []
    if not settings.acquire:
        return made
    scheduler.add_executor(ThreadPoolExecutor(len(settings.acquire)), alias="acquire")
    for source in settings.acquire:
        meter = SourceMeter(metrics, source)
        metrics.source(source.kind, source.name)
        one = acquirer(
            settings, source, ground=ground, stop=stop, meter=meter, brought=meter.brought
        )
        made.append(one)
        scheduler.add_job(
            look,
            "interval",
            (one, meter),
            seconds=source.every_seconds,
            jitter=JITTER * source.every_seconds,
            id=f"acquire-{source.name}",
            executor="acquire",
            next_run_time=utc_now(),
            coalesce=True,
            max_instances=1,
        )
    return made


def close_all(made: Sequence[Acquirer]) -> None:
    """Let go of every source's connections."""
    for one in made:
        one.close()


def look(one: Acquirer, meter: SourceMeter) -> None:
    """One look of the service; nobody is there to be told but the log and the metrics."""
    try:
        meter.looked(one.once())
    except Busy:
        log.info("acquire_busy", source=one.settings.name)
    except Stopped:
        log.info("acquire_stopped", source=one.settings.name)


def standing(settings: Settings, source: AcquireSettings) -> dict[str, Any]:
    """What is known of a source, for people and scripts."""
    state = state_file(settings, source).load()
    debts = [
        {"what": d.label, "tries": d.tries, "since": d.since, "next": d.next, "why": d.why}
        for d in state.owed.values()
    ]
    given_up = [{"what": d.label, "since": d.since, "why": d.why} for d in state.given_up.values()]
    return {
        "name": source.name,
        "kind": source.kind,
        "every_seconds": source.every_seconds,
        "last_success": state.success,
        "cursor": state.cursor,
        "announced": state.announced,
        "owed": debts,
        "given_up": given_up,
    }
