"""HTTP: tiles of the map, of changes, of alerts and of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Security
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials

from daemon.config import Scope
from daemon.page.atlas import Ask, Atlas, Sheet
from daemon.page.mercator import MOST_ZOOM, Tile
from daemon.page.overview import LAST_ZOOM, Theme
from daemon.page.rasters import image_tile
from daemon.page.tiles import MAP_FROM, drawn_tile, map_tile
from daemon.problems import problems
from daemon.served import served
from daemon.tokens import BEARER, Gate
from updater.page_reads import Stamp
from updater.reads import end_of

VECTOR: Final = "application/vnd.mapbox-vector-tile"
AGED: Final = "private, max-age=86400"
"""For an address with a version in it, which the page changes when the map does."""
ASKED_EACH_TIME: Final = "private, no-cache"


async def may_see(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
) -> None:
    """FastAPI dependency: the caller may read. Tiles are not counted by caller, a view is dozens of
    them; how many are drawn is bounded instead (``daemon.page.atlas``).

    Raises:
        HTTPException: 401 or 403.
    """
    gate: Gate = request.app.state.gate
    gate.judged(sent.credentials if sent else None, Scope.READ)


async def tile_of(
    z: Annotated[int, Path(ge=0, le=MOST_ZOOM)],
    x: Annotated[int, Path(ge=0)],
    y: Annotated[int, Path(ge=0)],
) -> Tile:
    """FastAPI dependency; like all here no plain function, which would wait for a thread.

    Raises:
        HTTPException: 404, the grid has no such tile.
    """
    tile = Tile(z, x, y)
    if not tile.exists:
        raise HTTPException(404, "There is no such tile; x and y go from 0 to 2^z - 1.")
    return tile


Where = Annotated[Tile, Depends(tile_of)]
Year = Annotated[int, Path(ge=1900, le=2200, description="A millésime: the end of its year.")]
Version = Annotated[
    str | None,
    Query(max_length=40, description="Anything that changes when the map does: lets it be kept."),
]
router = APIRouter(
    prefix="/tiles/{departement}",
    tags=["map"],
    dependencies=[Depends(may_see)],
    responses=problems(422),
    default_response_class=Response,
)


@dataclass(frozen=True, slots=True)
class MapAsk:
    """Polygons of the map."""

    tile: Tile
    year: int
    packed: ClassVar[bool] = True

    def stamped(self, now: Stamp) -> int:
        """Of the map."""
        return now.map

    def draw(self, sheet: Sheet) -> bytes:
        """A vector tile."""
        return map_tile(sheet.store, self.tile, valid_at=end_of(self.year))


@dataclass(frozen=True, slots=True)
class OverviewAsk:
    """The map from afar."""

    tile: Tile
    year: int
    theme: Theme
    packed: ClassVar[bool] = False

    def stamped(self, now: Stamp) -> int:
        """Of the map."""
        return now.map

    def draw(self, sheet: Sheet) -> bytes:
        """A PNG."""
        return sheet.overview.png(
            self.tile, self.theme, valid_at=end_of(self.year), stamp=sheet.stamp.map
        )


@dataclass(frozen=True, slots=True)
class ChangesAsk:
    """What differs between two millésimes."""

    tile: Tile
    before: int
    after: int
    packed: ClassVar[bool] = True

    def stamped(self, now: Stamp) -> int:
        """Of the map."""
        return now.map

    def draw(self, sheet: Sheet) -> bytes:
        """A vector tile."""
        return drawn_tile(sheet.store, self.tile, "changes", sheet.changes(self.before, self.after))


@dataclass(frozen=True, slots=True)
class AlertsAsk:
    """Alerts in their latest state."""

    tile: Tile
    packed: ClassVar[bool] = True

    def stamped(self, now: Stamp) -> int:
        """Of the alerts."""
        return now.alerts

    def draw(self, sheet: Sheet) -> bytes:
        """A vector tile."""
        return drawn_tile(sheet.store, self.tile, "alerts", sheet.told.outlines, points=True)


@dataclass(frozen=True, slots=True)
class ImageAsk:
    """Images of a year."""

    tile: Tile
    year: int
    packed: ClassVar[bool] = False

    def stamped(self, now: Stamp) -> int:
        """Of the images."""
        return now.images

    def draw(self, sheet: Sheet) -> bytes:
        """A WebP."""
        return image_tile(sheet.store, self.tile, year=self.year)


def described(media: str) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a tile is answered with."""
    etag = {"ETag": {"schema": {"type": "string"}}}
    return {
        200: {"description": "The tile.", "content": {media: {}}, "headers": etag},
        204: {"description": "Nothing is there."},
        304: {"description": "The reader has it already (If-None-Match)."},
        **problems(401, 404, 413, 422, 503),
    }


