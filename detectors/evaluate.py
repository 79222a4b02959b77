"""Scoring detectors on pairs whose change is known: ``millesimed evaluate``.

Every subfolder holds ``before.*``, ``after.*`` and either ``change.*`` (non-zero: changed) or
``buildings.geojson`` with a ``status`` of unchanged, new or demolished. With buildings the
previous map (unchanged and demolished, the rest as one other cover) is given to the detector.
Figures are micro sums over all pairs, of the change class only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import torch
from rasterio.features import rasterize
from rasterio.features import shapes as vector_shapes
from shapely.geometry import shape
from shapely.strtree import STRtree

from detectors.engine import detect_scene
from detectors.errors import DetectionError
from detectors.raster import open_dataset
from detectors.registry import detector_for, make_detector
from detectors.scene import open_scene
from detectors.types import (
    CHANGED,
    BoolArray,
    ByteArray,
    FloatArray,
    Grid,
    IntArray,
    MapRasteriser,
    Progress,
    Window,
)
from schemas.nomenclature import CS_INDEX

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jp2", ".jpg")
OBJECT_IOU = 0.3
"""A found polygon counts as the true one from this overlap: an outline off by a pixel or two
around a house of 200 m² at 0.2 m still passes, a neighbour does not."""
OBJECT_AREA_M2 = 50.0
"""Objects below it are left out of polygon figures: the smallest building the map takes."""
CAUSES = ("unchanged building", "shadow", "vegetation", "brightness", "other")
"""What ``causes`` tells false alarms by, in the order it asks."""
RELIABILITY_BINS = 10
BOOTSTRAP_DRAWS = 2_000
SHADE_SHARE = 0.55
"""Ground this much darker on one date than on the other counts as shadow in the causes' table."""
GREEN_EXCESS = 0.12
"""Excess green against brightness from which ground counts as vegetation there."""
GLARE_STEP = 45.0
"""Change of brightness, of 255, that counts as a cause of its own there."""
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
            with open_dataset(change, allow_no_crs=True) as source:
                truth = source.read(1) > 0
            yield Pair(sub.name, before, after, truth, None, None)
        elif buildings.is_file():
            yield _with_buildings(sub.name, before, after, buildings)


def _with_buildings(name: str, before: Path, after: Path, path: Path) -> Pair:
    with open_dataset(before, allow_no_crs=True) as source:
        size, transform, crs = source.shape, source.transform, source.crs
    frame = gpd.read_file(f"GeoJSON:{path.resolve()}")  # this driver and no other
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
    weights: Path | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a detector over every pair of a folder; figures as ``--json`` gives them.

    A detector that needs a map is shown the pairs that have one; the others are counted as
    ``skipped``.

    Raises:
        NoPairs: the folder holds none.
        DetectionError: a pair cannot be read.
    """
    if not folder.is_dir():
        raise NoPairs(f"There is no folder {folder}; check the path.")
    todo = list(pairs(folder))
    if not todo:
        raise NoPairs(f"{folder} holds no pair; each subfolder needs before.*, after.*, change.*.")
    needs_map = detector is not None and make_detector(detector, weights=weights).needs_map
    usable = [p for p in todo if p.map_before is not None or not needs_map]
    if not usable:
        raise NoPairs(f"{detector} needs a previous map and no pair of {folder} has one.")
    judged = []
    for done, pair in enumerate(usable, start=1):
        judged.append(_judge(pair, detector, weights, device))
        if progress is not None:
            progress("evaluate", done, len(usable))
    return report(judged, skipped=len(todo) - len(usable), detector=detector)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a detector made of one pair."""

    name: str
    detector: str
    tally: Tally
    flagged: float
    changed: float
    megapixels: float
    seconds: float
    reliability: IntArray
    causes: dict[str, int]


def _judge(
    pair: Pair, detector: str | None, weights: Path | None, device: torch.device | None
) -> Judged:
    with open_scene([pair.before], pair.after, labels=_labels(pair), device=device) as scene:
        gsd = scene.grid.gsd if scene.grid.crs else None
        chosen = detector_for(scene, detector, weights=weights)
        with detect_scene(scene, chosen) as found:
            probability = found.read(scene.grid.window)[0]
            mask = probability >= CHANGED
            tile = scene.tile(scene.grid.window)
            images = (tile.before.cpu().numpy(), tile.after.cpu().numpy())
            return Judged(
                name=pair.name,
                detector=chosen.name,
                tally=score(mask, pair, pixel_area=(gsd or 1.0) ** 2),
                flagged=float(mask.mean()),
                changed=float(pair.truth.mean()),
                megapixels=found.megapixels,
                seconds=found.seconds,
                reliability=reliability(probability, pair.truth),
                causes=causes(mask & ~pair.truth, *images, kept=pair.kept),
            )


