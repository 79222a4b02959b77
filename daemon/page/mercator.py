"""The tile grid of web maps (EPSG:3857) over a store in another CRS.

Tiles are 512 pixels wide, as MapLibre draws them; x counts from the west, y from the north.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from updater.crs import transformer
from updater.reads import Bounds

WEB: Final = "EPSG:3857"
HALF: Final = 20_037_508.342789244
"""Half the side of the world in EPSG:3857."""
SIDE_PX: Final = 512
MOST_ZOOM: Final = 22
KNOTS: Final = 5
"""Points a side on which a tile's way from one CRS to the other is measured; a polynomial of the
third order through them is within 2 mm of PROJ on a tile of zoom 9, and nearer on smaller ones."""
COARSE: Final = 32
"""Squares a side in which pixels are told from their corners: within 4 cm at zoom 9."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of the web grid."""

    z: int
    x: int
    y: int

    @property
    def exists(self) -> bool:
        """True where the grid has it."""
        return 0 <= self.z <= MOST_ZOOM and 0 <= self.x < 2**self.z and 0 <= self.y < 2**self.z

    @property
    def side(self) -> float:
        """Its side, in metres of EPSG:3857."""
        return float(2 * HALF / 2**self.z)

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in EPSG:3857."""
        side = self.side
        west, north = -HALF + self.x * side, HALF - self.y * side
        return west, north - side, west + side, north

    def window(self, crs: str, margin: float = 0.0) -> Bounds:
        """A rectangle of a CRS that holds the tile and a margin, given in shares of its side."""
        steps = np.linspace(-margin, 1 + margin, 2 * KNOTS - 1)
        x, y = self.ground(crs, *np.meshgrid(steps, steps))
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def ground(self, crs: str, across: Floats, down: Floats) -> tuple[Floats, Floats]:
        """Coordinates of a CRS at shares of the tile's side, from its upper left corner."""
        west, _, _, north = self.bounds
        x, y = transformer(WEB, crs).transform(west + across * self.side, north - down * self.side)
        return np.asarray(x), np.asarray(y)


@dataclass(frozen=True, slots=True)
class Fit:
    """The way between a CRS and the shares of a tile's side, as two polynomials."""

    middle: Floats
    scale: float
    factors: Floats

    def __call__(self, points: Floats) -> Floats:
        """Points ``(n, 2)`` of the one as points of the other."""
        return np.asarray(_powers((points - self.middle) / self.scale) @ self.factors)


def _powers(points: Floats) -> Floats:
    x, y = points.T
    return np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=1)


@lru_cache(maxsize=512)
def onto(tile: Tile, crs: str) -> Fit:
    """From a CRS to shares of the tile's side (0, 0: upper left; 1, 1: lower right)."""
    steps = np.linspace(-0.1, 1.1, KNOTS)
    shares = np.stack([part.ravel() for part in np.meshgrid(steps, steps)], axis=1)
    x, y = tile.ground(crs, shares[:, 0], shares[:, 1])
    points = np.stack([x, y], axis=1)
    middle, scale = points.mean(axis=0), float(np.ptp(points, axis=0).max()) / 2
    factors = np.linalg.lstsq(_powers((points - middle) / scale), shares, rcond=None)[0]
    return Fit(middle, scale, np.asarray(factors, np.float64))


def pixels_of(tile: Tile, crs: str, side: int = SIDE_PX) -> tuple[Floats, Floats]:
    """Coordinates of a CRS at the middles of a tile's pixels, each ``(side, side)``: measured on a
    coarse grid and told between them, which is nearer than a pixel at any zoom."""
    knots = np.arange(COARSE + 1) / COARSE
    across, down = np.meshgrid(knots, knots)
    x, y = tile.ground(crs, across, down)
    middles = (np.arange(side) + 0.5) / side * COARSE
    low = middles.astype(np.intp)
    share = middles - low

    def between(values: Floats) -> Floats:
        rows = values[low] * (1 - share[:, None]) + values[low + 1] * share[:, None]
        return np.asarray(rows[:, low] * (1 - share) + rows[:, low + 1] * share)

    return between(x), between(y)
