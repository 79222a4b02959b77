"""HTTP: corrections sent in and listed. What is answered with 202 is durable: a file of the inbox
written through to the disk, or a record that every replica of the topic in step has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from daemon.announce import CannotAnnounce
from daemon.config import Scope
from daemon.limits import refuse_outside
from daemon.problems import problems
from daemon.served import Behind, Departement, Page, PageNumber, Served, page_of
from daemon.submit import CannotSubmit, event_of
from daemon.tokens import Caller, needs
from schemas.change import ChangeKind
from schemas.correction import Submission
from schemas.geojson import AnyPolygon
from updater.corrections import CorrectionRow, Wanted, corrections, count
from updater.crs import to_geojson
from updater.store import Store

log = structlog.get_logger()

PAGE: Final = 100
AGAIN_SECONDS: Final = 30
"""After which a caller may try again what the inbox or the broker did not take."""
READ: Final = Depends(needs(Scope.READ))
OPEN: Final[dict[str, Any]] = {"security": [{}]}
"""For OpenAPI: a token may be sent, and need not be."""
Reviewer = Annotated[Caller, Depends(needs(Scope.REVIEW))]
router = APIRouter(tags=["corrections"])


class Submitted(BaseModel):
    """A batch that will have its effect."""

    id: str = Field(description="CloudEvents id of the batch; the same batch gives the same.")
    polygons: int


class CorrectionView(BaseModel):
    """Ground a person drew."""

    id: str
    event: str = Field(description="Key of the batch's event: its source, #, its id.")
    departement: str
    kind: ChangeKind
    code_cs: str
    code_us: str
    observed: AwareDatetime
    author: str
    source: str
    comment: str | None
    alert: str | None = Field(description="The alert it answers.")
    outcome: str = Field(description="applied, or why the map is not redrawn by it.")
    area: float = Field(description="Square metres.")
    recorded: AwareDatetime | None
    geometry: AnyPolygon = Field(description="EPSG:4326.")


class Corrections(Page):
    """A page of corrections, newest first."""

    corrections: list[CorrectionView]


@router.post(
    "/corrections",
    status_code=202,
    responses=problems(400, 401, 403, 413, 422, 429, 503),
)
def submit(behind: Behind, caller: Reviewer, submission: Submission) -> Submitted:
    """Send a batch in. It is planned and committed as every event is: a piece that breaks a rule of
    the map is left out, and `GET /corrections` says why."""
    refuse_outside(behind, caller, submission)
    return deliver(behind, caller, submission)


def deliver(behind: Served, caller: Caller, submission: Submission) -> Submitted:
    """Make a submission durable.

    Raises:
        HTTPException: 422, it is too large; 503, nothing takes it now.
    """
    if behind.intake is None:
        raise HTTPException(503, "This service takes no events now.", _later())
    try:
        event = event_of(submission, caller.name or "unknown")
        where = behind.intake.deliver(event)
    except CannotSubmit as error:
        raise HTTPException(422, str(error)) from None
    except CannotAnnounce as error:
        raise HTTPException(503, str(error), _later()) from None
    except OSError as error:
        log.error("corrections_not_kept", error=error.strerror)
        raise HTTPException(
            503, f"The inbox does not take it ({error.strerror}); try again later.", _later()
        ) from None
    identity = str(event.get_id())
    log.info("corrections_submitted", id=identity, author=caller.name, where=where)
    return Submitted(id=identity, polygons=len(submission.features))


def _later() -> dict[str, str]:
    return {"Retry-After": str(AGAIN_SECONDS)}


@router.get(
    "/corrections",
    dependencies=[READ],
    responses=problems(401, 413, 422, 429),
    openapi_extra=OPEN,
)
def listed(
    behind: Behind,
    request: Request,
    departement: Departement = None,
    author: Annotated[str | None, Query(max_length=100)] = None,
    outcome: Annotated[str | None, Query(max_length=100)] = None,
    alert: Annotated[str | None, Query(max_length=100, description="Id of an alert.")] = None,
    page: PageNumber = 1,
) -> Corrections:
    """Ground that people drew, newest first."""
    wanted = Wanted(author, outcome, alert)
    stores = behind.some(departement)
    total = sum(count(store, wanted) for store in stores)
    return Corrections(
        **dict(page_of(request, total, page, PAGE)),
        corrections=[_view(store, row) for store, row in _page(stores, wanted, page)],
    )


def _page(stores: Sequence[Store], wanted: Wanted, page: int) -> list[tuple[Store, CorrectionRow]]:
    """A page over several stores, store by store."""
    skip = (page - 1) * PAGE
    found: list[tuple[Store, CorrectionRow]] = []
    for store in stores:
        held = count(store, wanted)
        if skip < held and len(found) < PAGE:
            rows = corrections(store, wanted, most=PAGE - len(found), skip=skip)
            found += [(store, row) for row in rows]
        skip = max(0, skip - held)
    return found


def _view(store: Store, row: CorrectionRow) -> CorrectionView:
    return CorrectionView(
        id=row.id,
        event=row.event,
        departement=store.territory,
        kind=row.kind,
        code_cs=row.code_cs,
        code_us=row.code_us,
        observed=row.observed,
        author=row.author,
        source=row.source,
        comment=row.comment,
        alert=row.alert,
        outcome=row.outcome,
        area=round(float(row.geometry.area), 2),
        recorded=row.recorded,
        geometry=to_geojson(row.geometry, store.crs),
    )
