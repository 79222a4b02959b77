"""What one core, one card and one writer do: the measurements behind a capacity plan.

Each is taken on work the bench makes itself, through the code the service runs.
"""

from __future__ import annotations

import tempfile
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import rasterio
import torch

from daemon.bench import bench_detect, big_pair
from daemon.bench_patch import (
    CELL_M,
    CORNER,
    EVENT_REGIONS,
    EVENT_SIDE_M,
    MILLESIME,
    building,
    make_map,
    patch_events,
)
from daemon.bench_scenes import Scenery
from daemon.bench_spectra import BANDS
from detectors.raster import Raster, grid_of, open_dataset
from detectors.scene import windows
from detectors.series import observe
from detectors.series_state import SeriesState, load_state, save_state
from updater.importer import create_store
from updater.store import Store

JP2_SIZE: Final = 4_096
JP2_QUALITY: Final = 10
"""Percent of the raw size, which is what BD ORTHO's JPEG 2000 comes to."""
WINDOW: Final = 1_024
MAP_POLYGONS: Final = 10_000
PATCH_EVENTS: Final = 12
SERIES_LOOKS: Final = 16
"""Looks before the clock starts: the history then suffices to judge by."""
TIMED_LOOKS: Final = 4


def decode_mpx(seed: int) -> float:
    """Megapixels a second that one core decodes of a JPEG 2000 image, window by window."""
    with big_pair(JP2_SIZE, seed) as folder:
        source, target = folder / "before.tif", folder / "before.jp2"
        with rasterio.open(source) as dataset:
            pixels, crs, transform = dataset.read(), dataset.crs, dataset.transform
        with rasterio.open(
            target,
            "w",
            driver="JP2OpenJPEG",
            width=JP2_SIZE,
            height=JP2_SIZE,
            count=3,
            dtype="uint8",
            crs=crs,
            transform=transform,
            quality=JP2_QUALITY,
            blockxsize=WINDOW,
            blockysize=WINDOW,
        ) as dataset:
            dataset.write(pixels)
        with open_dataset(target) as dataset:
            grid = grid_of(dataset)
        with rasterio.Env(GDAL_NUM_THREADS=1):
            started = perf_counter()
            with Raster([target], grid) as raster:
                for window in windows(grid, WINDOW):
                    raster.read(window)
            return JP2_SIZE**2 / 1e6 / (perf_counter() - started)


def detect_mpx(*, size: int, device: str, seed: int) -> tuple[float, float, str]:
    """Megapixels a second prepared by one core, and judged; and on what.

    Preparing is what a whole detection takes beyond decoding and judging: registration, masks,
    radiometry, blending, polygons. Where the stages overlap so far that nothing is left, it is
    as fast as the whole.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = bench_detect(size=size, detector="siamese", device=device, seed=seed)
    finally:
        torch.set_num_threads(threads)
    whole, judge = found["megapixels_per_second"], found["compute_megapixels_per_second"]
    rest = 1 / whole - 1 / judge - 1 / found["decode_megapixels_per_second"]
    return (1 / rest if rest > 0 else whole), judge, found["device"]


def series_mpx(seed: int) -> tuple[float, float]:
    """Megapixels a second one core takes into Sentinel-2 histories, files read and written; and
    bytes of a pixel's history on disk."""
    scenery = Scenery(seed)
    state = SeriesState.empty(scenery.grid)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = 0.0
    try:
        with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as folder:
            path = Path(folder) / "state.safetensors"
            for index in range(SERIES_LOOKS + TIMED_LOOKS):
                image, valid, acquired = scenery.scene(index)
                save_state(path, state)
                started = perf_counter()
                state, _ = observe(
                    load_state(path), image, BANDS, valid, acquired, acquisition=f"look-{index}"
                )
                save_state(path, state)
                if index >= SERIES_LOOKS:
                    seconds += perf_counter() - started
            size = path.stat().st_size
    finally:
        torch.set_num_threads(threads)
    pixels = scenery.grid.shape[0] * scenery.grid.shape[1]
    return pixels * TIMED_LOOKS / 1e6 / seconds, size / pixels


def patch_costs(seed: int) -> tuple[float, float]:
    """Changed polygons a second that one writer plans and commits, and bytes each adds to the
    store."""
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        source, db = Path(name) / "map.gpkg", Path(name) / "D032.duckdb"
        maker = get_context("spawn").Process(
            target=make_map, args=(source,), kwargs={"polygons": MAP_POLYGONS, "seed": seed}
        )
        maker.start()
        maker.join()
        create_store(db, source, territory="D032", millesime=MILLESIME)
        before = db.stat().st_size
        rng = np.random.default_rng([seed, 1])
        side = round(MAP_POLYGONS**0.5) * CELL_M
        places = rng.uniform(EVENT_SIDE_M / 2, side - EVENT_SIDE_M / 2, (PATCH_EVENTS + 1, 2))
        events = [[building(rng, (x, y)) for _ in range(EVENT_REGIONS)] for x, y in places + CORNER]
        with Store.open(db) as store:
            patch_events(store, events[:1])  # the first look warms the file's cache
            done = patch_events(store, events[1:], first=1)
        grown = max(0, db.stat().st_size - before)  # closing folded the log in
    return done.changed / done.seconds, grown / max(1, done.changed)
