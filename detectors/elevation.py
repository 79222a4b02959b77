"""What two surface models say of a change: nothing tells a building like its height.

A surface model (MNS) of each date, in metres, is warped onto the scene's grid; their difference,
freed of the offset two campaigns usually have, is kept as one band.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detectors.raster import DEFAULT_BLOCK, Raster
from detectors.scratch import Scratch
from detectors.types import Grid

HALFWAY_M = 1.5
"""Rise at which height neither speaks for a building nor against: half of a low ground floor, and
more than surface models of one ground differ by."""
PER_METRE = 2.0
"""Log odds each metre beyond it is worth: a rise of 3 m makes a building twenty times likelier."""
LOUDEST = 4.0
"""Log odds height may bring at most: trees and cranes rise too."""
OFFSET_PIXELS = 200_000


def rise_of(models: tuple[Sequence[Path], Path], grid: Grid, folder: Path) -> Scratch:
    """Metres the surface rose from the first model to the second, ``(1, row, col)`` float32, NaN
    where either is silent; the median, which is the campaigns' offset, taken off.

    Raises:
        DetectionError: a model cannot be read.
    """
    scratch = Scratch(1, grid.shape, np.float32, folder)
    sample = []
    with Raster(models[0], grid) as first, Raster([models[1]], grid) as second:
        for strip in grid.window.strips(DEFAULT_BLOCK):
            low, low_valid = first.read(strip)
            high, high_valid = second.read(strip)
            known = low_valid & high_valid
            rise = np.where(known, high[0] - low[0], np.nan).astype(np.float32)
            scratch.write(strip, rise[None])
            step = max(1, grid.shape[0] * grid.shape[1] // OFFSET_PIXELS)
            sample.append(rise.ravel()[::step])
    seen = np.concatenate(sample)
    seen = seen[np.isfinite(seen)]
    if len(seen):
        offset = np.float32(np.median(seen))
        for strip in grid.window.strips(DEFAULT_BLOCK):
            scratch.write(strip, scratch.read_float(strip) - offset)
    return scratch


def evidence(rise: Tensor | None, appears: Tensor) -> Tensor:
    """Log odds that height brings to a building having appeared (where ``appears``) or gone;
    zero where height is unknown. Both ``(row, col)``."""
    if rise is None:
        return torch.zeros(appears.shape, device=appears.device)
    toward = torch.where(appears, rise, -rise)
    odds = (PER_METRE * (toward - HALFWAY_M)).clamp(-LOUDEST, LOUDEST)
    return torch.where(torch.isnan(rise), torch.zeros_like(odds), odds)
