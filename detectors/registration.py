"""Sub-pixel co-registration: phase correlation per tile, one smooth field over the scene.

Each sampled tile gives a shift by phase correlation (Kuglin & Hines 1975) of gradient magnitudes,
which season and sun change less than grey values. The affine field most tiles agree on is fitted
to the shifts; where too few agree, or correlation does not improve, nothing: a wrong registration
is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import kornia
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.types import BoolArray

Numbers = npt.NDArray[np.float64]

TILE = 256
"""Side of the tiles that are correlated, pixels."""
MAX_SHIFT_PX = 20.0
"""Orthophotos of two campaigns lie within 4 m of each other; a larger peak is a repetition."""
MIN_PEAK = 4.0
"""Peak of the correlation in units of its own spread below which a tile says nothing."""
IGNORED_PX = 0.05
"""A field that moves no corner by more than this is left out: resampling would cost more."""
TOLERANCE_PX = 1.5
"""Tiles agree within this: relief and leaning walls move true peaks by a pixel."""
LEAST_AGREEING = 0.3
"""Share of the tiles that must agree; of peaks at random, fewer than a tenth do."""
FEWEST_TILES = 3
LONE_PEAK = 8.0
"""Fewer tiles than that are believed only where a peak stands out like this."""
TILE_ERROR_PX = 0.3
STRETCH = 0.004
"""Standard deviation of turns (radians) and scales between campaigns."""
MOST_STRETCH = 0.02
_BAND = 0.22
"""Cut-off of the low-pass in cycles per pixel: above it aerial images decorrelate."""
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Field:
    """Where to sample AFTER for each pixel of the grid: ``(x, y) + shift(x, y)``, with
    ``shift = offset + matrix @ ((x, y) - centre)``, in pixels, x = column."""

    offset: tuple[float, float] = (0.0, 0.0)
    matrix: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    centre: tuple[float, float] = (0.0, 0.0)
    tiles: int = 0
    residual: float = 0.0

    @property
    def is_identity(self) -> bool:
        """True when nothing has to move."""
        return self.offset == (0.0, 0.0) and self.matrix == ((0.0, 0.0), (0.0, 0.0))

    def shift(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Shift in pixels at grid positions."""
        (a, b), (c, d) = self.matrix
        u, v = x - self.centre[0], y - self.centre[1]
        return self.offset[0] + a * u + b * v, self.offset[1] + c * u + d * v

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Shift in pixels at one position."""
        dx, dy = self.shift(torch.tensor(x), torch.tensor(y))
        return float(dx), float(dy)

    def reach(self, shape: tuple[int, int]) -> float:
        """Largest shift at a corner of a grid, pixels."""
        xs = torch.tensor([0.0, shape[1], 0.0, shape[1]])
        ys = torch.tensor([0.0, 0.0, shape[0], shape[0]])
        dx, dy = self.shift(xs, ys)
        return float(torch.hypot(dx, dy).max())


def luminance(image: Tensor) -> Tensor:
    """Mean over bands of ``(band, row, col)``, which exists for any sensor."""
    return image.mean(dim=0)


def _gradient(image: Tensor) -> Tensor:
    return kornia.filters.sobel(image[None, None])[0, 0]


def phase_shift(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """Shift (dx, dy), pixels, such that ``after[y + dy, x + dx] ≈ before[y, x]``, and the height
    of the correlation peak in units of its spread. Both ``(row, col)``, same shape."""
    rows, cols = before.shape
    window = torch.outer(
        torch.hann_window(rows, periodic=False), torch.hann_window(cols, periodic=False)
    ).to(before)
    edges = [_gradient(img) for img in (before, after)]
    spectra = [torch.fft.rfft2((e - e.mean()) * window) for e in edges]
    cross = spectra[1] * spectra[0].conj()
    fy = torch.fft.fftfreq(rows, device=before.device)[:, None]
    fx = torch.fft.rfftfreq(cols, device=before.device)[None]
    low = torch.exp(-(fx**2 + fy**2) / (2 * (_BAND / 2) ** 2))
    surface = torch.fft.irfft2(low * cross / (cross.abs() + 1e-9), s=(rows, cols))
    reach = int(min(MAX_SHIFT_PX, rows // 3, cols // 3))
    near = torch.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    index = int(near.argmax())
    y, x = divmod(index, near.shape[1])
    peak = float((near.max() - surface.mean()) / (surface.std() + 1e-12))
    dy = y + _vertex(near[:, x], y) - reach
    dx = x + _vertex(near[y], x) - reach
    return float(dx), float(dy), peak


def _vertex(line: Tensor, at: int) -> float:
    """Sub-pixel offset of a peak from its two neighbours (log-parabola: the low-pass makes the
    peak a Gaussian)."""
    if at in {0, len(line) - 1}:
        return 0.0
    low, mid, high = (float(v.clamp(min=1e-12).log()) for v in line[at - 1 : at + 2])
    bend = low - 2 * mid + high
    return 0.0 if abs(bend) < 1e-9 else float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))


def fit_field(
    centres: Sequence[tuple[float, float]],
    shifts: Sequence[tuple[float, float]],
    weights: Sequence[float],
    *,
    shape: tuple[int, int],
    side: int = TILE,
    unit: float = 1.0,
) -> Field:
    """The smooth field that most tiles agree on; the others are left out.

    Correlation peaks of changed, repeated or bare ground point anywhere, and on a hard pair they
    are the majority. So the field is first the similarity transform most tiles lie near (consensus
    as in Fischler & Bolles 1981, every pair of tiles tried), then an affine one refined on those
    (Tukey's biweight) with a prior that orthophotos hardly turn or stretch.

    Args:
        centres: (x, y) of each tile on the grid, pixels.
        shifts: (dx, dy) found there, pixels.
        weights: height of each correlation peak.
        shape: rows and columns of the grid.
        side: side of a tile, pixels.
        unit: pixels of the grid per pixel the shifts were measured on.
    """
    middle = (shape[1] / 2, shape[0] / 2)
    if not centres:
        return Field()
    points = np.asarray(centres, float) - middle
    moved, weight = np.asarray(shifts, float), np.asarray(weights, float)
    agree = _consensus(points, moved, weight, TOLERANCE_PX * unit)
    lone = agree.sum() < FEWEST_TILES and weight[agree].max() < LONE_PEAK
    if lone or agree.mean() < LEAST_AGREEING:
        return Field(centre=middle)
    scale = max(shape) / 2
    design = np.column_stack([np.ones(len(points)), points / scale])
    # tiles overlap on a small scene: together they weigh no more than the ground they cover
    ground = min(1.0, shape[0] * shape[1] / side**2 / agree.sum())
    weight = weight / weight[agree].mean() * ground
    prior = (TILE_ERROR_PX * unit / (STRETCH * scale)) ** 2
    w = weight * agree
    coefficients, error = np.zeros((3, 2)), np.zeros(len(points))
    for _ in range(_ROUNDS):
        normal = (design * w[:, None]).T @ design + np.diag([0.0, prior, prior])
        coefficients = np.linalg.solve(normal, (design * w[:, None]).T @ moved)
        error = np.hypot(*(moved - design @ coefficients).T)
        cut = max(0.25 * unit, 4.685 * 1.4826 * float(np.median(error[agree])))
        w = weight * agree * np.clip(1 - (error / cut) ** 2, 0, None) ** 2
    kept = w > 0
    m = coefficients[1:] / scale
    return Field(
        offset=(float(coefficients[0, 0]), float(coefficients[0, 1])),
        matrix=((float(m[0, 0]), float(m[1, 0])), (float(m[0, 1]), float(m[1, 1]))),
        centre=middle,
        tiles=int(kept.sum()),
        residual=float(np.median(error[kept])) if kept.any() else 0.0,
    )


def _consensus(points: Numbers, moved: Numbers, weight: Numbers, tolerance: float) -> BoolArray:
    """The tiles that lie near the best similarity transform through any one or two of them."""
    z, d = points @ (1, 1j), moved @ (1, 1j)
    first, second = np.triu_indices(len(z), 1)
    apart = np.abs(z[second] - z[first]) > 0
    first, second = first[apart], second[apart]
    turn = (d[second] - d[first]) / (z[second] - z[first])
    real = np.abs(turn) <= MOST_STRETCH
    first, turn = first[real], turn[real]
    # one tile alone says a plain shift, two a shift with a turn and a scale
    turn = np.concatenate([np.zeros(len(z)), turn])
    origin = np.concatenate([np.arange(len(z)), first])
    distance = np.abs(d[origin, None] + turn[:, None] * (z[None] - z[origin, None]) - d[None])
    score = (weight * np.clip(1 - (distance / tolerance) ** 2, 0, None)).sum(axis=1)
    agree: BoolArray = distance[int(score.argmax())] < tolerance
    return agree


def resample(
    image: Tensor, field: Field, *, origin: tuple[int, int], out: tuple[int, int, int, int]
) -> Tensor:
    """AFTER brought onto the grid by a field.

    ``image``: ``(band, row, col)`` whose first pixel is grid pixel ``origin`` (row, col);
    ``out``: row, col, height, width wanted. Bicubic, borders repeated.
    """
    row, col, height, width = out
    ys, xs = torch.meshgrid(
        torch.arange(row, row + height, device=image.device, dtype=torch.float32),
        torch.arange(col, col + width, device=image.device, dtype=torch.float32),
        indexing="ij",
    )
    dx, dy = field.shift(xs, ys)
    u = (xs + dx - origin[1]) / max(1, image.shape[2] - 1) * 2 - 1
    v = (ys + dy - origin[0]) / max(1, image.shape[1] - 1) * 2 - 1
    return torch.nn.functional.grid_sample(
        image[None],
        torch.stack([u, v], dim=-1)[None],
        mode="bicubic",
        padding_mode="border",
        align_corners=True,
    )[0]


def similarity(before: Tensor, after: Tensor) -> float:
    """Correlation of gradient magnitudes, inner part only (borders are made up)."""
    edges = [_gradient(img)[4:-4, 4:-4].flatten() for img in (before, after)]
    a, b = (e - e.mean() for e in edges)
    return float((a * b).sum() / (a.norm() * b.norm() + 1e-9))
