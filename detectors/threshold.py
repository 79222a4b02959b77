"""Deciding where change begins without a single label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BINS = 256
SHARPNESS = 2.0
"""How fast probability leaves 0.5 on each side of the threshold, per unit of the log score."""


def minimum_error(scores: npt.NDArray[np.floating[Any]], *, floor: float) -> float:
    """Threshold of a one-dimensional score, never below ``floor``.

    Kittler & Illingworth (1986): the split that costs least when both sides are taken as
    Gaussian. Scores should be roughly so (a log of a χ² is). Without two modes the criterion has
    no inner minimum and the floor stands.
    """
    scores = scores[np.isfinite(scores)]
    if len(scores) < _BINS or float(np.ptp(scores)) < 1e-9:
        return floor
    low, high = np.quantile(scores, [0.001, 0.9999])
    counts, edges = np.histogram(scores, bins=_BINS, range=(low, high))
    p = counts / max(1, counts.sum())
    x = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(p), 1 - np.cumsum(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean1 = np.cumsum(p * x) / below
        mean2 = ((p * x).sum() - np.cumsum(p * x)) / above
        var1 = np.cumsum(p * x**2) / below - mean1**2
        var2 = ((p * x**2).sum() - np.cumsum(p * x**2)) / above - mean2**2
        cost = (
            1
            + below * np.log(np.maximum(var1, 1e-12))
            + above * np.log(np.maximum(var2, 1e-12))
            - 2 * (below * np.log(below) + above * np.log(above))
        )
    inner = slice(8, -8)
    usable = np.where((below > 0.5) & (above > 1e-4) & np.isfinite(cost), cost, np.inf)[inner]
    if not np.isfinite(usable).any():
        return floor
    return max(floor, float(x[inner][int(np.argmin(usable))]))


def probability_of(score: Tensor, threshold: float) -> Tensor:
    """Probability of change, 0.5 at the threshold, from a log score."""
    return torch.sigmoid(SHARPNESS * (score - threshold))
