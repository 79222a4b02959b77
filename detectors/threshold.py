"""Deciding where change begins without a single label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BINS = 256
_VALLEY_BINS = 12
"""Bins on each side a valley must be lower than: smaller dips are noise of the histogram."""
_SMALLEST_SHARE = 1e-3
"""Change of a smaller share of a scene cannot shape a mode of its own."""
NULL_SPREADS = (3.0, 6.0)
"""Spreads of the unchanged mode between which a valley counts as where change begins."""
USUAL_SPREADS = 3.0
"""Where change begins when there is no valley: one unchanged pixel in a thousand lies above."""
SHARPNESS = 2.0
"""How fast probability leaves 0.5 on each side of the threshold, per unit of the log score."""


def spread_below(scores: npt.NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Centre and spread of the unchanged mode: the median, and its distance to the quantile one
    standard deviation below. Change lies above and does not touch either (an empirical null,
    Efron 2004)."""
    low, middle = np.quantile(scores, [0.1587, 0.5])
    return float(middle), max(float(middle - low), 1e-3)


def minimum_error(scores: npt.NDArray[np.floating[Any]], *, floor: float) -> float:
    """Threshold of a one-dimensional score, never below ``floor``.

    Kittler & Illingworth (1986): the split that costs least when both sides are taken as
    Gaussian. Scores should be roughly so. The split must be a valley of the
    criterion and lie ``NULL_SPREADS`` of the unchanged mode above its centre; without one the
    mode alone decides (``USUAL_SPREADS``).
    """
    scores = scores[np.isfinite(scores)]
    if len(scores) < _BINS or float(np.ptp(scores)) < 1e-9:
        return floor
    centre, spread = spread_below(scores)
    lowest, highest = (centre + k * spread for k in NULL_SPREADS)
    valleys = [v for v in _valleys(scores) if lowest <= v <= highest]
    return max(floor, min(valleys) if valleys else centre + USUAL_SPREADS * spread)


def chi2_threshold(values: npt.NDArray[np.floating[Any]], *, floor: float) -> float:
    """Log of where change begins among sums of squares; ``floor`` is such a sum.

    The cube root of a χ² is nearly Gaussian (Wilson & Hilferty 1931), its log is not: the split is
    sought among cube roots.
    """
    return 3 * float(np.log(minimum_error(np.cbrt(values), floor=float(np.cbrt(floor)))))


def _valleys(scores: npt.NDArray[np.floating[Any]]) -> list[float]:
    """Inner local minima of the minimum-error criterion."""
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
    cost = np.where(above > _SMALLEST_SHARE, cost, np.inf)
    near = _VALLEY_BINS
    return [
        float(x[i])
        for i in range(near, len(cost) - near)
        if np.isfinite(cost[i - near : i + near + 1]).all()
        and cost[i] == cost[i - near : i + near + 1].min()
    ]


def probability_of(score: Tensor, threshold: float) -> Tensor:
    """Probability of change, 0.5 at the threshold, from a log score."""
    return torch.sigmoid(SHARPNESS * (score - threshold))
