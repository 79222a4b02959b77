"""The old image around a scene: what its map says there teaches covers the scene may lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from detectors.raster import Raster, pixel_extent
from detectors.types import Grid, Lesson, MapRasteriser, Window
from schemas.policy import CONTEXT_M

WORTH_SHARE = 0.1
"""Surroundings smaller than this share of the scene are not worth reading."""


class Surroundings:
    """Windows of the BEFORE images within ``CONTEXT_M`` of a scene, on its pixels, outside it."""

    def __init__(
        self,
        before: Sequence[Path],
        grid: Grid,
        *,
        bands: int,
        labels: Callable[[Grid], MapRasteriser],
        device: torch.device,
    ) -> None:
        self._before = before
        self._bands = bands
        self._device = device
        reach = round(CONTEXT_M / grid.gsd) if grid.is_metric else 0
        extents = np.array([pixel_extent(grid, path) for path in before])
        rows, cols = grid.shape
        top, left = np.maximum(extents[:, :2].min(axis=0), -reach)
        bottom, right = np.minimum(extents[:, 2:].max(axis=0), (rows + reach, cols + reach))
        shape = (int(max(bottom, rows) - min(top, 0)), int(max(right, cols) - min(left, 0)))
        corner = Window(int(min(top, 0)), int(min(left, 0)), *shape)
        self._grid = Grid(grid.crs, grid.transform_of(corner), shape, 0)
        self._scene = Window(-corner.row, -corner.col, rows, cols)
        self._labels = labels(self._grid)

    def lessons(self, *, size: int, count: int, seed: int) -> Iterator[Lesson]:
        """At most ``count`` windows outside the scene, the same ones for the same seed."""
        rows, cols = self._grid.shape
        if rows * cols < (1 + WORTH_SHARE) * self._scene.height * self._scene.width:
            return
        todo = [w for w in self._windows(size) if not _touch(w, self._scene)]
        if len(todo) > count:
            order = np.random.default_rng(seed).permutation(len(todo))[:count]
            todo = [todo[i] for i in sorted(order)]
        if not todo:
            return
        with Raster(self._before, self._grid) as raster:
            for window in todo:
                image, valid = raster.read(window)
                labels = self._labels(window)
                if valid.any() and labels[valid].any():
                    yield Lesson(
                        torch.as_tensor(image[: self._bands], device=self._device),
                        torch.as_tensor(valid, device=self._device),
                        torch.as_tensor(labels, device=self._device),
                    )

    def _windows(self, size: int) -> Iterator[Window]:
        """Whole windows on a lattice that runs on from the scene's own edges."""
        scene, (rows, cols) = self._scene, self._grid.shape
        for row in range(scene.row % size, rows - size + 1, size):
            for col in range(scene.col % size, cols - size + 1, size):
                yield Window(row, col, size, size)


def _touch(a: Window, b: Window) -> bool:
    return a.row < b.stop_row and b.row < a.stop_row and a.col < b.stop_col and b.col < a.stop_col
