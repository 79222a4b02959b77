"""How much one Sentinel-2 look resembles a change, before time has its say.

Each condition is a soft step, and the weakest of several decides. Numbers have their reasons in
``docs/models.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.series_model import BRIGHT, CENTRE, NDVI, RISE, predict
from detectors.series_state import Layers
from detectors.types import BoolArray, ByteArray, FloatArray
from schemas.nomenclature import CS_INDEX

SEED: Final = 0.5
SUPPORT: Final = 0.35
"""Probability from which a pixel may join a change beside it."""
MIXED: Final = 0.45
"""Most that a pixel can have only from its neighbours: it joins a change and never makes one."""
OUTLIER: Final = 4.0
"""Spreads of brightness beyond which a look is kept out of the history: cloud, shadow."""
BARE: Final = (0.38, 0.04)
"""NDVI below which ground is bare: a middle and a width of a soft step, as all pairs here. New lots
keep some grass."""
FLAT: Final = (0.40, 0.03)
"""Rise below which ground is mineral rather than soil."""
SOIL_UNKNOWN: Final = 0.05
"""How much flatter still where the soil was never seen: chalk may lie beneath."""
SOIL_SEEN: Final = (0.22, 0.03)
"""NDVI below which it was seen; stubble and thin grass hide it above."""
FLATTER: Final = 0.08
"""How much flatter than ever before makes bare ground new..."""
BRIGHTER: Final = 0.25
"""...or how much brighter, as a logarithm; half of each will do. Dry soil varies by a tenth."""
NEW: Final = (1.0, 0.2)
UNUSUAL: Final = (2.5, 0.4)
"""Spreads from the season's value that a loss of plants must have."""
UNUSUAL_FLAT: Final = (1.0, 0.2)
"""The same for flatness: what is beyond every state of a field need not be far from its mean."""
STEADY: Final = (0.30, 0.05)
"""Change of brightness since the last anomaly, as a logarithm: concrete, wet or dry, stays as it
is; two clouds are not alike."""
SOIL_BARE: Final = (0.28, 0.03)
BARER: Final = (0.10, 0.03)
"""How much lower than ever before the NDVI of new bare soil or of a clearing must be."""
NOT_ICE: Final = (0.0, 0.02)
"""Rise above which ground may be mineral: whatever is much darker at 1.6 µm than in blue is cloud,
snow or water."""
DARKEST: Final = (600.0, 50.0)
"""Reflectance × 10 000 at 1.6 µm: below lies water, flooded grass and deep shadow; fresh wet
asphalt keeps 800."""
SIGNS: Final = np.array([1, 1, -1], np.float32)[:, None, None]
"""The extremes kept are the lowest NDVI and rise, and the highest brightness."""
ARTIFICIAL: Final = tuple(v for code, v in CS_INDEX.items() if code.startswith("CS1.1"))
NEVER: Final = (*ARTIFICIAL, CS_INDEX["CS1.2.2"], CS_INDEX["CS1.2.3"])
"""Covers on which nothing is said: artificialised already, water, ice."""
TREES: Final = tuple(v for code, v in CS_INDEX.items() if code.startswith("CS2.1.1"))


@dataclass(frozen=True, slots=True)
class Scores:
    """What a look says before space and time have their say. ``newer`` and ``barer``: how far, 0 to
    1, each pixel is beyond what it showed before, whatever else speaks against a change."""

    built: FloatArray
    soil: FloatArray
    clearing: FloatArray
    newer: FloatArray
    barer: FloatArray
    magnitude: FloatArray
    outlier: BoolArray


def _step(value: FloatArray, step: tuple[float, float]) -> FloatArray:
    """A soft step up from 0 to 1."""
    return np.asarray(1 / (1 + np.exp(np.clip((step[0] - value) / step[1], -30, 30))), np.float32)


