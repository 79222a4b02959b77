"""HTTP: the figures of a département: artificialisation by year and territory, evolution matrices,
latency, false alarms by cause."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

import shapely
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from daemon.api.map import sheet_of
from daemon.config import Scope
from daemon.page.atlas import Sheet
from daemon.problems import problems
from daemon.served import Behind, Departement
from daemon.tokens import needs
from schemas.alert import AlertKind, FalseAlarm
from schemas.territory import TerritoryKind
from updater.figures import delays, fluxes, matrix
from updater.territories import Territory

LATENCY_STEPS: Final = (1, 3, 7, 14, 30, 90, 180, 365, 730)
"""Days, upper ends of the bars of the latency figure: a week is a good year of aerial images, two
years what the present chain takes."""
OPEN: Final[dict[str, Any]] = {"security": [{}]}
router = APIRouter(prefix="/map", tags=["map"], responses=problems(422))


class YearFigure(BaseModel):
    """Sums of a millésime, m²; by the matrix of the décret."""

    year: int
    area: float
    artificialised: float


class FluxFigure(BaseModel):
    """What became artificialised between two millésimes and what ceased to be, m²."""

    code: str
    name: str
    artificialised: float
    desartificialised: float


class Period(BaseModel):
    """Between two millésimes that follow each other."""

    before: int
    after: int
    territories: list[FluxFigure]
    matrix: dict[str, dict[str, float]] = Field(description="m² by cover before and after.")


class Latency(BaseModel):
    """How late the map is: days between an image and its effect."""

    median_days: float | None
    steps: list[int] = Field(description="Upper ends, days.")
    counts: list[int] = Field(description="One more than steps: the last is beyond them.")


class Rejected(BaseModel):
    """Alerts of one kind that people rejected for one cause."""

    kind: AlertKind
    cause: FalseAlarm | None = Field(description="What misled the detector; null: not given.")
    count: int
    share: float = Field(description="Of the alerts of that kind that people decided on, 0 to 1.")


class Figures(BaseModel):
    """The figures of a département."""

    departement: str
    years: list[YearFigure]
    periods: list[Period]
    latency: Latency
    false_alarms: list[Rejected] = Field(description="The most frequent first.")


@router.get(
    "/figures",
    dependencies=[Depends(needs(Scope.READ))],
    responses=problems(401, 422, 429),
    openapi_extra=OPEN,
)
def figures(behind: Behind, request: Request, departement: Departement = None) -> list[Figures]:
    """Artificialisation by year and territory, evolution matrices, latency, false alarms."""
    return [_figures(sheet_of(request, store)) for store in behind.some(departement)]


def _figures(sheet: Sheet) -> Figures:
    store, found = sheet.store, sheet.millesimes
    whole = Territory(
        TerritoryKind.DEPARTEMENT,
        store.territory,
        store.territory,
        shapely.box(*(sheet.extent or (0, 0, 0, 0))).buffer(1.0),
    )
    days = sorted(delay.days for delay in delays(store))
    counts = [0] * (len(LATENCY_STEPS) + 1)
    for value in days:
        counts[sum(value > step for step in LATENCY_STEPS)] += 1
    return Figures(
        departement=store.territory,
        years=[YearFigure(**asdict(sheet.stock(year))) for year in found],
        periods=[
            Period(
                before=before,
                after=after,
                territories=[
                    FluxFigure(**asdict(flux))
                    for flux in fluxes(sheet.pieces(before, after), [whole, *sheet.territories])
                ],
                matrix=matrix(sheet.pieces(before, after)),
            )
            for before, after in pairwise(found)
        ],
        latency=Latency(
            median_days=days[len(days) // 2] if days else None,
            steps=list(LATENCY_STEPS),
            counts=counts,
        ),
        false_alarms=[Rejected(**asdict(found)) for found in sheet.false_alarms],
    )
