"""An export before it is written: what it takes from the store, and the squares it is read in.

A map of a million polygons is read square by square, each with one look-up of the R-tree, so that
neither the reader nor the writer ever holds more than a square and its surroundings. A polygon
belongs to the square its first vertex lies in; a piece of a differential likewise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from schemas.errors import UsageError
from schemas.export import ExportFormat, ExportProduct, ExportRequest, ExportTheme
from updater.crs import offered
from updater.export_warp import Grid, grid_in, grid_over
from updater.legal_rows import SURFACE_REACH_M
from updater.map_pages import Part, State, count, latest
from updater.product import CRS_TOKENS, FORMAT_TOKENS, SUFFIXES, Product
from updater.reads import Bounds, end_of, extent
from updater.store import Store
from updater.territories import Territory

SQUARE_M: Final = 5_000.0
"""Side of a square: with its surroundings some ten thousand polygons of OCS GE, a hundred in the
centre of a city."""
CONTEXT_M: Final = 2 * SURFACE_REACH_M
"""Ground around a square that may decide a legal status in it."""
TOUCH_M: Final = 1.0
"""Around a square where no status is asked for: vertices of an intersection are rounded."""
BLOCK: Final = 512
"""Side of a raster's blocks, pixels."""
LEAST_BLOCK: Final = 16
"""TIFF has no smaller ones, nor any that are no multiple of it."""
MOST_PIXELS: Final = 20_000_000_000
"""Pixels of one raster: the largest département at 1 m."""
NAMES: Final = {
    ExportProduct.DIFFERENTIAL: "DIFFERENTIEL",
    ExportProduct.CORRECTIVE: "PATCHCORRECTIF",
    ExportProduct.CHANGELOG: "JOURNAL",
}


class Plan(BaseModel):
    """Everything about an export but its rows; all but ``target`` and ``grid`` in the store's CRS.
    ``total``: source polygons to go through, or pixels to write."""

    model_config = ConfigDict(frozen=True)

    request: ExportRequest
    departement: str
    territory: str
    territory_name: str
    crs: str
    known_at: datetime
    ground_wkb: str | None
    bounds: Bounds
    side: float
    block: int
    total: int

    @property
    def target(self) -> str:
        """The CRS of the file."""
        return self.request.crs or self.crs

    @property
    def ground(self) -> BaseGeometry | None:
        """What is cut out; None for the whole map."""
        return None if self.ground_wkb is None else shapely.from_wkb(self.ground_wkb)

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The instants the product is of; twice the same where it is of one."""
        years = self.request.years
        return end_of(years[0]), end_of(years[-1])

    @property
    def theme(self) -> ExportTheme:
        """What pixels say."""
        return self.request.theme or ExportTheme.COVER

    @property
    def margin(self) -> float:
        """Metres around a square that are read with it."""
        product = self.request.product
        legal = product is ExportProduct.MAP or (
            product is ExportProduct.RASTER and self.theme is ExportTheme.LEGAL
        )
        return CONTEXT_M if legal else TOUCH_M

    @property
    def pixel(self) -> float:
        """Metres a pixel."""
        return self.request.resolution or 1.0

    @property
    def plain(self) -> Grid:
        """The raster in the store's CRS."""
        west, south, east, north = self.bounds
        pixel = self.pixel
        return Grid(
            west, north, pixel, round((north - south) / pixel), round((east - west) / pixel)
        )

    @property
    def grid(self) -> Grid:
        """The raster as it is asked for."""
        if self.target == self.crs:
            return self.plain
        return grid_in(self.bounds, self.pixel, self.crs, self.target)

    def window(self, square: Bounds) -> tuple[int, int, int, int]:
        """The pixels of a square: first column, first row, width, height."""
        west, north, pixel, rows, columns = self.plain
        left, top = round((square[0] - west) / pixel), round((north - square[3]) / pixel)
        side = round(self.side / pixel)
        return left, top, min(side, columns - left), min(side, rows - top)

    @property
    def product(self) -> Product:
        """As IGN would call it."""
        return Product(
            departement=self.departement,
            territory=re.sub(r"[^0-9A-Za-z]+", "-", self.territory),
            territory_name=self.territory_name,
            millesime=self.request.years[-1],
            crs=self.target,
        )

    @property
    def file_name(self) -> str:
        """The file's name: IGN's for a millésime, one made after it for what IGN does not give."""
        asked = self.request
        format_ = "cog" if asked.format is ExportFormat.GEOTIFF else asked.format.value
        plain = self.product.name(format_)
        if asked.product is ExportProduct.MAP:
            return plain + SUFFIXES[format_]
        if asked.product is ExportProduct.RASTER:
            kind = f"{self.theme.value.upper()}_{asked.resolution:g}M".replace(".", "-")
            return plain.replace("2-0__", f"2-0_{kind}__", 1) + SUFFIXES[format_]
        token = CRS_TOKENS.get(self.target, self.target.replace(":", ""))
        place = self.departement
        if self.territory != self.departement:
            place = f"{place}_{self.product.territory}"
        return (
            f"OCS-GE_2-0_{NAMES[asked.product]}__{FORMAT_TOKENS[format_]}_{token}_{place}_"
            f"{asked.before}-01-01_{asked.after}-01-01{SUFFIXES[format_]}"
        )

    def squares(self) -> Iterator[Bounds]:
        """The squares that are read, from the north west, none where the ground is not."""
        west, south, east, north = self.bounds
        ground = self.ground
        if ground is not None:
            shapely.prepare(ground)
        for row in range(max(1, int(np.ceil((north - south) / self.side - 1e-9)))):
            for column in range(max(1, int(np.ceil((east - west) / self.side - 1e-9)))):
                left, top = west + column * self.side, north - row * self.side
                square = (left, top - self.side, left + self.side, top)
                if ground is None or shapely.intersects(ground, box(*square)):
                    yield square


