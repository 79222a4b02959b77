"""Matching AFTER to BEFORE on ground that did not change.

A straight line per band, fitted by iterated trimming: pixels that fit worst are taken as changed
and left out of the next round (the idea of IR-MAD normalisation, Canty & Nielsen 2008, in its
simplest robust form). Season is not linear and stays for the detectors to deal with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detectors.types import FloatArray

KEPT = 0.6
"""Share of pixels kept in each round: change and season together
rarely touch more than a third."""
GAIN_RANGE = (0.4, 2.5)
"""Two orthophotos differ by exposure, not by more; a gain beyond means that a cloud or
snow was fitted."""
_ROUNDS = 6
_MIN_PIXELS = 500


@dataclass(frozen=True, slots=True)
class Match:
    """``after × gain + offset`` per band; ``spread``: per band, residual standard deviation on
    the pixels kept, in the unit of BEFORE."""

    gain: FloatArray
    offset: FloatArray
    spread: FloatArray

    def apply(self, after: Tensor) -> Tensor:
        """AFTER in BEFORE's radiometry, ``(band, row, col)``."""
        gain = torch.as_tensor(self.gain, device=after.device)[:, None, None]
        offset = torch.as_tensor(self.offset, device=after.device)[:, None, None]
        return after * gain + offset


def identity(bands: int) -> Match:
    """No change of radiometry."""
    one, zero = np.ones(bands, np.float32), np.zeros(bands, np.float32)
    return Match(one, zero, one)


def fit(before: FloatArray, after: FloatArray) -> Match:
    """The match between two samples of the same pixels, ``(pixel, band)``."""
    bands = before.shape[1]
    if len(before) < _MIN_PIXELS:
        return identity(bands)
    x, y = after.astype(np.float64), before.astype(np.float64)
    if np.array_equal(x, y):
        return identity(bands)
    keep = np.ones(len(x), bool)
    gain, offset = np.ones(bands), np.zeros(bands)
    scale = np.ones(bands)
    for _ in range(_ROUNDS):
        a, b = x[keep], y[keep]
        gain = np.clip(b.std(axis=0) / np.maximum(a.std(axis=0), 1e-6), *GAIN_RANGE)
        offset = np.median(b, axis=0) - gain * np.median(a, axis=0)
        residual = y - (gain * x + offset)
        scale = np.maximum(1.4826 * np.median(np.abs(residual[keep]), axis=0), 1e-3)
        distance = ((residual / scale) ** 2).sum(axis=1)
        keep = distance <= np.quantile(distance, KEPT)
    return Match(gain.astype(np.float32), offset.astype(np.float32), scale.astype(np.float32))
