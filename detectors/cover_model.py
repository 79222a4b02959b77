"""A light model of what each cover looks like in this scene.

Features of every working pixel (colour at three scales, local contrast, encoder maps) are
standardised per date, which takes most of the season out, and a small network learns covers from
them. Two networks are trained on the two halves of a checkerboard of ground, so that the one that
judges a place never learned from it.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.encoder import CHANNELS, band_range, pretrained, to_rgb
from detectors.types import Grid, Progress

HIDDEN = 64
GROUP_DROPOUT = 0.3
"""Chance that a whole scale of features is hidden from a training sample: a lane through a field
must be known by its own colour too, not only by what usually lies around lanes."""
STEPS = 160
"""Gradient steps of each network: on a few thousand samples the held-out loss is flat by then."""
BATCH = 1024
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
SMOOTHING = 0.05
"""Share of label mass spread over other covers: map outlines are a pixel off and generalised."""
NOISE_EXPONENT = 0.7
"""q of the generalised cross entropy (Zhang & Sabuncu 2018) on the new date, whose labels are the
old map's: mostly right, wrong exactly where it matters."""
BLOCK_M = 128.0
"""Side of a checkerboard square: most objects that change fit into one, so that the network that
judges them never saw them."""
ELSEWHERE = 2
"""Fold of ground outside the scene: it teaches both networks and is judged by none."""
SUSPECT = 0.3
"""Probability of the old cover on the new date below which a sample is taken out of the second
round: its label is probably one of those no longer true."""
RARE_SHARE = 0.2
"""A half that holds less than this share of a cover's samples cannot teach it."""
BLUR_PIXELS = (1, 5, 11)
_EPS = 1e-4


def working_step(grid: Grid) -> int:
    """Pixels per working pixel: about 1 m on the ground, at most 4."""
    gsd = grid.gsd if grid.gsd > 0.01 else 1.0  # a grid in degrees is never finer than a metre
    if grid.crs is None or gsd >= 0.9:
        return 2 if grid.crs is None else 1
    return 4 if gsd < 0.3 else 2


def fold_of(
    height: int, width: int, *, row: int, col: int, block: int, device: torch.device
) -> Tensor:
    """Checkerboard half, 0 or 1, of every pixel of a window; ``block`` in the same pixels."""
    rows = torch.arange(row, row + height, device=device) // block
    cols = torch.arange(col, col + width, device=device) // block
    return (rows[:, None] + cols[None, :]) % 2


