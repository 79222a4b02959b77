"""``millesimed bench``: how fast the rooms are, measured on work the bench makes itself."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterWindow

from detectors.engine import choose_device, detect_scene
from detectors.raster import Raster, grid_of, open_dataset
from detectors.registry import make_detector
from detectors.scene import open_scene, windows
from detectors.types import Progress
from detectors.vectorise import regions

GSD_M = 0.2
BLOCK = 512
PATCH = 1024
"""Side of the made-up texture the big images are tiled with; each copy is turned another way."""


def make_big_pair(folder: Path, size: int, seed: int) -> None:
    """``before.tif`` and ``after.tif`` of ``size`` pixels a side: tiled deflate RGB at 0.2 m."""
    from detectors.synthetic import make_pair

    rng = np.random.default_rng(seed)
    pairs = [make_pair(rng, size=PATCH) for _ in range(3)]
    profile = {
        "driver": "GTiff",
        "height": size,
        "width": size,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:2154",
        "transform": from_origin(500_000, 6_300_000, GSD_M, GSD_M),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": 1,
        "photometric": "RGB",
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }
    for name in ("before", "after"):
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as target:
            for row in range(0, size, PATCH):
                for col in range(0, size, PATCH):
                    number = row // PATCH * 7 + col // PATCH * 3
                    patch = np.rot90(getattr(pairs[number % 3], name), number % 4, (1, 2))
                    height, width = min(PATCH, size - row), min(PATCH, size - col)
                    target.write(
                        np.ascontiguousarray(patch[:, :height, :width]),
                        window=RasterWindow(col, row, width, height),
                    )


@contextmanager
def big_pair(size: int, seed: int) -> Iterator[Path]:
    """A folder with a big pair, made by another process so that its memory is not ours."""
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        maker = get_context("spawn").Process(target=make_big_pair, args=(Path(name), size, seed))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError("The benchmark's images could not be made; is the disk full?")
        yield Path(name)


def bench_detect(
    *,
    size: int,
    detector: str,
    device: str,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Megapixels per second of decoding alone, judging alone, and end to end; peak memory.

    ``efficiency`` is end to end against the slower of the two alone: 1 when the stages overlap
    wholly.
    """
    place = choose_device(device)
    megapixels = size * size / 1e6
    with big_pair(size, seed) as folder:
        before, after = folder / "before.tif", folder / "after.tif"
        decode = _decode_seconds(before) + _decode_seconds(after)
        started, busy = perf_counter(), process_time()
        with open_scene([before], after, device=place, progress=progress) as scene:
            opened = perf_counter() - started
            with detect_scene(scene, make_detector(detector), progress=progress) as found:
                compute = perf_counter() - started - opened
                changed = found.changed_fraction
                areas = len(regions(found))
        whole, busy = perf_counter() - started, process_time() - busy
    slower = max(decode, compute)
    return {
        "detector": detector,
        "device": str(place),
        "megapixels": megapixels,
        "seconds": whole,
        "core_seconds": busy,
        "decode_megapixels_per_second": megapixels / decode,
        "compute_megapixels_per_second": megapixels / compute,
        "megapixels_per_second": megapixels / whole,
        "km2_per_second": megapixels * GSD_M**2 / whole,
        "efficiency": slower / whole,
        "peak_memory_bytes": peak_memory(),
        "changed_fraction": changed,
        "regions": areas,
    }


def _decode_seconds(path: Path) -> float:
    """Seconds to read one image once, window by window."""
    with open_dataset(path) as dataset:
        grid = grid_of(dataset)
    started = perf_counter()
    with Raster([path], grid) as raster:
        for window in windows(grid, 2 * BLOCK):
            raster.read(window)
    return perf_counter() - started


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
