"""HTTP: what the map page asks besides tiles: its legend and years, its list of alerts, the story
of a polygon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Final

import shapely
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from daemon.api.tiles import may_see
from daemon.config import Scope
from daemon.page.atlas import Atlas, Sheet
from daemon.page.overview import ARTIFICIAL_RGB
from daemon.page.rasters import first_zoom, years
from daemon.page.told import Filter, Order, Row, ordered
from daemon.problems import problems
from daemon.served import Behind, Departement, PageNumber
from daemon.tokens import needs
from schemas.acquisition import Day
from schemas.alert import AlertKind, AlertState, Place
from schemas.legal import LegalStatus, legal_status, matrix_row
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE
from schemas.territory import TerritoryKind
from updater import lineage
from updater.crs import WGS84, offered, reproject, to_geojson
from updater.errors import NotFound
from updater.page_reads import Version, versions_of
from updater.reads import Bounds, images
from updater.store import Store
from updater.territories import Territory, territories_of

ROWS: Final = 50
"""Alerts on a page of the list: what is scrolled through before a filter is set instead."""
Degrees = Annotated[Bounds | None, Field(description="West, south, east, north, EPSG:4326.")]

router = APIRouter(
    prefix="/map", tags=["map"], dependencies=[Depends(may_see)], responses=problems(422)
)
counted = [Depends(needs(Scope.READ))]
OPEN: Final[dict[str, Any]] = {"security": [{}]}


class Entry(BaseModel):
    """One line of a legend."""

    code: str
    label: str
    colour: str = Field(description="As in #ff377a.")


class Images(BaseModel):
    """Images of one year."""

    year: int
    sensors: list[str]
    first: date
    last: date
    gsd: float = Field(description="The finest pixel, metres.")
    first_zoom: int = Field(description="Before, a tile would read whole deliveries.")
    count: int


class Known(BaseModel):
    """A territory to choose."""

    kind: TerritoryKind
    code: str
    name: str
    bounds: Degrees


class Sheets(BaseModel):
    """One département on the page."""

    code: str
    bounds: Degrees
    crs: list[str] = Field(description="CRS it can be exported in, its own first.")
    millesimes: list[int]
    images: list[Images]
    territories: list[Known]
    versions: dict[str, str] = Field(description="Of map, alerts and images; for tile addresses.")
    alerts: dict[AlertState, int]


class State(BaseModel):
    """Everything a map page needs before it draws."""

    departements: list[Sheets]
    couverture: list[Entry]
    usage: list[Entry]
    artificialisation: list[Entry]


class ListedAlert(BaseModel):
    """One alert in the list."""

    departement: str
    id: str
    kinds: list[AlertKind]
    state: AlertState
    area: float = Field(description="Square metres.")
    probability: float
    rank: float
    seen_first: date
    seen_last: date
    looks: int
    places: list[Place]
    bounds: Degrees


class Listed(BaseModel):
    """A page of the list."""

    total: int
    page: int
    pages: int
    alerts: list[ListedAlert]


class Told(BaseModel):
    """A version of a polygon: what it was, from when to when, and since when that is known."""

    version: int
    code_cs: str | None
    code_us: str | None
    status: LegalStatus
    rule: str | None = Field(description="The row of the matrix that decides.")
    area: float = Field(description="Square metres.")
    source: str
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None
    recorded: AwareDatetime
    event: str | None


class Link(BaseModel):
    """One step of a lineage."""

    parent: str
    child: str
    operation: str
    event: str
    detector: str
    recorded: AwareDatetime


class PolygonStory(BaseModel):
    """A polygon of the map: its versions, where it comes from, what became of it."""

    id: str
    versions: list[Told]
    ancestors: list[Link]
    descendants: list[Link]


def sheet_of(request: Request, store: Store) -> Sheet:
    atlas: Atlas = request.app.state.atlas
    return atlas.sheet(store)


@router.get("/state", responses=problems(401), openapi_extra=OPEN)
def state(behind: Behind, request: Request) -> State:
    """Départements with their years, images and territories, and the legends."""
    return State(
        departements=[_departement(sheet_of(request, store)) for store in behind.stores],
        couverture=[
            Entry(code=c, label=COUVERTURE[c].label, colour=COUVERTURE[c].colour) for c in CS_LEAVES
        ],
        usage=[Entry(code=c, label=USAGE[c].label, colour=USAGE[c].colour) for c in US_CODES],
        artificialisation=[
            Entry(
                code="1" if value else "0",
                label=(LegalStatus.ARTIF if value else LegalStatus.NON_ARTIF).value,
                colour="#{:02x}{:02x}{:02x}".format(*rgb),
            )
            for value, rgb in ARTIFICIAL_RGB.items()
        ],
    )


def _departement(sheet: Sheet) -> Sheets:
    store, now = sheet.store, sheet.stamp
    degrees = _degrees(sheet.extent, store.crs)
    latitude = (degrees[1] + degrees[3]) / 2 if degrees else 46.0
    rows = sheet.told.rows
    return Sheets(
        code=store.territory,
        bounds=degrees,
        crs=offered(store.crs, store.territory),
        millesimes=sheet.millesimes,
        images=[
            Images(
                year=year,
                sensors=sorted({i.sensor.value for i in found}),
                first=min(i.acquired for i in found).date(),
                last=max(i.acquired for i in found).date(),
                gsd=min(i.gsd for i in found),
                first_zoom=first_zoom(max(i.gsd for i in found), latitude),
                count=len(found),
            )
            for year, found in years(images(store)).items()
        ],
        territories=[
            Known(
                kind=t.kind, code=t.code, name=t.name, bounds=_degrees(t.geometry.bounds, store.crs)
            )
            for t in sheet.territories
        ],
        versions={name: f"{value:x}" for name, value in asdict(now).items()},
        alerts={s: sum(r.state is s for r in rows) for s in AlertState},
    )


def _degrees(bounds: Sequence[float] | None, crs: str) -> Bounds | None:
    if bounds is None:
        return None
    box = shapely.segmentize(shapely.box(*bounds), max(bounds[2] - bounds[0], 1.0) / 8)
    west, south, east, north = (round(v, 6) for v in reproject(box, crs, WGS84).bounds)
    return west, south, east, north


@router.get("/alerts", dependencies=counted, responses=problems(401, 422, 429), openapi_extra=OPEN)
def listed(  # noqa: PLR0913, PLR0917 - each argument is a filter
    behind: Behind,
    request: Request,
    departement: Departement = None,
    territory: Annotated[str | None, Query(max_length=40, description="A code.")] = None,
    state: Annotated[list[AlertState] | None, Query(description="May be repeated.")] = None,
    kind: Annotated[list[AlertKind] | None, Query(description="May be repeated.")] = None,
    min_area: Annotated[float, Query(ge=0, description="Square metres.")] = 0.0,
    min_probability: Annotated[float, Query(ge=0, le=1)] = 0.0,
    first: Annotated[Day | None, Query(description="Last seen then or later.")] = None,
    last: Annotated[Day | None, Query(description="Last seen then or before.")] = None,
    sort: Order = Order.RANK,
    page: PageNumber = 1,
) -> Listed:
    """Alerts in short, for a list: filtered, sorted, in pages."""
    asked = Filter(kind or (), state or (), territory, min_area, min_probability, first, last)
    owner: dict[str, str] = {}
    found: list[Row] = []
    for store in behind.some(departement):
        mine = [row for row in sheet_of(request, store).told.rows if asked.takes(row)]
        owner |= dict.fromkeys((row.id for row in mine), store.territory)
        found += mine
    shown = ordered(found, sort)[(page - 1) * ROWS : page * ROWS]
    return Listed(
        total=len(found),
        page=page,
        pages=max(1, -(-len(found) // ROWS)),
        alerts=[ListedAlert(departement=owner[row.id], **_plain(row)) for row in shown],
    )


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


@router.get("/territories/{code}.geojson", responses=problems(401, 404), openapi_extra=OPEN)
def outline(behind: Behind, code: Annotated[str, Path(max_length=40)]) -> dict[str, Any]:
    """The outline of a territory as a GeoJSON feature."""

    def look(store: Store) -> tuple[Store, Territory]:
        for found in territories_of(store, [code]):
            return store, found
        raise NotFound(f"There is no territory {code}.")

    _, (store, found) = behind.holding(look)
    return {
        "type": "Feature",
        "id": found.code,
        "geometry": to_geojson(found.geometry, store.crs).model_dump(mode="json"),
        "properties": {"kind": found.kind.value, "name": found.name},
    }


@router.get(
    "/{departement}/polygons/{polygon}",
    dependencies=counted,
    responses=problems(401, 404, 422, 429),
    openapi_extra=OPEN,
)
def polygon(
    behind: Behind, departement: str, polygon: Annotated[str, Path(max_length=100)]
) -> PolygonStory:
    """The versions of a polygon and its lineage."""
    store = behind.store_of(departement)
    before = lineage.ancestors(store, polygon)
    return PolygonStory(
        id=polygon,
        versions=[_told(version) for version in versions_of(store, polygon)],
        ancestors=[Link(**asdict(step)) for step in before],
        descendants=[Link(**asdict(step)) for step in lineage.descendants(store, polygon)],
    )


def _told(version: Version) -> Told:
    return Told(
        **asdict(version),
        status=legal_status(version.code_cs, version.code_us),
        rule=matrix_row(version.code_cs) if version.code_cs in COUVERTURE else None,
    )
