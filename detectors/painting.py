"""Painting one date of a made-up scene: ground, roads, things, roofs, trees, shadow, exposure.

Every function takes the random generator it draws its style from; coordinates are metres from the
canvas's corner, images float32 ``(3, row, col)`` on 0 to 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Rng = np.random.Generator

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


@dataclass(slots=True)
class Box:
    """A rectangle on the ground: centre, half sides (metres) and angle."""

    x: float
    y: float
    a: float
    b: float
    angle: float


@dataclass(slots=True)
class House:
    """A building: one or two boxes, height, roof kind and colour, and the dates it stands on."""

    boxes: list[Box]
    height: float
    roof: str
    colour: Float
    before: bool
    after: bool


@dataclass(slots=True)
class Thing:
    """Something flat that is no building: slab, pool, court, bare plot, cars."""

    box: Box
    kind: str
    colour: Float
    before: bool
    after: bool


@dataclass(slots=True)
class Tree:
    """A tree: crown in metres, the dates it stands on, and whether it is bare in winter."""

    x: float
    y: float
    radius: float
    before: bool
    after: bool
    leafy: bool


@dataclass(slots=True)
class Canvas:
    """Pixel coordinates in metres and the noise both dates share."""

    size: int
    gsd: float
    x: Float
    y: Float
    noise: list[Float]


def noise(rng: Rng, size: int, scale: float) -> Float:
    """Smooth noise of unit spread and about ``scale`` pixels of grain."""
    coarse = max(2, min(size, math.ceil(size / max(scale, 1.0))) + 2)
    seed = torch.as_tensor(rng.normal(0, 1, (1, 1, coarse, coarse)).astype(np.float32))
    if coarse >= size:
        return np.asarray(seed[0, 0, :size, :size].numpy())
    grown = F.interpolate(seed, (size, size), mode="bicubic", align_corners=True)
    return np.asarray(grown[0, 0].numpy())


def streaks(rng: Rng, canvas: Canvas, *, along: float, across: float) -> Float:
    """Noise drawn out in one direction, unit spread: what a plough or a combine leaves. ``along``
    and ``across``: its grain, metres."""
    angle = rng.uniform(0, 2 * math.pi)
    c, s = math.cos(angle), math.sin(angle)
    half = canvas.size * canvas.gsd / 2
    x, y = canvas.x - half, canvas.y - half
    texture = torch.as_tensor(rng.normal(0, 1, (1, 1, 96, 96)).astype(np.float32))
    u, v = (x * c + y * s) / (48 * along), (y * c - x * s) / (48 * across)
    grid = torch.as_tensor(np.stack([u, v], axis=-1).astype(np.float32))[None]
    drawn = F.grid_sample(texture, grid, padding_mode="reflection", align_corners=False)[0, 0]
    return np.asarray((drawn / drawn.std().clamp(min=1e-3)).numpy())


def paint(
    rng: Rng,
    canvas: Canvas,
    ground: tuple[npt.NDArray[np.int64], list[str]],
    roads: list[tuple[Float, float, Float]],
    houses: list[House],
    things: list[Thing],
    trees: list[Tree],
) -> tuple[Float, Bool]:
    """One date: image ``(3, row, col)`` before exposure, and where buildings stand."""
    image = _ground(rng, canvas, *ground)
    own = noise(rng, canvas.size, 0.5 / canvas.gsd)
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


def _ground(rng: Rng, canvas: Canvas, cells: npt.NDArray[np.int64], kinds: list[str]) -> Float:
    seen = np.unique(cells)
    table = np.zeros((cells.max() + 1, 3), np.float32)
    grain = np.zeros(cells.max() + 1, np.float32)
    rows = np.zeros((cells.max() + 1, 3), np.float32)
    tilled = np.zeros((cells.max() + 1, 2), np.float32)
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
        if kinds[cell] in SEASONAL and rng.random() < 0.6:
            tilled[cell, int(rng.integers(2))] = rng.uniform(3, 34)
    image = np.moveaxis(table[cells], -1, 0).copy()
    mix = 0.6 * canvas.noise[0] + 0.6 * canvas.noise[1] + 0.5 * canvas.noise[2]
    mix = mix + 0.5 * noise(rng, canvas.size, 5 / canvas.gsd)
    image += (grain[cells] * mix)[None]
    image += (patches[cells] * noise(rng, canvas.size, rng.uniform(0.8, 9) / canvas.gsd))[None]
    for column in (0, 1):
        if tilled[:, column].any():
            along, across = rng.uniform(3, 20), rng.uniform(0.3, 1.6)
            drawn = streaks(rng, canvas, along=along, across=across)
            image += (tilled[cells, column] * np.abs(drawn))[None]
    line = rows[cells]
    phase = 2 * math.pi * (canvas.x * line[..., 0] + canvas.y * line[..., 1])
    image += (line[..., 2] * np.sin(phase) * (0.7 + 0.3 * canvas.noise[1]))[None]
    return image


def _window(canvas: Canvas, box: Box, margin: float = 0.5) -> tuple[slice, slice] | None:
    reach = math.hypot(box.a, box.b) + margin
    g = canvas.gsd
    rows = slice(max(0, int((box.y - reach) / g)), min(canvas.size, int((box.y + reach) / g) + 1))
    cols = slice(max(0, int((box.x - reach) / g)), min(canvas.size, int((box.x + reach) / g) + 1))
    return None if rows.start >= rows.stop or cols.start >= cols.stop else (rows, cols)


def _local(canvas: Canvas, box: Box, where: tuple[slice, slice]) -> tuple[Float, Float]:
    """Coordinates along and across a box, metres from its centre."""
    dx, dy = canvas.x[where] - box.x, canvas.y[where] - box.y
    c, s = math.cos(box.angle), math.sin(box.angle)
    return dx * c + dy * s, dy * c - dx * s


def _lay(rng: Rng, canvas: Canvas, image: Float, height: Float, thing: Thing) -> None:
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
    canvas: Canvas,
    image: Float,
    height: Float,
    built: Bool,
    house: House,
    sun: float,
) -> None:
    """Draw a building; its roof may lean a little out of its footprint (no true orthophoto)."""
    lean = rng.normal(0, 0.06, 2) * house.height
    glare = rng.uniform(0.1, 0.3)
    for box in house.boxes:
        drawn = Box(box.x + lean[0], box.y + lean[1], box.a, box.b, box.angle)
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
        _cover(rng, part, u, v, house, inside, light)
        if min(box.a, box.b) > 9 and rng.random() < 0.6:
            _skylights(rng, part, u, v, inside)
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


def _cover(
    rng: Rng, part: Float, u: Float, v: Float, house: House, inside: Bool, light: Float
) -> None:
    """The roofs that are no plain colour: greenhouses, and panels all over."""
    if house.roof == "plastic":  # light spans with dark gutters
        part[:, inside] = (0.5 * house.colour + 110)[:, None] * light[inside]
        span = rng.uniform(2.5, 8)
        part[:, inside & (np.mod(v, span) < 0.12 * span)] -= rng.uniform(20, 60)
    if house.roof == "solar":
        part[:, inside] = np.array([52, 66, 96])[:, None] * light[inside]
        seam = inside & ((np.mod(u, 1.7) < 0.15) | (np.mod(v, 1.0) < 0.15))
        part[:, seam] = np.array([150, 156, 166])[:, None]


def _skylights(rng: Rng, part: Float, u: Float, v: Float, inside: Bool) -> None:
    """The regular rows of lights, vents or strips of a large roof."""
    step_u, step_v = rng.uniform(3, 14), rng.uniform(4, 20)
    long = step_u if rng.random() < 0.3 else rng.uniform(0.6, 3)
    wide = rng.uniform(0.4, 1.6)
    spot = inside & (np.mod(u, step_u) < long) & (np.mod(v, step_v) < wide)
    part[:, spot] += rng.choice([-45, 30, 60]) + rng.normal(0, 6, 3)[:, None]


def _clutter(rng: Rng, part: Float, u: Float, v: Float, box: Box, inside: Bool) -> None:
    """Skylights, chimneys, panels and vents on a roof."""
    for _ in range(int(rng.integers(1, 5))):
        cu, cv = rng.uniform(-0.7, 0.7) * box.a, rng.uniform(-0.7, 0.7) * box.b
        half = rng.uniform(0.3, 1.6, 2)
        spot = inside & (np.abs(u - cu) < half[0]) & (np.abs(v - cv) < half[1])
        part[:, spot] = rng.choice([60, 90, 200, 235]) + rng.normal(0, 6, 3)[:, None]


def _plant(
    canvas: Canvas,
    image: Float,
    height: Float,
    tree: Tree,
    colour: npt.NDArray[np.float64],
    sun: float,
    own: Float,
) -> None:
    where = _window(canvas, Box(tree.x, tree.y, tree.radius, tree.radius, 0), 1.0)
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