@dataclass(slots=True)
class Features:
    """Working-pixel features of an image, standardised by what ``observe`` saw of its date."""

    bands: int
    step: int
    device: torch.device
    low: Tensor = field(default_factory=lambda: torch.zeros(0))
    high: Tensor = field(default_factory=lambda: torch.zeros(0))
    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    scale: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def groups(self) -> tuple[int, ...]:
        """Features of each scale: one colour group per blur, contrast, then the encoder maps."""
        return (*[self.bands] * (len(BLUR_PIXELS) + 1), *CHANNELS)

    def set_range(self, pixels: Tensor) -> None:
        """Range of each band, from a sample ``(band, pixel)``."""
        self.low, self.high = band_range(pixels)

    def set_statistics(self, features: Tensor) -> None:
        """Mean and spread of each feature, from a sample ``(pixel, feature)``."""
        self.mean = features.mean(dim=0)
        self.scale = features.std(dim=0).clamp(min=_EPS)

    def raw(self, image: Tensor) -> Tensor:
        """Features ``(feature, row / step, col / step)`` of ``(band, row, col)``."""
        rows, cols = (-(-n // self.step) for n in image.shape[1:])
        span = (self.high - self.low)[:, None, None]
        scaled = ((image - self.low[:, None, None]) / span).clamp(-0.5, 1.5)
        small = F.interpolate(scaled[None], (rows, cols), mode="area")
        parts = [_blur(small, k) for k in BLUR_PIXELS]
        contrast = (_blur(small**2, 5) - parts[1] ** 2).clamp(min=0).sqrt()
        with torch.no_grad():
            maps = pretrained(str(self.device))(to_rgb(image, self.low, self.high)[None])
        parts += [contrast] + [
            F.interpolate(m, (rows, cols), mode="bilinear", align_corners=False) for m in maps
        ]
        return torch.cat(parts, dim=1)[0]

    def standard(self, features: Tensor) -> Tensor:
        """Standardised ``(pixel, feature)``."""
        return ((features - self.mean) / self.scale).clamp(-6, 6)


def _blur(image: Tensor, size: int) -> Tensor:
    if size == 1:
        return image
    pad = size // 2
    padded = F.pad(image, (pad, pad, pad, pad), mode="replicate")
    return F.avg_pool2d(padded, size, stride=1)


@dataclass(slots=True)
class Samples:
    """Training pixels: standardised features, class index, date (0 old, 1 new) and fold (the half
    of the checkerboard, or ``ELSEWHERE``)."""

    features: Tensor
    target: Tensor
    date: Tensor
    fold: Tensor


class CoverModel:
    """Two networks, one per half of the checkerboard, and the temperature that calibrates them."""

    def __init__(
        self, groups: tuple[int, ...], classes: int, *, device: torch.device, seed: int
    ) -> None:
        self.classes = classes
        self._groups = torch.tensor(groups, device=device)
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        self._networks = [_network(sum(groups), classes, generator).to(device) for _ in range(2)]
        self.temperature = 1.0

    def fit(self, samples: Samples, *, progress: Progress | None = None) -> None:
        """Train each network on the other half's ground, drop samples of the new date whose label
        the held-out network denies, train once more, calibrate on held-out ground."""
        trusted = torch.ones_like(samples.fold, dtype=torch.bool)
        for turn in (0, 1):
            # the two networks know nothing of each other: one thread each
            with ThreadPoolExecutor(max_workers=2) as pool:
                list(pool.map(partial(self._train, samples=samples, trusted=trusted), (0, 1)))
            if progress is not None:
                progress("learn", turn + 1, 2)
            if turn == 0:
                own = self.posterior(samples.features, samples.fold)
                own = own.gather(1, samples.target[:, None])[:, 0]
                trusted = (samples.date == 0) | (own >= SUSPECT)
        self.temperature = self._temperature(samples)

    def _train(self, half: int, *, samples: Samples, trusted: Tensor) -> None:
        """One round of a network on the trusted samples of the other half's ground."""
        network = self._networks[half]
        rest = ((samples.fold != half) | self._lacking(samples, half)) & trusted
        rows = torch.nonzero(rest if bool(rest.any()) else trusted).flatten()
        generator = torch.Generator().manual_seed(self._seed + 1 + half)
        weights = _balanced(samples.target[rows].cpu(), self.classes)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS)
        for _ in range(STEPS):
            pick = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
            chosen = rows[pick.to(rows.device)]
            chance = torch.rand(BATCH, len(self._groups), generator=generator)
            shown = (chance >= GROUP_DROPOUT).to(rows.device)
            hidden = shown.repeat_interleave(self._groups, dim=1)
            logits = network(samples.features[chosen] * hidden)
            loss = _loss(logits, samples.target[chosen], samples.date[chosen] == 1)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()

    def _lacking(self, samples: Samples, half: int) -> Tensor:
        """Samples of the old date that teach a network covers it would hardly know otherwise.

        A quarry often lies in one half only. The old map is right about the old image, so its own
        ground may teach what a quarry looks like; what the new image shows there stays held out.
        """
        count = partial(torch.bincount, minlength=self.classes)
        elsewhere = count(samples.target[samples.fold != half])
        rare = elsewhere < RARE_SHARE * count(samples.target)
        return rare[samples.target] & (samples.date == 0)

    def _temperature(self, samples: Samples) -> float:
        """Scale of the logits that makes held-out probabilities honest on the old date."""
        old = (samples.date == 0) & (samples.fold != ELSEWHERE)
        with torch.no_grad():
            logits = self.logits(samples.features[old], samples.fold[old])
        target = samples.target[old]
        grid = torch.linspace(math.log(0.5), math.log(5.0), 24).exp()
        losses = [float(F.cross_entropy(logits / t, target)) for t in grid]
        return float(grid[losses.index(min(losses))])

    def skill(self, samples: Samples, cover: int) -> float:
        """F1 of one cover on held-out ground of the old date: how far this model can be trusted
        with it."""
        old = (samples.date == 0) & (samples.fold != ELSEWHERE)
        said = self.posterior(samples.features[old], samples.fold[old]).argmax(dim=1) == cover
        true = samples.target[old] == cover
        both = float((said & true).sum())
        return 2 * both / max(1.0, float(said.sum() + true.sum()))

    def logits(self, features: Tensor, fold: Tensor) -> Tensor:
        """Held-out logits ``(pixel, class)``: each pixel by the network that never saw its
        ground."""
        first, second = (network(features) for network in self._networks)
        return torch.where(fold[:, None] == 0, first, second)

    def posterior(self, features: Tensor, fold: Tensor) -> Tensor:
        """Calibrated held-out probabilities ``(pixel, class)``."""
        with torch.no_grad():
            return torch.softmax(self.logits(features, fold) / self.temperature, dim=1)


def _network(features: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    network = nn.Sequential(
        nn.Linear(features, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, classes),
    )
    for layer in network:
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                with torch.no_grad():
                    parameter.uniform_(-bound, bound, generator=generator)
    return network


def _balanced(target: Tensor, classes: int) -> Tensor:
    """Sampling weights between natural and equal frequencies (square root)."""
    counts = torch.bincount(target, minlength=classes).clamp(min=1).float()
    return (1 / counts.sqrt())[target]


def _loss(logits: Tensor, target: Tensor, is_new: Tensor) -> Tensor:
    plain = F.cross_entropy(logits, target, reduction="none", label_smoothing=SMOOTHING)
    own = torch.softmax(logits, dim=1).gather(1, target[:, None])[:, 0].clamp(min=1e-6)
    robust = (1 - own**NOISE_EXPONENT) / NOISE_EXPONENT
    return torch.where(is_new, robust, plain).mean()
