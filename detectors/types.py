"""The values that travel through detection, and the protocol every detector keeps.

Arrays are ``(band, row, col)`` for one tile, ``(tile, band, row, col)`` for a batch. Images are
float32 in the unit of the file (0–255 for uint8 orthophotos, reflectance × 10 000 for
Sentinel-2). Cover classes are uint8 raster values of ``schemas.nomenclature.CS_INDEX``; 0 is
"no map here".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry

if TYPE_CHECKING:  # a second of start and 200 MB that processes without pixels are spared
    import torch

DEGREE_M = 111_320.0
"""Metres in a degree of latitude, and of longitude at the equator."""
FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CHANGED: int = 128
"""Value of ``change.tif`` from which a pixel counts as changed (stable contract)."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; stages are named by verbs."""

MapRasteriser = Callable[["Window"], ByteArray]
"""Gives the previous map's cover classes, ``(rows, cols)`` uint8, for a window of the grid."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the grid in pixels: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def stop_row(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """One past the last column."""
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices for an array of the whole grid."""
        return slice(self.row, self.stop_row), slice(self.col, self.stop_col)

    def grown(self, margin: int, *, shape: tuple[int, int]) -> Window:
        """The window with ``margin`` pixels of context on each side, cut at the grid's edge."""
        row, col = max(0, self.row - margin), max(0, self.col - margin)
        stop_row = min(shape[0], self.stop_row + margin)
        stop_col = min(shape[1], self.stop_col + margin)
        return Window(row, col, stop_row - row, stop_col - col)

    def strips(self, rows: int) -> Iterator[Window]:
        """The window in strips of its whole width and at most ``rows`` rows, top to bottom."""
        for row in range(self.row, self.stop_row, rows):
            yield Window(row, self.col, min(rows, self.stop_row - row), self.width)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Slices of this window in an array that covers ``outer``."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixel grid a scene is judged on: CRS (WKT or authority string, None for a bare PNG),
    affine transform from (col, row) to CRS units, and shape (rows, cols)."""

    crs: str | None
    transform: Affine
    shape: tuple[int, int]
    block: int

    @property
    def gsd(self) -> float:
        """Pixel size in CRS units (square pixels: the geometric mean of both sides)."""
        return float(abs(self.transform.determinant) ** 0.5)

    @property
    def is_metric(self) -> bool:
        """True where a pixel has a size in metres: a CRS, and not one in degrees (no pixel of an
        image is a centimetre wide, and none is that many degrees)."""
        return self.crs is not None and self.gsd > 0.01

    @property
    def gsd_m(self) -> float | None:
        """Side of a pixel in metres, degrees turned into metres at the grid's middle; None where
        the grid has no CRS."""
        if self.crs is None or self.is_metric:
            return self.gsd if self.crs else None
        _, latitude = self.transform @ (self.shape[1] / 2, self.shape[0] / 2)
        return float(self.gsd * DEGREE_M * math.sqrt(math.cos(math.radians(latitude))))

    @property
    def window(self) -> Window:
        """The whole grid as one window."""
        return Window(0, 0, *self.shape)

    def transform_of(self, window: Window) -> Affine:
        """Affine transform of a window's own pixels."""
        return self.transform @ Affine.translation(window.col, window.row)


@dataclass(frozen=True, slots=True)
class Tile:
    """One co-registered, radiometrically matched pair of the same ground.

    ``before`` and ``after``: float32 ``(band, row, col)``; ``valid``: False where either date is
    nodata, cloud, shadow of cloud or snow; ``labels``: cover classes of the previous map, or
    None without one. ``rise``: metres the surface rose between the dates, NaN where unknown, or
    None without elevation. ``window`` places the arrays on the grid, margin included.
    """

    window: Window
    before: torch.Tensor
    after: torch.Tensor
    valid: torch.Tensor
    labels: torch.Tensor | None
    rise: torch.Tensor | None = None


def valid_pixels(tiles: Sequence[Tile], date: int, *, each: int) -> torch.Tensor:
    """Valid pixels of one date (0 before, 1 after), ``(band, pixel)``: about ``each`` of a tile,
    evenly spread."""
    import torch

    images = [(tile.before, tile.after)[date] for tile in tiles]
    return torch.cat(
        [
            image[:, tile.valid][:, :: max(1, int(tile.valid.sum()) // each)]
            for image, tile in zip(images, tiles, strict=True)
        ],
        dim=1,
    )


@dataclass(frozen=True, slots=True)
class Lesson:
    """Old image and old map of ground the scene does not hold: what covers look like nearby.

    ``before``: float32 ``(band, row, col)``; ``valid``: bool and ``labels``: uint8, ``(row, col)``.
    """

    before: torch.Tensor
    valid: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, slots=True)
class TileScores:
    """What a detector says of one tile, each ``(row, col)``.

    ``probability``: float32 in [0, 1], 0.5 and above means changed. ``from_class`` and
    ``to_class``: uint8 covers, None from a detector that cannot name them. ``magnitude``:
    float32 in [0, 1], how large the change is whatever its certainty.
    """

    probability: torch.Tensor
    magnitude: torch.Tensor
    from_class: torch.Tensor | None = None
    to_class: torch.Tensor | None = None


class Scene(Protocol):
    """A pair of images as a detector may read it: tile by tile, never whole."""

    grid: Grid
    bands: int
    has_map: bool
    device: torch.device

    def sample(self, *, size: int, count: int, seed: int) -> Iterator[Tile]:
        """At most ``count`` tiles spread over the scene, the same ones for the same seed."""
        ...

    def lessons(self, *, size: int, count: int, seed: int) -> Iterator[Lesson]:
        """At most ``count`` tiles of the old image around the scene, none without a map."""
        ...


class Detector(Protocol):
    """A bi-temporal change detector.

    ``name`` is what configuration and reports call it; ``margin`` is the context, in pixels, a
    tile needs so that its inside does not depend on where it was cut; ``needs_map`` says whether
    it can work without a previous map; ``abstains``, after ``fit``, that this scene cannot be
    judged: what is not flagged is then not said to be unchanged.
    """

    name: str
    version: str
    margin: int
    needs_map: bool
    abstains: bool

    def fit(self, scene: Scene, *, seed: int, progress: Progress | None = None) -> None:
        """Learn from the scene what one tile cannot tell (statistics, a light model)."""
        ...

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """Judge a batch of equally sized tiles."""
        ...


@dataclass(frozen=True, slots=True)
class Region:
    """A changed piece of ground: one polygon in the CRS of the grid (or of the map, once
    projected), covers before and after (None when the detector cannot name them), mean
    probability and magnitude in [0, 1], area in square metres (CRS units²), and ``looks``, the
    number of dates that saw it validly."""

    geometry: BaseGeometry
    from_cs: str | None
    to_cs: str | None
    probability: float
    magnitude: float
    looks: int = 1


@dataclass(frozen=True, slots=True)
class Ground:
    """What an image shows of some ground: the share that was seen, and of that the share that looks
    changed."""

    valid: float
    changed: float
