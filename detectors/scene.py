"""A pair of images as detectors read it: decoded once, co-registered, matched, masked, in tiles.

``open_scene`` makes one pass over both files in block-aligned windows into a scratch store, fits
the registration field, the radiometric match and the masks on samples of it, and then hands out
tiles. Memory is bounded by the tile, not by the scene: a large scratch lives in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from detectors import masks, radiometry, registration
from detectors.errors import NothingValid
from detectors.raster import DEFAULT_BLOCK, Raster, common_grid
from detectors.surroundings import Surroundings
from detectors.types import (
    BoolArray,
    FloatArray,
    Grid,
    Lesson,
    MapRasteriser,
    Progress,
    Tile,
    Window,
)

IN_MEMORY_BYTES = 256 * 2**20
"""Scratch up to this size stays in memory; a larger one goes to a temporary file."""
REGISTRATION_TILE = 256
REGISTRATION_GRID = 7
"""Tiles per side of the grid on which shifts are measured: 49 are plenty for three parameters."""
RADIOMETRY_PIXELS = 120_000
"""Pixels sampled for the match; its error falls with their root, and 100 000 leave 0.3 %."""
BYTE_SCALE = 255.0


class Scratch:
    """Decoded pixels of one image on the grid: bytes stay bytes, the rest is float32."""

    def __init__(self, bands: int, shape: tuple[int, int], dtype: np.dtype, folder: Path) -> None:
        size = bands * shape[0] * shape[1] * dtype.itemsize
        full = (bands, *shape)
        self._pixels: npt.NDArray[np.generic] = (
            np.zeros(full, dtype)
            if size <= IN_MEMORY_BYTES
            else np.memmap(folder / f"{id(self)}.raw", dtype, "w+", shape=full)
        )

    def write(self, window: Window, pixels: npt.NDArray[np.generic]) -> None:
        """Keep one window."""
        self._pixels[(slice(None), *window.slices)] = pixels

    def read(self, window: Window) -> FloatArray:
        """One window as float32 ``(band, row, col)``."""
        return np.asarray(self._pixels[(slice(None), *window.slices)], np.float32)


@dataclass(slots=True)
class PairScene:
    """The scene protocol over a scratch store."""

    grid: Grid
    bands: int
    has_map: bool
    device: torch.device
    field: registration.Field
    match: radiometry.Match
    hidden: BoolArray
    hidden_step: int
    _before: Scratch
    _after: Scratch
    _valid: Scratch
    _labels: MapRasteriser | None
    _around: Surroundings | None

    def tiles(self, *, size: int, margin: int) -> Iterator[Tile]:
        """Every tile, row by row; ``window`` of each includes its margin."""
        for window in windows(self.grid, size):
            yield self.tile(window.grown(margin, shape=self.grid.shape))

    def sample(self, *, size: int, count: int, seed: int) -> Iterator[Tile]:
        """At most ``count`` tiles spread over the scene, in the same order for the same seed."""
        chosen = list(windows(self.grid, size))
        if len(chosen) > count:
            order = np.random.default_rng(seed).permutation(len(chosen))[:count]
            chosen = [chosen[i] for i in sorted(order)]
        for window in chosen:
            yield self.tile(window)

    def lessons(self, *, size: int, count: int, seed: int) -> Iterator[Lesson]:
        """At most ``count`` tiles of the old image and map around the scene."""
        if self._around is not None:
            yield from self._around.lessons(size=size, count=count, seed=seed)

    def tile(self, window: Window) -> Tile:
        """One co-registered, matched tile."""
        before = torch.as_tensor(self._before.read(window), device=self.device)
        after = self.match.apply(self._registered(window))
        seen = self._valid.read(window)[0] > 0
        shown = ~self._hidden(window)
        labels = self._labels(window) if self._labels else None
        return Tile(
            window=window,
            before=before,
            after=after,
            valid=torch.as_tensor(seen & shown, device=self.device),
            labels=None if labels is None else torch.as_tensor(labels, device=self.device),
        )

    def _registered(self, window: Window) -> torch.Tensor:
        if self.field.is_identity:
            return torch.as_tensor(self._after.read(window), device=self.device)
        reach = int(np.ceil(self.field.reach(self.grid.shape))) + 3
        outer = window.grown(reach, shape=self.grid.shape)
        source = torch.as_tensor(self._after.read(outer), device=self.device)
        wanted = (window.row, window.col, window.height, window.width)
        return registration.resample(source, self.field, origin=(outer.row, outer.col), out=wanted)

    def _hidden(self, window: Window) -> BoolArray:
        rows = np.arange(window.row, window.stop_row) // self.hidden_step
        cols = np.arange(window.col, window.stop_col) // self.hidden_step
        rows = np.minimum(rows, self.hidden.shape[0] - 1)
        cols = np.minimum(cols, self.hidden.shape[1] - 1)
        return self.hidden[np.ix_(rows, cols)]


def windows(grid: Grid, size: int) -> Iterator[Window]:
    """Windows of about ``size`` that cover the grid, aligned to the file's blocks."""
    block = grid.block or DEFAULT_BLOCK
    step = max(block, size // block * block) if size >= block else size
    for row in range(0, grid.shape[0], step):
        for col in range(0, grid.shape[1], step):
            yield Window(row, col, min(step, grid.shape[0] - row), min(step, grid.shape[1] - col))


@contextmanager
def open_scene(
    before: Sequence[Path],
    after: Path,
    *,
    labels: Callable[[Grid], MapRasteriser] | None = None,
    device: torch.device | None = None,
    whole_before: bool = True,
    progress: Progress | None = None,
) -> Iterator[PairScene]:
    """Open a pair for detection.

    ``labels`` makes the rasteriser of the previous map once the grid is known. ``whole_before``
    keeps BEFORE's whole grid; otherwise only the ground both show is judged.

    Raises:
        DetectionError: whatever is wrong with either image, one sentence each.
    """
    place = device or torch.device("cpu")
    grid = common_grid(before, after, whole_before=whole_before)
    with tempfile.TemporaryDirectory(prefix="millesimed-") as folder:
        scratch = _decode(before, after, grid, Path(folder), progress)
        bands, old, new, valid = scratch
        field = _register(grid, old, new, valid)
        scene = PairScene(
            grid=grid,
            bands=bands,
            has_map=labels is not None,
            device=place,
            field=field,
            match=radiometry.identity(bands),
            hidden=np.zeros((1, 1), bool),
            hidden_step=max(grid.shape),
            _before=old,
            _after=new,
            _valid=valid,
            _labels=labels(grid) if labels else None,
            _around=Surroundings(before, grid, bands=bands, labels=labels, device=place)
            if labels
            else None,
        )
        scene.hidden, scene.hidden_step = _hide(scene)
        scene.match = _match(scene)
        yield scene


def _decode(
    before: Sequence[Path], after: Path, grid: Grid, folder: Path, progress: Progress | None
) -> tuple[int, Scratch, Scratch, Scratch]:
    with Raster(before, grid) as first, Raster([after], grid) as second:
        bands = min(first.bands, second.bands)
        dtype = np.dtype(np.uint8 if _is_byte(before, after) else np.float32)
        old, new = (Scratch(bands, grid.shape, dtype, folder) for _ in range(2))
        valid = Scratch(1, grid.shape, np.dtype(np.uint8), folder)
        todo = list(windows(grid, DEFAULT_BLOCK * 2))
        seen = 0
        for done, window in enumerate(todo, start=1):
            a, a_valid = first.read(window)
            b, b_valid = second.read(window)
            both = a_valid & b_valid
            seen += int(both.sum())
            for scratch, pixels in ((old, a), (new, b)):
                kept = np.where(both, pixels[:bands], 0)
                if dtype == np.uint8:
                    kept = np.clip(np.rint(kept), 0, BYTE_SCALE)
                scratch.write(window, kept.astype(dtype))
            valid.write(window, both[None].astype(np.uint8))
            if progress is not None:
                progress("read", done, len(todo))
    if not seen:
        raise NothingValid("No pixel is valid in both images; check their nodata and footprints.")
    return bands, old, new, valid


def _is_byte(before: Sequence[Path], after: Path) -> bool:
    import rasterio

    for path in (*before, after):
        with rasterio.open(path) as dataset:
            if dataset.dtypes[0] != "uint8":
                return False
    return True


def _register(grid: Grid, old: Scratch, new: Scratch, valid: Scratch) -> registration.Field:
    side = min(REGISTRATION_TILE, *grid.shape)
    if side < 32:  # too small to correlate anything
        return registration.Field()
    rows = np.unique(np.linspace(0, grid.shape[0] - side, REGISTRATION_GRID).astype(int))
    cols = np.unique(np.linspace(0, grid.shape[1] - side, REGISTRATION_GRID).astype(int))
    centres, shifts, weights, pairs = [], [], [], []
    for window in (Window(int(r), int(c), side, side) for r in rows for c in cols):
        if valid.read(window).mean() < 0.9:
            continue
        a, b = (registration.luminance(torch.as_tensor(s.read(window))) for s in (old, new))
        dx, dy, peak = registration.phase_shift(a, b)
        if peak >= registration.MIN_PEAK:
            centres.append((window.col + side / 2, window.row + side / 2))
            shifts.append((dx, dy))
            weights.append(peak)
            pairs.append((window, a, b))
    field = registration.fit_field(centres, shifts, weights, shape=grid.shape)
    if field.is_identity or field.reach(grid.shape) < registration.IGNORED_PX:
        return registration.Field(tiles=field.tiles, residual=field.residual)
    gain = []
    for window, a, b in pairs[:: max(1, len(pairs) // 12)]:
        out = (window.row, window.col, side, side)
        moved = registration.resample(b[None], field, origin=(window.row, window.col), out=out)[0]
        gain.append(registration.similarity(a, moved) - registration.similarity(a, b))
    if not gain or float(np.median(gain)) <= 0:
        return registration.Field(tiles=field.tiles, residual=field.residual)
    return field


def _hide(scene: PairScene) -> tuple[BoolArray, int]:
    """Cloud and shadow masks from an overview; only for images that show colour in bytes."""
    gsd = scene.grid.gsd
    metric = 0.05 <= gsd <= masks.OVERVIEW_GSD_M and scene.grid.crs is not None
    if scene.bands < 3 or not metric:
        return scene.hidden, scene.hidden_step
    step = max(1, round(masks.OVERVIEW_GSD_M / gsd))
    rows, cols = (-(-n // step) for n in scene.grid.shape)
    views = np.zeros((2, 3, rows, cols), np.float32)
    size = DEFAULT_BLOCK // step * step * 2
    for row in range(0, scene.grid.shape[0], size):
        for col in range(0, scene.grid.shape[1], size):
            window = Window(
                row, col, min(size, scene.grid.shape[0] - row), min(size, scene.grid.shape[1] - col)
            )
            tile = scene.tile(window)
            for view, image in zip(views, (tile.before, tile.after), strict=True):
                small = _shrunk(image[:3], step)
                view[
                    :,
                    row // step : row // step + small.shape[1],
                    col // step : col // step + small.shape[2],
                ] = small
    return masks.hidden(views[0], views[1], gsd=step * gsd), step


def _shrunk(image: torch.Tensor, step: int) -> FloatArray:
    pooled = torch.nn.functional.avg_pool2d(image[None], step, ceil_mode=True)
    return np.asarray(pooled[0].cpu().numpy(), np.float32)


def _match(scene: PairScene) -> radiometry.Match:
    before, after = [], []
    tiles = list(scene.sample(size=DEFAULT_BLOCK, count=24, seed=0))
    each = max(1, RADIOMETRY_PIXELS // len(tiles))
    rng = np.random.default_rng(0)
    for tile in tiles:
        chosen = torch.nonzero(tile.valid.flatten()).flatten().cpu().numpy()
        if len(chosen) > each:
            chosen = rng.choice(chosen, each, replace=False)
        before.append(tile.before.flatten(1)[:, chosen].T.cpu().numpy())
        after.append(tile.after.flatten(1)[:, chosen].T.cpu().numpy())
    return radiometry.fit(np.concatenate(before), np.concatenate(after))