def scores_of(
    layers: Layers,
    values: FloatArray,
    swir: FloatArray,
    day: int,
    wet: BoolArray,
    cover: ByteArray | None,
) -> Scores:
    """The weakest of several conditions decides each."""
    expected, spread = predict(layers["moments"], day)
    unusual = (expected - values) / spread
    lowest, flattest, brightest = (
        np.where(np.isfinite(e), e, 0).astype(np.float32) for e in layers["lowest"][2::3] * SIGNS
    )
    ndvi, rise = values[NDVI] + CENTRE[NDVI], values[RISE] + CENTRE[RISE]
    unknown = SOIL_UNKNOWN * _step(lowest + CENTRE[NDVI], SOIL_SEEN)
    new = (
        np.maximum(flattest - values[RISE], 0) / FLATTER
        + np.maximum(values[BRIGHT] - brightest, 0) / BRIGHTER
    )
    dry = np.where(wet, 0, _step(swir, DARKEST)).astype(np.float32)
    built = np.minimum.reduce(
        [
            1 - _step(ndvi, BARE),
            1 - _step(rise + unknown, FLAT),
            _step(rise, NOT_ICE),
            _step(new, NEW),
            _step(unusual[RISE], UNUSUAL_FLAT),
            _steady(layers, values),
            dry,
        ]
    )
    lost = lowest - values[NDVI]
    barer = np.minimum.reduce([_step(lost, BARER), _step(unusual[NDVI], UNUSUAL), dry])
    soil = np.minimum(barer, 1 - _step(ndvi, SOIL_BARE))
    trees = among(cover, TREES, ndvi.shape)
    clearing = np.where(trees, np.minimum(barer, 1 - built), 0).astype(np.float32)
    never = among(cover, NEVER, ndvi.shape)
    built, soil = np.where(never, 0, built), np.where(never, 0, soil)
    magnitude = 1 - np.exp(-np.sqrt((unusual**2).sum(axis=0)) / 6)
    outlier = (np.abs(unusual[BRIGHT]) > OUTLIER) | wet
    return Scores(
        built=built,
        soil=soil,
        clearing=clearing,
        newer=np.where(wet | never, 0, np.clip(new, 0, 1)).astype(np.float32),
        barer=np.where(wet | never, 0, np.clip(lost / BARER[0], 0, 1)).astype(np.float32),
        magnitude=magnitude.astype(np.float32),
        outlier=outlier,
    )


def _steady(layers: Layers, values: FloatArray) -> FloatArray:
    """Low where a run is open whose last anomaly was of another brightness."""
    moved = np.abs(values[BRIGHT] - layers["last"][0])
    return np.where(layers["run"][0] > 0, 1 - _step(moved, STEADY), 1).astype(np.float32)


def among(cover: ByteArray | None, covers: tuple[int, ...], shape: tuple[int, ...]) -> BoolArray:
    return np.zeros(shape, bool) if cover is None else np.isin(cover, covers)


def supported(probability: FloatArray, change: FloatArray, new: FloatArray) -> FloatArray:
    """Lone pixels are doubted; pixels beside a change that share part of it are mixed ones and
    belong to it by that part, as far as they are new at all."""
    core = (probability >= SEED).astype(np.float32)
    around = _sum3(core)
    kept = np.where((core > 0) & (around - core < 2), 0.5 * probability, probability)
    core = (kept >= SEED).astype(np.float32)
    near = _sum3(core)
    typical = np.stack([_sum3(c * core) for c in change]) / np.maximum(near, 1)
    length = np.maximum((typical**2).sum(axis=0), 1e-4)
    share = np.clip((change * typical).sum(axis=0) / length, 0, 1)
    sure = _sum3(kept * core) / np.maximum(near, 1)
    mixed = np.where(near >= 2, np.minimum.reduce([share, sure, new]), 0)
    mixed = np.minimum(mixed, MIXED)
    return np.maximum(kept, mixed).astype(np.float32)


def _sum3(values: FloatArray) -> FloatArray:
    """Sum over each pixel and its eight neighbours."""
    wide = np.pad(values, 1)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:], np.float32)
