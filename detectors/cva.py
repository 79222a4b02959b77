"""Change vector analysis: the length of the radiometric change (Malila 1980), standardised.

Each band's difference is divided by its robust spread over the scene; the squared length is then
comparable between bands and sensors. The simplest baseline, and the least selective one.
"""

from __future__ import annotations

import numpy as np
import torch

from detectors.irmad import SAMPLE_PIXELS, sample_pixels
from detectors.threshold import chi2_threshold, probability_of
from detectors.types import Progress, Scene, Tile, TileScores

FLOOR = 9.0
"""A change shorter than three spreads is never one."""


class Cva:
    """Change vector analysis as a detector."""

    name = "cva"
    version = "1"
    margin = 0
    needs_map = False
    abstains = False

    def __init__(self) -> None:
        self._centre = torch.zeros(0)
        self._spread = torch.ones(0)
        self._threshold = float(np.log(FLOOR))

    def fit(self, scene: Scene, *, seed: int, progress: Progress | None = None) -> None:
        """Spread of each band's difference and the threshold, on a sample of the scene."""
        before, after = sample_pixels(scene, count=SAMPLE_PIXELS, seed=seed)
        difference = after - before
        centre = np.median(difference, axis=0)
        spread = np.maximum(1.4826 * np.median(np.abs(difference - centre), axis=0), 1e-3)
        length = (((difference - centre) / spread) ** 2).mean(axis=1)
        self._centre = torch.as_tensor(centre, dtype=torch.float32)
        self._spread = torch.as_tensor(spread, dtype=torch.float32)
        self._threshold = chi2_threshold(length, floor=FLOOR)

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """Squared standardised length of each pixel's change as a probability."""
        found = []
        for tile in tiles:
            centre, spread = (
                v.to(tile.before.device)[:, None, None] for v in (self._centre, self._spread)
            )
            length = (((tile.after - tile.before - centre) / spread) ** 2).mean(dim=0)
            same = (tile.before == tile.after).all(dim=0)
            length = length.masked_fill(same, 0.0)
            probability = probability_of(torch.log(length + 1e-9), self._threshold)
            found.append(TileScores(probability, torch.tanh(length.sqrt() / 6)))
        return found
