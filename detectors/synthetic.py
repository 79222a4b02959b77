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
import torch
from torch.nn import functional as F

from detectors.training import Example

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Rng = np.random.Generator

GSD_RANGE: Final = (0.16, 0.32)
"""Metres per pixel of training scenes: BD ORTHO's 0.2 m and what lies around it."""
PAD_M: Final = 9.0
"""Ground drawn beyond the frame, so that shadows and trees fall in from outside."""

GROUND: Final[dict[str, tuple[tuple[float, float, float], float, float]]] = {
    # colour, how far the colour wanders, strength of texture
    "lawn": ((104, 122, 78), 20, 8),
    "meadow": ((128, 132, 88), 24, 9),
    "crop": ((88, 112, 62), 26, 7),
    "stubble": ((182, 162, 116), 22, 8),
    "soil": ((140, 112, 86), 26, 9),
    "gravel": ((184, 176, 162), 22, 9),
    "asphalt": ((122, 122, 124), 22, 5),
    "concrete": ((192, 190, 184), 20, 5),
    "shrub": ((80, 92, 58), 18, 16),
    "water": ((56, 74, 78), 18, 3),
}
SEASONAL: Final = ("crop", "stubble", "soil", "meadow")
"""Ground that may be another of these on the other date: fields are ploughed and sown."""
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


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one ground, uint8 ``(3, row, col)``, and where buildings stood on each,
    bool ``(row, col)``."""

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    built_before: Bool
    built_after: Bool

    @property
    def changed(self) -> Bool:
        """Ground where a building appeared or went."""
        return np.asarray(self.built_before ^ self.built_after)


@dataclass(slots=True)
class _Box:
    """A rectangle on the ground: centre, half sides (metres) and angle."""

    x: float
    y: float
    a: float
    b: float
    angle: float


@dataclass(slots=True)
class _House:
    """A building: one or two boxes, height, roof kind and colour, and the dates it stands on."""

    boxes: list[_Box]
    height: float
    roof: str
    colour: Float
    before: bool
    after: bool


@dataclass(slots=True)
class _Thing:
    """Something flat that is no building: slab, pool, court, bare plot, cars."""

    box: _Box
    kind: str
    colour: Float
    before: bool
    after: bool


@dataclass(slots=True)
class _Tree:
    x: float
    y: float
    radius: float
    before: bool
    after: bool
    leafy: bool


@dataclass(slots=True)
class _Canvas:
    """Pixel coordinates in metres and the noise both dates share."""

    size: int
    gsd: float
    x: Float
    y: Float
    noise: list[Float]


def make_pair(rng: Rng, *, size: int = 256, change: bool = True) -> Pair:
    """One pair of ``size`` pixels; without ``change`` the same buildings stand on both dates."""
    gsd = float(rng.uniform(*GSD_RANGE))
    pad = math.ceil(PAD_M / gsd)
    full = size + 2 * pad
    lines = np.arange(full, dtype=np.float32) * gsd
    x, y = (np.ascontiguousarray(v) for v in np.meshgrid(lines, lines))
    canvas = _Canvas(full, gsd, x, y, [_noise(rng, full, s / gsd) for s in (0.4, 2.0, 12.0)])
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
        image, built = _paint(rng, canvas, (cells, kinds[date]), roads, standing, lying, grown)
        cut = slice(pad, pad + size)
        images.append(exposed(rng, image)[:, cut, cut])
        masks.append(built[cut, cut])
    return Pair(images[0], images[1], masks[0], masks[1])


def _noise(rng: Rng, size: int, scale: float) -> Float:
    """Smooth noise of unit spread and about ``scale`` pixels of grain."""
    coarse = max(2, min(size, math.ceil(size / max(scale, 1.0))) + 2)
    seed = torch.as_tensor(rng.normal(0, 1, (1, 1, coarse, coarse)).astype(np.float32))
    if coarse >= size:
        return np.asarray(seed[0, 0, :size, :size].numpy())
    grown = F.interpolate(seed, (size, size), mode="bicubic", align_corners=True)
    return np.asarray(grown[0, 0].numpy())


def _cells(
    rng: Rng, canvas: _Canvas, setting: str, angle: float
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


def _roads(rng: Rng, canvas: _Canvas, angle: float) -> list[tuple[Float, float, Float]]:
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


def _houses(rng: Rng, canvas: _Canvas, setting: str, angle: float, *, change: bool) -> list[_House]:
    side = canvas.size * canvas.gsd
    many = {"village": 22, "works": 9, "country": 5}[setting]
    count = int(rng.poisson(many * rng.uniform(0.3, 1.3)))
    family = [_palette(rng) for _ in range(3)]
    taken: list[tuple[float, float, float]] = []
    lasting = float(rng.choice([0.3, 0.7, 1.0], p=[0.45, 0.4, 0.15]))
    houses = []
    for _ in range(count):
        large = setting == "works" or rng.random() < 0.08
        a, b = rng.uniform(6, 17, 2) if large else (rng.uniform(3.5, 9), rng.uniform(2.5, 5.5))
        x, y = rng.uniform(2, side - 2, 2)
        reach = math.hypot(a, b)
        if any(math.hypot(x - p, y - q) < reach + r for p, q, r in taken):
            continue
        taken.append((x, y, 0.8 * reach))
        turn = angle + rng.choice([0, math.pi / 2]) + rng.normal(0, 0.15)
        boxes = [_Box(x, y, a, b, turn)]
        if rng.random() < 0.35:  # a wing
            shift, w = rng.uniform(-0.7, 0.7) * a, rng.uniform(0.4, 0.8) * b
            away = (b + 0.6 * w) * rng.choice([-1, 1])
            boxes.append(
                _Box(
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
        houses.append(_House(boxes, height, roof, colour, before, after))
    return houses


def _things(rng: Rng, canvas: _Canvas, setting: str, angle: float) -> list[_Thing]:
    side = canvas.size * canvas.gsd
    found = []
    looks = {
        "slab": (1.5, 7, "concrete"),
        "plot": (5, 22, "soil"),
        "yard": (5, 20, "gravel"),
        "lot": (6, 25, "asphalt"),
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
        box = _Box(x, y, a, a * rng.uniform(0.4, 1), turn)
        colour = np.array(GROUND[ground][0]) + rng.normal(0, 14) + rng.normal(0, 6, 3)
        if kind == "pool":
            colour = np.array([100, 178, 196]) + rng.normal(0, 18, 3)
        if kind == "court":
            colour = np.array(rng.choice([[176, 98, 78], [84, 128, 92], [92, 120, 160]], axis=0))
        before, after = _stands(rng, change=True, lasting=0.5)
        found.append(_Thing(box, kind, colour.astype(np.float32), before, after))
    for lot in [t for t in found if t.kind == "lot"]:
        found += _parked(rng, lot)
    for _ in range(int(rng.poisson(4 if setting == "works" else 1))):  # lorries, containers
        x, y = rng.uniform(0, side, 2)
        box = _Box(x, y, rng.uniform(3, 8), rng.uniform(1.2, 1.5), angle + rng.normal(0, 0.4))
        colour = np.array(rng.choice([[228, 228, 226], [70, 90, 130], [150, 70, 60], [90, 92, 90]]))
        before = bool(rng.random() < 0.5)
        found.append(_Thing(box, "lorry", colour.astype(np.float32), before, not before))
    for _ in range(int(rng.poisson(12 if setting == "works" else 5))):
        x, y = rng.uniform(0, side, 2)
        box = _Box(x, y, rng.uniform(1.8, 2.6), 0.9, angle + rng.normal(0, 0.3))
        colour = np.array([rng.choice([235, 30, 90, 150, 200])] * 3) + rng.normal(0, 18, 3)
        before = bool(rng.random() < 0.5)
        found.append(_Thing(box, "car", colour.astype(np.float32), before, not before))
    return found


def _parked(rng: Rng, lot: _Thing) -> list[_Thing]:
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
            box = _Box(x, y, 0.9, rng.uniform(1.9, 2.4), lot.box.angle)
            before, after = bool(here[0] and lot.before), bool(here[1] and lot.after)
            cars.append(_Thing(box, "car", colour.astype(np.float32), before, after))
    return cars


def _around(rng: Rng, house: _House) -> list[_Thing]:
    """What comes and goes with a building and is none: the platform a hall is built on, the drive
    and terrace of a house."""
    box = house.boxes[0]
    found = []
    if house.before != house.after and rng.random() < 0.5:
        grow = rng.uniform(1.1, 1.8)
        wide = _Box(box.x, box.y, grow * box.a, grow * box.b, box.angle)
        light = np.array(rng.choice([[206, 196, 172], [176, 150, 116], [214, 212, 206]]))
        colour = (light + rng.normal(0, 12, 3)).astype(np.float32)
        found.append(_Thing(wide, "yard", colour, True, bool(rng.random() < 0.3)))
    if rng.random() < 0.5:
        away = box.b + rng.uniform(1, 5)
        x, y = box.x - away * math.sin(box.angle), box.y + away * math.cos(box.angle)
        slab = _Box(x, y, rng.uniform(1.5, box.a + 2), rng.uniform(1.5, 5), box.angle)
        colour = np.array(GROUND[str(rng.choice(["gravel", "concrete", "asphalt"]))][0])
        colour = (colour + rng.normal(0, 12)).astype(np.float32)
        found.append(_Thing(slab, "slab", colour, house.before, house.after))
    return found


def _trees(rng: Rng, canvas: _Canvas, setting: str) -> list[_Tree]:
    side = canvas.size * canvas.gsd
    many = {"village": 26, "works": 10, "country": 14}[setting] * rng.uniform(0.2, 2.0)
    grove = rng.uniform(0, side, 2)
    found = []
    for _ in range(int(rng.poisson(many))):
        place = rng.normal(grove, 18) if rng.random() < 0.4 else rng.uniform(0, side, 2)
        before, after = _stands(rng, change=True, lasting=0.8)
        radius = float(np.clip(rng.lognormal(0.7, 0.5), 0.8, 7))
        leafy = bool(rng.random() < 0.8)
        found.append(_Tree(float(place[0]), float(place[1]), radius, before, after, leafy))
    return found


def _paint(
    rng: Rng,
    canvas: _Canvas,
    ground: tuple[npt.NDArray[np.int64], list[str]],
    roads: list[tuple[Float, float, Float]],
    houses: list[_House],
    things: list[_Thing],
    trees: list[_Tree],
) -> tuple[Float, Bool]:
    """One date: image ``(3, row, col)`` before exposure, and where buildings stand."""
    image = _ground(rng, canvas, *ground)
    own = _noise(rng, canvas.size, 0.5 / canvas.gsd)
    for distance, half, colour in roads:
        near = distance < half
        image[:, near] = colour[:, None] + 4 * canvas.noise[0][near] + 5 * canvas.noise[2][near]
        if half > 2.6:
            image[:, distance < 0.09] += 55
    height = np.zeros((canvas.size, canvas.size), np.float32)
    built = np.zeros((canvas.size, canvas.size), bool)
    for thing in things:
        _lay(rng, canvas, image, height, thing)
    sun = float(rng.uniform(0, 2 * math.pi))
    elevation = float(rng.uniform(0.5, 1.15))
    for house in houses:
        _build(rng, canvas, image, height, built, house, sun)
    green: npt.NDArray[np.float64] = (
        np.array([72.0, 92, 50]) + rng.normal(0, 14) + rng.normal(0, 8, 3)
    )
    bare = np.array([110.0, 98, 84]) + rng.normal(0, 10, 3)
    winter = rng.random() < 0.3
    for tree in trees:
        crown = bare if winter and tree.leafy else green + rng.normal(0, 9, 3)
        _plant(canvas, image, height, tree, crown, sun, own)
    shade = _shadow(height, canvas.gsd, sun, elevation)
    depth = rng.uniform(0.28, 0.6)
    tint = np.array([0.94, 1.0, 1.1], np.float32)[:, None, None]
    image *= 1 - shade * (1 - depth * tint)
    image += (2.5 * own)[None]
    # a crown over a roof hides it, but the map keeps the building: labels stay whole
    return image, built


def _ground(rng: Rng, canvas: _Canvas, cells: npt.NDArray[np.int64], kinds: list[str]) -> Float:
    seen = np.unique(cells)
    table = np.zeros((cells.max() + 1, 3), np.float32)
    grain = np.zeros(cells.max() + 1, np.float32)
    rows = np.zeros((cells.max() + 1, 3), np.float32)
    patches = np.zeros(cells.max() + 1, np.float32)
    season = {k: rng.normal(0, 0.3, 3) + rng.normal(0, 0.8) for k in GROUND}
    for cell in seen:
        colour, wander, texture = GROUND[kinds[cell]]
        table[cell] = np.array(colour) + 0.6 * wander * season[kinds[cell]]
        table[cell] += rng.normal(0, 0.35 * wander) + rng.normal(0, 3, 3)
        grain[cell] = texture * rng.uniform(0.5, 1.5)
        if kinds[cell] in SEASONAL and rng.random() < 0.6:
            patches[cell] = rng.uniform(2, 22)  # wet and dry, ripe and green
        if kinds[cell] in ("crop", "stubble", "soil") and rng.random() < 0.6:
            turn, period = rng.uniform(0, math.pi), rng.uniform(0.6, 4)
            rows[cell] = (math.cos(turn) / period, math.sin(turn) / period, rng.uniform(2, 16))
    image = np.moveaxis(table[cells], -1, 0).copy()
    mix = 0.6 * canvas.noise[0] + 0.6 * canvas.noise[1] + 0.5 * canvas.noise[2]
    mix = mix + 0.5 * _noise(rng, canvas.size, 5 / canvas.gsd)
    image += (grain[cells] * mix)[None]
    streaks = _noise(rng, canvas.size, rng.uniform(0.8, 9) / canvas.gsd)
    image += (patches[cells] * streaks)[None]
    line = rows[cells]
    phase = 2 * math.pi * (canvas.x * line[..., 0] + canvas.y * line[..., 1])
    image += (line[..., 2] * np.sin(phase) * (0.7 + 0.3 * canvas.noise[1]))[None]
    return image


def _window(canvas: _Canvas, box: _Box, margin: float = 0.5) -> tuple[slice, slice] | None:
    reach = math.hypot(box.a, box.b) + margin
    g = canvas.gsd
    rows = slice(max(0, int((box.y - reach) / g)), min(canvas.size, int((box.y + reach) / g) + 1))
    cols = slice(max(0, int((box.x - reach) / g)), min(canvas.size, int((box.x + reach) / g) + 1))
    return None if rows.start >= rows.stop or cols.start >= cols.stop else (rows, cols)


def _local(canvas: _Canvas, box: _Box, where: tuple[slice, slice]) -> tuple[Float, Float]:
    """Coordinates along and across a box, metres from its centre."""
    dx, dy = canvas.x[where] - box.x, canvas.y[where] - box.y
    c, s = math.cos(box.angle), math.sin(box.angle)
    return dx * c + dy * s, dy * c - dx * s


def _lay(rng: Rng, canvas: _Canvas, image: Float, height: Float, thing: _Thing) -> None:
    where = _window(canvas, thing.box)
    if where is None:
        return
    u, v = _local(canvas, thing.box, where)
    inside = (np.abs(u) < thing.box.a) & (np.abs(v) < thing.box.b)
    if thing.kind in ("plot", "heap"):  # dug ground has no straight edge
        wave = 1 + 0.25 * canvas.noise[1][where]
        inside = (u / thing.box.a) ** 2 + (v / thing.box.b) ** 2 < wave
    part = image[(slice(None), *where)]
    colour = thing.colour[:, None] + rng.uniform(2, 8) * canvas.noise[0][where][inside]
    part[:, inside] = colour
    if thing.kind in ("lorry", "car", "heap"):
        tall = {"lorry": 3.5, "car": 1.4, "heap": 1.5}[thing.kind]
        height[where] = np.where(inside, np.maximum(height[where], tall), height[where])
    if thing.kind == "court":
        line = inside & ((np.abs(np.abs(u) - thing.box.a * 0.8) < 0.15) | (np.abs(v) < 0.12))
        part[:, line] += 60
    if thing.kind == "lot" and rng.random() < 0.7:
        line = inside & (np.mod(u, 2.5) < 0.2) & (np.abs(v) > 0.3 * thing.box.b)
        part[:, line] += 50


def _build(
    rng: Rng,
    canvas: _Canvas,
    image: Float,
    height: Float,
    built: Bool,
    house: _House,
    sun: float,
) -> None:
    """Draw a building; its roof may lean a little out of its footprint (no true orthophoto)."""
    lean = rng.normal(0, 0.06, 2) * house.height
    glare = rng.uniform(0.1, 0.3)
    for box in house.boxes:
        drawn = _Box(box.x + lean[0], box.y + lean[1], box.a, box.b, box.angle)
        where = _window(canvas, drawn, 1.5)
        if where is None:
            continue
        u, v = _local(canvas, drawn, where)
        inside = (np.abs(u) < box.a) & (np.abs(v) < box.b)
        light = np.ones_like(u)
        toward = math.cos(sun - box.angle - math.pi / 2)
        if house.roof == "gable":
            light += glare * np.where(v > 0, toward, -toward)
        elif house.roof == "hip":
            along = math.cos(sun - box.angle)
            end = box.a - np.abs(u) < box.b - np.abs(v)
            light += glare * np.where(end, np.sign(u) * along, np.where(v > 0, toward, -toward))
        tile = rng.uniform(0.25, 0.6)
        if house.roof == "metal":
            light += 0.05 * np.sign(np.sin(2 * math.pi * u / rng.uniform(0.8, 3)))
        elif house.roof != "flat":
            light += 0.03 * np.sin(2 * math.pi * v / tile)
        light += rng.uniform(0.01, 0.05) * canvas.noise[0][where] + 0.03 * canvas.noise[1][where]
        part = image[(slice(None), *where)]
        part[:, inside] = house.colour[:, None] * light[inside]
        if house.roof == "plastic":  # a greenhouse: light spans with dark gutters
            part[:, inside] = (0.5 * house.colour + 110)[:, None] * light[inside]
            span = rng.uniform(2.5, 8)
            part[:, inside & (np.mod(v, span) < 0.12 * span)] -= rng.uniform(20, 60)
        if house.roof == "solar":
            part[:, inside] = np.array([52, 66, 96])[:, None] * light[inside]
            seam = inside & ((np.mod(u, 1.7) < 0.15) | (np.mod(v, 1.0) < 0.15))
            part[:, seam] = np.array([150, 156, 166])[:, None]
        edge = inside & ((box.a - np.abs(u) < 0.4) | (box.b - np.abs(v) < 0.4))
        if house.roof == "flat":
            part[:, edge] += rng.uniform(-35, 45)
            _clutter(rng, part, u, v, box, inside)
        elif house.roof in ("gable", "hip"):
            ridge = (
                inside
                & (np.abs(v) < 0.2)
                & (np.abs(u) < box.a - (box.b if house.roof == "hip" else 0))
            )
            part[:, ridge] += rng.uniform(-10, 30)
            if rng.random() < 0.4:
                _clutter(rng, part, u, v, box, inside)
        height[where] = np.where(inside, np.maximum(height[where], house.height), height[where])
        foot = _window(canvas, box, 1.5)
        if foot is not None:
            fu, fv = _local(canvas, box, foot)
            built[foot] |= (np.abs(fu) < box.a) & (np.abs(fv) < box.b)


def _clutter(rng: Rng, part: Float, u: Float, v: Float, box: _Box, inside: Bool) -> None:
    """Skylights, chimneys, panels and vents on a roof."""
    for _ in range(int(rng.integers(1, 5))):
        cu, cv = rng.uniform(-0.7, 0.7) * box.a, rng.uniform(-0.7, 0.7) * box.b
        half = rng.uniform(0.3, 1.6, 2)
        spot = inside & (np.abs(u - cu) < half[0]) & (np.abs(v - cv) < half[1])
        part[:, spot] = rng.choice([60, 90, 200, 235]) + rng.normal(0, 6, 3)[:, None]


def _plant(
    canvas: _Canvas,
    image: Float,
    height: Float,
    tree: _Tree,
    colour: npt.NDArray[np.float64],
    sun: float,
    own: Float,
) -> None:
    where = _window(canvas, _Box(tree.x, tree.y, tree.radius, tree.radius, 0), 1.0)
    if where is None:
        return
    dx, dy = canvas.x[where] - tree.x, canvas.y[where] - tree.y
    distance = np.hypot(dx, dy) / tree.radius
    inside = distance + 0.18 * canvas.noise[1][where] + 0.08 * own[where] < 1
    lit = (dx * math.cos(sun) + dy * math.sin(sun)) / tree.radius
    light = 0.95 + 0.3 * lit + 0.14 * canvas.noise[0][where] + 0.12 * own[where]
    part = image[(slice(None), *where)]
    part[:, inside] = np.asarray(colour, np.float32)[:, None] * light[inside]
    tall = 1.6 * tree.radius * np.sqrt(np.clip(1 - distance**2, 0.05, 1))
    height[where] = np.where(inside, np.maximum(height[where], tall), height[where])


def _shadow(height: Float, gsd: float, sun: float, elevation: float) -> Float:
    """1 where something higher stands toward the sun, softened by half a pixel."""
    tall = float(height.max())
    shaded = np.zeros(height.shape, bool)
    if tall <= 0:
        return shaded.astype(np.float32)
    slope = math.tan(elevation)
    step = max(1.5 * gsd, tall / slope / 14)
    pad = height.shape[0]
    for distance in np.arange(step, tall / slope + step, step):
        dc, dr = round(distance * math.cos(sun) / gsd), round(distance * math.sin(sun) / gsd)
        if max(abs(dc), abs(dr)) >= pad:
            break
        higher = np.roll(height, (-dr, -dc), axis=(0, 1)) - height > distance * slope
        shaded |= higher
    soft = torch.as_tensor(shaded.astype(np.float32))[None, None]
    return np.asarray(F.avg_pool2d(F.pad(soft, (1,) * 4, mode="replicate"), 3, 1)[0, 0].numpy())


def exposed(rng: Rng, image: Float) -> npt.NDArray[np.uint8]:
    """Optics and processing of one campaign: blur, place, contrast, cast, haze, noise."""
    tensor = torch.as_tensor(np.ascontiguousarray(image))[None]
    rows, cols = tensor.shape[-2:]
    shift = rng.normal(0, 0.7, 2)
    theta = torch.tensor([[[1, 0, 2 * shift[0] / cols], [0, 1, 2 * shift[1] / rows]]])
    grid = F.affine_grid(theta.float(), [1, 3, rows, cols], align_corners=False)
    tensor = F.grid_sample(tensor, grid, padding_mode="reflection", align_corners=False)
    if rng.random() < 0.6:
        weight = float(rng.uniform(0.2, 1.0))
        soft = F.avg_pool2d(F.pad(tensor, (1,) * 4, mode="replicate"), 3, 1)
        tensor = (1 - weight) * tensor + weight * soft
    elif rng.random() < 0.5:  # sharpened
        soft = F.avg_pool2d(F.pad(tensor, (1,) * 4, mode="replicate"), 3, 1)
        tensor = tensor + float(rng.uniform(0.2, 0.8)) * (tensor - soft)
    seen = tensor[0].numpy()
    grey = seen.mean(axis=0, keepdims=True)
    seen = grey + (seen - grey) * rng.uniform(0.5, 1.35)
    seen = 255 * np.clip(seen / 255, 0, 1.2) ** rng.uniform(0.75, 1.35)
    seen = (seen - 128) * rng.uniform(0.75, 1.3) + 128 + rng.normal(0, 14)
    seen = seen * np.asarray(1 + rng.normal(0, 0.05, 3))[:, None, None]
    if rng.random() < 0.2:
        seen = seen + (235 - seen) * rng.uniform(0.05, 0.25)
    seen = seen + rng.normal(0, rng.uniform(0.5, 5), seen.shape)
    return np.asarray(np.clip(np.rint(seen), 0, 255), np.uint8)


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
        pair = make_pair(rng, size=size)
        return Example(pair.before, pair.after, pair.built_before, pair.built_after)
