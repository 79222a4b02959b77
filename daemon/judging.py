"""What judging one acquisition needs, and what comes of it: no store, no broker.

The context is made where the store is open (``context_of``) and may be used anywhere the files lie
(``judged_sealed``): in the same process, or in a detect worker that was sent it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shapely.geometry.base import BaseGeometry

from daemon.assets import assert_unchanged
from daemon.config import Settings
from daemon.locate import Located
from detectors.errors import DetectionError
from detectors.types import Ground, Progress, Region
from schemas.acquisition import AcquisitionItem
from schemas.policy import CONTEXT_M
from updater import alerts, faults, reads
from updater.store import Store
from updater.types import MapPolygon


@dataclass(frozen=True, slots=True)
class Judged:
    """What detection says of an acquisition: regions in the store's CRS, by whom, the share of the
    scene flagged, what registration left, pixels (None where it could not say), and what the scene
    shows of the ground of alerts, by their ids; ``series``: files of the histories it went into."""

    regions: Sequence[Region]
    detector: str
    flagged: float
    pixels_per_second: float
    residual: float | None = None
    grounds: Mapping[str, Ground] = field(default_factory=dict)
    series: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything but pixels that judging an acquisition takes: the images to compare it with, the
    map around it as it was on the reference's date, outlines of alerts by their ids; geometries in
    ``map_crs``."""

    item: AcquisitionItem
    located: Located
    map_crs: str
    polygons: Sequence[MapPolygon]
    outlines: Mapping[str, BaseGeometry]


def context_of(store: Store, item: AcquisitionItem, located: Located) -> Context:
    """The context of an acquisition, from the store of its map."""
    around = located.footprint.buffer(CONTEXT_M)
    return Context(
        item=item,
        located=located,
        map_crs=store.crs,
        polygons=reads.shown_on(store, located.references[0], around),
        outlines=alerts.outlines(reads.alerts_in(store, located.footprint.bounds)),
    )


def map_date(store: Store, located: Located) -> datetime:
    """The date the map of a context is as of."""
    return max(located.references[0].acquired, reads.end_of(store.millesime))


def judged_context(context: Context, settings: Settings, progress: Progress) -> Judged:
    """Run the configured detector; the files must be sealed.

    Raises:
        DetectionError: whatever is wrong with the images.
        AssetChanged: a file was written to meanwhile.
    """
    from daemon.detection import judge

    faults.reached("in-detect")
    return judged_sealed(
        context.located,
        lambda: judge(
            located=context.located,
            polygons=context.polygons,
            map_crs=context.map_crs,
            item=context.item,
            settings=settings,
            outlines=context.outlines,
            progress=progress,
        ),
    )


def judged_sealed(located: Located, look: Callable[[], Judged]) -> Judged:
    """What a look at sealed files says.

    Raises:
        AssetChanged: a file was written to meanwhile.
    """
    try:
        judged = look()
    except DetectionError:
        assert_unchanged(located.seals)  # which then is what was wrong
        raise
    assert_unchanged(located.seals)
    return judged
