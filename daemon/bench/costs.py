"""What one core, one card and one writer do: the measurements behind a capacity plan.

Each is taken on work the bench makes itself, through the code the service runs. What was measured
elsewhere may take the place of any of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import rasterio
import torch

from daemon.bench.detect import bench_detect, big_pair
from daemon.bench.device import bench_device
from daemon.bench.needs import Costs
from daemon.bench.scenes import Scenery
from daemon.bench.service_costs import service_costs
from daemon.bench.spectra import BANDS
from detectors.engine import choose_device
from detectors.raster import Raster, grid_of, open_dataset
from detectors.scene import windows
from detectors.series import observe
from detectors.series_state import SeriesState, load_state, save_state
from detectors.types import Progress
from schemas.errors import UsageError

SIZE: Final = 2_048
SCENES: Final = 100
JP2_QUALITY: Final = 10
"""Percent of the raw size, which is what BD ORTHO's JPEG 2000 comes to."""
WINDOW: Final = 1_024
CARD_BATCH: Final = 4
CARD_CASE: Final = "siamese float32"
"""What the engine runs on a card."""
SERIES_LOOKS: Final = 16
"""Looks before the clock starts: the history then suffices to judge by."""
TIMED_LOOKS: Final = 4
GROUPS: Final[tuple[tuple[str, ...], ...]] = (
    ("decode_mpx",),
    ("prepare_mpx", "judge_mpx", "judged_on"),
    ("series_mpx", "state_bytes"),
    (
        *("events", "changes", "event_cores", "change_cores", "base_cores", "store_cores"),
        *("change_bytes", "event_bytes", "message_bytes", "change_message_bytes"),
    ),
)
"""Figures that come from one measurement, which is left out where all of them are given."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How costs are measured. ``size``: side of the images, pixels; ``scenes``: events of each run
    of the service; ``given``: costs that were measured elsewhere."""

    device: str
    seed: int
    size: int = SIZE
    scenes: int = SCENES
    given: Mapping[str, float | str] = field(default_factory=dict)


def measure_costs(
    effort: Effort, *, changes_per_scene: float, progress: Progress | None = None
) -> Costs:
    """All costs: measured, but for those that are given.

    Raises:
        BenchFailed: a process of the service ended or hung.
        UsageError: no broker, or no such device.
    """
    seed = effort.seed
    measures: tuple[Callable[[], dict[str, float | str]], ...] = (
        lambda: {"decode_mpx": decode_mpx(effort.size, seed)},
        lambda: detect_mpx(effort.size, effort.device, seed),
        lambda: series_mpx(seed),
        lambda: service_costs(effort.scenes, changes_per_scene=changes_per_scene, seed=seed),
    )
    found: dict[str, Any] = {}
    for number, (names, measure) in enumerate(zip(GROUPS, measures, strict=True), start=1):
        if not effort.given.keys() >= set(names):
            found |= measure()
        if progress is not None:
            progress("costs", number, len(GROUPS))
    return Costs(**(found | dict(effort.given)))


def read_costs(path: Path) -> dict[str, float | str]:
    """Costs from a file: what ``bench capacity --json`` gave, or any part of its ``costs``.

    Raises:
        UsageError: no such file, no JSON, or figures that are none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(f"There is no file {path} with costs; check the path.") from None
    except ValueError:
        raise UsageError(
            f"{path.name} is no JSON; give what `millesimed bench capacity --json` printed."
        ) from None
    costs = document.get("costs") if isinstance(document, dict) else None
    if not isinstance(costs, dict):
        raise UsageError(f'{path.name} has no object "costs"; give one, as --json prints it.')
    names = {one.name for one in fields(Costs)}
    for name, value in costs.items():
        if name not in names:
            raise UsageError(f"{path.name}: {name!r} is no cost; use one of {_listed(names)}.")
        if name == "judged_on":
            if not isinstance(value, str):
                raise UsageError(f"{path.name}: judged_on must be text, as in cpu.")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise UsageError(f"{path.name}: {name} must be a number, 0 or above.")
    if ("judge_mpx" in costs) != ("judged_on" in costs):
        raise UsageError(f"{path.name}: judge_mpx and judged_on belong together; give both.")
    return costs


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def decode_mpx(size: int, seed: int) -> float:
    """Megapixels a second that one core decodes of a JPEG 2000 image, window by window."""
    with big_pair(size, seed) as folder:
        source, target = folder / "before.tif", folder / "before.jp2"
        with rasterio.open(source) as dataset:
            pixels, crs, transform = dataset.read(), dataset.crs, dataset.transform
        profile = {"driver": "JP2OpenJPEG", "count": 3, "dtype": "uint8", "quality": JP2_QUALITY}
        place = {"width": size, "height": size, "crs": crs, "transform": transform}
        blocks = {"blockxsize": WINDOW, "blockysize": WINDOW}
        with rasterio.open(target, "w", **profile, **place, **blocks) as dataset:
            dataset.write(pixels)
        with open_dataset(target) as dataset:
            grid = grid_of(dataset)
        with rasterio.Env(GDAL_NUM_THREADS=1), Raster([target], grid) as raster:
            started = perf_counter()
            for window in windows(grid, WINDOW):
                raster.read(window)
            return size**2 / 1e6 / (perf_counter() - started)


def detect_mpx(size: int, device: str, seed: int) -> dict[str, float | str]:
    """Megapixels a second prepared by one core, and judged; and on what.

    Preparing is the CPU time of a whole detection less decoding and, without a card, judging:
    registration, masks, radiometry, blending, polygons. A card's judging is timed on tiles that lie
    in its memory: what feeds it is the cores' part.
    """
    with one_thread():
        found = bench_detect(size=size, detector="siamese", device=device, seed=seed)
        core = (
            found["core_seconds"] / found["megapixels"] - 1 / found["decode_megapixels_per_second"]
        )
        judge, name = found["compute_megapixels_per_second"], found["device"]
        if choose_device(device).type == "cuda":
            card = bench_device(device=device, size=512, batch=CARD_BATCH)
            (case,) = (row for row in card["cases"] if row["case"] == CARD_CASE)
            judge, name = case["megapixels_per_second"], card["device"]
        else:
            core -= 1 / judge
    # never faster than the whole where the clocks leave nothing
    prepare = 1 / core if core > 0 else found["megapixels_per_second"]
    return {"prepare_mpx": prepare, "judge_mpx": judge, "judged_on": name}


def series_mpx(seed: int) -> dict[str, float | str]:
    """Megapixels a second one core takes into Sentinel-2 histories, files read and written; and
    bytes of a pixel's history on disk."""
    scenery = Scenery(seed)
    state = SeriesState.empty(scenery.grid)
    seconds = 0.0
    with one_thread(), tempfile.TemporaryDirectory(prefix="millesimed-bench-") as folder:
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
    pixels = scenery.grid.shape[0] * scenery.grid.shape[1]
    return {"series_mpx": pixels * TIMED_LOOKS / 1e6 / seconds, "state_bytes": size / pixels}
