"""HTTP: alerts to read, most important first, and to decide on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from daemon.api.corrections import deliver
from daemon.config import Scope
from daemon.limits import refuse_alert
from daemon.problems import problems
from daemon.served import Behind, Departement, Page, PageNumber, page_of
from daemon.submit import restoring
from daemon.tokens import Caller, needs
from schemas.acquisition import Instant
from schemas.alert import Alert, AlertKind, AlertState, FalseAlarm
from updater.alert_rows import message
from updater.alert_search import Asked
from updater.alert_search import page as page_in
from updater.errors import Settled
from updater.reads import Bounds
from updater.review import accept_alert, alert_history, find_alert, reject_alert

PAGE = 100
"""Alerts on a page: some 200 kB."""
READ = Depends(needs(Scope.READ))
Reviewer = Annotated[Caller, Depends(needs(Scope.REVIEW))]
OPEN: dict[str, Any] = {"security": [{}]}
"""For OpenAPI: a token may be sent, and need not be."""
router = APIRouter(tags=["alerts"])


class Alerts(Page):
    """A page of alerts in their latest state."""

    alerts: list[Alert]


class Step(BaseModel):
    """One state an alert has had."""

    sequence: int
    state: AlertState
    reason: str | None
    probability: float
    looks: int
    evidence: float
    area: float = Field(description="Square metres.")
    known_at: AwareDatetime = Field(description="When the system knew.")


class AlertStory(BaseModel):
    """An alert in its latest state, and every state it has had, oldest first."""

    alert: Alert
    history: list[Step]


class Rejection(BaseModel):
    """Why an alert is none."""

    reason: str = Field(min_length=1, max_length=500, description="What is really there.")
    cause: FalseAlarm | None = Field(default=None, description="What misled the detector.")
    restore: bool = Field(
        default=False, description="Put the ground back as it was before the alert, by an event."
    )


@router.get(
    "/alerts", dependencies=[READ], responses=problems(401, 413, 422, 429), openapi_extra=OPEN
)
def alerts(  # noqa: PLR0913, PLR0917 - each argument is a filter
    behind: Behind,
    request: Request,
    departement: Departement = None,
    state: Annotated[list[AlertState] | None, Query(description="May be repeated.")] = None,
    kind: Annotated[list[AlertKind] | None, Query(description="May be repeated.")] = None,
    min_area: Annotated[float, Query(ge=0, description="Square metres.")] = 0.0,
    min_probability: Annotated[float, Query(ge=0, le=1)] = 0.0,
    bbox: Annotated[
        str | None,
        Query(max_length=100, description="west,south,east,north in degrees (EPSG:4326)."),
    ] = None,
    since: Annotated[Instant | None, Query(description="Known then or later.")] = None,
    page: PageNumber = 1,
) -> Alerts:
    """Alerts in their latest state, most important (area × probability × legal weight) first."""
    asked = Asked(
        states=state or (),
        kinds=kind or (),
        min_area=min_area,
        min_probability=min_probability,
        bbox=_bounds(bbox),
        since=since,
    )
    total, shown = page_in(behind.some(departement), asked, page, PAGE)
    place = page_of(request, total, page, PAGE)
    return Alerts(
        **dict(place),
        alerts=[message(r, departement=store.territory, crs=store.crs) for r, store in shown],
    )


@router.get(
    "/alerts/{alert}",
    dependencies=[READ],
    responses=problems(401, 404, 413, 422, 429),
    openapi_extra=OPEN,
)
def alert(behind: Behind, alert: str) -> AlertStory:
    """One alert and its history."""
    store, records = behind.holding(lambda store: alert_history(store, alert))
    return AlertStory(
        alert=message(records[-1], departement=store.territory, crs=store.crs),
        history=[
            Step(
                sequence=record.sequence,
                state=record.state,
                reason=record.reason,
                probability=record.probability,
                looks=record.looks,
                evidence=record.evidence,
                area=round(float(record.geometry.area), 2),
                known_at=record.known_at,
            )
            for record in records
        ],
    )


@router.post(
    "/alerts/{alert}/accept",
    responses=problems(400, 401, 403, 404, 409, 413, 422, 429),
)
def accept(behind: Behind, caller: Reviewer, alert: str) -> Alert:
    """Say that an alert is right, in the name of the token: it is confirmed. A second time changes
    nothing."""
    store, known = behind.holding(lambda store: find_alert(store, alert))
    refuse_alert(store, caller, known)
    try:
        record = accept_alert(store, alert, by=caller.name)
    except Settled as error:
        raise HTTPException(409, str(error)) from None
    return message(record, departement=store.territory, crs=store.crs)


@router.post(
    "/alerts/{alert}/reject",
    responses=problems(400, 401, 403, 404, 413, 422, 429, 503),
)
def reject(behind: Behind, caller: Reviewer, alert: str, rejection: Rejection) -> Alert:
    """Reject an alert and tell everyone; the same ground never raises it again. A second time
    changes nothing but a cause that was not given. With ``restore`` a correction is sent in first
    that puts the ground back."""
    store, known = behind.holding(lambda store: find_alert(store, alert))
    refuse_alert(store, caller, known)
    if rejection.restore:
        deliver(behind, caller, restoring(known, rejection.reason, store.territory))
    record = reject_alert(
        store, alert, reason=rejection.reason, cause=rejection.cause, by=caller.name
    )
    return message(record, departement=store.territory, crs=store.crs)


def _bounds(text: str | None) -> Bounds | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise HTTPException(422, "bbox: give west,south,east,north in degrees.") from None
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise HTTPException(422, "bbox: west to east within ±180, south to north within ±90.")
    return west, south, east, north
