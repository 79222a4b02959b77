"""The pipeline's detect stage for Sentinel-2: each acquisition against the history of its ground.

The history lies in files beside the store, one for each block of 512 × 512 pixels; which file holds
is written in the transaction of the event, so that files and alerts never disagree. A new file is
written before the commit under a name the event gives, and the one before it removed after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import shapely
import structlog
from rasterio.features import geometry_mask, rasterize
from rasterio.transform import array_bounds
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from daemon.judging import Judged
from daemon.labels import MapLabels
from daemon.locate import Located
from detectors import sentinel2
from detectors.raster import Raster, grid_of, open_dataset
from detectors.series import Look, observe
from detectors.series_regions import looks_regions
from detectors.series_scores import SUPPORT
from detectors.series_state import SeriesState, block_name, blocks, load_state, save_state, settle
from detectors.types import BoolArray, FloatArray, Grid, Ground, Progress, Region
from schemas.acquisition import AcquisitionItem
from schemas.policy import SENSOR_POLICY
from updater import faults, histories, reads
from updater.crs import reproject
from updater.store import Store
from updater.types import MapPolygon

log = structlog.get_logger()

NAME: Final = "series/1"
FARMED: Final = "US1.1"
PART_M2: Final = 100.0
"""Smallest part of a region inside one block: a pixel; what adjoins it may lie in the next one."""
SCENE_CLASSES: Final = "SCL"
"""Description of a band with the scene classification of level 2A."""
NOT_GROUND: Final = (0, 1, 3, 8, 9, 10, 11)
"""Its classes that show no ground: no data, defective, cloud shadow, cloud (medium, high), cirrus,
snow."""


def folder_of(store: Store) -> Path:
    """Where the histories of a store lie: beside it."""
    return histories.folder_of(store.path)


@dataclass(slots=True)
class _Tallied:
    """Pixels of some ground: all, those seen, and those of them that look changed."""

    whole: int = 0
    seen: int = 0
    changed: int = 0


@dataclass(slots=True)
class _Gathered:
    """What the blocks of one acquisition said."""

    regions: list[Region] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    grounds: dict[str, _Tallied] = field(default_factory=dict)
    pixels: int = 0
    flagged: int = 0


def judge_series(
    store: Store,
    *,
    located: Located,
    item: AcquisitionItem,
    event: str,
    outlines: Mapping[str, BaseGeometry],
    progress: Progress,
) -> Judged:
    """Take one acquisition into the histories of its ground, and say what changed.

    Memory holds one block at a time. ``event``: its key, which names the new files; ``outlines``:
    ground of alerts, in the CRS of the store.

    Raises:
        DetectionError: whatever is wrong with the image or a history.
    """
    faults.reached("in-detect")
    started, found = perf_counter(), _Gathered()
    with open_dataset(located.image) as dataset:
        own = grid_of(dataset)
    places = list(_blocks_on_map(store, own))
    for number, block in enumerate(places, start=1):
        _take_in(store, block, located.image, item, event, outlines, found)
        progress("observe", number, len(places))
    smallest = SENSOR_POLICY[item.properties.sensor].min_alert_area
    regions = [r for r in joined(found.regions) if r.geometry.area >= smallest]
    seconds = max(perf_counter() - started, 1e-9)
    return Judged(
        regions=[_on_map(region, own, store) for region in regions],
        detector=NAME,
        flagged=found.flagged / max(1, found.pixels),
        pixels_per_second=found.pixels / seconds,
        grounds={
            name: Ground(valid=t.seen / t.whole, changed=t.changed / max(1, t.seen))
            for name, t in found.grounds.items()
            if t.whole
        },
        series=found.files,
    )


def read_through(path: Path, progress: Progress) -> None:
    """Read an image and its masks as :func:`judge_series` does, and keep nothing.

    Raises:
        DetectionError: whatever is wrong with it.
    """
    faults.reached("in-detect")
    with open_dataset(path) as dataset:
        places = list(blocks(grid_of(dataset)))
    for number, block in enumerate(places, start=1):
        _read(path, block)
        progress("read", number, len(places))


def _read(path: Path, block: Grid) -> tuple[FloatArray, BoolArray, tuple[str, ...]] | None:
    """A block of an image, which of its pixels show ground, and what its bands are called; None
    where it has no data."""
    with Raster([path], block) as raster:
        image, valid = raster.read(block.window)
        names = raster.names
    if not valid.any():
        return None
    return image, valid & ~hidden(image, names, gsd=block.gsd), names


def _blocks_on_map(store: Store, own: Grid) -> Iterator[Grid]:
    extent = reads.extent(store)
    if extent is None:
        return
    ground = box(*extent)
    for block in blocks(own):
        frame = box(*array_bounds(*block.shape, block.transform))
        if ground.intersects(reproject(frame, block.crs or store.crs, store.crs)):
            yield block


def _take_in(
    store: Store,
    block: Grid,
    path: Path,
    item: AcquisitionItem,
    event: str,
    outlines: Mapping[str, BaseGeometry],
    found: _Gathered,
) -> None:
    shown = _read(path, block)
    if shown is None:
        return
    image, valid, names = shown
    frame = box(*array_bounds(*block.shape, block.transform))
    ground = reproject(frame, block.crs or store.crs, store.crs)
    polygons = reads.current_in(store, tuple(ground.bounds))
    name = block_name(block)
    look_file = f"{hashlib.sha256(event.encode()).hexdigest()[:20]}.safetensors"
    state, look = observe(
        _state(store, block, name, tuple(ground.bounds)),
        image,
        names,
        valid,
        item.acquired,
        acquisition=item.id,
        cover=MapLabels(polygons, map_crs=store.crs, grid=block)(block.window),
        farmed=_farmed(polygons, block, store.crs),
    )
    save_state(folder_of(store) / Path(name).stem / look_file, state)
    found.files[name] = look_file
    found.regions += looks_regions(look, block, min_area=PART_M2)
    found.pixels += int(look.valid.sum())
    found.flagged += int((look.valid & (look.probability >= SUPPORT)).sum())
    _count_grounds(outlines, look, block, store.crs, found.grounds)


def hidden(image: FloatArray, names: Sequence[str], *, gsd: float) -> BoolArray:
    """Pixels that show no ground, by the scene classification where the file has one, and by the
    cloud model where its bands are there."""
    result = np.zeros(image.shape[1:], bool)
    upper = [name.upper().strip() for name in names]
    if SCENE_CLASSES in upper:
        result |= np.isin(np.rint(image[upper.index(SCENE_CLASSES)]), NOT_GROUND)
    place = sentinel2.bands_of(names)
    if all(band in place for band in sentinel2.CLOUD_BANDS):
        result |= sentinel2.clouds_of(image, place, gsd=gsd)
    return result


def _state(
    store: Store, block: Grid, name: str, bounds: tuple[float, float, float, float]
) -> SeriesState:
    """The history of a block, begun anew where the map was drawn since, and where its file is gone
    (whoever finds it damaged is told to remove it)."""
    known = reads.series_file(store, name)
    if known is None:
        return SeriesState.empty(block)
    path = folder_of(store) / Path(name).stem / known.file
    if not path.exists():
        log.warning("history_missing", block=name)
        return SeriesState.empty(block)
    state = load_state(path)
    drawn = [
        reproject(p.geometry, store.crs, block.crs or store.crs)
        for p in reads.drawn_since(store, known.recorded, bounds)
    ]
    if not drawn:
        return state
    return settle(state, _inside(drawn, block))


def _inside(shapes: Sequence[BaseGeometry], block: Grid) -> BoolArray:
    mask = geometry_mask(shapes, block.shape, block.transform, invert=True)
    return np.asarray(mask, bool)


def _farmed(polygons: Sequence[MapPolygon], block: Grid, crs: str) -> BoolArray:
    shapes = [reproject(p.geometry, crs, block.crs or crs) for p in polygons if p.code_us == FARMED]
    if not shapes:
        return np.zeros(block.shape, bool)
    drawn = rasterize(shapes, block.shape, transform=block.transform, dtype="uint8")
    return np.asarray(drawn > 0, bool)


def _count_grounds(
    outlines: Mapping[str, BaseGeometry],
    look: Look,
    block: Grid,
    crs: str,
    grounds: dict[str, _Tallied],
) -> None:
    frame = box(*array_bounds(*block.shape, block.transform))
    strong = np.maximum(look.probability, look.clearing) >= SUPPORT
    for name, outline in outlines.items():
        shape = reproject(outline, crs, block.crs or crs)
        if not frame.intersects(shape):
            continue
        inside = _inside([shape], block)
        tally = grounds.setdefault(name, _Tallied())
        tally.whole += int(inside.sum())
        tally.seen += int((inside & look.valid).sum())
        tally.changed += int((inside & look.valid & strong).sum())


def joined(regions: Sequence[Region]) -> list[Region]:
    """Regions that touch and became the same cover as one: blocks cut through ground."""
    result = []
    for to_cs in sorted({r.to_cs or "" for r in regions}):
        parts = [r for r in regions if (r.to_cs or "") == to_cs]
        for whole in shapely.get_parts(shapely.union_all([r.geometry for r in parts])).tolist():
            inside = [r for r in parts if whole.intersects(r.geometry)]
            areas = np.array([r.geometry.area for r in inside])
            share = areas / areas.sum()
            result.append(
                Region(
                    geometry=whole,
                    from_cs=None,
                    to_cs=to_cs or None,
                    probability=float(np.dot(share, [r.probability for r in inside])),
                    magnitude=float(np.dot(share, [r.magnitude for r in inside])),
                )
            )
    return result


def _on_map(region: Region, grid: Grid, store: Store) -> Region:
    return replace(region, geometry=reproject(region.geometry, grid.crs or store.crs, store.crs))


def tidy(store: Store, files: Mapping[str, str]) -> None:
    """Remove what the histories of some blocks no longer need; ``files``: the one each has now."""
    for name, kept in files.items():
        for path in (folder_of(store) / Path(name).stem).glob("*.safetensors"):
            if path.name != kept:
                path.unlink(missing_ok=True)
