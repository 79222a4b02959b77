"""Deep change vector analysis: change vectors in the features of an ImageNet encoder.

Saha, Bovolo & Bruzzone 2019 (unsupervised deep change vector analysis for multiple-change
detection in VHR images). Features at strides 4 and 8 are standardised per date and channel; the
length of their difference says how much the look of a place changed, whatever its grey values.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.encoder import band_range, pretrained, to_rgb
from detectors.threshold import minimum_error, probability_of
from detectors.types import Progress, Scene, Tile, TileScores

MAPS = (1, 2)
"""Feature maps used: strides 4 and 8, fine enough for a house, deep enough to see one."""
SAMPLE_TILES = 24
FLOOR = float(np.log(0.5))
"""Mean squared difference of standardised features below which ground looks the same: that of
features correlated at three quarters between the dates."""


class DeepCva:
    """Deep change vectors as a detector; names no cover."""

    name = "deep-cva"
    version = "1"
    margin = 32
    needs_map = False
    abstains = False

    def __init__(self) -> None:
        self._low: list[Tensor] = []
        self._high: list[Tensor] = []
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._threshold = 0.0

    def fit(self, scene: Scene, *, seed: int, progress: Progress | None = None) -> None:
        """Ranges, feature statistics of each date, and the threshold."""
        tiles = list(scene.sample(size=512, count=SAMPLE_TILES, seed=seed))
        self._low, self._high, self._statistics = [], [], []
        for date in (0, 1):
            images = [(t.before, t.after)[date] for t in tiles]
            pixels = torch.cat([i.flatten(1)[:, ::41] for i in images], dim=1)
            low, high = band_range(pixels, least=0.0)
            self._low.append(low)
            self._high.append(high)
            seen = torch.cat([self._maps(i, date).flatten(1)[:, ::13] for i in images], dim=1)
            self._statistics.append((seen.mean(dim=1), seen.std(dim=1).clamp(min=1e-4)))
        scores = torch.cat([self._score(t).flatten()[::11] for t in tiles]).cpu().numpy()
        self._threshold = minimum_error(scores, floor=FLOOR)

    def _maps(self, image: Tensor, date: int) -> Tensor:
        with torch.no_grad():
            found = pretrained(str(image.device))(
                to_rgb(image, self._low[date], self._high[date])[None]
            )
        size = found[MAPS[0]].shape[-2:]
        return torch.cat(
            [F.interpolate(found[i], size, mode="bilinear", align_corners=False) for i in MAPS],
            dim=1,
        )[0]

    def _score(self, tile: Tile) -> Tensor:
        """Log length of the change vector on the coarse grid."""
        standard = []
        for date, image in enumerate((tile.before, tile.after)):
            mean, spread = self._statistics[date]
            standard.append((self._maps(image, date) - mean[:, None, None]) / spread[:, None, None])
        length = (standard[1] - standard[0]).square().mean(dim=0)
        return torch.log(length + 1e-6)

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """Change of look of each place as a probability."""
        found = []
        for tile in tiles:
            score = self._score(tile)
            probability = probability_of(score, self._threshold)
            up = F.interpolate(
                torch.stack([probability, torch.tanh(score.exp() / 4)])[None],
                tile.valid.shape,
                mode="bilinear",
                align_corners=False,
            )[0]
            same = (tile.before == tile.after).all()
            found.append(TileScores(up[0] * ~same, up[1] * ~same))
        return found
