"""The way of a batch of corrections: locate → plan → commit. It needs no pixels, so whoever owns a
map takes it itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import shapely
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from daemon.planning import drawn, with_places
from schemas.correction import Correction
from schemas.dead_letter import Origin
from schemas.envelope import CorrectionEvent
from schemas.policy import DRAWN_GSD_M, DRAWN_POLICY
from updater import commit, reads, topology
from updater.alerts import OPEN_STATES, Step, redrawn, rejected
from updater.corrections import APPLIED, CorrectionRow, correction_id
from updater.crs import WGS84, reproject
from updater.errors import AlertMissing, NotFound, OutsideMap
from updater.generalise import to_grid, valid
from updater.review import find_alert
from updater.store import Store
from updater.types import AlertRecord, Drawn, Patch, Rules, by_matrix

INSTANT: Final = timedelta(microseconds=1)
"""What lies between the map of a moment and the one before it."""


def stores_of_correction(event: CorrectionEvent, stores: Sequence[Store]) -> list[Store]:
    """The stores whose map a batch touches, or that have the alert it answers.

    Raises:
        OutsideMap: none does.
        AlertMissing: no store has the alert.
    """
    correction = event.correction
    found = [s for s in stores if correction.departement in {None, s.territory}]
    if correction.alert is not None:
        having = [s for s in found if _alert(s, correction) is not None]
        if not having:
            raise AlertMissing(
                f"There is no alert {correction.alert} on the maps of this service; check its id."
            )
        return having
    touched = [s for s in found if _touches(s, _grounds(s, correction))]
    if not touched:
        raise OutsideMap(
            f"The ground of {event.id} touches no map of this service; check its coordinates and "
            "département."
        )
    return touched


def observed_from(correction: Correction, record: AlertRecord | None) -> datetime:
    """From when on what is drawn holds: the answer to an alert replaces what that drew."""
    return correction.observed if record is None else min(correction.observed, record.seen_first)


def footprint_of_batch(store: Store, correction: Correction) -> BaseGeometry:
    """All the ground a batch is about, in the store's CRS."""
    record = _alert(store, correction)
    grounds = [g for g in _grounds(store, correction) if not g.is_empty]
    return shapely.union_all([*grounds, *([record.geometry] if record else [])])


def correct(store: Store, event: CorrectionEvent, origin: Origin) -> commit.Effect:
    """Everything a batch of corrections does to a store, against the map as it is now.

    Raises:
        PatchRefused: it would break an invariant of the map.
    """
    correction = event.correction
    record = _alert(store, correction)
    regions = _regions(store, correction, record)
    rules = Rules(
        event=event.key,
        acquired=observed_from(correction, record),
        sensor=None,
        policy=DRAWN_POLICY,
        detector=f"{correction.source} ({correction.author})",
        gsd=DRAWN_GSD_M,
        kind=correction.kind,
    )
    patch = drawn(store, regions, rules)
    return commit.Effect(
        event=event,
        rules=rules,
        patch=patch,
        alerts=_answered(store, correction, record, regions, patch),
        image=None,
        origin=origin,
        corrections=_rows(store, event, regions, patch),
    )


def _alert(store: Store, correction: Correction) -> AlertRecord | None:
    if correction.alert is None:
        return None
    try:
        return find_alert(store, correction.alert)
    except NotFound:
        return None


def _grounds(store: Store, correction: Correction) -> list[BaseGeometry]:
    """The ground of each feature in the store's CRS; empty where that does not reach."""
    found = []
    for feature in correction.features:
        local = reproject(shape(feature.geometry.model_dump()), WGS84, store.crs)
        reached = bool(np.isfinite(shapely.get_coordinates(local)).all())
        found.append(to_grid(valid(local)) if reached else shapely.Polygon())
    return found


def _touches(store: Store, grounds: Sequence[BaseGeometry]) -> bool:
    extent = reads.extent(store)
    inside = [g for g in grounds if extent is not None and g.intersects(box(*extent))]
    for ground in inside:
        west, south, east, north = ground.bounds
        near = reads.current_in(store, (west, south, east, north))
        if any(p.geometry.intersection(ground).area > 0 for p in near):
            return True
    return False


def _regions(store: Store, correction: Correction, record: AlertRecord | None) -> list[Drawn]:
    """What is drawn, and what goes back to what it was before the alert this answers."""
    found = []
    for feature, ground in zip(correction.features, _grounds(store, correction), strict=True):
        codes = feature.properties
        found.append(Drawn(ground, None, codes.code_cs, 1.0, 0.0, to_us=codes.code_us))
    if record is None:
        return found
    rest = topology.difference(
        valid(record.geometry), shapely.union_all([d.geometry for d in found])
    )
    return [*found, *_restored(store, rest, before=record.seen_first)]


def _restored(store: Store, ground: BaseGeometry, *, before: datetime) -> list[Drawn]:
    """The map some ground had before a moment, as far as it is another one now."""
    if ground.is_empty:
        return []
    west, south, east, north = ground.bounds
    bounds = (west, south, east, north)
    old = reads.as_of_in(store, valid_at=before - INSTANT, bounds=bounds)
    now = reads.current_in(store, bounds)
    found = []
    for polygon in old:
        if polygon.code_cs is None or polygon.code_us is None:
            continue
        other = [
            p.geometry
            for p in now
            if (p.code_cs, p.code_us) != (polygon.code_cs, polygon.code_us)
            and p.geometry.intersects(polygon.geometry)
        ]
        if not other:
            continue
        shared = topology.intersection(polygon.geometry, ground)
        moved = topology.intersection(shared, topology.union(other))
        if moved.area > 0:
            found.append(
                Drawn(moved, None, polygon.code_cs, 1.0, 0.0, to_us=polygon.code_us, restores=True)
            )
    return found


def _answered(
    store: Store,
    correction: Correction,
    record: AlertRecord | None,
    regions: Sequence[Drawn],
    patch: Patch,
) -> list[Step]:
    """What the answer to an alert makes of it: drawn anew it is right, as drawn; with nothing drawn
    it is none. What is decided already stays so."""
    if record is None or record.state not in OPEN_STATES:
        return []
    now, by = store.clock(), correction.author
    shapes = [r for r in regions if not r.restores and not r.geometry.is_empty]
    if not shapes:
        reason = correction.comment or f"{correction.source}: nothing changed here"
        return [Step(record, rejected(record, reason=reason, at=now, by=by))]
    main = max(shapes, key=lambda r: r.geometry.area)
    ground = shapely.union_all([r.geometry for r in shapes])
    after = redrawn(record, at=now, by=by, after=by_matrix(main.to_cs, main.to_us), geometry=ground)
    return with_places(store, [Step(record, after)])


def _rows(
    store: Store, event: CorrectionEvent, regions: Sequence[Drawn], patch: Patch
) -> list[CorrectionRow]:
    correction = event.correction
    said = [feature.properties.comment for feature in correction.features]
    return [
        CorrectionRow(
            id=correction_id(store.territory, event.key, number),
            event=event.key,
            number=number,
            kind=correction.kind,
            code_cs=region.to_cs or "",
            code_us=region.to_us,
            observed=correction.observed,
            author=correction.author,
            source=correction.source,
            comment=(said[number] if number < len(said) else None) or correction.comment,
            alert=correction.alert,
            outcome=patch.left_out.get(number, APPLIED),
            geometry=region.geometry,
        )
        for number, region in enumerate(regions)
        if not region.geometry.is_empty
    ]
