"""The tile engine: a scene through a detector into a probability raster, in bounded memory.

Tiles overlap by the detector's margin and are blended with a cosine ramp, so that no seam shows
where two of them meet. Memory holds a row of tiles; finished rows are bytes in a scratch.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
import rasterio
import torch
from rasterio.features import sieve

from detectors.raster import DEFAULT_BLOCK, byte_profile
from detectors.scene import PairScene, in_order, windows
from detectors.scratch import Scratch
from detectors.types import (
    CHANGED,
    ByteArray,
    Detector,
    FloatArray,
    Grid,
    Progress,
    Tile,
    TileScores,
    Window,
)
from schemas.policy import SMALLEST_OBJECT_M2

LAYERS = 4
"""Bytes kept per pixel: probability, magnitude, cover before, cover after."""
SPECK_SHARE = 0.25
"""Flagged ground below this share of the smallest object of the map is a speck; more may be a part
of an object seen in pieces."""
STRIP_PIXELS = 8_000_000
"""Pixels looked at in one go where a scene is gone through in strips."""
AHEAD = 2
"""Batches prepared ahead of the detector."""


@dataclass(slots=True)
class Detection:
    """What a detector says of a scene, readable window by window.

    ``probability``: uint8, 128 and above means changed, 0 where either date is not valid.
    ``to_class`` and ``from_class``: covers, 0 unknown. ``magnitude``: uint8. ``abstained``: the
    detector could not judge the scene.
    """

    scene: PairScene
    detector: str
    abstained: bool
    changed_fraction: float
    seconds: float
    megapixels: float
    _layers: Scratch

    def read(self, window: Window) -> ByteArray:
        """``(4, row, col)``: probability, magnitude, from-class, to-class."""
        return np.asarray(self._layers.read(window), np.uint8)

    @property
    def megapixels_per_second(self) -> float:
        """Pixels of the grid judged per second, both dates counted once."""
        return self.megapixels / max(self.seconds, 1e-9)

    def write(self, path: Path) -> None:
        """Band 1 of ``change.tif``: the probability on the scene's grid."""
        grid = self.scene.grid
        profile = byte_profile(grid, compress="deflate", tiled=True, blockxsize=256, blockysize=256)
        if grid.crs is not None:
            profile |= {"crs": grid.crs, "transform": grid.transform}
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", **profile) as target:
            for window in windows(grid, DEFAULT_BLOCK * 2):
                place = rasterio.windows.Window(window.col, window.row, window.width, window.height)
                target.write(self.read(window)[0], 1, window=place)
            target.set_band_description(1, "probability of change, 128 and above: changed")


@contextmanager
def detect_scene(
    scene: PairScene,
    detector: Detector,
    *,
    seed: int = 0,
    tile_size: int = 512,
    batch: int = 4,
    progress: Progress | None = None,
) -> Iterator[Detection]:
    """Run a detector over a scene; the result lives as long as the context.

    Tiles are prepared by a thread of their own while the detector judges the batch before.
    """
    started = perf_counter()
    torch.manual_seed(seed)
    detector.fit(scene, seed=seed, progress=progress)
    with (
        tempfile.TemporaryDirectory(prefix="millesimed-") as folder,
        closing(Scratch(LAYERS, scene.grid.shape, np.uint8, Path(folder))) as layers,
    ):
        blend = _Blend(scene.grid, layers, margin=detector.margin)
        places = list(scene.tile_windows(size=tile_size, margin=detector.margin))
        done = 0
        with ThreadPoolExecutor(1, thread_name_prefix="tiles") as pool:
            tiles = in_order(pool, scene.tile, places, ahead=AHEAD * batch)
            while group := list(islice(tiles, batch)):
                for tile, scores in zip(group, detector.detect(group), strict=True):
                    blend.add(tile, scores)
                done += len(group)
                if progress is not None:
                    progress("detect", done, len(places))
        blend.finish()
        changed = sieved(layers, scene.grid)
        rows, cols = scene.grid.shape
        yield Detection(
            scene=scene,
            detector=f"{detector.name}/{detector.version}",
            abstained=detector.abstains,
            changed_fraction=changed / max(1, rows * cols),
            seconds=perf_counter() - started,
            megapixels=rows * cols / 1e6,
            _layers=layers,
        )


