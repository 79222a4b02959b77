"""What one event did, counted: scenes, ground, transitions, alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.drift import Chart
from daemon.metrics import Metrics
from daemon.sources import Message
from schemas.nomenclature import CS_LEAVES
from updater.commit import Effect
from updater.store import Store
from updater.types import Patch, by_matrix, kinds_of

if TYPE_CHECKING:
    from daemon.judging import Judged

NO_COVER: Final = "none"
"""The label of ground the map has no cover for, or one that is no leaf of the nomenclature."""


class Tally:
    """Counts for a service; keeps what each detector usually flags."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._charts: dict[str, Chart] = {}

    def expect(self, effect: Effect, message: Message) -> None:
        """Remember when the event was sent, before the relay can see its alerts."""
        if message.sent is not None:
            told = (step.after for step in effect.alerts if step.told)
            names = [f"{record.id}.{record.sequence}" for record in told]
            self._metrics.expect(names, message.sent)

    def count(self, store: Store, effect: Effect, judged: Judged) -> None:
        """Count a committed effect."""
        metrics, acquired = self._metrics, effect.rules.acquired
        self._scene(judged)
        self._ground(store.territory, effect.patch)
        for record in (step.after for step in effect.alerts if step.told):
            metrics.alerts.labels(record.kind.value, record.state.value).inc()
        for reason, count in effect.patch.ignored.items():
            metrics.regions_ignored.labels(reason).inc(count)
        metrics.shown(store.territory, acquired)
        metrics.acquisition_to_patch.observe(max(0.0, (store.clock() - acquired).total_seconds()))

    def corrected(self, effect: Effect) -> None:
        """Count a committed batch of corrections: no scene, no evolution."""
        for row in effect.corrections:
            self._metrics.corrections.labels(row.outcome).inc()
        self._metrics.patched_polygons.inc(len(effect.patch.created))
        for record in (step.after for step in effect.alerts if step.told):
            self._metrics.alerts.labels(record.kind.value, record.state.value).inc()

    def _scene(self, judged: Judged) -> None:
        metrics, detector = self._metrics, judged.detector.partition("/")[0]
        metrics.scenes.labels(detector).inc()
        metrics.flagged.labels(detector).set(judged.flagged)
        metrics.throughput.labels(detector).set(judged.pixels_per_second)
        chart = self._charts.setdefault(detector, Chart())
        metrics.flagged_drift.labels(detector).set(chart.add(judged.flagged))
        for region in judged.regions:
            metrics.confidence.labels(detector).observe(region.probability)
        if judged.residual is not None:
            metrics.residual.observe(judged.residual)

    def _ground(self, departement: str, patch: Patch) -> None:
        metrics = self._metrics
        metrics.patched_polygons.inc(len(patch.created))
        metrics.patched_area.labels(departement).inc(sum(p.geometry.area for p in patch.created))
        for piece in patch.pieces:
            area = float(piece.geometry.area)
            was = by_matrix(piece.cs_before, piece.us_before)
            kind = kinds_of(was, by_matrix(piece.cs_after, piece.us_after))[0]
            metrics.changed_area.labels(departement, kind.value).inc(area)
            before, after = cover(piece.cs_before), cover(piece.cs_after)
            if before != after:
                metrics.transition_area.labels(before, after).inc(area)
                metrics.transition_polygons.labels(before, after).inc()


def cover(code: str | None) -> str:
    """A cover as a label: one of the fourteen, or none of them."""
    return code if code in CS_LEAVES else NO_COVER
