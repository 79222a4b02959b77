"""What a metric is made of: its kind, unit, labels, and the label values known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Final

from schemas.alert import AlertKind, AlertState
from schemas.export import ExportProduct
from schemas.subscription import ChannelKind

STAGES: Final = ("validate", "locate", "detect", "plan", "commit", "publish")
"""The way of one event, in order."""
OUTCOMES: Final = (
    "processed",
    "duplicate",
    "dead-lettered",
    "asked",
    "judged",
    "elsewhere",
    "refused",
)
CHANNELS: Final = ("folder", "kafka")
KAFKA_CLIENTS: Final = ("consumer", "producer")
SUBSCRIBER_CHANNELS: Final = tuple(kind.value for kind in ChannelKind if kind != ChannelKind.FEED)
"""Ways a subscriber is told; a feed is read, not told."""
DETECTORS: Final = ("cva", "irmad", "deep-cva", "siamese", "map-guided", "series")
ACQUIRE_KINDS: Final = ("stac", "copernicus", "geoplateforme", "folder", "s3")
"""Kinds of places images come from."""
KINDS: Final = tuple(kind.value for kind in AlertKind)
STATES: Final = tuple(state.value for state in AlertState)
DEAD_LETTER_REASONS: Final = (
    "alert-missing",
    "asset-changed",
    "asset-missing",
    "asset-refused",
    "bad-bands",
    "claim-missing",
    "context-missing",
    "damaged-freight",
    "damaged-state",
    "detector-died",
    "event-too-large",
    "image-too-large",
    "internal",
    "no-overlap",
    "not-json",
    "nothing-valid",
    "older-than-the-map",
    "outside-the-map",
    "patch-refused",
    "reference-missing",
    "schema-invalid",
    "truncated-image",
    "unknown-detector",
    "unreadable-image",
    "weights",
    "wrong-crs",
)
IGNORED_REASONS: Final = (
    "below-alert-area",
    "below-minimum-unit",
    "below-minimum-width",
    "class-unknown",
    "corrected",
    "no-new-cover",
    "older-than-the-map",
    "outside-the-map",
    "probability",
    "topology",
)

CORRECTION_OUTCOMES: Final = (
    "applied",
    "below-minimum-unit",
    "below-minimum-width",
    "no-new-cover",
    "older-than-the-map",
    "outside-the-map",
    "topology",
)
STAGE_BUCKETS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600, 3600)
"""Seconds: validating takes a millisecond, detecting a 5 km tile at 0.2 m minutes."""
_DAY: Final = 86400
LATENCY_BUCKETS: Final = (1, 10, 60, 600, 3600, *(_DAY * n for n in (1, 7, 30, 180, 730)))
"""Seconds: from an embedded run to the two years a millésime takes today."""
ALERT_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, _DAY, 7 * _DAY)
"""Seconds: one small event takes seconds, a campaign delivered at once queues for days."""
EXPORT_STATES: Final = ("queued", "running", "done", "failed", "cancelled", "expired")
EXPORT_OUTCOMES: Final = ("done", "failed", "cancelled", "kept")
"""`kept`: answered with a file that was there."""
EXPORT_PRODUCTS: Final = tuple(product.value for product in ExportProduct)
PUBLICATION_STATES: Final = ("under-way", "failed", "interrupted")
EXPORT_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600)
"""Seconds: a commune takes some, a département minutes."""
CHECKPOINT_BUCKETS: Final = (0.01, 0.05, 0.2, 1, 5, 20, 60, 300)
CONFIDENCE_BUCKETS: Final = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Nothing below 0.5 is a change."""
RESIDUAL_BUCKETS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 3.0)
"""Pixels: tiles that agree lie within 1.5 of each other."""


class Kind(StrEnum):
    """What Prometheus calls the type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``labels``: for each its known values, or what bounds them. ``only``: where it
    is exported, if not everywhere."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: Mapping[str, tuple[str, ...] | str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    only: str = ""

    def series(self, **values: str) -> Iterator[dict[str, str]]:
        """Label values that are known beforehand, given those of some labels; none where a
        label's values are still unknown."""
        known = [(values[k],) if k in values else v for k, v in self.labels.items()]
        if not any(isinstance(v, str) for v in known):
            for chosen in product(*known):
                yield dict(zip(self.labels, chosen, strict=True))


Labels = Mapping[str, tuple[str, ...] | str]


def counter(name: str, unit: str, text: str, labels: Labels | None = None) -> Family:
    """A metric that only rises."""
    return Family(name, Kind.COUNTER, unit, text, labels or {})


def gauge(
    name: str, unit: str, text: str, labels: Labels | None = None, *, only: str = ""
) -> Family:
    """A metric that rises and falls; ``only``: where it is exported, if not everywhere."""
    return Family(name, Kind.GAUGE, unit, text, labels or {}, only=only)


def histogram(
    name: str, unit: str, text: str, buckets: tuple[float, ...], labels: Labels | None = None
) -> Family:
    """A distribution; ``buckets``: upper bounds."""
    return Family(name, Kind.HISTOGRAM, unit, text, labels or {}, buckets)