def plan_of(
    store: Store,
    request: ExportRequest,
    place: Territory | None,
    *,
    known_at: datetime | None = None,
) -> Plan:
    """The plan of an export of the map as known now, or at a time before.

    Raises:
        UsageError: the store has no map for that, or does not give it in that CRS, or the raster
            would be too large.
    """
    choice = offered(store.crs, store.territory)
    if request.crs not in {None, *choice}:
        raise UsageError(
            f"crs: the map of {store.territory} is not given in {request.crs}; take one of "
            f"{', '.join(choice)}."
        )
    frame = extent(store)
    first, years = store.millesime, request.years
    known = latest(store) if known_at is None else known_at
    early = known_at is not None and not count(store, State(end_of(years[-1]), known), Part())
    if frame is None or years[0] < first or early:
        raise UsageError(f"The store has no map for {years[0]}; its first millésime is {first}.")
    ground = place.geometry if place else None
    if ground is not None:
        if not shapely.intersects(ground, box(*frame)):
            raise UsageError("The territory lies outside the map; choose another.")
        inner = shapely.intersection(box(*shapely.bounds(ground)), box(*frame)).bounds
        frame = (inner[0], inner[1], inner[2], inner[3])
    bounds, side, block = _grid(frame, request.resolution)
    made = Plan(
        request=request,
        departement=store.territory,
        territory=place.code if place else store.territory,
        territory_name=place.name if place else store.territory,
        crs=store.crs,
        known_at=known,
        ground_wkb=None if ground is None else shapely.to_wkb(ground, hex=True),
        bounds=bounds,
        side=side,
        block=block,
        total=0,
    )
    return made.model_copy(update={"total": _total(store, made)})


def _grid(frame: Bounds, pixel: float | None) -> tuple[Bounds, float, int]:
    """Bounds, side of the squares and of the blocks: whole pixels on multiples of their size, and
    squares of whole blocks, so that no block is written twice."""
    if pixel is None:
        return frame, SQUARE_M, BLOCK
    west, north, _, rows, columns = grid_over(frame, pixel)
    bounds = (west, north - rows * pixel, west + columns * pixel, north)
    width = int(SQUARE_M / pixel)
    block = min(BLOCK, max(LEAST_BLOCK, width // LEAST_BLOCK * LEAST_BLOCK))
    return bounds, max(1, width // block) * block * pixel, block


def _total(store: Store, plan: Plan) -> int:
    before, after = plan.span
    part = Part(ground=plan.ground)
    if plan.request.product is ExportProduct.RASTER:
        size = max(plan.plain.size, plan.grid.size)
        if size > MOST_PIXELS:
            raise UsageError(
                f"The raster would have {size:.2g} pixels, more than {MOST_PIXELS:.0e}; take a "
                "coarser resolution or a smaller territory."
            )
        windows = (plan.window(square) for square in plan.squares())
        warped = plan.grid.size if plan.target != plan.crs else 0
        return sum(width * height for _, _, width, height in windows) + warped
    if plan.request.product in {ExportProduct.MAP, ExportProduct.CHANGELOG}:
        return count(store, State(after, plan.known_at), part)
    row = store.execute(
        "SELECT count(*) FROM polygons p JOIN (SELECT version, min(valid_to) AS ended "
        "FROM retirements WHERE recorded <= $known GROUP BY version) r ON r.version = p.version "
        "WHERE p.recorded <= $known AND p.valid_from <= $before AND r.ended > $before "
        "AND r.ended <= $after AND ($ground::BLOB IS NULL "
        "OR ST_Intersects(p.geom, ST_GeomFromWKB($ground::BLOB)))",
        {
            "known": plan.known_at,
            "before": before,
            "after": after,
            "ground": None if plan.ground is None else shapely.to_wkb(plan.ground),
        },
    ).fetchone()
    return int(row[0]) if row else 0