class _Blend:
    """Weighted sums of overlapping tiles; classes follow the tile that weighs most.

    Tiles come row by row. Only the rows that a later tile may still touch are held; those above
    are turned into bytes and put aside.
    """

    def __init__(self, grid: Grid, layers: Scratch, *, margin: int) -> None:
        self._grid = grid
        self._layers = layers
        self._margin = margin
        self._top = 0
        self._sums = np.zeros((3, 0, grid.shape[1]), np.float32)
        self._best = np.zeros((0, grid.shape[1]), np.float32)
        self._classes = np.zeros((2, 0, grid.shape[1]), np.uint8)

    def add(self, tile: Tile, scores: TileScores) -> None:
        """Take in one tile; its first row is never above an earlier tile's."""
        window = tile.window
        self._advance(window.row, window.stop_row)
        weight = ramp(window, self._grid.shape, self._margin)
        valid = tile.valid.cpu().numpy()
        p = np.clip(scores.probability.float().cpu().numpy(), 0, 1) * valid
        m = np.clip(scores.magnitude.float().cpu().numpy(), 0, 1) * valid
        rows = slice(window.row - self._top, window.stop_row - self._top)
        place = (rows, slice(window.col, window.stop_col))
        for total, value in zip(self._sums, (p * weight, m * weight, weight), strict=True):
            total[place] += value
        wins = weight > self._best[place]
        for held, classes in zip(self._classes, (scores.from_class, scores.to_class), strict=True):
            if classes is not None:
                held[place] = np.where(wins, classes.cpu().numpy(), held[place])
        np.maximum(self._best[place], weight, out=self._best[place])

    def _advance(self, first: int, last: int) -> None:
        """Put aside rows above ``first`` and make room down to ``last``."""
        if first > self._top:
            self._flush(first)
        lacking = last - self._top - len(self._best)
        if lacking > 0:
            room = ((0, 0), (0, lacking), (0, 0))
            self._sums = np.pad(self._sums, room)
            self._classes = np.pad(self._classes, room)
            self._best = np.pad(self._best, room[1:])

    def _flush(self, until: int) -> None:
        count = min(until - self._top, len(self._best))
        if count > 0:
            sums = self._sums[:, :count]
            weight = np.maximum(sums[2], 1e-9)
            done = np.stack(
                [
                    quantised(sums[0] / weight),
                    quantised(sums[1] / weight),
                    *self._classes[:, :count],
                ]
            )
            self._layers.write(Window(self._top, 0, count, self._grid.shape[1]), done)
        self._sums = self._sums[:, count:].copy()
        self._classes = self._classes[:, count:].copy()
        self._best = self._best[count:].copy()
        self._top += count

    def finish(self) -> None:
        """Put aside what is left."""
        self._flush(self._top + len(self._best))


def sieved(layers: Scratch, grid: Grid) -> int:
    """Take flagged specks out (their probability falls just below one half); gives how many
    pixels stay flagged.

    Strips overlap by more than a speck is long, so that none is cut by a strip's edge.
    """
    least = round(SPECK_SHARE * SMALLEST_OBJECT_M2 / grid.gsd**2) if grid.is_metric else 0
    reach = 2 * math.isqrt(max(least, 1)) + 1
    rows = max(4 * reach, STRIP_PIXELS // grid.shape[1])
    total = 0
    pending: tuple[Window, ByteArray] | None = None
    for strip in grid.window.strips(rows):
        outer = strip.grown(reach, shape=grid.shape)
        found = np.asarray(layers.read(outer), np.uint8)
        changed = found[0] >= CHANGED
        if least > 1 and changed.any():
            kept = sieve(changed.astype(np.uint8), least, connectivity=8) > 0
            found[0][changed & ~kept] = CHANGED - 1
        if pending is not None:  # written late: the next strip must read the raw rows above it
            layers.write(*pending)
        part = found[(slice(None), *strip.within(outer))]
        total += int((part[0] >= CHANGED).sum())
        pending = (strip, part)
    if pending is not None:
        layers.write(*pending)
    return total


def quantised(probability: FloatArray) -> ByteArray:
    """Probability as a byte such that 0.5 and above is 128 and above."""
    return np.asarray(np.floor(np.clip(probability, 0, 1) * 255 + 0.5 + 1e-6), np.uint8)


def ramp(window: Window, shape: tuple[int, int], margin: int) -> FloatArray:
    """Weights of a tile: one inside, falling as a cosine to nearly nothing at the edges that
    another tile overlaps; an edge of the scene itself has no neighbour and keeps its weight."""

    def side(first: int, stop: int, whole: int) -> FloatArray:
        if not margin:
            return np.ones(stop - first, np.float32)
        place = np.arange(stop - first) + 0.5
        near = np.minimum(place if first > 0 else np.inf, place[::-1] if stop < whole else np.inf)
        share = np.clip(near / (2 * margin), 0, 1)
        return np.asarray(0.5 - 0.5 * np.cos(np.pi * share) + 1e-4, np.float32)

    rows = side(window.row, window.stop_row, shape[0])
    return np.outer(rows, side(window.col, window.stop_col, shape[1])).astype(np.float32)


def choose_device(wanted: str) -> torch.device:
    """``auto`` takes CUDA where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
