"""A pair of images as detectors read it: decoded once, co-registered, matched, masked, in tiles.

``open_scene`` makes one pass over both files in block-aligned windows into a scratch store, fits
the registration field, the radiometric match and the masks on samples of it, and then hands out
tiles. Memory is bounded by the tile, not by the scene: a large scratch lives in a temporary file.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from detectors import masks, radiometry, registration, sentinel2
from detectors.elevation import rise_of
from detectors.errors import NothingValid
from detectors.raster import DEFAULT_BLOCK, Raster, common_grid, open_dataset
from detectors.scratch import Scratch
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

REGISTRATION_SIDE = 6_000
"""Longest side, pixels, registered in one go: a fifth of a degree moves its corners by 10."""
REGISTRATION_FACTOR = 8
"""Decimation from one level to the next: the search reaches eight times as far."""
REGISTRATION_GRID = 7
"""Tiles per side of the grid on which shifts are measured: 49 are plenty for three parameters."""
RADIOMETRY_PIXELS = 120_000
"""Pixels sampled for the match; its error falls with their root, and 100 000 leave 0.3 %."""
BYTE_SCALE = 255.0
READERS = 2
"""Threads that decode: two keep ahead of any detector on a processor, GDAL's own pool does the
rest of a JPEG 2000 tile."""
OVERVIEW_VALUES = 3 * 4_096**2
"""Most values (pixels × bands) of the overview masks are found on: bounded memory for any scene."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class PairScene:
    """The scene protocol over a scratch store."""

    grid: Grid
    bands: int
    names: tuple[str, ...]
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
    _rise: Scratch | None

    def tile_windows(self, *, size: int, margin: int) -> Iterator[Window]:
        """Where the tiles of the scene lie, row by row, each with its margin."""
        for window in windows(self.grid, size):
            yield window.grown(margin, shape=self.grid.shape)

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
        before = torch.as_tensor(self._before.read_float(window), device=self.device)
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
            rise=None
            if self._rise is None
            else torch.as_tensor(self._rise.read_float(window)[0], device=self.device),
        )

    def overview(self, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """Both dates of a window for masks: registered only where that moves an overview pixel."""
        before = torch.as_tensor(self._before.read_float(window), device=self.device)
        if self.field.reach(self.grid.shape) * self.grid.gsd > masks.OVERVIEW_GSD_M:
            return before, self._registered(window)
        return before, torch.as_tensor(self._after.read_float(window), device=self.device)

    def _registered(self, window: Window) -> torch.Tensor:
        def read(place: Window) -> torch.Tensor:
            return torch.as_tensor(self._after.read_float(place), device=self.device)

        return _brought(read, window, self.field, self.grid.shape)

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
    elevation: tuple[Sequence[Path], Path] | None = None,
    progress: Progress | None = None,
) -> Iterator[PairScene]:
    """Open a pair for detection.

    ``labels`` makes the rasteriser of the previous map once the grid is known. ``whole_before``
    keeps BEFORE's whole grid; otherwise only the ground both show is judged. ``elevation``:
    surface models (MNS, metres) of before and one of after.

    Raises:
        DetectionError: whatever is wrong with either image, one sentence each.
    """
    place = device or torch.device("cpu")
    grid = common_grid(before, after, whole_before=whole_before)
    with tempfile.TemporaryDirectory(prefix="millesimed-") as folder, ExitStack() as stack:
        (bands, names), old, new, valid = _decode(
            before, after, grid, Path(folder), stack, progress
        )
        field = _register(grid, old, new, valid)
        rise = rise_of(elevation, grid, Path(folder)) if elevation else None
        if rise is not None:
            stack.callback(rise.close)
        scene = PairScene(
            grid=grid,
            bands=bands,
            names=names,
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
            _rise=rise,
        )
        scene.hidden, scene.hidden_step = _hide(scene)
        scene.match = _match(scene)
        yield scene


