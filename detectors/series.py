"""A monitor of Sentinel-2 time series: what each new acquisition says has changed for good.

Each pixel is judged against its own history: what its season should show, and what extremes it has
shown before. Mineral ground is told from bare soil by its flat spectrum; soil on farmed ground
counts only when nothing has grown on it for most of a season. Numbers have their reasons in
``docs/models.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np

from detectors.errors import BandlessImage, NoOverlap
from detectors.masks import dilated
from detectors.sentinel2 import bands_of
from detectors.series_model import (
    BRIGHT,
    CENTRE,
    NEEDED,
    RISE,
    features,
    lower,
    predict,
    snow_or_glare,
    take_in,
    water,
)
from detectors.series_scores import FLAT, SIGNS, SUPPORT, TREES, Scores, among, scores_of, supported
from detectors.series_state import Layers, SeriesState, day_of, stack
from detectors.types import BoolArray, ByteArray, FloatArray, IntArray

LEAST_LOOKS: Final = 12
"""Clear looks before a pixel is judged: three per parameter of the fit, and a spread."""
LEAST_DAYS: Final = 365
"""Days they must span: a field that was never seen in winter is bare then for the first time."""
BEYOND_MASK: Final = 1
"""Pixels beside masked ground that are not trusted: the thin border of clouds."""
DOUBT: Final = 0.2
"""Probability from which a look is kept out of the history: what is doubtful must not become the
normal that later looks are held against."""
CLEAN_LOOKS: Final = 2
"""Looks without the anomaly, in a row, that end a run (FORDEAD: 3, OPERA DIST-ALERT: 2)."""
QUIET_LOOKS: Final = 6
"""Anomalies in a row that look like no change known here, after which they are the new normal."""
LEARN_RUN: Final = 3
"""Looks of a run of bare soil that teach, once it has ended, that the pixel may be bare."""

SOIL_DAYS: Final = 150
"""Days of the growing season without regrowth after which new bare soil on farmed ground, or on
ground that bore trees, is no farming."""
SOIL_LOOKS: Final = 6
GROWING: Final = (75, 305)
"""Days of the year between which fields grow something: mid-March to October. Land ploughed in
autumn for maize is bare for half a year."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one acquisition says, arrays ``(row, col)``.

    ``probability``: float32, that the ground is now changed in a way that is built or mineral;
    ``clearing``: float32, that trees are gone and no such ground is there. ``mineral``: True where
    ``probability`` stands for soil-like ground rather than for built or paved one. ``magnitude``:
    float32 in [0, 1]. ``valid``: seen, and judged. ``kept``: not seen this time, but changed when
    last seen. ``enough``: the history suffices. ``began``: day
    (since ``EPOCH``) of the first anomaly of the open run, 0 where none is open. ``late``: older
    than the newest acquisition of the state; such a look judges nothing, ``valid`` is False.
    """

    probability: FloatArray
    clearing: FloatArray
    mineral: BoolArray
    magnitude: FloatArray
    valid: BoolArray
    kept: BoolArray
    enough: BoolArray
    began: IntArray
    acquired: datetime
    late: bool = False


def observe(
    state: SeriesState,
    image: FloatArray,
    names: Sequence[str],
    valid: BoolArray,
    acquired: datetime,
    *,
    acquisition: str,
    cover: ByteArray | None = None,
    farmed: BoolArray | None = None,
) -> tuple[SeriesState, Look]:
    """The state after one more acquisition, and what it says. Nothing given is changed.

    An acquisition the state has seen leaves it as it is and is judged again. One older than the
    newest adds to the history where it fits and no run is open, and judges nothing.

    Args:
        state: the history of the image's own grid.
        image: ``(band, row, col)``, surface reflectance × 10 000.
        names: what each band is called; B02, B03, B04, B08 and B11 are needed.
        valid: ``(row, col)``, False where there is no data, cloud or shadow.
        acquired: when the image was taken, with time zone.
        acquisition: id of the image.
        cover: the map's cover classes, ``CS_INDEX``; None without a map.
        farmed: ground of agricultural usage; None where unknown: then all of it.

    Raises:
        BandlessImage: a band is missing.
        NoOverlap: the image has another shape than the state.
    """
    place = bands_of(names)
    if any(band not in place for band in NEEDED):
        raise BandlessImage(
            f"The series needs the bands {', '.join(NEEDED)}, not {', '.join(names) or 'nameless'} "
            "ones; describe the bands of the image."
        )
    if image.shape[1:] != state.grid.shape or valid.shape != state.grid.shape:
        raise NoOverlap(
            f"An image of {image.shape[1:]} pixels does not lie on a series of "
            f"{state.grid.shape}; read it on the grid of the series."
        )
    day = day_of(acquired)
    wet = dilated(water(image, place), 1)  # shores are mixed pixels, as dark and flat as asphalt
    clear = valid & ~dilated(~valid, BEYOND_MASK) & np.isfinite(image).all(axis=0)
    clear &= (image[[place[b] for b in NEEDED]] > 0).all(axis=0) & ~snow_or_glare(image, place)
    values = features(np.where(clear, image, 1_000).astype(np.float32), place)
    enough = _enough(state.layers, day)
    scores = scores_of(state.layers, values, image[place["B11"]], day, wet, cover)
    repeat = acquisition in state.seen
    late = state.newest is not None and acquired < state.newest and not repeat
    layers = state.layers
    if not repeat:
        layers = layers | _after(layers, values, scores, day, clear, enough, late=late)
        state = state.remembering(acquisition, acquired, layers)
    look = _look(layers, values, scores, clear, enough, (cover, farmed), acquired)
    return state, replace(look, late=True, valid=np.zeros_like(look.valid)) if late else look


def _enough(layers: Layers, day: int) -> BoolArray:
    count, since = layers["count"][0], layers["since"][0].astype(np.int32)
    return np.asarray((count >= LEAST_LOOKS) & (day - since >= LEAST_DAYS), bool)


def _after(
    layers: Layers,
    values: FloatArray,
    scores: Scores,
    day: int,
    clear: BoolArray,
    enough: BoolArray,
    *,
    late: bool,
) -> Layers:
    """The layers that one new look changes."""
    most = np.maximum.reduce([scores.built, scores.soil, scores.clearing])
    claim = most >= SUPPORT
    odd = enough & ((most >= DOUBT) | scores.outlier)
    run = stack(layers, "run")[0]
    if late:
        return _absorbed(layers, values, day, clear & ~odd & (run == 0))
    clean, quiet = stack(layers, "clean")[0], stack(layers, "quiet")[0]
    began, first, total, last = (stack(layers, n) for n in ("began", "first", "total", "last"))
    seen_odd = clear & odd
    opens = seen_odd & (run == 0)
    began[0][opens] = day
    first[:, opens] = values[:, opens]
    total[:, opens] = 0
    total += np.where(seen_odd, values, 0)
    last[0][seen_odd] = values[BRIGHT][seen_odd]
    run[seen_odd] += run[seen_odd] < 255
    quiet[seen_odd] = np.where(claim, 0, np.minimum(quiet, 254) + 1)[seen_odd]
    clean[seen_odd] = 0
    back = clear & ~odd
    clean[back & (run > 0)] += 1
    used_to = seen_odd & (quiet >= QUIET_LOOKS)
    closes = (back & (clean >= CLEAN_LOOKS)) | used_to
    changed = _absorbed(layers, values, day, back | used_to)
    mean = total / np.maximum(run, 1)
    learned = closes & (run >= LEARN_RUN) & (mean[RISE] + CENTRE[RISE] > FLAT[0])
    for _ in range(3):
        _extremes(changed["lowest"], mean, learned)
    for layer in (run, clean, quiet):
        layer[closes] = 0
    began[0][closes] = 0
    first[:, closes] = 0
    total[:, closes] = 0
    last[:, closes] = 0
    return changed | {
        "run": run[None],
        "clean": clean[None],
        "quiet": quiet[None],
        "began": began,
        "first": first,
        "total": total,
        "last": last,
    }


def _absorbed(layers: Layers, values: FloatArray, day: int, where: BoolArray) -> Layers:
    """History, extremes and counts with one look more on some pixels."""
    moments, lowest, count, since = (
        stack(layers, name) for name in ("moments", "lowest", "count", "since")
    )
    take_in(moments, values, day, where)
    _extremes(lowest, values, where)
    earliest = where & ((count[0] == 0) | (since[0] > day))
    since[0][earliest] = day
    count[0][where] += count[0][where] < 65_535
    return {"moments": moments, "lowest": lowest, "count": count, "since": since}


def _extremes(lowest: FloatArray, values: FloatArray, where: BoolArray) -> None:
    """Put features among the extremes of each pixel, in place."""
    for index, sign in enumerate(SIGNS[:, 0, 0]):
        lower(lowest[3 * index : 3 * index + 3], sign * values[index], where)


def _look(
    layers: Layers,
    values: FloatArray,
    scores: Scores,
    clear: BoolArray,
    enough: BoolArray,
    prior: tuple[ByteArray | None, BoolArray | None],
    acquired: datetime,
) -> Look:
    """What the acquisition says, with time and neighbours taken into account."""
    cover, farmed = prior
    trees = among(cover, TREES, clear.shape)
    slow = trees | farmed if farmed is not None else np.ones_like(trees)
    began, run = layers["began"][0], layers["run"][0]
    waited = (growing_days(began, day_of(acquired)) >= SOIL_DAYS) & (run >= SOIL_LOOKS)
    soil = np.where(~slow | (waited & (run > 0)), scores.soil, 0).astype(np.float32)
    judged = clear & enough
    change = values - predict(layers["moments"], day_of(acquired))[0]
    built = supported(np.where(judged, scores.built, 0), change, scores.newer * judged)
    soil = supported(np.where(judged, soil, 0), change, scores.barer * judged)
    probability = np.maximum(built, soil)
    clearing = supported(np.where(judged, scores.clearing, 0), change, scores.barer * judged)
    return Look(
        probability=probability,
        clearing=np.where(probability >= SUPPORT, 0, clearing).astype(np.float32),
        mineral=soil > built,
        magnitude=np.where(judged, scores.magnitude, 0).astype(np.float32),
        valid=judged,
        kept=enough & ~clear & (run > 0) & (layers["quiet"][0] == 0),
        enough=enough,
        began=np.where(run > 0, began, 0).astype(np.int64),
        acquired=acquired,
    )


def growing_days(began: IntArray, day: int) -> IntArray:
    """Days of growing season from each of ``began`` to ``day``, days since ``EPOCH``."""
    of_year = np.arange(day + 2) % 365.25
    grows = (of_year >= GROWING[0]) & (of_year <= GROWING[1])
    so_far = np.concatenate([[0], np.cumsum(grows)])
    return np.asarray(so_far[day + 1] - so_far[np.minimum(began, day)])
