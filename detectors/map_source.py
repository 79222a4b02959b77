"""Training examples from one millésime: its buildings and its reference images, no second date.

Single-temporal supervision (Zheng et al. 2021): two places make a pair whose change is where only
one of them is built; one place exposed twice makes a pair where nothing changed, which is what
most re-observed ground is. A checkerboard of ground is held out for validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
import torch
from rasterio.features import rasterize

from detectors.painting import exposed
from detectors.raster import Raster, grid_of, open_dataset
from detectors.training import Example, TrainingFailed
from detectors.types import BoolArray, ByteArray, FloatArray, Grid, Window

BLOCK_M: Final = 100.0
"""Side of a square of ground that is held out or not as a whole."""
HELD_OUT_EVERY: Final = 5
TRIES: Final = 60
BUILT_CHANCE: Final = 0.7
"""Share of places that must show a building: elsewhere there is little to learn."""
SAME_PLACE: Final = 0.5


@dataclass(frozen=True, slots=True)
class MapSource:
    """Reference images and the buildings on them (WKB, in each image's own CRS)."""

    images: tuple[Path, ...]
    buildings: tuple[tuple[bytes, ...], ...]
    licence: str = "that of the images and the map"

    @property
    def about(self) -> dict[str, Any]:
        """What goes on the model card."""
        ground = [_ground(self, i) for i in range(len(self.images))]
        return {
            "data": f"{len(self.images)} reference images and the buildings of their map",
            "licence": self.licence,
            "bands": ["red", "green", "blue"],
            "gsd": sorted({round(g.grid.gsd, 3) for g in ground}),
        }

    def draw(self, rng: np.random.Generator, *, size: int, held_out: bool) -> Example:
        """Two places, or one place twice.

        Raises:
            TrainingFailed: no image is large enough.
        """
        first, built = self._place(rng, size, held_out)
        if rng.random() < SAME_PLACE:
            return Example(exposed_again(rng, first), exposed_again(rng, first), built, built)
        second, other = self._place(rng, size, held_out)
        return Example(exposed_again(rng, first), exposed_again(rng, second), built, other)

    def _place(
        self, rng: np.random.Generator, size: int, held_out: bool
    ) -> tuple[ByteArray, BoolArray]:
        wanted = rng.random() < BUILT_CHANCE
        kept: tuple[ByteArray, BoolArray] | None = None
        for _ in range(TRIES):
            number = int(rng.integers(len(self.images)))
            ground = _ground(self, number)
            rows, cols = ground.grid.shape
            if min(rows, cols) < size:
                continue
            window = Window(
                int(rng.integers(rows - size + 1)), int(rng.integers(cols - size + 1)), size, size
            )
            if not _serves(ground.grid, window, held_out=held_out):
                continue
            image, valid = ground.read(self.images[number], window)
            if valid.mean() < 0.9:
                continue
            built = ground.built(window)
            kept = _turned(rng, image, built)
            if built.any() or not wanted:
                return kept
        if kept is None:
            raise TrainingFailed(
                f"No reference image shows {size} pixels of "
                f"{'held-out' if held_out else 'training'} ground; add larger images."
            )
        return kept


@dataclass(frozen=True, slots=True)
class _Ground:
    grid: Grid
    shapes: tuple[shapely.Geometry, ...]
    tree: shapely.STRtree

    def read(self, path: Path, window: Window) -> tuple[ByteArray, BoolArray]:
        with Raster([path], self.grid) as raster:
            image, valid = raster.read(window)
        return readable(image), valid

    def built(self, window: Window) -> BoolArray:
        transform = self.grid.transform_of(window)
        west, north = transform @ (0, 0)
        east, south = transform @ (window.width, window.height)
        hits = self.tree.query(shapely.box(west, south, east, north), predicate="intersects")
        size = (window.height, window.width)
        if not len(hits):
            return np.zeros(size, bool)
        shapes = [self.shapes[i] for i in np.sort(hits)]
        return np.asarray(rasterize(shapes, size, transform=transform, dtype="uint8") > 0, bool)


@lru_cache(maxsize=64)
def _ground(source: MapSource, number: int) -> _Ground:
    with open_dataset(source.images[number]) as dataset:
        grid = grid_of(dataset)
    shapes = tuple(shapely.from_wkb(list(source.buildings[number])))
    return _Ground(grid, shapes, shapely.STRtree(shapes))


def readable(image: FloatArray) -> ByteArray:
    """The first three bands of a window as bytes; one band three times."""
    rgb = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    top = 255.0 if rgb.max() <= 255 else float(np.quantile(rgb, 0.995))
    return np.asarray(np.clip(rgb * (255.0 / max(top, 1.0)), 0, 255), np.uint8)


def _serves(grid: Grid, window: Window, *, held_out: bool) -> bool:
    """Held-out places lie in a held-out square by their middle; training ones touch none."""
    transform = grid.transform_of(window)
    if held_out:
        return in_held_out(*(transform @ (window.width / 2, window.height / 2)))
    corners = [(c, r) for c in (0, window.width) for r in (0, window.height)]
    return not any(in_held_out(*(transform @ corner)) for corner in corners)


def in_held_out(x: float, y: float) -> bool:
    """True for a place of the ground that is kept for validation."""
    return (int(x // BLOCK_M) + 2 * int(y // BLOCK_M)) % HELD_OUT_EVERY == 0


def _turned(
    rng: np.random.Generator, image: ByteArray, built: BoolArray
) -> tuple[ByteArray, BoolArray]:
    """A place turned and mirrored at random."""
    turns, mirror = int(rng.integers(4)), bool(rng.random() < 0.5)
    image, built = np.rot90(image, turns, (1, 2)), np.rot90(built, turns)
    if mirror:
        image, built = image[:, :, ::-1], built[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(built)


def exposed_again(rng: np.random.Generator, image: ByteArray) -> ByteArray:
    """The place as another campaign might have exposed it."""
    return np.asarray(exposed(rng, torch.as_tensor(image).float().numpy()), np.uint8)
