"""What ground reflects, day by day: typical spectra and the phenology of fields, meadows and woods.

Reflectance × 10 000 in ``BANDS``; orders of magnitude as spectral libraries and Sentinel-2
tutorials give them for western Europe, not fitted to anything this project detects.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.types import FloatArray

BANDS: Final = ("B02", "B03", "B04", "B08", "B11", "B12")


def _spectrum(*values: float) -> FloatArray:
    return np.array(values, np.float32)


CROP: Final = _spectrum(260, 560, 310, 4500, 2000, 950)
STRAW: Final = _spectrum(850, 1200, 1600, 2800, 3500, 2500)
GRASS: Final = _spectrum(320, 640, 400, 3900, 2150, 1100)
HAY: Final = _spectrum(700, 1000, 1250, 2600, 3300, 2200)
LOAM: Final = _spectrum(900, 1200, 1550, 2150, 2950, 2550)
LIMESTONE_SOIL: Final = _spectrum(1350, 1700, 2100, 2700, 3400, 2900)
LEAF_ON: Final = _spectrum(220, 450, 250, 3500, 1550, 680)
LEAF_OFF: Final = _spectrum(350, 500, 560, 1850, 1700, 920)
CONIFER: Final = _spectrum(180, 330, 230, 2300, 920, 420)
SLASH: Final = _spectrum(600, 850, 1050, 2000, 2800, 1950)
CHAR: Final = _spectrum(400, 450, 520, 800, 1350, 1350)
WATER: Final = _spectrum(480, 500, 340, 150, 60, 40)
FLOOD: Final = _spectrum(800, 1000, 950, 550, 180, 120)
DUST: Final = _spectrum(750, 1050, 1300, 2300, 2900, 2000)
SUBSOIL: Final = _spectrum(1200, 1600, 2050, 2700, 3450, 3050)
SNOW: Final = _spectrum(7800, 8000, 7900, 7600, 1000, 850)
CLOUD: Final = _spectrum(4300, 4300, 4350, 4800, 3400, 2600)
SHADOW: Final = _spectrum(0.52, 0.46, 0.42, 0.38, 0.36, 0.35)
"""Share of light left in the shadow of a cloud: the sky still gives blue."""

CONCRETE: Final = _spectrum(2200, 2500, 2700, 3000, 3250, 3050)
GRAVEL: Final = _spectrum(1950, 2350, 2650, 3050, 3500, 3200)
ASPHALT: Final = _spectrum(850, 950, 1050, 1250, 1550, 1480)
NEW_ASPHALT: Final = _spectrum(560, 610, 660, 760, 930, 900)
METAL: Final = _spectrum(3200, 3400, 3500, 3700, 3700, 3300)
TILE: Final = _spectrum(900, 1120, 1700, 2300, 2750, 2500)
MATERIALS: Final = {
    "concrete": CONCRETE,
    "gravel": GRAVEL,
    "asphalt": ASPHALT,
    "new asphalt": NEW_ASPHALT,
    "metal": METAL,
    "tile": TILE,
    "grass": GRASS,
}

Knots = tuple[tuple[float, float], ...]

PHENOLOGY: Final[dict[str, tuple[Knots, Knots]]] = {
    "wheat": (
        (
            (1, 0.3),
            (60, 0.55),
            (105, 0.95),
            (145, 0.92),
            (170, 0.4),
            (185, 0.05),
            (195, 0),
            (305, 0),
            (325, 0.1),
            (366, 0.3),
        ),
        ((145, 0), (170, 0.55), (188, 0.9), (194, 0.6), (245, 0.4), (258, 0.05), (275, 0)),
    ),
    "rapeseed": (
        (
            (1, 0.6),
            (60, 0.8),
            (100, 0.95),
            (150, 0.75),
            (172, 0.2),
            (185, 0),
            (238, 0),
            (258, 0.2),
            (290, 0.6),
            (366, 0.6),
        ),
        ((150, 0.1), (172, 0.7), (185, 0.55), (225, 0.4), (236, 0.05), (250, 0)),
    ),
    "maize": (
        ((125, 0), (150, 0.25), (180, 0.85), (230, 0.95), (255, 0.6), (278, 0.05), (285, 0)),
        (
            (1, 0.15),
            (60, 0.05),
            (95, 0),
            (230, 0),
            (255, 0.35),
            (276, 0.85),
            (282, 0.5),
            (330, 0.3),
            (366, 0.15),
        ),
    ),
    "sunflower": (
        ((130, 0), (155, 0.4), (185, 0.9), (215, 0.7), (245, 0.15), (260, 0)),
        ((1, 0), (215, 0.1), (245, 0.75), (260, 0.4), (285, 0.1), (300, 0)),
    ),
    "meadow": (
        ((1, 0.6), (75, 0.75), (120, 0.95), (200, 0.75), (230, 0.6), (270, 0.75), (366, 0.6)),
        ((1, 0.22), (75, 0.12), (120, 0.04), (200, 0.2), (230, 0.33), (270, 0.17), (366, 0.22)),
    ),
    "broadleaf": (
        ((95, 0), (125, 1), (270, 1), (310, 0.2), (325, 0)),
        ((1, 0), (366, 0)),
    ),
}
"""Share of ground under green and under dry plants against the day of the year; the rest is soil
(of a broadleaf wood: share of leaves)."""
WINTER: Final = ("wheat", "rapeseed")
SUMMER: Final = ("maize", "sunflower")


def shares(kind: str, day: float) -> tuple[float, float]:
    """Green and dry share of a cover on a day of the year."""
    green, dry = PHENOLOGY[kind]
    return _at(green, day), _at(dry, day)


def _at(knots: Knots, day: float) -> float:
    days, values = zip(*knots, strict=True)
    return float(np.interp(day % 366, days, values))


def soil(limestone: float, wetness: float) -> FloatArray:
    """Bare soil: how calcareous (0 to 1) and how wet (0 to 1); water darkens the SWIR most."""
    dry = LOAM + limestone * (LIMESTONE_SOIL - LOAM)
    return np.asarray(dry * (1 - wetness * _spectrum(0.4, 0.4, 0.4, 0.42, 0.48, 0.52)), np.float32)


def field(kind: str, green: float, dry: float, ground: FloatArray) -> FloatArray:
    """Spectrum of a field or meadow from its shares and its soil."""
    live, dead = (GRASS, HAY) if kind == "meadow" else (CROP, STRAW)
    return np.asarray(green * live + dry * dead + max(0.0, 1 - green - dry) * ground, np.float32)
