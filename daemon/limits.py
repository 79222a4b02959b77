"""Where a token may correct: everywhere, or within the territories it is bound to."""

from __future__ import annotations

import numpy as np
import shapely
from fastapi import HTTPException
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from daemon.served import Served
from daemon.tokens import Caller
from schemas.correction import Submission
from schemas.policy import TERRITORY_MARGIN_M
from updater.crs import WGS84, reproject
from updater.errors import NotFound
from updater.generalise import valid
from updater.review import find_alert
from updater.store import Store
from updater.territories import territories_of
from updater.types import AlertRecord

EVERYWHERE = shapely.box(-1e8, -1e8, 1e8, 1e8)
"""All that any projected CRS reaches, metres."""
MOST_OF_IT = 0.5
"""Share of an alert's ground within a territory from which it is that territory's to decide."""


def refuse_outside(behind: Served, caller: Caller, submission: Submission) -> None:
    """Refuse what a token that is bound to territories may not draw.

    Raises:
        HTTPException: 403, some of it lies outside them; 422, it answers an alert there is not.
    """
    if submission.alert is not None:
        store, record = _holding(behind, submission.alert)
        refuse_alert(store, caller, record)
    if not caller.territories:
        return
    grounds = [shapely.make_valid(shape(f.geometry.model_dump())) for f in submission.features]
    left = list(grounds)
    for store in behind.stores:
        allowed = _allowed(store, caller)
        left = [ground for ground in left if not _within(ground, allowed, store)]
    if left:
        raise HTTPException(
            403,
            f"This token may correct {', '.join(caller.territories)} only; {len(left)} of "
            f"{len(grounds)} polygons lie outside.",
        )


def refuse_alert(store: Store, caller: Caller, record: AlertRecord) -> None:
    """Refuse a decision on an alert that lies elsewhere.

    Raises:
        HTTPException: 403, most of it lies outside the territories of the token.
    """
    allowed = _allowed(store, caller) if caller.territories else None
    if allowed is None:
        return
    inside = shapely.intersection(valid(record.geometry), allowed).area
    if inside < MOST_OF_IT * record.geometry.area:
        names = ", ".join(caller.territories)
        raise HTTPException(
            403, f"This token may decide on {names} only; {record.id} lies outside."
        )


def _holding(behind: Served, alert: str) -> tuple[Store, AlertRecord]:
    try:
        return behind.holding(lambda store: find_alert(store, alert))
    except NotFound as error:
        raise HTTPException(422, f"alert: {error}") from None


def _allowed(store: Store, caller: Caller) -> BaseGeometry:
    """The ground of a store a caller may correct, with the margin; empty where there is none."""
    if store.territory in caller.territories:
        return EVERYWHERE
    known = territories_of(store, caller.territories)
    return shapely.union_all([t.geometry for t in known]).buffer(TERRITORY_MARGIN_M)


def _within(ground: BaseGeometry, allowed: BaseGeometry, store: Store) -> bool:
    local = reproject(ground, WGS84, store.crs)
    if not np.isfinite(shapely.get_coordinates(local)).all():
        return False
    return bool(shapely.covers(allowed, valid(local)))
