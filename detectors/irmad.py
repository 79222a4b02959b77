"""IR-MAD: iteratively reweighted multivariate alteration detection (Nielsen 2007).

Canonical variates of the two dates are differenced; the sum of their squares over no-change
variances is χ² with as many degrees of freedom as bands where nothing changed. Each round weighs
pixels by their no-change probability, so that the statistics describe unchanged ground only. The
transform is invariant to any linear change of radiometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from detectors.threshold import chi2_threshold, probability_of
from detectors.types import Progress, Scene, Tile, TileScores

Array = npt.NDArray[np.float64]

ROUNDS = 30
"""Most images settle in under twenty rounds (Nielsen 2007); many more can let weights die out."""
TOLERANCE = 1e-4
"""Largest move of a canonical correlation that counts as settled."""
SAMPLE_PIXELS = 200_000
RIDGE = 1e-9
"""Relative regularisation: keeps constant or collinear bands from breaking the eigenproblem."""
FLOOR_QUANTILE = 0.995
"""Change never begins below this quantile of the no-change χ²."""


@dataclass(frozen=True, slots=True)
class MadTransform:
    """Means and projection vectors of both dates, and the no-change variance of each variate."""

    mean_before: Array
    mean_after: Array
    to_before: Array
    to_after: Array
    variance: Array
    correlations: Array

    def chi2(self, before: Array, after: Array) -> Array:
        """χ² of each pixel; arrays ``(pixel, band)``, float64 inside."""
        variates = (before - self.mean_before) @ self.to_before - (
            after - self.mean_after
        ) @ self.to_after
        return np.asarray((variates**2 / self.variance).sum(axis=1))


def fit_mad(before: Array, after: Array, *, rounds: int = ROUNDS) -> MadTransform:
    """The IR-MAD transform of a sample ``(pixel, band)`` of both dates, in float64."""
    x, y = before.astype(np.float64), after.astype(np.float64)
    weights = np.ones(len(x))
    previous = np.zeros(x.shape[1])
    transform = _mad(x, y, weights)
    for _ in range(rounds):
        if np.abs(transform.correlations - previous).max() < TOLERANCE:
            break
        previous = np.asarray(transform.correlations)
        weights = no_change(transform.chi2(x, y), x.shape[1])
        transform = _mad(x, y, weights)
    return transform


def no_change(chi2: Array, bands: int) -> Array:
    """Probability of no change: the upper tail of χ² with ``bands`` degrees of freedom."""
    half = torch.as_tensor(np.asarray(chi2, np.float64) / 2)
    return np.asarray(torch.special.gammaincc(torch.full_like(half, bands / 2), half).numpy())


def _mad(x: Array, y: Array, weights: Array) -> MadTransform:
    w = weights / weights.sum()
    mx, my = w @ x, w @ y
    cx, cy = x - mx, y - my
    sxx, syy, sxy = (a.T @ (b * w[:, None]) for a, b in ((cx, cx), (cy, cy), (cx, cy)))
    lx, ly = (np.linalg.cholesky(_ridged(s)) for s in (sxx, syy))
    middle = np.linalg.solve(ly, np.linalg.solve(lx, sxy).T).T
    u, correlations, vt = np.linalg.svd(middle)
    a, b = np.linalg.solve(lx.T, u), np.linalg.solve(ly.T, vt.T)
    variance = np.maximum(2 * (1 - np.clip(correlations, 0, 1)), 1e-9)
    return MadTransform(mx, my, a, b, variance, correlations)


def sample_pixels(scene: Scene, *, count: int, seed: int) -> tuple[Array, Array]:
    """At most ``count`` valid pixels of both dates spread over the scene, ``(pixel, band)``."""
    tiles = 32
    each = max(1, count // tiles)
    rng = np.random.default_rng(seed)
    before, after = [], []
    for tile in scene.sample(size=512, count=tiles, seed=seed):
        chosen = torch.nonzero(tile.valid.flatten()).flatten().cpu().numpy()
        if len(chosen) > each:
            chosen = rng.choice(chosen, each, replace=False)
        before.append(tile.before.flatten(1)[:, chosen].T.double().cpu().numpy())
        after.append(tile.after.flatten(1)[:, chosen].T.double().cpu().numpy())
    return np.concatenate(before), np.concatenate(after)


def _ridged(covariance: Array) -> Array:
    n = len(covariance)
    ridge = RIDGE * float(np.trace(covariance)) / n + 1e-12
    return np.asarray(covariance + np.eye(n) * ridge)


class IrMad:
    """IR-MAD as a detector: what changed most against the scene's own normal, without a class."""

    name = "irmad"
    version = "1"
    margin = 0
    needs_map = False
    abstains = False

    def __init__(self) -> None:
        self._transform: MadTransform | None = None
        self._threshold = 0.0

    def fit(self, scene: Scene, *, seed: int, progress: Progress | None = None) -> None:
        """Fit the transform and the threshold on a sample of the scene."""
        before, after = sample_pixels(scene, count=SAMPLE_PIXELS, seed=seed)
        self._transform = fit_mad(before, after)
        floor = _chi2_quantile(FLOOR_QUANTILE, before.shape[1])
        self._threshold = chi2_threshold(self._transform.chi2(before, after), floor=floor)

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """χ² of each pixel as a probability of change."""
        return [self._judge(tile) for tile in tiles]

    def _judge(self, tile: Tile) -> TileScores:
        t = self._transform
        if t is None:
            raise RuntimeError("fit the detector before it judges")
        place = tile.before.device

        def project(image: torch.Tensor, mean: Array, to: Array) -> torch.Tensor:
            flat = image.flatten(1).T.double() - torch.as_tensor(mean, device=place)
            return flat @ torch.as_tensor(to, device=place)

        variates = project(tile.before, t.mean_before, t.to_before) - project(
            tile.after, t.mean_after, t.to_after
        )
        chi2 = (variates**2 / torch.as_tensor(t.variance, device=place)).sum(dim=1)
        same = (tile.before == tile.after).all(dim=0)
        chi2 = chi2.reshape(same.shape).float().masked_fill(same, 0.0)
        probability = probability_of(torch.log(chi2 + 1e-9), self._threshold)
        bands = tile.before.shape[0]
        magnitude = torch.special.gammainc(torch.full_like(chi2, bands / 2), chi2 / 2)
        return TileScores(probability=probability, magnitude=magnitude)


def _chi2_quantile(q: float, bands: int) -> float:
    """Quantile of χ² by bisection on its distribution function."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        if 1 - float(no_change(np.array([middle]), bands)[0]) < q:
            low = middle
        else:
            high = middle
    return high
