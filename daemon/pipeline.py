"""The way of one event: validate → locate → detect → plan → commit.

``handle`` always ends in one of three outcomes, each committed before it returns: the event has
its effect, had it already, or is a dead letter. Only trouble with the store itself, or a request
to stop, leaves it untouched; the source then hands it out again.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import duckdb
import shapely
import structlog
from shapely.geometry.base import BaseGeometry

from daemon.assets import assert_unchanged
from daemon.config import Settings
from daemon.journey import about, journey
from daemon.locate import Located, locate, locate_alone, stores_of
from daemon.metrics import Metrics
from daemon.sources import Message
from daemon.tally import Tally
from detectors.errors import DetectionError
from detectors.types import Ground, Progress, Region
from schemas.dead_letter import DeadLetter, Origin
from schemas.envelope import AcquisitionEvent, parse_acquisition
from schemas.errors import EventTooLarge, MillesimedError
from schemas.policy import CONTEXT_M, MAX_EVENT_BYTES, SENSOR_POLICY, Sensor
from updater import alerts, commit, faults, planner, reads, topology
from updater.alerts import Look, Step
from updater.errors import StoreError
from updater.store import Store
from updater.territories import places_of
from updater.trouble import explained, is_of_the_data, of_store
from updater.types import Patch, Rules

log = structlog.get_logger()

KEPT_BYTES = 256 * 1024
"""Bytes of a bad event kept inside its dead letter; a longer one stays whole in ``failed/`` or in
the topic."""


class Outcome(StrEnum):
    """What became of a message."""

    PROCESSED = "processed"
    DUPLICATE = "duplicate"
    DEAD_LETTERED = "dead-lettered"


class Interrupted(Exception):
    """The service was asked to stop in the middle of an event; nothing of it is committed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What detection says of an acquisition: regions in the store's CRS, by whom, the share of the
    scene flagged, what registration left, pixels (None where it could not say), and what the scene
    shows of the ground of alerts, by their ids; ``series``: files of the histories it went into."""

    regions: Sequence[Any]
    detector: str
    flagged: float
    pixels_per_second: float
    residual: float | None = None
    grounds: Mapping[str, Ground] = field(default_factory=dict)
    series: Mapping[str, str] = field(default_factory=dict)


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
        event: AcquisitionEvent | None = None
        self._metrics.last_event.set(self._now().timestamp())
        try:
            with self._metrics.stage("validate"):
                event = self._validate(message)
            self._metrics.acquired("validate", event.item.acquired)
            about(event_id=event.id, item=event.item.id)
            outcome = self._apply(event, message)
        except (StoreError, Interrupted):
            raise
        except (MillesimedError, DetectionError) as error:
            outcome = self._dead_letter(message, event, error.reason, str(error))
        except Exception as error:
            if (trouble := _trouble(error)) is not None:
                raise trouble from None
            log.exception("event_failed")
            text = f"The event failed unexpectedly ({type(error).__name__}: {str(error)[:200]})."
            outcome = self._dead_letter(message, event, "internal", text)
        self._metrics.events.labels(outcome.value).inc()
        about(outcome=outcome.value)
        return outcome

    def _validate(self, message: Message) -> AcquisitionEvent:
        if message.value is None:
            raise EventTooLarge(
                f"The event has {message.size} bytes, more than the {MAX_EVENT_BYTES} allowed; "
                "send the image by reference, not inside the event."
            )
        return parse_acquisition(message.value, dict(message.headers))

    def _apply(self, event: AcquisitionEvent, message: Message) -> Outcome:
        with self._metrics.stage("locate"):
            stores = stores_of(event.item, self._stores)
        fresh = [store for store in stores if not reads.seen(store, event.key)]
        if not fresh:
            commit.commit_offset(stores[0], message.origin)
            log.info("event_duplicate")
            return Outcome.DUPLICATE
        for store in fresh[:-1]:  # only the last one's commit says that the message is done with
            self._apply_to(store, event, replace(message, origin=_without_offset(message.origin)))
        self._apply_to(fresh[-1], event, message)
        return Outcome.PROCESSED

    def _apply_to(self, store: Store, event: AcquisitionEvent, message: Message) -> None:
        about(store=store.territory)
        acquired = event.item.acquired
        stage = self._metrics.stage
        with stage("locate", acquired=acquired):
            alone = self._has_history(event)
            where = locate_alone if alone else locate
            located = where(store, event.item, roots=self._settings.asset_roots)
        with stage("detect", acquired=acquired):
            look = self._observe if alone else self._detect
            judged = self._sealed(located, lambda: look(store, event, located))
            about(detector=judged.detector)
        faults.reached("after-detect")
        with stage("plan", acquired=acquired):
            effect = self._plan(store, event, located, judged, message)
        self._check_stop()
        self._tally.expect(effect, message)
        with stage("commit", acquired=acquired):
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
        from daemon.detection import judge

        reference = located.references[0]
        polygons = reads.shown_on(store, reference, located.footprint.buffer(CONTEXT_M))
        return judge(
            located=located,
            polygons=polygons,
            map_crs=store.crs,
            item=event.item,
            settings=self._settings,
            outlines=alerts.outlines(reads.alerts_in(store, located.footprint.bounds)),
            progress=self._tick,
        )

    def _sealed(self, located: Located, look: Callable[[], Judged]) -> Judged:
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

    def _has_history(self, event: AcquisitionEvent) -> bool:
        """True for what is judged against a time series instead of one earlier image."""
        sensor = event.item.properties.sensor
        return sensor is Sensor.SENTINEL_2 and self._settings.sentinel2 == "series"

    def _observe(self, store: Store, event: AcquisitionEvent, located: Located) -> Judged:
        from daemon.series import judge_series

        return judge_series(
            store,
            located=located,
            item=event.item,
            event=event.key,
            outlines=alerts.outlines(reads.alerts_in(store, located.footprint.bounds)),
            progress=self._tick,
        )

    def _plan(
        self,
        store: Store,
        event: AcquisitionEvent,
        located: Located,
        judged: Judged,
        message: Message,
    ) -> commit.Effect:
        item = event.item
        rules = Rules(
            event=event.key,
            acquired=item.acquired,
            sensor=item.properties.sensor,
            policy=SENSOR_POLICY[item.properties.sensor],
            detector=judged.detector,
            gsd=item.properties.gsd,
        )
        patch = (_drawn if rules.policy.patches else _warned)(store, judged.regions, rules)
        return commit.Effect(
            event=event,
            rules=rules,
            patch=patch,
            alerts=_follow(store, patch, event, located, judged),
            image=reads.ImageRecord(
                item=item.id,
                path=located.image,
                sensor=item.properties.sensor,
                acquired=item.acquired,
                gsd=item.properties.gsd,
                footprint=located.footprint,
                elevation=located.elevation,
            ),
            origin=message.origin,
            series=judged.series,
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
        self, message: Message, event: AcquisitionEvent | None, reason: str, text: str
    ) -> Outcome:
        letter = dead_letter(message, event, reason=reason, text=text, received=self._now())
        with self._metrics.stage("commit"):
            fresh = commit.commit_dead_letter(self._stores[0], letter)
        if fresh:
            self._metrics.dead_letters.labels(reason).inc()
        log.warning("dead_letter", reason=reason, message=text)
        return Outcome.DEAD_LETTERED

    def _now(self) -> Any:  # noqa: ANN401 - datetime of the store's clock
        return self._stores[0].clock()


def _drawn(store: Store, regions: Sequence[Region], rules: Rules) -> Patch:
    """The patch of one image that may draw, its invariants asserted."""
    grounds = [region.geometry for region in regions]
    polygons = reads.neighbourhood(store, grounds)
    patch = planner.plan(polygons, regions, replace(rules, zone_construite=_zone(store, grounds)))
    assert_whole(polygons, patch)
    return patch


def _warned(store: Store, regions: Sequence[Region], rules: Rules) -> Patch:
    """What an image that may only warn says, region by region: they lie far apart, and the map
    between them is not needed."""
    parts = [
        planner.plan(reads.neighbourhood(store, [region.geometry]), [region], rules)
        for region in regions
    ]
    ignored: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
    return Patch(sightings=[s for part in parts for s in part.sightings], ignored=dict(ignored))


def _trouble(error: Exception) -> StoreError | None:
    """What is wrong with this machine and not with the event, which is to come again."""
    if isinstance(error, duckdb.Error) and not is_of_the_data(error):
        return of_store("in use", error)
    return explained(error) if isinstance(error, OSError) else None


def _without_offset(origin: Origin) -> Origin:
    return origin.model_copy(update={"offset": None})


def _zone(store: Store, grounds: Sequence[BaseGeometry]) -> BaseGeometry | None:
    if not grounds:
        return None
    window = shapely.total_bounds(list(grounds))
    return reads.zone_construite(store, (window[0], window[1], window[2], window[3]))


def assert_whole(polygons: Sequence[Any], patch: Patch) -> None:
    """The design's invariants over the whole patch and its ring, once more before the commit."""
    if patch.is_empty:
        return
    gone = {p.id for p in patch.retired}
    tree = shapely.STRtree([p.geometry for p in polygons])
    ground = [p.geometry for p in patch.retired]
    ring = {int(i) for i in tree.query(ground, predicate="intersects")[1]}
    stay = [polygons[i].geometry for i in ring if polygons[i].id not in gone]
    topology.assert_invariants(
        [*ground, *stay],
        [*(p.geometry for p in patch.created), *stay],
        where="of this acquisition",
    )