OPEN: Final[dict[str, Any]] = {"security": [{}]}


async def _answer(
    request: Request, departement: str, ask: Ask, media: str, version: str | None
) -> Response:
    atlas: Atlas = request.app.state.atlas
    body = await atlas.tile(served(request).store_of(departement), ask)
    headers = {
        "ETag": body.etag,
        "Cache-Control": AGED if version else ASKED_EACH_TIME,
        "Vary": "Accept-Encoding, Authorization",
    }
    if not body.content:
        return Response(status_code=204, headers=headers)
    if body.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if not body.packed:
        return Response(body.content, media_type=media, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(body.plain, media_type=media, headers=headers)
    return Response(body.content, media_type=media, headers=headers | {"Content-Encoding": "gzip"})


@router.get("/map/{year}/{z}/{x}/{y}.mvt", responses=described(VECTOR), openapi_extra=OPEN)
async def map_polygons(
    request: Request, departement: str, year: Year, tile: Where, v: Version = None
) -> Response:
    """Polygons of a millésime, as known now: id, cover, usage, legal status, the year each is from.
    From zoom 13 on; before, `overview` shows the same as a picture."""
    if tile.z < MAP_FROM:
        raise HTTPException(404, f"Polygons come from zoom {MAP_FROM} on; ask for overview.")
    return await _answer(request, departement, MapAsk(tile, year), VECTOR, v)


@router.get(
    "/overview/{theme}/{year}/{z}/{x}/{y}.png", responses=described("image/png"), openapi_extra=OPEN
)
async def overview(
    request: Request,
    departement: str,
    theme: Theme,
    year: Year,
    tile: Where,
    v: Version = None,
) -> Response:
    """The map from afar, in the official colours, up to zoom 12."""
    if tile.z > LAST_ZOOM:
        raise HTTPException(404, f"The overview goes to zoom {LAST_ZOOM}; ask for map.")
    ask = OverviewAsk(tile, year, theme)
    return await _answer(request, departement, ask, "image/png", v)


@router.get(
    "/changes/{before}/{after}/{z}/{x}/{y}.mvt", responses=described(VECTOR), openapi_extra=OPEN
)
async def changes(
    request: Request,
    departement: str,
    before: Year,
    after: Year,
    tile: Where,
    v: Version = None,
) -> Response:
    """Ground whose codes differ between two millésimes: codes on both sides, kind, legal effect."""
    ask = ChangesAsk(tile, before, after)
    return await _answer(request, departement, ask, VECTOR, v)


@router.get("/alerts/{z}/{x}/{y}.mvt", responses=described(VECTOR), openapi_extra=OPEN)
async def alerts(request: Request, departement: str, tile: Where, v: Version = None) -> Response:
    """Alerts in their latest state: outlines, and a point in each."""
    return await _answer(request, departement, AlertsAsk(tile), VECTOR, v)


@router.get("/image/{year}/{z}/{x}/{y}.webp", responses=described("image/webp"), openapi_extra=OPEN)
async def image(
    request: Request, departement: str, year: Year, tile: Where, v: Version = None
) -> Response:
    """The images of a year, references and acquisitions, the finest on top."""
    return await _answer(request, departement, ImageAsk(tile, year), "image/webp", v)
