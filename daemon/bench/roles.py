"""Update and detect processes of a simulated country: the real ones, but for pixels.

A detect worker takes the task, reads its context from the exchange folder, and answers with the
regions that the scene's name promises. An update process draws no pictures of alerts, which are
pixels too. Everything else is what ``millesimed run --role update`` and ``--role detect`` do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from daemon.bench.country import DETECTOR, made_up_regions
from daemon.config import Settings
from daemon.detect_worker import Detecting
from daemon.judging import Context, Judged
from daemon.pictures import Drawer
from daemon.roles import DetectService, UpdateService
from daemon.service import Handler, Service
from daemon.sources import Message, Source
from schemas.task import Task
from updater import outbox
from updater.store import Store

CHANNELS = ("folder", "kafka")
"""Channels of a service over Kafka that keep a position."""


class MadeUp(Detecting):
    """Judges by the scene's name."""

    def _judged(self, task: Task, context: Context) -> Judged:
        ground = context.located.footprint
        regions = made_up_regions(context.item.id, ground)
        flagged = sum(float(region.geometry.area) for region in regions) / float(ground.area)
        return Judged(regions, DETECTOR, flagged, pixels_per_second=0.0)


class MadeUpDetect(DetectService):
    """A detect process that judges so."""

    worker = MadeUp


class _NoPictures(Drawer):
    """Draws nothing."""

    def some(self, stores: Sequence[Store]) -> None:
        """None."""

    def everything(self, stores: Sequence[Store]) -> None:
        """None either."""


class MeasuredUpdate(UpdateService):
    """An update process that knows how long it waited for messages."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._drawer = _NoPictures(settings.outbox_folder(), self._stop.is_set)
        self.waited = 0.0
        self.opened: Sequence[Store] = ()

    def _stores(self, stack: ExitStack) -> list[Store]:
        found = super()._stores(stack)
        self.opened = found
        return found

    def _next(self, source: Source, pipeline: Handler) -> Message | None:
        started = time.perf_counter()
        message = super()._next(source, pipeline)
        self.waited += time.perf_counter() - started
        return message

    @property
    def unpublished(self) -> int:
        """Messages some channel lacks."""
        return sum(outbox.depth(store, name)[0] for store in self.opened for name in CHANNELS)


def run_update(settings: Settings, orders: Any) -> None:  # noqa: ANN401 - a pipe's end
    """The process of an update role."""
    service = MeasuredUpdate(settings)
    _run(service, orders, lambda: service.unpublished, lambda: service.waited)


def run_detect(settings: Settings, orders: Any) -> None:  # noqa: ANN401
    """The process of a detect role."""
    _run(MadeUpDetect(settings), orders, lambda: 0, lambda: 0.0)


def _run(
    service: Service,
    orders: Any,  # noqa: ANN401
    unpublished: Callable[[], int],
    waited: Callable[[], float],
) -> None:
    """Carry messages until told to stop (None). Asked for ``outbox`` say how much of it is left, to
    anything else how far this process is."""
    from daemon.logs import configure

    configure(as_json=False, level="error")

    def look() -> dict[str, Any]:
        return {
            "ready": service.ready,
            "outcomes": {outcome.value: count for outcome, count in service.counts.items()},
            "cpu": time.process_time(),
            "waited": waited(),
        }

    def listen() -> None:
        with suppress(EOFError):  # who asked is gone, and this is to end too
            for order in iter(orders.recv, None):
                orders.send(unpublished() if order == "outbox" else look())
        service.stop()

    threading.Thread(target=listen, daemon=True).start()
    service.run()
    orders.send(look())