def _decode(
    before: Sequence[Path],
    after: Path,
    grid: Grid,
    folder: Path,
    stack: ExitStack,
    progress: Progress | None,
) -> tuple[tuple[int, tuple[str, ...]], Scratch, Scratch, Scratch]:
    """Both images decoded once each, window by window, by ``READERS`` threads (GDAL lets go of the
    interpreter while it decodes; a handle belongs to one thread)."""
    dtype = np.dtype(np.uint8 if _is_byte(before, after) else np.float32)
    handles = _Handles(before, after, grid)
    try:
        bands = min(raster.bands for raster in handles.pair())
        names = handles.pair()[0].names[:bands]
    finally:
        handles.close()
    old, new = (_scratch(stack, bands, grid, dtype, folder) for _ in range(2))
    valid = _scratch(stack, 1, grid, np.dtype(np.uint8), folder)

    def carry(window: Window) -> int:
        first, second = handles.pair()
        a, a_valid = first.read(window)
        b, b_valid = second.read(window)
        both = a_valid & b_valid
        for scratch, pixels in ((old, a), (new, b)):
            kept = np.where(both, pixels[:bands], 0)
            if dtype == np.uint8:
                kept = np.clip(np.rint(kept), 0, BYTE_SCALE)
            scratch.write(window, kept)
        valid.write(window, both[None])
        return int(both.sum())

    todo = list(windows(grid, DEFAULT_BLOCK * 2))
    seen = 0
    with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        counts = in_order(pool, carry, todo, ahead=2 * READERS)
        try:
            for done, count in enumerate(counts, start=1):
                seen += count
                if progress is not None:
                    progress("read", done, len(todo))
        finally:
            handles.close_in(pool, READERS)
    if not seen:
        raise NothingValid("No pixel is valid in both images; check their nodata and footprints.")
    return (bands, names), old, new, valid