def reliability(probability: ByteArray, truth: BoolArray) -> IntArray:
    """Pixels and truly changed pixels by tenth of probability said, ``(2, RELIABILITY_BINS)``."""
    bins = np.minimum(probability.astype(np.int64) * RELIABILITY_BINS // 256, RELIABILITY_BINS - 1)
    said = np.bincount(bins.ravel(), minlength=RELIABILITY_BINS)
    right = np.bincount(bins[truth], minlength=RELIABILITY_BINS)
    return np.stack([said, right])


def causes(
    wrong: BoolArray, before: FloatArray, after: FloatArray, *, kept: BoolArray | None
) -> dict[str, int]:
    """Falsely flagged pixels by what the images show there; the first cause that fits counts.

    Rules of thumb on colour, good enough to say where to look first: a building that stands on
    both dates, ground newly dark (shadow), newly bright (bare ground, glare), vegetation that
    came or went, other ground.
    """
    rest = wrong.copy()
    counts: dict[str, int] = {}

    def take(name: str, where: BoolArray) -> None:
        hit = rest & where
        counts[name] = int(hit.sum())
        rest[hit] = False

    light = [image.mean(axis=0) for image in (before, after)]
    if kept is not None:
        take("unchanged building", kept)
    take("shadow", np.minimum(*light) < SHADE_SHARE * np.maximum(*light))
    if before.shape[0] >= 3:
        green = [2 * i[1] - i[0] - i[2] for i in (before, after)]
        lively = [g > GREEN_EXCESS * np.maximum(v, 1) for g, v in zip(green, light, strict=True)]
        take("vegetation", lively[0] != lively[1])
    take("brightness", np.abs(light[1] - light[0]) > GLARE_STEP)
    counts["other"] = int(rest.sum())
    return counts


def bootstrap(tallies: Sequence[Tally], *, seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of F1 and IoU when pairs are drawn again with replacement."""
    rng = np.random.default_rng(seed)
    table = np.array([[t.tp, t.fp, t.fn] for t in tallies], np.float64)
    draws = table[rng.integers(0, len(table), (BOOTSTRAP_DRAWS, len(table)))].sum(axis=1)
    tp, fp, fn = draws.T
    found = {
        "f1": 2 * tp / np.maximum(2 * tp + fp + fn, 1),
        "iou": tp / np.maximum(tp + fp + fn, 1),
    }
    return {
        name: [float(v) for v in np.quantile(values, [0.025, 0.975])]
        for name, values in found.items()
    }


def report(judged: Sequence[Judged], *, skipped: int, detector: str | None) -> dict[str, Any]:
    """The figures of an evaluation, micro over its pairs."""
    total = Tally()
    for one in judged:
        total.add(one.tally)
    empty = [one.flagged for one in judged if one.changed == 0]
    said, right = np.sum([one.reliability for one in judged], axis=0)
    names = {one.detector for one in judged}
    figures: dict[str, Any] = {
        "detector": detector or "+".join(sorted(names)),
        "pairs": len(judged),
        "skipped": skipped,
        **total.figures(),
        "intervals": bootstrap([one.tally for one in judged]),
        "flagged_where_nothing_changed": float(np.mean(empty)) if empty else None,
        "calibration": [
            {
                "said": (i + 0.5) / RELIABILITY_BINS,
                "pixels": int(said[i]),
                "changed": float(right[i] / said[i]) if said[i] else None,
            }
            for i in range(RELIABILITY_BINS)
        ],
        "false_alarms": {
            cause: sum(one.causes.get(cause, 0) for one in judged) for cause in CAUSES
        },
        "per_pair": [
            {
                "pair": one.name,
                "detector": one.detector,
                "flagged": one.flagged,
                "changed": one.changed,
                **one.tally.figures(),
            }
            for one in judged
        ],
        "megapixels_per_second": sum(one.megapixels for one in judged)
        / max(sum(one.seconds for one in judged), 1e-9),
    }
    if total.kept:
        figures["unchanged_flagged"] = _ratio(total.kept_flagged, total.kept)
    return figures
