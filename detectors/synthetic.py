"""Made-up aerial pairs for training: buildings appear and go while everything else changes too.

Nothing here copies a real place. A scene is an irregular lattice of ground (lawn, crop, soil,
gravel, asphalt, water) with roads, trees, cars, pools and slabs, and buildings whose roofs have
pitches, ridges, tiles, glare and cast shadow. The two dates share the lasting things and differ
in season, crops, sun, exposure, blur, a pixel or two of position and the lean of roofs; every
style is drawn anew from wide ranges (domain randomisation, Tobin et al. 2017), so that a network
cannot learn one painter's hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.painting import (
    GROUND,
    SEASONAL,
    Box,
    Canvas,
    Float,
    House,
    Rng,
    Thing,
    Tree,
    exposed,
    noise,
    paint,
)
from detectors.training import Example

GSD_RANGE: Final = (0.16, 0.5)
"""Metres per pixel of training scenes: BD ORTHO's 0.2 m, and coarse enough for a hall to be seen
whole."""
PAD_M: Final = 9.0
"""Ground drawn beyond the frame, so that shadows and trees fall in from outside."""

SETTINGS: Final[dict[str, dict[str, float]]] = {
    "village": {"lawn": 6, "meadow": 2, "gravel": 1, "soil": 0.6, "shrub": 1, "concrete": 0.5},
    "works": {"asphalt": 4, "gravel": 2, "concrete": 2, "lawn": 2, "soil": 1, "meadow": 1},
    "country": {
        "crop": 3,
        "stubble": 2,
        "soil": 2,
        "meadow": 3,
        "lawn": 1,
        "shrub": 1,
        "water": 0.2,
    },
}
ROOFS: Final = (
    # colour, chance: tiles, slate, brown, light metal, white, dark flat, grey flat, blue metal
    ((176, 110, 84), 5.0),
    ((196, 148, 116), 3.0),
    ((150, 96, 78), 2.0),
    ((98, 102, 112), 3.0),
    ((122, 112, 104), 2.0),
    ((204, 204, 202), 2.0),
    ((228, 228, 226), 1.0),
    ((82, 82, 84), 1.0),
    ((158, 156, 152), 2.0),
    ((120, 138, 158), 0.5),
)


LARGE_ROOFS: Final = {"flat": 0.4, "metal": 0.27, "gable": 0.15, "solar": 0.08, "plastic": 0.1}
SMALL_ROOFS: Final = {"gable": 0.6, "hip": 0.25, "flat": 0.15}


def make_pair(rng: Rng, *, size: int = 256, change: bool = True) -> Example:
    """One pair of ``size`` pixels; without ``change`` the same buildings stand on both dates."""
    gsd = float(np.exp(rng.uniform(*np.log(GSD_RANGE))))
    pad = math.ceil(PAD_M / gsd)
    full = size + 2 * pad
    lines = np.arange(full, dtype=np.float32) * gsd
    x, y = (np.ascontiguousarray(v) for v in np.meshgrid(lines, lines))
    canvas = Canvas(full, gsd, x, y, [noise(rng, full, s / gsd) for s in (0.4, 2.0, 12.0)])
    setting = str(rng.choice(list(SETTINGS), p=[0.5, 0.2, 0.3]))
    angle = float(rng.uniform(0, math.pi))
    houses = _houses(rng, canvas, setting, angle, change=change)
    things = _things(rng, canvas, setting, angle)
    things = [t for h in houses for t in _around(rng, h)] + things
    trees = _trees(rng, canvas, setting)
    cells, kinds = _cells(rng, canvas, setting, angle)
    roads = _roads(rng, canvas, angle)
    images, masks = [], []
    for date in (0, 1):
        standing = [h for h in houses if (h.before, h.after)[date]]
        lying = [t for t in things if (t.before, t.after)[date]]
        grown = [t for t in trees if (t.before, t.after)[date]]
        image, built = paint(rng, canvas, (cells, kinds[date]), roads, standing, lying, grown)
        cut = slice(pad, pad + size)
        images.append(exposed(rng, image)[:, cut, cut])
        masks.append(built[cut, cut])
    return Example(images[0], images[1], masks[0], masks[1])


def _cells(
    rng: Rng, canvas: Canvas, setting: str, angle: float
) -> tuple[npt.NDArray[np.int64], tuple[list[str], list[str]]]:
    """Lattice cells of ground, and the kind of each on either date."""
    wobble = 0.8 * canvas.noise[2]
    u = canvas.x * math.cos(angle) + canvas.y * math.sin(angle) + wobble
    v = canvas.y * math.cos(angle) - canvas.x * math.sin(angle) + wobble
    step = {"village": 22.0, "works": 34.0, "country": 60.0}[setting] * rng.uniform(0.6, 2.0)
    reach = 2 * canvas.size * canvas.gsd
    cuts = [np.cumsum(rng.uniform(0.5, 1.6, int(2 * reach / step) + 2)) * step - reach] * 2
    cuts[1] = np.cumsum(rng.uniform(0.5, 1.6, len(cuts[0]))) * step - reach
    row, col = np.searchsorted(cuts[0], u), np.searchsorted(cuts[1], v)
    width = len(cuts[1]) + 1
    names, weights = zip(*SETTINGS[setting].items(), strict=True)
    count = (len(cuts[0]) + 1) * width
    first = rng.choice(names, count, p=np.array(weights) / sum(weights)).tolist()
    second = [
        str(rng.choice(SEASONAL)) if k in SEASONAL and rng.random() < 0.5 else k for k in first
    ]
    return row * width + col, (first, second)


def _roads(rng: Rng, canvas: Canvas, angle: float) -> list[tuple[Float, float, Float]]:
    """Distance to the middle of each road, its half width, and its colour."""
    found = []
    side = canvas.size * canvas.gsd
    for _ in range(int(rng.integers(0, 4))):
        turn = angle + rng.choice([0, math.pi / 2]) + rng.normal(0, 0.08)
        bend = rng.normal(0, 4)
        across = (canvas.x - side / 2) * math.sin(turn) - (canvas.y - side / 2) * math.cos(turn)
        along = (canvas.x - side / 2) * math.cos(turn) + (canvas.y - side / 2) * math.sin(turn)
        distance = np.abs(across - rng.uniform(-0.45, 0.45) * side + bend * np.sin(along / 40))
        colour = np.array(rng.choice([GROUND["asphalt"][0], GROUND["gravel"][0]], p=[0.8, 0.2]))
        colour = colour + rng.normal(0, 14) + rng.normal(0, 4, 3)
        found.append((distance, float(rng.uniform(1.5, 4.5)), colour.astype(np.float32)))
    return found


def _palette(rng: Rng) -> Float:
    colours, chances = zip(*ROOFS, strict=True)
    pick = int(rng.choice(len(colours), p=np.array(chances) / sum(chances)))
    return np.asarray(np.array(colours[pick]) + rng.normal(0, 16) + rng.normal(0, 7, 3), np.float32)


def _stands(rng: Rng, *, change: bool, lasting: float) -> tuple[bool, bool]:
    """On which dates something is there."""
    if not change or rng.random() < lasting:
        return True, True
    return (False, True) if rng.random() < 0.6 else (True, False)


def _houses(rng: Rng, canvas: Canvas, setting: str, angle: float, *, change: bool) -> list[House]:
    side = canvas.size * canvas.gsd
    many = {"village": 22, "works": 9, "country": 5}[setting]
    count = int(rng.poisson(many * rng.uniform(0.3, 1.3)))
    family = [_palette(rng) for _ in range(3)]
    taken: list[tuple[float, float, float]] = []
    lasting = float(rng.choice([0.3, 0.7, 1.0], p=[0.45, 0.4, 0.15]))
    houses = []
    for _ in range(count):
        large = setting == "works" or rng.random() < 0.08
        a, b = rng.uniform(3.5, 9), rng.uniform(2.5, 5.5)
        if large:
            a = float(np.clip(rng.lognormal(2.5, 0.5), 5, 45))
            b = a * rng.uniform(0.3, 1)
        x, y = rng.uniform(2, side - 2, 2)
        reach = math.hypot(a, b)
        if any(math.hypot(x - p, y - q) < reach + r for p, q, r in taken):
            continue
        taken.append((x, y, 0.8 * reach))
        turn = angle + rng.choice([0, math.pi / 2]) + rng.normal(0, 0.15)
        boxes = [Box(x, y, a, b, turn)]
        if rng.random() < 0.35:  # a wing
            shift, w = rng.uniform(-0.7, 0.7) * a, rng.uniform(0.4, 0.8) * b
            away = (b + 0.6 * w) * rng.choice([-1, 1])
            boxes.append(
                Box(
                    x + shift * math.cos(turn) - away * math.sin(turn),
                    y + shift * math.sin(turn) + away * math.cos(turn),
                    w,
                    1.2 * w,
                    turn,
                )
            )
        kinds = LARGE_ROOFS if large else SMALL_ROOFS
        roof = str(rng.choice(list(kinds), p=list(kinds.values())))
        colour = family[int(rng.integers(3))] if rng.random() < 0.7 else _palette(rng)
        if large and rng.random() < 0.7:
            colour = np.asarray([rng.uniform(120, 235)] * 3 + rng.normal(0, 5, 3), np.float32)
        before, after = _stands(rng, change=change, lasting=lasting)
        height = float(rng.uniform(4, 11) if large else rng.uniform(2.5, 8))
        houses.append(House(boxes, height, roof, colour, before, after))
    return houses


def _things(rng: Rng, canvas: Canvas, setting: str, angle: float) -> list[Thing]:
    side = canvas.size * canvas.gsd
    found = []
    looks = {
        "slab": (1.5, 7, "concrete"),
        "plot": (5, 22, "soil"),
        "yard": (5, 32, "gravel"),
        "lot": (6, 32, "asphalt"),
        "pool": (1.5, 4.5, "water"),
        "court": (6, 16, "concrete"),
        "heap": (1, 4, "soil"),
    }
    for _ in range(int(rng.poisson({"village": 9, "works": 9, "country": 4}[setting]))):
        kind = str(rng.choice(list(looks)))
        low, high, ground = looks[kind]
        a = rng.uniform(low, high)
        turn = angle + rng.choice([0, math.pi / 2]) + rng.normal(0, 0.1)
        x, y = rng.uniform(0, side, 2)
        box = Box(x, y, a, a * rng.uniform(0.4, 1), turn)
        colour = np.array(GROUND[ground][0]) + rng.normal(0, 14) + rng.normal(0, 6, 3)
        if kind == "pool":
            colour = np.array([100, 178, 196]) + rng.normal(0, 18, 3)
        if kind == "court":
            colour = np.array(rng.choice([[176, 98, 78], [84, 128, 92], [92, 120, 160]], axis=0))
        before, after = _stands(rng, change=True, lasting=0.5)
        found.append(Thing(box, kind, colour.astype(np.float32), before, after))
    for lot in [t for t in found if t.kind == "lot"]:
        found += _parked(rng, lot)
    for _ in range(int(rng.poisson(4 if setting == "works" else 1))):  # lorries, containers
        x, y = rng.uniform(0, side, 2)
        box = Box(x, y, rng.uniform(3, 8), rng.uniform(1.2, 1.5), angle + rng.normal(0, 0.4))
        colour = np.array(rng.choice([[228, 228, 226], [70, 90, 130], [150, 70, 60], [90, 92, 90]]))
        before = bool(rng.random() < 0.5)
        found.append(Thing(box, "lorry", colour.astype(np.float32), before, not before))
    for _ in range(int(rng.poisson(12 if setting == "works" else 5))):
        x, y = rng.uniform(0, side, 2)
        box = Box(x, y, rng.uniform(1.8, 2.6), 0.9, angle + rng.normal(0, 0.3))
        colour = np.array([rng.choice([235, 30, 90, 150, 200])] * 3) + rng.normal(0, 18, 3)
        before = bool(rng.random() < 0.5)
        found.append(Thing(box, "car", colour.astype(np.float32), before, not before))
    return found


def _parked(rng: Rng, lot: Thing) -> list[Thing]:
    """Rows of cars on a car park, other ones on each date."""
    cars = []
    c, s = math.cos(lot.box.angle), math.sin(lot.box.angle)
    full = rng.uniform(0, 0.8)
    for v in np.arange(-lot.box.b + 3, lot.box.b - 2, 5.5):
        for u in np.arange(-lot.box.a + 2, lot.box.a - 2, 2.6):
            here = rng.random(2) < full
            if not here.any():
                continue
            grey = rng.choice([235, 30, 90, 150, 200, 120])
            colour = np.array([grey] * 3) + rng.normal(0, 16, 3)
            x, y = lot.box.x + u * c - v * s, lot.box.y + u * s + v * c
            box = Box(x, y, 0.9, rng.uniform(1.9, 2.4), lot.box.angle)
            before, after = bool(here[0] and lot.before), bool(here[1] and lot.after)
            cars.append(Thing(box, "car", colour.astype(np.float32), before, after))
    return cars


def _around(rng: Rng, house: House) -> list[Thing]:
    """What comes and goes with a building and is none: the platform a hall is built on, the drive
    and terrace of a house."""
    box = house.boxes[0]
    found = []
    if house.before != house.after and rng.random() < 0.5:
        grow = rng.uniform(1.1, 1.8)
        wide = Box(box.x, box.y, grow * box.a, grow * box.b, box.angle)
        light = np.array(rng.choice([[206, 196, 172], [176, 150, 116], [214, 212, 206]]))
        colour = (light + rng.normal(0, 12, 3)).astype(np.float32)
        found.append(Thing(wide, "yard", colour, True, bool(rng.random() < 0.3)))
    if rng.random() < 0.5:
        away = box.b + rng.uniform(1, 5)
        x, y = box.x - away * math.sin(box.angle), box.y + away * math.cos(box.angle)
        slab = Box(x, y, rng.uniform(1.5, box.a + 2), rng.uniform(1.5, 5), box.angle)
        colour = np.array(GROUND[str(rng.choice(["gravel", "concrete", "asphalt"]))][0])
        colour = (colour + rng.normal(0, 12)).astype(np.float32)
        found.append(Thing(slab, "slab", colour, house.before, house.after))
    return found


def _trees(rng: Rng, canvas: Canvas, setting: str) -> list[Tree]:
    side = canvas.size * canvas.gsd
    many = {"village": 26, "works": 10, "country": 14}[setting] * rng.uniform(0.2, 2.0)
    grove = rng.uniform(0, side, 2)
    found = []
    for _ in range(int(rng.poisson(many))):
        place = rng.normal(grove, 18) if rng.random() < 0.4 else rng.uniform(0, side, 2)
        before, after = _stands(rng, change=True, lasting=0.8)
        radius = float(np.clip(rng.lognormal(0.7, 0.5), 0.8, 7))
        leafy = bool(rng.random() < 0.8)
        found.append(Tree(float(place[0]), float(place[1]), radius, before, after, leafy))
    return found


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """Made-up pairs as training examples; held-out ones come from their own seeds."""

    @property
    def about(self) -> dict[str, Any]:
        """What goes on the model card."""
        return {
            "data": "made-up pairs of detectors.synthetic; no real image",
            "licence": "Apache-2.0",
            "bands": ["red", "green", "blue"],
            "gsd": list(GSD_RANGE),
        }

    def draw(self, rng: Rng, *, size: int, held_out: bool) -> Example:
        """One made-up pair."""
        return make_pair(rng, size=size)