class _Handles:
    """A pair of open rasters for each thread that asks; GDAL wants them closed where opened."""

    def __init__(self, before: Sequence[Path], after: Path, grid: Grid) -> None:
        self._before, self._after, self._grid = before, after, grid
        self._own = threading.local()

    def pair(self) -> tuple[Raster, Raster]:
        """This thread's rasters, opened at its first call."""
        if not hasattr(self._own, "pair"):
            self._own.pair = (Raster(self._before, self._grid), Raster([self._after], self._grid))
        found: tuple[Raster, Raster] = self._own.pair
        return found

    def close(self) -> None:
        """Close this thread's rasters."""
        if hasattr(self._own, "pair"):
            for raster in self._own.pair:
                raster.close()
            del self._own.pair

    def close_in(self, pool: ThreadPoolExecutor, threads: int) -> None:
        """Close the rasters of every thread of a pool: a barrier gives each one its turn."""
        gate = threading.Barrier(threads)

        def last() -> None:
            gate.wait()
            self.close()

        for future in [pool.submit(last) for _ in range(threads)]:
            future.result()


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """Results in the order of ``items``, at most ``ahead`` of them under way: the queue between
    two stages is bounded, so a fast one cannot fill memory."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _scratch(
    stack: ExitStack, bands: int, grid: Grid, dtype: npt.DTypeLike, folder: Path
) -> Scratch:
    scratch = Scratch(bands, grid.shape, dtype, folder)
    stack.callback(scratch.close)
    return scratch


def _is_byte(before: Sequence[Path], after: Path) -> bool:
    for path in (*before, after):
        with open_dataset(path, allow_no_crs=True) as dataset:
            if dataset.dtypes[0] != "uint8":
                return False
    return True


def _register(grid: Grid, old: Scratch, new: Scratch, valid: Scratch) -> registration.Field:
    """The registration field, from coarse to fine: on a large scene a fifth of a degree moves a
    corner by more pixels than a tile can search."""
    field = registration.Field()
    for factor in _levels(grid.shape):
        found = _register_level(grid, (old, new, valid), factor, field)
        if not found.is_identity or field.is_identity:
            field = found
    return field


def _levels(shape: tuple[int, int]) -> list[int]:
    """Decimation of each level, coarsest first, full resolution last."""
    factor, levels = 1, [1]
    while max(shape) / factor > REGISTRATION_SIDE:
        factor *= REGISTRATION_FACTOR
        levels.append(factor)
    return levels[::-1]


def _register_level(
    grid: Grid,
    scratches: tuple[Scratch, Scratch, Scratch],
    factor: int,
    prior: registration.Field,
) -> registration.Field:
    """Shifts measured on tiles decimated by ``factor`` and already moved by ``prior``."""
    old, new, valid = scratches
    side = min(registration.TILE * factor, *grid.shape) // factor * factor
    if side // factor < 32:  # too small to correlate anything
        return prior
    rows = np.unique(np.linspace(0, grid.shape[0] - side, REGISTRATION_GRID).astype(int))
    cols = np.unique(np.linspace(0, grid.shape[1] - side, REGISTRATION_GRID).astype(int))
    centres, shifts, weights = [], [], []
    pairs: list[tuple[Window, torch.Tensor]] = []
    for window in (Window(int(r), int(c), side, side) for r in rows for c in cols):
        if valid.read(window).mean() < 0.9:
            continue
        a = registration.luminance(torch.as_tensor(old.read_float(window)))
        a, b = (_decimated(i, factor) for i in (a, _moved(new, window, prior, grid)))
        dx, dy, peak = registration.phase_shift(a, b)
        if peak >= registration.MIN_PEAK:
            centre = (window.col + side / 2, window.row + side / 2)
            known = prior.at(*centre)
            centres.append(centre)
            shifts.append((known[0] + dx * factor, known[1] + dy * factor))
            weights.append(peak)
            pairs.append((window, a))
    field = registration.fit_field(
        centres, shifts, weights, shape=grid.shape, side=side, unit=factor
    )
    if field.is_identity or field.reach(grid.shape) < registration.IGNORED_PX:
        return registration.Field(tiles=field.tiles, residual=field.residual)
    gain = []
    for window, a in pairs[:: max(1, len(pairs) // 12)]:
        still = registration.luminance(torch.as_tensor(new.read_float(window)))
        still, moved = (_decimated(i, factor) for i in (still, _moved(new, window, field, grid)))
        gain.append(registration.similarity(a, moved) - registration.similarity(a, still))
    if not gain or float(np.median(gain)) <= 0:
        return registration.Field(tiles=field.tiles, residual=field.residual)
    return field


def _moved(new: Scratch, window: Window, field: registration.Field, grid: Grid) -> torch.Tensor:
    """Luminance of AFTER in a window of the grid, brought there by a field."""

    def read(place: Window) -> torch.Tensor:
        return registration.luminance(torch.as_tensor(new.read_float(place)))[None]

    return _brought(read, window, field, grid.shape)[0]


def _brought(
    read: Callable[[Window], torch.Tensor],
    window: Window,
    field: registration.Field,
    shape: tuple[int, int],
) -> torch.Tensor:
    """A window of AFTER on the grid: what ``read`` gives of it and around it, moved by a field."""
    if field.is_identity:
        return read(window)
    outer = window.grown(int(np.ceil(field.reach(shape))) + 3, shape=shape)
    wanted = (window.row, window.col, window.height, window.width)
    return registration.resample(read(outer), field, origin=(outer.row, outer.col), out=wanted)


def _decimated(image: torch.Tensor, factor: int) -> torch.Tensor:
    if factor == 1:
        return image
    return torch.nn.functional.avg_pool2d(image[None, None], factor)[0, 0]


def _hide(scene: PairScene) -> tuple[BoolArray, int]:
    """What masks hide, from an overview: cloud and its shadow on byte images that show colour,
    snow, cloud and glint where a band says it is short-wave infrared."""
    gsd = scene.grid.gsd
    known = sentinel2.bands_of(scene.names)
    if sentinel2.SWIR in known:
        before, after, step = _overviews(scene, list(known.values()), 1)
        place = {band: index for index, band in enumerate(known)}
        pixel = scene.grid.gsd_m
        return sentinel2.hidden(before, after, place, gsd=pixel and step * pixel), step
    metric = 0.05 <= gsd <= masks.OVERVIEW_GSD_M and scene.grid.crs is not None
    if scene.bands < 3 or not metric:
        return scene.hidden, scene.hidden_step
    finest = max(1, round(masks.OVERVIEW_GSD_M / gsd))
    before, after, step = _overviews(scene, [0, 1, 2], finest)
    return masks.hidden(before, after, gsd=step * gsd), step


def _overviews(
    scene: PairScene, bands: list[int], finest: int
) -> tuple[FloatArray, FloatArray, int]:
    """Both dates at one pixel in ``step``, which is at least ``finest`` and bounds the size."""
    values = scene.grid.shape[0] * scene.grid.shape[1] * len(bands)
    step = max(finest, math.ceil(math.sqrt(values / OVERVIEW_VALUES)))
    rows, cols = (-(-n // step) for n in scene.grid.shape)
    views = np.zeros((2, len(bands), rows, cols), np.float32)
    size = max(1, DEFAULT_BLOCK // step) * step * 2
    for row in range(0, scene.grid.shape[0], size):
        for col in range(0, scene.grid.shape[1], size):
            window = Window(
                row, col, min(size, scene.grid.shape[0] - row), min(size, scene.grid.shape[1] - col)
            )
            for view, image in zip(views, scene.overview(window), strict=True):
                small = _shrunk(image[bands], step)
                view[
                    :,
                    row // step : row // step + small.shape[1],
                    col // step : col // step + small.shape[2],
                ] = small
    return views[0], views[1], step


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