def _follow(
    store: Store, patch: Patch, event: AcquisitionEvent, located: Located, judged: Judged
) -> list[Step]:
    """What one acquisition does to the alerts of its ground, with the territories they lie in."""
    grounds = [located.footprint, *(s.geometry for s in patch.sightings)]
    window = shapely.total_bounds(grounds)
    known = reads.alerts_in(store, (window[0], window[1], window[2], window[3]))
    references = located.references
    look = Look(
        acquisition=event.item.id,
        sensor=event.item.properties.sensor,
        acquired=event.item.acquired,
        known_at=store.clock(),
        detector=judged.detector,
        reference=references[0].item if references else None,
        compared_to=max((image.acquired for image in references), default=None),
    )
    seen = [judged.grounds.get(record.id) for record in known]
    steps = alerts.follow(known, patch.sightings, look, seen)
    return with_places(store, steps)


def with_places(store: Store, steps: Sequence[Step]) -> list[Step]:
    """The steps, each alert that is new or was drawn anew with the territories it lies in."""
    moved = [s for s in steps if s.before is None or s.before.geometry is not s.after.geometry]
    places = places_of(store, [step.after.geometry for step in moved])
    told = {
        step.after.id: replace(step.after, places=found)
        for step, found in zip(moved, places, strict=True)
    }
    return [Step(step.before, told.get(step.after.id, step.after)) for step in steps]


def dead_letter(
    message: Message,
    event: AcquisitionEvent | None,
    *,
    reason: str,
    text: str,
    received: Any,  # noqa: ANN401
) -> DeadLetter:
    """The dead letter of a message: original bytes, where from, why. The same message at the
    same place gives the same letter."""
    payload = message.value if message.value is not None else b""
    origin = message.origin
    place = f"{origin.source}|{origin.topic}|{origin.partition}|{origin.offset}|{origin.path}"
    if message.value is None:
        place += f"|{message.size}"
    digest = hashlib.sha256(place.encode() + payload).hexdigest()
    return DeadLetter(
        id=f"DL{digest[:20].upper()}",
        event=event.id if event else None,
        origin=origin,
        reason=reason,
        message=text,
        attempts=1,
        received=received,
        headers={k: v.decode("utf-8", "replace") for k, v in message.headers.items()},
        payload_base64=base64.b64encode(payload[:KEPT_BYTES]).decode(),
        truncated=message.value is None or len(payload) > KEPT_BYTES,
    )
