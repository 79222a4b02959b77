"""Map-guided change detection: the previous map labels the old image, and judges the new one.

A light model (``cover_model``) learns from (old image, old map) what each cover looks like here;
the new image lends its own appearance too, under the old labels and a loss that tolerates the few
that are no longer true (most re-observed ground is unchanged: weak temporal supervision, as in
arXiv 2601.02126). Both dates are predicted by the same held-out model. What counts is the change
of log odds between the map's cover and the best rival::

    L = log P_new(rival) / P_new(mapped)  +  log P_old(mapped) / P_old(rival)

where "mapped" is the whole group of covers an image cannot be trusted to tell apart (the kinds
of trees). Ground that looks ambiguous on both dates cancels out; ground where the old prediction
denied the map is a candidate *correction*, not an evolution, and is left alone here. The
probability is the posterior of L under a prior share of change.

Where the pixel is fine enough the siamese network joins in for buildings. It never saw this place
but knows what buildings look like; the map says which way a change can go (a building can appear
only where none is mapped, and go only where one is). How much each of the two counts follows from
how well the scene's own model tells buildings on held-out ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import torch
from torch import Tensor
from torch.nn import functional as F

from detectors import elevation
from detectors.cover_model import (
    BLOCK_M,
    ELSEWHERE,
    CoverModel,
    Features,
    Samples,
    fold_of,
    working_step,
)
from detectors.errors import UnknownDetector
from detectors.siamese import GSD_AS_IS_M, Siamese
from detectors.types import Lesson, Progress, Scene, Tile, TileScores, valid_pixels
from schemas.nomenclature import CS_FROM_INDEX, CS_INDEX
from schemas.policy import BUILDING, CHANGE_PRIOR, transition_plausibility

log = structlog.get_logger()

SAMPLES = 40_000
"""Training pixels per date."""
SAMPLE_TILES = 36
LESSON_TILES = 16
"""Tiles of the old image around the scene: enough to meet every cover of a square kilometre."""
TILE = 512
COARSEST_FOR_HOUSES_M = 0.34
"""Up to this pixel the siamese network joins in; beyond, the scene's own model does as well."""
BORDER_M = 1.5
"""Ground along map edges that teaches nothing: outlines and images lie a pixel or two apart."""
SMOOTH_M = 3.0
"""Side of the window posteriors are averaged over: half the narrowest object that is mapped."""
AGREEMENT = 0.25
"""Least probability of the mapped cover on the old date: below it the map itself is in doubt."""
MIN_CLASS_SHARE = 2e-4
"""A cover with less than this share of the samples cannot be learned and is left out."""
SHADOW_RATIO = 0.62
"""Luminance against the other date below which dark ground counts as newly shaded."""
SHADOW_QUANTILE = 0.15
"""Darkest share of a date that shadow belongs to."""
SHADOW_BLUR = 5
"""Working pixels luminance is averaged over first, or noise would punch holes into a pond."""
SHADOW_SLACK = 1.25
"""Ground this much brighter still counts when the width of dark ground is measured: a pond at the
limit must not fall into narrow patches."""
SHADOW_WIDTH_M = 10.0
"""Widest cast shadow taken as one (an 8 m building under a 40° sun); wider dark ground is judged,
or no pond would ever be found."""
GROWTH_PIXELS = 2
"""How far, in working pixels, an edge may be from ground that certainly changed: the posteriors are
averaged over about three."""
ENOUGH = 4_000
"""Working pixels of buildings (some twenty houses) from which the scene's own model of them counts
as much as its held-out skill says by half: two houses can be known by heart."""
LOUDEST = 6.0
"""Log odds one witness may bring at most: one in four hundred, what calibration can vouch for."""
_TINY = 1e-4


@dataclass(frozen=True, slots=True)
class _Working:
    """A tile on the working grid: posteriors of both dates, mapped class index, usable pixels."""

    old: Tensor
    new: Tensor
    mapped: Tensor
    usable: Tensor


