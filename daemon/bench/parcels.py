"""The landscape of the Sentinel-2 bench: a frame cut into parcels without gaps, each with its
cover, usage and habits, and the sites where something happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
from shapely.geometry import Polygon, box

from daemon.bench import spectra
from detectors.types import FloatArray

Rect = tuple[int, int, int, int]
"""West, south, east, north in metres from the frame's south-west corner."""

FIELD_M2: Final = (6_000.0, 26_000.0)
"""Parcels are cut until they are smaller than a value drawn from this range."""
ROAD_M: Final = 9
ROAD_CUTS: Final = 3
"""The first cuts of the frame are roads."""
CODES: Final = {
    "crop": ("CS2.2.1", "US1.1"),
    "meadow": ("CS2.2.1", "US1.1"),
    "broadleaf": ("CS2.1.1.1", "US1.2"),
    "conifer": ("CS2.1.1.2", "US1.2"),
    "fallow": ("CS2.2.1", "US6.3"),
    "garden": ("CS2.2.1", "US5"),
    "house": ("CS1.1.1.1", "US5"),
    "hall": ("CS1.1.1.1", "US2"),
    "yard": ("CS1.1.2.1", "US2"),
    "parking": ("CS1.1.1.2", "US3"),
    "road": ("CS1.1.1.2", "US4.1.1"),
    "water": ("CS1.2.2", "US6.3"),
}
"""Cover and usage of each kind of parcel."""


@dataclass(slots=True)
class Parcel:
    """One parcel: kind, rectangle, and what makes it differ from its neighbours."""

    kind: str
    rect: Rect
    limestone: float
    shift: float
    vigour: float
    crops: tuple[str, str, str] = ("meadow", "meadow", "meadow")
    mown: tuple[float, ...] = ()
    """Days since the first scene on which it is mown."""
    material: FloatArray = field(default_factory=lambda: spectra.ASPHALT)


@dataclass(slots=True)
class Site:
    """Something that happens on a rectangle of one parcel. Days count from the first scene."""

    kind: str
    artificial: bool
    parcel: int
    rect: Rect
    begins: float
    ends: float
    built: float
    """Day from which the ground is mineral."""
    parts: list[tuple[Rect, FloatArray]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Truth:
    """One thing that happened: where and when. ``built``: from when on it can be told from
    farming; ``ends`` None where it stays."""

    kind: str
    artificial: bool
    geometry: Polygon
    begins: datetime
    built: datetime | None
    ends: datetime | None


def polygon(rect: Rect, corner: tuple[float, float]) -> Polygon:
    """A rectangle in the CRS of the frame."""
    west, south, east, north = rect
    return box(corner[0] + west, corner[1] + south, corner[0] + east, corner[1] + north)


def cut(rng: np.random.Generator, rect: Rect, depth: int = 0) -> Iterator[tuple[Rect, bool]]:
    """The rectangle in parcels; True with those that are roads."""
    west, south, east, north = rect
    width, height = east - west, north - south
    if depth >= ROAD_CUTS and width * height < rng.uniform(*FIELD_M2) * 2:
        yield rect, False
        return
    road = ROAD_M if depth < ROAD_CUTS else 0
    along = width >= height
    length = width if along else height
    place = round(length * float(rng.uniform(0.35, 0.65)))
    first, second = place, place + road
    if along:
        yield from cut(rng, (west, south, west + first, north), depth + 1)
        yield from cut(rng, (west + second, south, east, north), depth + 1)
        strip = (west + first, south, west + second, north)
    else:
        yield from cut(rng, (west, south, east, south + first), depth + 1)
        yield from cut(rng, (west, south + second, east, north), depth + 1)
        strip = (west, south + first, east, south + second)
    if road:
        yield strip, True


def parcels(rng: np.random.Generator, side: int) -> list[Parcel]:
    """A frame of ``side`` metres in parcels: woods and villages lie together, fields between."""
    pieces = list(cut(rng, (0, 0, side, side)))
    wood, village, lime = (smooth(rng, 64, 7.0) for _ in range(3))
    made = []
    for rect, is_road in pieces:
        at = tuple(
            min(63, int((low + high) / 2 / side * 64))
            for low, high in ((rect[1], rect[3]), (rect[0], rect[2]))
        )
        kind = "road" if is_road else _kind(rng, wood[at], village[at])
        made.append(_parcel(rng, kind, rect, float(np.clip(0.4 + 0.3 * lime[at], 0, 1))))
    return made


def _kind(rng: np.random.Generator, wood: float, village: float) -> str:
    if village > 1.5:
        return str(
            rng.choice(
                ["house", "garden", "hall", "yard", "parking"], p=[0.4, 0.35, 0.1, 0.07, 0.08]
            )
        )
    if wood > 0.9:
        return "broadleaf" if rng.random() < 0.7 else "conifer"
    return str(rng.choice(["crop", "meadow", "fallow", "water"], p=[0.62, 0.31, 0.05, 0.02]))


def _parcel(rng: np.random.Generator, kind: str, rect: Rect, lime: float) -> Parcel:
    parcel = Parcel(
        kind,
        rect,
        limestone=float(np.clip(lime + rng.normal(0, 0.15), 0, 1.2)),
        shift=float(rng.normal(0, 8)),
        vigour=float(np.clip(rng.normal(0.95, 0.07), 0.7, 1.05)),
    )
    if kind == "crop":
        parcel.crops = rotation(rng)
    if kind in {"meadow", "fallow", "garden"}:
        days = rng.uniform(130, 260, int(rng.integers(1, 4)))
        parcel.mown = tuple(
            float(d) + 365 * year + rng.normal(0, 8) for d in days for year in (0, 1)
        )
    tile, concrete, metal = spectra.TILE, spectra.CONCRETE, spectra.METAL
    parcel.material = {
        "house": 0.5 * tile + 0.2 * spectra.ASPHALT + 0.3 * spectra.GRASS,
        "hall": metal if rng.random() < 0.5 else concrete,
        "yard": spectra.GRAVEL,
        "water": spectra.WATER,
    }.get(kind, spectra.ASPHALT) * float(rng.normal(1, 0.08))
    return parcel


def rotation(rng: np.random.Generator, first: str | None = None) -> tuple[str, str, str]:
    """Crops of three farming years; rapeseed follows wheat only, as it is sown in August."""
    crops = [first or str(rng.choice(["wheat", "rapeseed", "maize", "sunflower"]))]
    while len(crops) < 3:
        after_wheat = crops[-1] == "wheat"
        pool = ["wheat", "maize", "sunflower"] + (["rapeseed"] if after_wheat else [])
        crops.append(str(rng.choice(pool)))
    return crops[0], crops[1], crops[2]


def smooth(rng: np.random.Generator, size: int, scale: float) -> FloatArray:
    """Gaussian noise with structures of ``scale`` pixels, ``(size, size)``, mean 0, spread 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    shape = np.exp(-2 * (np.pi * frequency * scale / 2) ** 2)
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * shape, s=(size, size))
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)
