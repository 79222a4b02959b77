"""What happens on the landscape of the Sentinel-2 bench: 50 artificialisations and 200 things that
look a little like one, each on a parcel of its own."""

from __future__ import annotations

from typing import Final

import numpy as np

from daemon.bench import spectra
from daemon.bench.parcels import Parcel, Rect, Site, rotation
from detectors.types import FloatArray

YEAR: Final = 365
END: Final = 730
DAYS_LEFT: Final = 70
"""An artificialisation is mineral at least this long before the last scene."""
EDGE_M: Final = 6
"""Least distance of a site to its parcel's edge."""

ARTIFICIAL: Final = {"built": 20, "asphalt": 15, "earthworks": 15}
DISTRACTORS: Final = {
    "rotation": 30,
    "ploughed meadow": 20,
    "kept bare": 20,
    "mown": 15,
    "clear-cut": 15,
    "flood": 15,
    "burn": 15,
    "drought": 20,
    "missed cloud": 25,
    "missed shadow": 15,
    "early harvest": 10,
}
PLACES: Final[dict[str, tuple[str, ...]]] = {
    "built": ("crop", "crop", "meadow", "fallow", "broadleaf"),
    "asphalt": ("crop", "crop", "meadow", "fallow", "conifer"),
    "earthworks": ("crop", "crop", "meadow"),
    "rotation": ("crop",),
    "ploughed meadow": ("meadow",),
    "kept bare": ("crop",),
    "mown": ("meadow", "fallow"),
    "clear-cut": ("broadleaf", "conifer"),
    "flood": ("crop", "meadow"),
    "burn": ("crop", "meadow", "conifer"),
    "drought": ("crop", "meadow"),
    "missed cloud": ("crop", "meadow", "broadleaf"),
    "missed shadow": ("crop", "meadow"),
    "early harvest": ("crop",),
}
"""Kinds of parcel each thing happens on."""
BEGINS: Final[dict[str, tuple[float, float, float, float]]] = {
    "rotation": (285, 285, 700, 700),
    "ploughed meadow": (375, 660, 700, 700),
    "kept bare": (440, 580, 60, 110),
    "mown": (480, 620, 20, 30),
    "clear-cut": (375, 680, 700, 700),
    "flood": (370, 690, 14, 42),
    "burn": (540, 630, 90, 180),
    "drought": (510, 590, 30, 70),
    "missed cloud": (370, 710, 1, 14),
    "missed shadow": (370, 710, 1, 14),
    "early harvest": (470, 520, 40, 60),
}
"""First and last day a distractor begins, least and most days it lasts."""
WHOLE: Final = {"rotation", "ploughed meadow", "kept bare", "mown", "early harvest"}
"""These take their whole parcel."""


def plant(rng: np.random.Generator, parcels: list[Parcel]) -> list[Site]:
    """Sites on parcels of their own; rotations are written into their parcels."""
    free = list(rng.permutation(len(parcels)))
    sites = []
    for kind, count in (ARTIFICIAL | DISTRACTORS).items():
        for _ in range(count):
            area = float(rng.uniform(1_200, 6_000))
            shape = _sides(rng, area)
            wanted = str(rng.choice(PLACES[kind]))
            index = _place(free, parcels, PLACES[kind], wanted, shape)
            free.remove(index)
            sites.append(_site(rng, kind, int(index), parcels[index], shape))
    return sites


def _sides(rng: np.random.Generator, area: float) -> tuple[int, int]:
    ratio = float(rng.uniform(0.55, 1.8))
    return round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)


def _place(
    free: list[int],
    parcels: list[Parcel],
    kinds: tuple[str, ...],
    wanted: str,
    size: tuple[int, int],
) -> int:
    """A free parcel of the wanted kind, or where there is none of any fitting kind, that is large
    enough.

    Raises:
        ValueError: the landscape is too small for so many sites.
    """
    for kind in (wanted, *kinds):
        for index in free:
            west, south, east, north = parcels[index].rect
            inside = east - west - 2 * EDGE_M >= size[0] and north - south - 2 * EDGE_M >= size[1]
            if parcels[index].kind == kind and inside:
                return index
    raise ValueError(f"No parcel is left for a site of {size} m; take a larger landscape.")


def _site(
    rng: np.random.Generator, kind: str, index: int, parcel: Parcel, size: tuple[int, int]
) -> Site:
    west, south, east, north = parcel.rect
    left = int(rng.integers(west + EDGE_M, east - EDGE_M - size[0] + 1))
    low = int(rng.integers(south + EDGE_M, north - EDGE_M - size[1] + 1))
    rect = parcel.rect if kind in WHOLE else (left, low, left + size[0], low + size[1])
    if kind in ARTIFICIAL:
        phase = float(rng.uniform(30, 90)) if kind == "earthworks" else 0.0
        begins = float(rng.uniform(YEAR + 3, END - DAYS_LEFT - phase))
        site = Site(kind, True, index, rect, begins, np.inf, begins + phase)
        site.parts = _parts(rng, kind, rect)
        return site
    first, last, least, most = BEGINS[kind]
    begins = float(rng.uniform(first, last))
    ends = begins + float(rng.uniform(least, most))
    if kind == "rotation":
        start = str(rng.choice(["wheat", "maize"]))
        parcel.crops = (start, "sunflower" if start == "wheat" else "wheat", rotation(rng)[0])
    return Site(kind, False, index, rect, begins, np.inf if ends > END else ends, np.inf)


def _parts(rng: np.random.Generator, kind: str, rect: Rect) -> list[tuple[Rect, FloatArray]]:
    """The site in two or three strips, each of its own material."""
    if kind == "asphalt":
        names = ["new asphalt" if rng.random() < 0.5 else "asphalt"] * 2
        if rng.random() < 0.4:
            names[1] = "concrete"
    else:
        names = [
            str(rng.choice(["concrete", "metal", "tile", "gravel"], p=[0.35, 0.25, 0.15, 0.25])),
            str(rng.choice(["gravel", "asphalt", "concrete"], p=[0.5, 0.35, 0.15])),
        ]
        if rng.random() < 0.3:
            names.append("grass")
    weights = rng.uniform(0.6, 1.4, len(names)) * [0.3 if n == "grass" else 1.0 for n in names]
    west, south, east, north = rect
    along = east - west >= north - south
    low, high = (west, east) if along else (south, north)
    cuts = np.round(low + np.concatenate([[0], np.cumsum(weights / weights.sum())]) * (high - low))
    made = []
    for name, a, b in zip(names, cuts[:-1], cuts[1:], strict=True):
        strip = (int(a), south, int(b), north) if along else (west, int(a), east, int(b))
        made.append((strip, spectra.MATERIALS[name] * float(rng.normal(1, 0.06))))
    return made