@dataclass(frozen=True, slots=True)
class _Verdict:
    """On the working grid: probability and size of change, and the cover now (raster value)."""

    probability: Tensor
    magnitude: Tensor
    cover: Tensor

    @classmethod
    def nothing(cls, labels: Tensor) -> _Verdict:
        """No change anywhere."""
        zero = torch.zeros(labels.shape, device=labels.device)
        return cls(zero, zero, torch.zeros(labels.shape, dtype=torch.long, device=labels.device))


class MapGuided:
    """The map-guided detector; needs a previous map, names covers before and after."""

    name = "map-guided"
    version = "1"
    margin = 48
    needs_map = True
    abstains = False

    def __init__(self) -> None:
        self.abstains = False
        self._model: CoverModel | None = None
        self._buildings: Siamese | None = None
        self._trust = 0.0
        self._features: list[Features] = []
        self._classes = torch.zeros(0, dtype=torch.long)
        self._step = 1
        self._block = 1
        self._metres = 1.0
        self._prior = torch.zeros(0)
        self._dark = 0.0

    def fit(self, scene: Scene, *, seed: int, progress: Progress | None = None) -> None:
        """Learn the scene's covers from the old map on both dates.

        Raises:
            UnknownDetector: the scene has no map.
        """
        if not scene.has_map:
            raise UnknownDetector("map-guided needs the previous map; give --map or use deep-cva.")
        self._step = working_step(scene.grid)
        gsd = scene.grid.gsd if scene.grid.crs else 1.0
        self._metres = gsd * self._step if gsd > 0.01 else 10.0
        self._block = max(8, round(BLOCK_M / self._metres))
        smallest = min(scene.grid.shape) // self._step
        self._block = max(4, min(self._block, smallest // 4))
        tiles = list(scene.sample(size=TILE, count=SAMPLE_TILES, seed=seed))
        self._observe(scene, tiles)
        self._buildings, self._trust = _siamese_for(scene), 0.0
        if self._buildings is not None:
            self._buildings.fit(scene, seed=seed)
        around = list(scene.lessons(size=TILE, count=LESSON_TILES, seed=seed))
        raw = self._collect(tiles, around, seed)
        counts = torch.bincount(raw.target, minlength=16).float()
        self._classes = torch.nonzero(
            (counts > 0) & (counts >= MIN_CLASS_SHARE * counts.sum())
        ).flatten()
        if len(self._classes) < 2:
            advice = (
                "nothing can be compared; no change is flagged"
                if self._buildings is None
                else "only buildings can be told, by the siamese network"
            )
            log.warning("map_has_one_cover", advice=advice)
            self._model = None
            self.abstains = True
            return
        index = torch.full((16,), -1, dtype=torch.long, device=scene.device)
        index[self._classes] = torch.arange(len(self._classes), device=scene.device)
        known = index[raw.target] >= 0
        self._prior = _prior_odds(self._classes)
        samples = Samples(
            raw.features[known], index[raw.target[known]], raw.date[known], raw.fold[known]
        )
        self._model = CoverModel(
            self._features[0].groups, len(self._classes), device=scene.device, seed=seed
        )
        self._model.fit(samples, progress=progress)
        if self._house is not None:
            houses = int(((samples.target == self._house) & (samples.date == 0)).sum())
            self._trust = self._model.skill(samples, self._house) * houses / (houses + ENOUGH)

    @property
    def _house(self) -> int | None:
        """Index of the building among the scene's covers, None where it was not learned."""
        found = torch.nonzero(self._classes == CS_INDEX[BUILDING]).flatten()
        return int(found[0]) if len(found) else None

    def _observe(self, scene: Scene, tiles: list[Tile]) -> None:
        """Ranges, feature statistics and darkness of each date."""
        self._features = []
        for date in (0, 1):
            images = [(t.before, t.after)[date] for t in tiles]
            pixels = valid_pixels(tiles, date, each=4000)
            features = Features(scene.bands, self._step, scene.device)
            features.set_range(pixels)
            few = range(0, len(tiles), max(1, len(tiles) // 12))
            seen = [features.raw(images[i]).flatten(1)[:, ::7].T for i in few]
            features.set_statistics(torch.cat(seen))
            self._features.append(features)
            if date == 1:
                self._dark = float(torch.quantile(pixels.mean(dim=0), SHADOW_QUANTILE))

    def _collect(self, tiles: list[Tile], around: list[Lesson], seed: int) -> Samples:
        """Training pixels of both dates, and of the old date around; ``target`` still holds
        raster values."""
        generator = torch.Generator().manual_seed(seed)
        parts: list[Samples] = []
        for tile in tiles:
            labels, usable, fold = self._ground(tile)
            rows = self._drawn(labels, usable, SAMPLES // len(tiles), generator)
            for date, image in enumerate((tile.before, tile.after)):
                parts.append(self._samples(image, date, labels, fold, rows))
        for lesson in around:
            labels, usable = self._shrunk(lesson.labels, lesson.valid)
            rows = self._drawn(labels, usable, SAMPLES // len(around), generator)
            parts.append(
                self._samples(lesson.before, 0, labels, torch.full_like(labels, ELSEWHERE), rows)
            )
        return Samples(
            torch.cat([p.features for p in parts]),
            torch.cat([p.target for p in parts]),
            torch.cat([p.date for p in parts]),
            torch.cat([p.fold for p in parts]),
        )

    def _drawn(
        self, labels: Tensor, usable: Tensor, most: int, generator: torch.Generator
    ) -> Tensor:
        """Indices of at most ``most`` mapped pixels away from the map's lines."""
        border = max(1, round(BORDER_M / self._metres))
        inner = usable & _away_from_edges(labels, border) & (labels > 0)
        rows = torch.nonzero(inner.flatten()).flatten()
        order = torch.randperm(len(rows), generator=generator)[: max(200, most)]
        return rows[order.to(rows.device)]

    def _samples(
        self, image: Tensor, date: int, labels: Tensor, fold: Tensor, rows: Tensor
    ) -> Samples:
        raw = self._features[date].raw(image).flatten(1)[:, rows].T
        return Samples(
            self._features[date].standard(raw),
            labels.flatten()[rows].long(),
            torch.full_like(rows, date),
            fold.flatten()[rows].long(),
        )

    def _ground(self, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, usable pixels and checkerboard half on the working grid."""
        if tile.labels is None:
            raise UnknownDetector("map-guided needs the previous map of every tile.")
        labels, usable = self._shrunk(tile.labels, tile.valid)
        rows, cols = labels.shape
        fold = fold_of(
            rows,
            cols,
            row=tile.window.row // self._step,
            col=tile.window.col // self._step,
            block=self._block,
            device=labels.device,
        )
        return labels, usable & ~self._shaded(tile, (rows, cols)), fold

    def _shrunk(self, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and validity of pixels on the working grid."""
        rows, cols = (-(-n // self._step) for n in labels.shape)
        small = labels[self._step // 2 :: self._step, self._step // 2 :: self._step]
        small = F.pad(
            small[None, None].float(),
            (0, cols - small.shape[1], 0, rows - small.shape[0]),
            mode="replicate",
        )[0, 0].to(torch.uint8)
        seen = F.interpolate(valid[None, None].float(), (rows, cols), mode="area")[0, 0]
        return small, seen > 0.99

    def _shaded(self, tile: Tile, size: tuple[int, int]) -> Tensor:
        """Ground newly in shadow: dark now, and darker than before. (Ground that was in shadow
        before fails the agreement with the map where it matters.)"""
        old, new = (
            _averaged(F.interpolate(i.mean(dim=0)[None, None], size, mode="area"), SHADOW_BLUR)[
                0, 0
            ]
            for i in (tile.before, tile.after)
        )
        now = (new < self._dark) & (new < SHADOW_RATIO * old)
        nearly = (new < SHADOW_SLACK * self._dark) & (new < SHADOW_SLACK * SHADOW_RATIO * old)
        radius = max(1, round(SHADOW_WIDTH_M / 2 / self._metres))
        return now & _narrow(nearly, radius)

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """Judge each tile on the working grid and bring the scores back to pixels."""
        return [self._judge(tile) for tile in tiles]

    def _judge(self, tile: Tile) -> TileScores:
        shape = tile.valid.shape
        if tile.labels is None or (self._model is None and self._buildings is None):
            zero = torch.zeros(shape, device=tile.valid.device)
            byte = torch.zeros(shape, dtype=torch.uint8, device=tile.valid.device)
            return TileScores(zero, zero, byte, byte)
        verdict = self._verdict(tile)
        both = torch.stack([verdict.probability, verdict.magnitude])[None]
        wide, size = F.interpolate(both, shape, mode="bilinear", align_corners=False)[0]
        names = F.interpolate(verdict.cover[None, None].float(), shape, mode="nearest")[0, 0]
        return TileScores(wide, size, tile.labels.to(torch.uint8), names.to(torch.uint8))

    def _verdict(self, tile: Tile) -> _Verdict:
        """The scene's own model, with the siamese network for buildings where there is one."""
        labels, usable, fold = self._ground(tile)
        if self._model is None:
            own = _Verdict.nothing(labels)
            own_odds = torch.zeros_like(own.probability)
        else:
            work = self._predict(tile, self._model, (labels, usable, fold))
            probability, rival, own_odds = _odds(work, self._prior, self._house)
            magnitude = (work.new - work.old).abs().sum(dim=0) / 2
            own = _Verdict(probability, magnitude, self._classes.to(rival.device)[rival])
        if self._buildings is None:
            return own
        change, before, after = (
            F.interpolate(layer[None, None], labels.shape, mode="area")[0, 0]
            for layer in self._buildings.logits(tile)
        )
        was, now = torch.sigmoid(before), torch.sigmoid(after)
        rise = None
        if tile.rise is not None:
            rise = F.interpolate(tile.rise[None, None], labels.shape, mode="area")[0, 0]
        mapped = labels == CS_INDEX[BUILDING]
        possible = torch.where(mapped, was > now, now > was)
        seen = torch.where(possible, change, -LOUDEST)
        fused = (1 - self._trust) * seen + self._trust * own_odds.clamp(-LOUDEST, LOUDEST)
        fused = fused + elevation.evidence(rise, ~mapped)
        same = (tile.before == tile.after).all()
        built = torch.sigmoid(fused) * (usable & (labels > 0)) * ~same
        other = own.probability * ((own.cover != CS_INDEX[BUILDING]) & ~mapped)
        told = built >= other
        becomes = torch.where(mapped, own.cover, torch.full_like(own.cover, CS_INDEX[BUILDING]))
        return _Verdict(
            torch.where(told, built, other),
            torch.maximum(own.magnitude, (now - was).abs()),
            torch.where(told, becomes, own.cover),
        )

    def _predict(
        self, tile: Tile, model: CoverModel, ground: tuple[Tensor, Tensor, Tensor]
    ) -> _Working:
        labels, usable, fold = ground
        rows, cols = labels.shape
        posteriors = []
        for date, image in enumerate((tile.before, tile.after)):
            raw = self._features[date].raw(image).flatten(1).T
            p = model.posterior(self._features[date].standard(raw), fold.flatten())
            posteriors.append(p.T.reshape(-1, rows, cols))
        side = max(1, round(SMOOTH_M / self._metres) // 2 * 2 + 1)
        old, new = (_smoothed(p, side) for p in posteriors)
        index = torch.full((16,), -1, dtype=torch.long)
        index[self._classes.cpu()] = torch.arange(len(self._classes))
        mapped = index.to(labels.device)[labels.long()]
        return _Working(old, new, mapped, usable & (mapped >= 0))


def _siamese_for(scene: Scene) -> Siamese | None:
    """The siamese network where the scene shows what it was trained for."""
    fine = GSD_AS_IS_M[0] <= scene.grid.gsd <= COARSEST_FOR_HOUSES_M
    fits = scene.grid.crs is not None and fine and scene.bands >= 3
    return Siamese() if fits else None


def _smoothed(p: Tensor, side: int) -> Tensor:
    """Geometric mean over a square window, renormalised: one outlier cannot carry a place."""
    if side <= 1:
        return p
    return torch.softmax(_averaged(p.clamp(min=_TINY).log()[None], side)[0], dim=0)


def _averaged(image: Tensor, side: int) -> Tensor:
    """Mean over a square window of ``(tile, channel, row, col)``; edges repeat."""
    pad = side // 2
    return F.avg_pool2d(F.pad(image, (pad, pad, pad, pad), mode="replicate"), side, stride=1)


def _prior_odds(classes: Tensor) -> Tensor:
    """Log prior odds of each change ``(from, to)`` among the classes of the scene; minus infinity
    within a group of covers."""
    names = [CS_FROM_INDEX[int(c)] for c in classes]
    odds = torch.tensor([[transition_plausibility(a, b) for b in names] for a in names])
    return (odds * CHANGE_PRIOR / (1 - CHANGE_PRIOR)).log()


def _odds(work: _Working, prior: Tensor, house: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of change, the index of the best rival cover, and the log odds that a building
    appeared (or, where one is mapped, went); ``(row, col)`` each."""
    prior = prior.to(work.old.device)
    mapped = work.mapped.clamp(min=0)
    group = torch.isinf(prior).to(work.old.dtype)[mapped].permute(2, 0, 1)
    was = (work.old * group).sum(dim=0).clamp(min=_TINY)
    still = (work.new * group).sum(dim=0).clamp(min=_TINY)
    old, new = work.old.clamp(min=_TINY).log(), work.new.clamp(min=_TINY).log()
    evidence = (new - still.log()) + (was.log() - old) + prior[mapped].permute(2, 0, 1)
    best, rival = evidence.max(dim=0)
    denies = new.gather(0, rival[None])[0] > still.log()
    possible = work.usable & denies & (was >= AGREEMENT)
    alone = best - prior[mapped].permute(2, 0, 1).gather(0, rival[None])[0]
    change = _grown(torch.sigmoid(best) * possible, torch.sigmoid(alone) * possible)
    buildings = torch.zeros_like(best)
    if house is not None:
        told = torch.where(mapped == house, best, evidence[house])
        buildings = torch.where(work.mapped >= 0, told, buildings)
    return change, rival, buildings


def _grown(sure: Tensor, alone: Tensor) -> Tensor:
    """Change extended to its edges: beside ground that certainly changed the prior share of change
    no longer holds, and what the images say ``alone`` decides."""
    side = 2 * GROWTH_PIXELS + 1
    core = (sure >= 0.5).float()[None, None]
    beside = F.max_pool2d(core, side, stride=1, padding=GROWTH_PIXELS)[0, 0] > 0
    return torch.where(beside & (alone >= 0.5), torch.maximum(sure, alone), sure)


def _narrow(mask: Tensor, radius: int) -> Tensor:
    """The parts of a mask narrower than ``2 × radius`` pixels."""
    side = 2 * radius + 1
    values = mask[None, None].float()
    eroded = 1 - F.max_pool2d(1 - values, side, stride=1, padding=radius)
    wide = F.max_pool2d(eroded, side, stride=1, padding=radius)
    return mask & (wide[0, 0] == 0)


def _away_from_edges(labels: Tensor, radius: int) -> Tensor:
    """True at least ``radius`` working pixels from any other label."""
    side = 2 * radius + 1
    values = labels[None, None].float()
    top = F.max_pool2d(values, side, stride=1, padding=radius)
    bottom = -F.max_pool2d(-values, side, stride=1, padding=radius)
    return (top == bottom)[0, 0]
