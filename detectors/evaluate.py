"""Scoring detectors on pairs whose change is known: ``millesimed evaluate``.

Every subfolder holds ``before.*``, ``after.*`` and either ``change.*`` (non-zero: changed) or
``buildings.geojson`` with a ``status`` of unchanged, new or demolished. With buildings the
previous map (unchanged and demolished, the rest as one other cover) is given to the detector.
Figures are micro sums over all pairs, of the change class only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import torch
from rasterio.features import rasterize
from rasterio.features import shapes as vector_shapes
from shapely.geometry import shape
from shapely.strtree import STRtree

from detectors.engine import detect_scene
from detectors.errors import DetectionError
from detectors.registry import default_detector, make_detector
from detectors.scene import open_scene
from detectors.types import CHANGED, BoolArray, ByteArray, Grid, MapRasteriser, Progress, Window
from schemas.nomenclature import CS_INDEX

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jp2", ".jpg")
OBJECT_IOU = 0.3
"""A found polygon counts as the true one from this overlap: an outline off by a pixel or two
around a house of 200 m² at 0.2 m still passes, a neighbour does not."""
OBJECT_AREA_M2 = 50.0
"""Objects below it are left out of polygon figures: the smallest building the map takes."""
OTHER_COVER = "CS2.2.1"
"""Cover of everything that is no building in a buildings-only map."""


class NoPairs(DetectionError):
    """The folder holds no pair."""

    reason = "no-pairs"


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair and its truth: changed pixels, and the buildings map before where there is one."""

    name: str
    before: Path
    after: Path
    truth: BoolArray
    map_before: ByteArray | None
    kept: BoolArray | None


def _one(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{s}" for s in IMAGE_SUFFIXES if (folder / f"{stem}{s}").is_file()]
    return found[0] if found else None


def pairs(folder: Path) -> Iterator[Pair]:
    """Every pair of a folder, by name."""
    for sub in sorted(p for p in folder.iterdir() if p.is_dir()):
        before, after = _one(sub, "before"), _one(sub, "after")
        if before is None or after is None:
            continue
        change, buildings = _one(sub, "change"), sub / "buildings.geojson"
        if change is not None:
            with rasterio.open(change) as source:
                truth = source.read(1) > 0
            yield Pair(sub.name, before, after, truth, None, None)
        elif buildings.is_file():
            yield _with_buildings(sub.name, before, after, buildings)


def _with_buildings(name: str, before: Path, after: Path, path: Path) -> Pair:
    with rasterio.open(before) as source:
        size, transform, crs = source.shape, source.transform, source.crs
    frame = gpd.read_file(path)
    if crs is not None and frame.crs is not None and frame.crs != crs:
        frame = frame.to_crs(crs)

    def burn(*statuses: str) -> BoolArray:
        if "status" not in frame:  # no building at all
            return np.zeros(size, bool)
        chosen = frame.geometry[frame["status"].isin(statuses)]
        if chosen.empty:
            return np.zeros(size, bool)
        drawn = rasterize(chosen, out_shape=size, transform=transform, dtype="uint8")
        return np.asarray(drawn > 0, bool)

    earlier = burn("unchanged", "demolished")
    covers = np.where(earlier, CS_INDEX["CS1.1.1.1"], CS_INDEX[OTHER_COVER]).astype(np.uint8)
    return Pair(name, before, after, burn("new", "demolished"), covers, burn("unchanged"))


@dataclass(slots=True)
class Tally:
    """Pixels and objects found, missed and made up."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    objects_found: int = 0
    objects_right: int = 0
    objects_true: int = 0
    objects_hit: int = 0
    kept: int = 0
    kept_flagged: int = 0

    def add(self, other: Tally) -> None:
        """Sum up."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def figures(self) -> dict[str, float]:
        """Precision, recall, F1, IoU, and the same of objects; 0 where nothing can be said."""
        precision, recall = _ratio(self.tp, self.tp + self.fp), _ratio(self.tp, self.tp + self.fn)
        return {
            "precision": precision,
            "recall": recall,
            "f1": _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "iou": _ratio(self.tp, self.tp + self.fp + self.fn),
            "polygon_precision": _ratio(self.objects_right, self.objects_found),
            "polygon_recall": _ratio(self.objects_hit, self.objects_true),
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def score(found: BoolArray, pair: Pair, *, pixel_area: float) -> Tally:
    """Compare changed pixels with the truth of a pair."""
    truth = pair.truth
    tally = Tally(
        tp=int((found & truth).sum()),
        fp=int((found & ~truth).sum()),
        fn=int((~found & truth).sum()),
    )
    if pair.kept is not None:
        tally.kept, tally.kept_flagged = int(pair.kept.sum()), int((pair.kept & found).sum())
    least = OBJECT_AREA_M2 / pixel_area
    ours, theirs = _objects(found, least), _objects(truth, least)
    tally.objects_found, tally.objects_true = len(ours), len(theirs)
    tally.objects_right, tally.objects_hit = _matched(ours, theirs), _matched(theirs, ours)
    return tally


def _objects(mask: BoolArray, least: float) -> list[Any]:
    parts = [shape(g) for g, _ in vector_shapes(mask.astype(np.uint8), mask=mask)]
    return [p for p in parts if p.area >= least]


def _matched(these: list[Any], those: list[Any]) -> int:
    if not these or not those:
        return 0
    tree = STRtree(those)
    return sum(
        any(
            one.intersection(those[i]).area >= OBJECT_IOU * one.union(those[i]).area
            for i in tree.query(one)
        )
        for one in these
    )


def _labels(pair: Pair) -> Any:  # noqa: ANN401 - a factory of rasterisers, or None
    covers = pair.map_before
    if covers is None:
        return None

    def factory(grid: Grid) -> MapRasteriser:
        def window_of(window: Window) -> ByteArray:
            return covers[window.slices]

        return window_of

    return factory


def evaluate(
    folder: Path,
    *,
    detector: str | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a detector over every pair of a folder; figures as ``--json`` gives them.

    Raises:
        NoPairs: the folder holds none.
        DetectionError: a pair cannot be read.
    """
    if not folder.is_dir():
        raise NoPairs(f"There is no folder {folder}; check the path.")
    total, rows, names = Tally(), [], set()
    pixels = seconds = 0.0
    todo = list(pairs(folder))
    if not todo:
        raise NoPairs(f"{folder} holds no pair; each subfolder needs before.*, after.*, change.*.")
    for done, pair in enumerate(todo, start=1):
        chosen = detector or default_detector(has_map=pair.map_before is not None)
        names.add(chosen)
        with (
            open_scene([pair.before], pair.after, labels=_labels(pair), device=device) as scene,
            detect_scene(scene, make_detector(chosen)) as found,
        ):
            mask = found.read(scene.grid.window)[0] >= CHANGED
            area = scene.grid.gsd**2 if scene.grid.crs else 1.0
            tally = score(mask, pair, pixel_area=area)
            pixels += found.megapixels
            seconds += found.seconds
        total.add(tally)
        rows.append(
            {
                "pair": pair.name,
                "detector": chosen,
                "flagged": float(mask.mean()),
                "changed": float(pair.truth.mean()),
                **tally.figures(),
            }
        )
        if progress is not None:
            progress("evaluate", done, len(todo))
    report: dict[str, Any] = {
        "detector": detector or "+".join(sorted(names)),
        "pairs": len(rows),
        **total.figures(),
        "per_pair": rows,
        "megapixels_per_second": pixels / max(seconds, 1e-9),
    }
    if total.kept:
        report["unchanged_flagged"] = _ratio(total.kept_flagged, total.kept)
    return report
