"""The tile engine: a scene through a detector into a probability raster, in bounded memory.

Tiles overlap by the detector's margin and are blended with a cosine ramp, so that no seam shows
where two of them meet. The result is written window by window.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
import rasterio
import torch

from detectors.raster import DEFAULT_BLOCK
from detectors.scene import PairScene, Scratch, windows
from detectors.types import (
    CHANGED,
    ByteArray,
    Detector,
    FloatArray,
    Progress,
    Tile,
    TileScores,
    Window,
)


@dataclass(slots=True)
class Detection:
    """What a detector says of a scene, readable window by window.

    ``probability``: uint8, 128 and above means changed, 0 where either date is not valid.
    ``to_class`` and ``from_class``: covers, 0 unknown. ``magnitude``: uint8.
    """

    scene: PairScene
    detector: str
    changed_fraction: float
    seconds: float
    megapixels: float
    _layers: Scratch

    def read(self, window: Window) -> ByteArray:
        """``(4, row, col)``: probability, magnitude, from-class, to-class."""
        return self._layers.read(window).astype(np.uint8)

    @property
    def megapixels_per_second(self) -> float:
        """Pixels of the grid judged per second, both dates counted once."""
        return self.megapixels / max(self.seconds, 1e-9)

    def write(self, path: Path) -> None:
        """Band 1 of ``change.tif``: the probability on the scene's grid."""
        grid = self.scene.grid
        profile = {
            "driver": "GTiff",
            "height": grid.shape[0],
            "width": grid.shape[1],
            "count": 1,
            "dtype": "uint8",
            "compress": "deflate",
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
        }
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
    """Run a detector over a scene; the result lives as long as the context."""
    started = perf_counter()
    torch.manual_seed(seed)
    detector.fit(scene, seed=seed, progress=progress)
    with tempfile.TemporaryDirectory(prefix="millesimed-") as folder:
        blend = _Blend(scene, Path(folder))
        total = sum(1 for _ in windows(scene.grid, tile_size))
        tiles = scene.tiles(size=tile_size, margin=detector.margin)
        done = 0
        while group := list(islice(tiles, batch)):
            for tile, scores in zip(group, detector.detect(group), strict=True):
                blend.add(tile, scores, margin=detector.margin)
            done += len(group)
            if progress is not None:
                progress("detect", done, total)
        layers, changed = blend.finish()
        rows, cols = scene.grid.shape
        yield Detection(
            scene=scene,
            detector=f"{detector.name}/{detector.version}",
            changed_fraction=changed,
            seconds=perf_counter() - started,
            megapixels=rows * cols / 1e6,
            _layers=layers,
        )


class _Blend:
    """Weighted sums of overlapping tiles; classes follow the tile that weighs most."""

    def __init__(self, scene: PairScene, folder: Path) -> None:
        self._scene = scene
        shape = scene.grid.shape
        self._sums = Scratch(3, shape, np.dtype(np.float32), folder)
        self._layers = Scratch(4, shape, np.dtype(np.uint8), folder)
        self._best = Scratch(1, shape, np.dtype(np.float32), folder)

    def add(self, tile: Tile, scores: TileScores, *, margin: int) -> None:
        window = tile.window
        weight = ramp(window.height, window.width, margin)
        valid = tile.valid.cpu().numpy()
        p = np.clip(scores.probability.float().cpu().numpy(), 0, 1) * valid
        m = np.clip(scores.magnitude.float().cpu().numpy(), 0, 1) * valid
        sums = self._sums.read(window)
        self._sums.write(window, sums + np.stack([p * weight, m * weight, weight]))
        best = self._best.read(window)
        wins = weight > best[0]
        layers = self._layers.read(window).astype(np.uint8)
        for band, classes in ((2, scores.from_class), (3, scores.to_class)):
            if classes is not None:
                layers[band] = np.where(wins, classes.cpu().numpy(), layers[band])
        self._layers.write(window, layers)
        self._best.write(window, np.maximum(best, weight))

    def finish(self) -> tuple[Scratch, float]:
        """Quantise to bytes; gives the layers and the share of pixels flagged."""
        changed = total = 0
        for window in windows(self._scene.grid, DEFAULT_BLOCK * 2):
            sums = self._sums.read(window)
            layers = self._layers.read(window).astype(np.uint8)
            layers[0] = quantised(sums[0] / np.maximum(sums[2], 1e-9))
            layers[1] = quantised(sums[1] / np.maximum(sums[2], 1e-9))
            self._layers.write(window, layers)
            changed += int((layers[0] >= CHANGED).sum())
            total += layers[0].size
        return self._layers, changed / max(1, total)


def quantised(probability: FloatArray) -> ByteArray:
    """Probability as a byte such that 0.5 and above is 128 and above."""
    return np.asarray(np.floor(np.clip(probability, 0, 1) * 255 + 0.5 + 1e-6), np.uint8)


def ramp(height: int, width: int, margin: int) -> FloatArray:
    """Weights of a tile: one inside, falling as a cosine to nearly nothing at its edge."""

    def side(length: int) -> FloatArray:
        near = np.minimum(np.arange(length) + 0.5, np.arange(length)[::-1] + 0.5)
        share = np.clip(near / max(1, 2 * margin), 0, 1) if margin else np.ones(length)
        return np.asarray(0.5 - 0.5 * np.cos(np.pi * share) + 1e-4, np.float32)

    return np.outer(side(height), side(width)).astype(np.float32)


def choose_device(wanted: str) -> torch.device:
    """``auto`` takes CUDA where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
