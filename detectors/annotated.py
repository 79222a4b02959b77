"""Pairs that people decided on, as training examples: the two images of an alert, and what stands
on each by the map and by what was said.

An accepted alert is a changed pair, a rejected one a pair in which nothing changed however much it
looks so: what the detector got wrong, it sees again with the right answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import shapely
from rasterio.features import rasterize

from detectors.map_source import exposed_again, in_held_out, readable
from detectors.raster import Raster, grid_of, open_dataset
from detectors.training import Example
from detectors.types import ByteArray, Grid, Window

SHARE: Final = 0.25
"""Of all examples at most so many show ground that people decided on: they are few, and a network
that saw them every time would know them by heart."""
EACH: Final = 0.01
"""Share of one decision: twenty-five of them are the quarter."""
SHIFT: Final = 0.25
"""How far, in parts of a window, the alert lies from its middle at most."""
SEEN: Final = 0.9
"""Part of a window both images must show."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One decision: the images before and after, the alert's ground (WKB) and the buildings on each
    date (WKB), all in the CRS of the image before."""

    before: Path
    after: Path
    ground: bytes
    built_before: tuple[bytes, ...]
    built_after: tuple[bytes, ...]


class Base(Protocol):
    """A source that draws examples of its own."""

    @property
    def about(self) -> dict[str, Any]:
        """What goes on the model card."""
        ...

    def draw(self, rng: np.random.Generator, *, size: int, held_out: bool) -> Example:
        """One example."""
        ...


@dataclass(frozen=True, slots=True)
class AnnotatedSource:
    """A source's own examples, with decisions of people among them."""

    base: Base
    annotations: tuple[Annotation, ...]

    @property
    def about(self) -> dict[str, Any]:
        """What goes on the model card."""
        card = self.base.about
        more = f"{card['data']}, {len(self.annotations)} alerts that people decided on"
        return card | {"data": more}

    @property
    def share(self) -> float:
        """How much of what is drawn are decisions."""
        return min(SHARE, EACH * len(self.annotations))

    def draw(self, rng: np.random.Generator, *, size: int, held_out: bool) -> Example:
        """An example of the source, or a decision from the ground that is asked for."""
        if rng.random() < self.share:
            found = self._decision(rng, size, held_out)
            if found is not None:
                return found
        return self.base.draw(rng, size=size, held_out=held_out)

    def _decision(self, rng: np.random.Generator, size: int, held_out: bool) -> Example | None:
        """None where the decision that was drawn lies on the other ground, or out of sight."""
        one = self.annotations[int(rng.integers(len(self.annotations)))]
        middle = shapely.from_wkb(one.ground).centroid
        if in_held_out(middle.x, middle.y) != held_out:
            return None
        return example_of(one, rng, size=size)


def example_of(one: Annotation, rng: np.random.Generator, *, size: int) -> Example | None:
    """A decision as an example of ``size`` pixels; None where an image does not show it."""
    grid = _grid(one.before)
    window = _window(grid, shapely.from_wkb(one.ground), rng, size)
    if window is None:
        return None
    images = []
    for path in (one.before, one.after):
        with Raster([path], grid) as raster:  # the later image on the earlier one's pixels
            image, valid = raster.read(window)
        if valid.mean() < SEEN:
            return None
        images.append(readable(image))
    masks = [_mask(grid, window, shapes)[None] for shapes in (one.built_before, one.built_after)]
    turns, mirror = int(rng.integers(4)), bool(rng.random() < 0.5)
    before, after = (exposed_again(rng, _turned(i, turns, mirror)) for i in images)
    was, now = (_turned(m, turns, mirror)[0] > 0 for m in masks)
    return Example(before, after, was, now)


def _window(
    grid: Grid, ground: shapely.Geometry, rng: np.random.Generator, size: int
) -> Window | None:
    """A window about some ground; None where the image is too small or ends before it."""
    rows, cols = grid.shape
    middle = ground.centroid
    col, row = ~grid.transform @ (middle.x, middle.y)
    if min(rows, cols) < size or not (0 <= col < cols and 0 <= row < rows):
        return None
    shift = rng.uniform(-SHIFT, SHIFT, 2) * size
    top = int(np.clip(row - size / 2 + shift[0], 0, rows - size))
    left = int(np.clip(col - size / 2 + shift[1], 0, cols - size))
    return Window(top, left, size, size)


def _mask(grid: Grid, window: Window, shapes: tuple[bytes, ...]) -> ByteArray:
    """1 where some shapes lie."""
    size = (window.height, window.width)
    if not shapes:
        return np.zeros(size, np.uint8)
    drawn = shapely.from_wkb(list(shapes))
    transform = grid.transform_of(window)
    return np.asarray(rasterize(drawn, size, transform=transform, dtype="uint8"), np.uint8)


def _turned(image: ByteArray, turns: int, mirror: bool) -> ByteArray:
    turned = np.rot90(image, turns, (1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if mirror else turned)


@lru_cache(maxsize=64)
def _grid(path: Path) -> Grid:
    with open_dataset(path) as dataset:
        return grid_of(dataset)
