"""Painting the landscape as an aerial image of 0.5 m, once for each date.

Nothing of the truth reaches the pixels but what would: covers have textures, not codes. The
second date differs in everything that differs in life: season and crops, sun and shadows, cars,
exposure, a mis-registration of about 1.5 pixels, noise, and a cloud.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
import torch
from kornia.filters import gaussian_blur2d
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window, from_bounds
from shapely.geometry import Point, box

from daemon.demo.landscape import CRS, Landscape

Float = npt.NDArray[np.float32]
GSD_M = 0.5
_MOST = 4096
"""Parcels that properties are drawn for; a landscape has some six hundred."""
CLOUD_SHADOW_M = (120.0, -90.0)
"""Where the cloud's shadow falls: east and (southwards positive) north of the cloud."""
OVERLAP_M = 32.0
"""Ground two neighbouring acquisitions share."""


@dataclass(frozen=True, slots=True)
class Date:
    """What a date does to the look of things. Angles in degrees, shift in pixels."""

    sun_azimuth: float
    sun_elevation: float
    green: tuple[float, float, float]
    gain: tuple[float, float, float]
    offset: float
    gamma: float
    shift: tuple[float, float]
    salt: int


BEFORE = Date(150, 56, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.0, 1.0, (0.0, 0.0), 1)
AFTER = Date(205, 44, (1.13, 0.96, 0.92), (0.93, 0.97, 1.05), 6.0, 1.06, (1.2, -0.9), 2)

_BASE: dict[str, tuple[float, float, float]] = {
    "road": (128, 127, 126),
    "carpark": (106, 106, 110),
    "garden": (104, 122, 74),
    "lawn": (112, 134, 78),
    "meadow": (122, 134, 80),
    "vineyard": (128, 122, 84),
    "broadleaf": (58, 80, 45),
    "conifer": (38, 60, 42),
    "shrub": (92, 104, 62),
    "water": (40, 56, 66),
    "quarry": (206, 194, 168),
    "site": (204, 186, 158),
    "yard": (172, 162, 142),
    "field": (120, 130, 76),
    "roof": (166, 96, 72),
    "hall": (184, 186, 190),
}
_CROPS = np.array(
    [(112, 134, 70), (88, 120, 58), (178, 164, 104), (122, 98, 74), (146, 136, 84), (104, 84, 66)],
    np.float32,
)
"""Meadow, maize, ripe wheat, ploughed light and dark soil, stubble."""
_ROOFS = np.array(
    [(170, 96, 70), (158, 84, 62), (182, 112, 86), (98, 100, 108), (146, 120, 100)], np.float32
)
_HALLS = np.array([(196, 198, 202), (150, 156, 164), (176, 168, 158), (118, 128, 138)], np.float32)
_HEIGHT_M = {"roof": 6.5, "hall": 8.5, "broadleaf": 11.0, "conifer": 14.0, "shrub": 2.0}


def render_before(landscape: Landscape, gsd: float = GSD_M) -> npt.NDArray[np.uint8]:
    """The old image, uint8 ``(3, row, col)``."""
    return _render(landscape.before, landscape, BEFORE, gsd)


def render_after(landscape: Landscape, gsd: float = GSD_M) -> npt.NDArray[np.uint8]:
    """The new image, uint8 ``(3, row, col)``, with its season, shift and cloud."""
    image = _render(landscape.after, landscape, AFTER, gsd)
    return _clouded(image, landscape, np.random.default_rng([landscape.seed, 71]), gsd)


def _render(
    frame: gpd.GeoDataFrame, landscape: Landscape, date: Date, gsd: float
) -> npt.NDArray[np.uint8]:
    west, _, _, north = landscape.bounds
    transform = from_origin(west, north, gsd, gsd)
    size = _size(landscape, gsd)
    lasting = np.random.default_rng([landscape.seed, 11])
    passing = np.random.default_rng([landscape.seed, 13, date.salt])
    index = rasterize(
        zip(frame.geometry, range(1, len(frame) + 1), strict=True),
        out_shape=size,
        transform=transform,
        dtype="int32",
    )
    kinds = frame["kind"].to_numpy()
    image = _ground(frame, kinds, index, date, lasting, passing)
    height = np.array([0.0, *(_HEIGHT_M.get(k, 0.0) for k in kinds)], np.float32)[index]
    trees, crowns = _garden_trees(
        frame, transform, size, np.random.default_rng([landscape.seed, 17])
    )
    image = np.where(trees, _tinted((58, 82, 46), date)[:, None, None] * crowns, image)
    height = np.maximum(height, np.where(trees, 5.0, 0.0))
    _wooded(image, index, kinds, np.random.default_rng([landscape.seed, 19]), date)
    _cars(image, frame, transform, passing)
    image *= np.where(_shadow(height, date, gsd), 0.46, 1.0)[None]
    return _exposed(image, date, passing)


def _size(landscape: Landscape, gsd: float) -> tuple[int, int]:
    west, south, east, north = landscape.bounds
    return round((north - south) / gsd), round((east - west) / gsd)


def _noise(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Float:
    """Smooth noise of unit spread; ``scale`` is its grain in pixels."""
    step = max(1, int(scale / 2))
    rows, cols = (-(-n // step) + 2 for n in size)
    coarse = torch.as_tensor(rng.standard_normal((1, 1, rows, cols)).astype(np.float32))
    fine = torch.nn.functional.interpolate(
        coarse, (rows * step, cols * step), mode="bicubic", align_corners=False
    )[0, 0, : size[0], : size[1]]
    return np.asarray((fine / fine.std()).numpy(), np.float32)


def _tinted(colour: tuple[float, float, float], date: Date) -> Float:
    return np.asarray(np.array(colour) * np.array(date.green), np.float32)


def _ground(
    frame: gpd.GeoDataFrame,
    kinds: npt.NDArray[np.object_],
    index: npt.NDArray[np.int32],
    date: Date,
    lasting: np.random.Generator,
    passing: np.random.Generator,
) -> Float:
    """Flat colours of parcels with their textures, ``(3, row, col)`` on 0 to 255."""
    count = len(frame)
    colours = np.zeros((count + 1, 3), np.float32)
    grain = np.zeros(count + 1, np.float32)
    rows = np.zeros((count + 1, 3), np.float32)
    # drawn for more parcels than there are: the same parcel keeps its look on both dates
    tint = lasting.normal(0, 1, (_MOST, 1)) + lasting.normal(0, 0.45, (_MOST, 3))
    crop = lasting.integers(len(_CROPS), size=_MOST)
    swap, other = passing.uniform(size=_MOST) < 0.6, passing.integers(len(_CROPS), size=_MOST)
    crop = np.where(swap & (date.salt == AFTER.salt), other, crop)
    pick, turn = lasting.integers(1 << 16, size=_MOST), lasting.uniform(0, math.pi, _MOST)
    for i, kind in enumerate(kinds):
        base = np.array(_BASE[kind], np.float32)
        if kind == "field":
            base = _CROPS[crop[i]]
        elif kind == "roof":
            base = _ROOFS[pick[i] % len(_ROOFS)]
        elif kind == "hall":
            base = _HALLS[pick[i] % len(_HALLS)]
        living = kind in {
            "garden",
            "lawn",
            "meadow",
            "vineyard",
            "shrub",
            "broadleaf",
            "conifer",
            "field",
        }
        colours[i + 1] = base * (np.array(date.green) if living else 1.0)
        colours[i + 1] += tint[i] * (4.0 if kind in {"road", "water"} else 7.0)
        grain[i + 1] = {"quarry": 16, "site": 26, "yard": 9, "water": 2, "road": 3}.get(kind, 6)
        period = {"vineyard": 5.0, "field": 7.0}.get(kind, 0.0)
        rows[i + 1] = (math.cos(turn[i]), math.sin(turn[i]), period)
    image = colours[index].transpose(2, 0, 1).copy()
    size = index.shape
    texture = 0.6 * _noise(lasting, size, 4) + 0.7 * _noise(lasting, size, 14)
    texture += 0.5 * _noise(passing, size, 6) + 0.5 * _noise(lasting, size, 60)
    image += (texture * grain[index])[None]
    image += _furrows(index, rows, kinds)[None]
    return _ridges(image, index, frame, kinds, date)


def _furrows(index: npt.NDArray[np.int32], rows: Float, kinds: npt.NDArray[np.object_]) -> Float:
    """Rows of vines and drill lines of fields."""
    y, x = np.mgrid[0 : index.shape[0], 0 : index.shape[1]].astype(np.float32)
    along = rows[index]
    period = along[..., 2]
    depth = np.array([0.0, *(16.0 if k == "vineyard" else 3.5 for k in kinds)], np.float32)
    wave = np.sin((x * along[..., 0] + y * along[..., 1]) * 2 * np.pi / np.maximum(period, 1))
    return np.where(period > 0, wave * depth[index], 0).astype(np.float32)


def _ridges(
    image: Float,
    index: npt.NDArray[np.int32],
    frame: gpd.GeoDataFrame,
    kinds: npt.NDArray[np.object_],
    date: Date,
) -> Float:
    """Roofs brighter on the side that faces the sun."""
    sun = math.radians(date.sun_azimuth)
    towards = np.array([math.sin(sun), math.cos(sun)])
    geometry = frame.geometry.to_numpy()
    shade = np.zeros((len(kinds) + 1, 3), np.float32)
    for i in np.flatnonzero(np.isin(kinds, ["roof", "hall"])):
        corners = shapely.get_coordinates(shapely.oriented_envelope(geometry[i]))[:3]
        a, b = corners[1] - corners[0], corners[2] - corners[1]
        across = b if np.hypot(*a) >= np.hypot(*b) else a
        across = across / max(1e-6, float(np.hypot(*across)))
        strength = 22.0 * float(across @ towards) * (1.0 if kinds[i] == "roof" else 0.35)
        shade[i + 1] = (*(across * strength), 1.0)
    roofs = np.flatnonzero(shade[index.ravel(), 2] > 0)
    centre = shapely.get_coordinates(shapely.centroid(geometry))
    owner = index.ravel()[roofs]
    rows, cols = np.divmod(roofs, index.shape[1])
    west, _, _, north = frame.total_bounds
    gsd = (frame.total_bounds[2] - west) / index.shape[1]
    dx = west + (cols + 0.5) * gsd - centre[owner - 1, 0]
    dy = north - (rows + 0.5) * gsd - centre[owner - 1, 1]
    side = np.sign(dx * shade[owner, 0] + dy * shade[owner, 1])
    level = side * np.hypot(shade[owner, 0], shade[owner, 1])
    image.reshape(3, -1)[:, roofs] += level[None].astype(np.float32)
    return image


def _garden_trees(
    frame: gpd.GeoDataFrame, transform: Affine, size: tuple[int, int], rng: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Float]:
    """Trees of gardens and lawns: where, and the light on their crowns."""
    homes = frame[frame["kind"].isin(["garden", "lawn"]) & (frame.geometry.area > 300)]
    crowns = []
    solid = shapely.union_all(frame.geometry[frame["kind"].isin(["roof", "hall", "road"])])
    shapely.prepare(solid)
    for ground in homes.geometry:
        west, south, east, north = ground.bounds
        for _ in range(int(ground.area / 260)):
            at = Point(rng.uniform(west, east), rng.uniform(south, north))
            radius = rng.uniform(1.5, 3.2)
            if ground.contains(at) and not solid.dwithin(at, radius + 0.5):
                crowns.append(at.buffer(radius, quad_segs=4))
    light = (1 + 0.13 * _noise(rng, size, 4)).astype(np.float32)
    if not crowns:
        return np.zeros(size, bool), light
    drawn = rasterize(crowns, out_shape=size, transform=transform, dtype="uint8")
    return np.asarray(drawn > 0, bool), light


def _wooded(
    image: Float,
    index: npt.NDArray[np.int32],
    kinds: npt.NDArray[np.object_],
    rng: np.random.Generator,
    date: Date,
) -> None:
    """Crowns of woods and shrubs: blobs lit from the sun's side."""
    wood = np.array([False, *(k in {"broadleaf", "conifer", "shrub"} for k in kinds)])[index]
    blobs = _noise(rng, (index.shape[0], index.shape[1]), 13) + 0.6 * _noise(
        rng, (index.shape[0], index.shape[1]), 6
    )
    sun = math.radians(date.sun_azimuth)
    dy, dx = np.gradient(blobs)
    light = 1 + np.clip(0.85 * (dx * math.sin(sun) - dy * math.cos(sun)), -0.5, 0.6)
    image *= np.where(wood, light, 1.0).astype(np.float32)[None]


def _cars(
    image: Float, frame: gpd.GeoDataFrame, transform: Affine, rng: np.random.Generator
) -> None:
    """Cars on roads and car parks, elsewhere on each date; machines and stores on sites."""
    cars, paint = [], []
    for kind, every in (("carpark", 75.0), ("road", 900.0), ("site", 160.0)):
        for ground in frame.geometry[frame["kind"] == kind]:
            west, south, east, north = ground.bounds
            share = ground.area / max(1.0, (east - west) * (north - south))
            for _ in range(int(ground.area / every / max(share, 0.05))):
                x, y = rng.uniform(west, east), rng.uniform(south, north)
                w, h = (4.5, 1.9) if rng.uniform() < 0.5 else (1.9, 4.5)
                car = box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                if shapely.contains(ground, car):
                    cars.append(car)
                    paint.append(rng.choice([30, 70, 130, 210, 235]))
    if not cars:
        return
    shades = rasterize(
        zip(cars, paint, strict=True), out_shape=image.shape[1:], transform=transform, dtype="uint8"
    )
    image[:, shades > 0] = shades[shades > 0]


def _shadow(height: Float, date: Date, gsd: float) -> npt.NDArray[np.bool_]:
    """Ground that something higher towards the sun keeps dark."""
    azimuth, elevation = math.radians(date.sun_azimuth), math.radians(date.sun_elevation)
    step = (math.sin(azimuth), math.cos(azimuth))
    dark = np.zeros(height.shape, bool)
    reach = int(float(height.max()) / math.tan(elevation) / gsd)
    for distance in range(1, reach + 1):
        rows, cols = round(distance * step[1]), round(-distance * step[0])
        there = np.roll(height, (rows, cols), (0, 1))
        dark |= there > height + distance * gsd * math.tan(elevation)
    return dark


def _exposed(image: Float, date: Date, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Through the camera: blur, shift, exposure, noise, bytes."""
    tensor = torch.as_tensor(np.clip(image, 0, 255))[None]
    tensor = gaussian_blur2d(tensor, (5, 5), (0.75, 0.75))
    if date.shift != (0.0, 0.0):
        rows, cols = tensor.shape[2:]
        theta = torch.tensor(
            [[[1, 0, -2 * date.shift[0] / cols], [0, 1, -2 * date.shift[1] / rows]]],
            dtype=torch.float32,
        )
        grid = torch.nn.functional.affine_grid(theta, list(tensor.shape), align_corners=False)
        tensor = torch.nn.functional.grid_sample(
            tensor, grid, mode="bicubic", padding_mode="reflection", align_corners=False
        )
    seen = np.asarray(tensor[0].numpy(), np.float32).clip(0, 255)
    seen = 255 * (seen / 255) ** date.gamma * np.array(date.gain, np.float32)[:, None, None]
    seen += date.offset + rng.normal(0, 3.0, seen.shape).astype(np.float32)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def _clouded(
    image: npt.NDArray[np.uint8], landscape: Landscape, rng: np.random.Generator, gsd: float
) -> npt.NDArray[np.uint8]:
    """One fair-weather cloud, soft at its edge, and its shadow to the north-east. It stands where
    it hides no change: what no pixel shows cannot be asked of a detector."""
    rows, cols = image.shape[1:]
    y, x = np.mgrid[0:rows, 0:cols].astype(np.float32) * gsd
    cy, cx = _clear_of_changes(landscape, rng.uniform(0.15, 0.85, (60, 2)) * (rows, cols) * gsd)
    ripple = 6 * _noise(rng, (rows, cols), 40)
    veils = []
    for dx, dy in ((0.0, 0.0), CLOUD_SHADOW_M):
        distance = np.hypot(x - cx - dx, (y - cy - dy) * 1.2) + ripple
        veils.append(1 / (1 + np.exp((distance - 34) / 5)))
    seen = image.astype(np.float32) * (1 - 0.5 * veils[1])[None]
    white = np.array([243, 245, 249], np.float32)[:, None, None] + 2 * ripple[None] / 6
    seen = seen * (1 - 0.97 * veils[0])[None] + white * (0.97 * veils[0])[None]
    return np.asarray(np.clip(np.rint(seen), 0, 255), np.uint8)


def _clear_of_changes(
    landscape: Landscape, places: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The place ``(y, x)``, metres from the north-west corner, farthest from every change."""
    west, _, _, north = landscape.bounds
    changed = shapely.union_all(list(landscape.changes.geometry))

    def room(place: npt.NDArray[np.float64]) -> float:
        y, x = place
        cloud = Point(west + x, north - y)
        shadow = Point(west + x + CLOUD_SHADOW_M[0], north - y - CLOUD_SHADOW_M[1])
        return min(float(changed.distance(cloud)), float(changed.distance(shadow)))

    return max(places, key=room)


def write_geotiff(
    path: Path, pixels: npt.NDArray[np.uint8], bounds: tuple[float, float, float, float]
) -> None:
    """An image as a tiled, deflated GeoTIFF in Lambert-93."""
    west, _, east, north = bounds
    gsd = (east - west) / pixels.shape[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[1],
        width=pixels.shape[2],
        count=3,
        dtype="uint8",
        crs=CRS,
        transform=from_origin(west, north, gsd, gsd),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
        photometric="rgb",
    ) as target:
        target.write(pixels)


def acquisitions(landscape: Landscape, folder: Path, gsd: float = GSD_M) -> tuple[Path, list[Path]]:
    """The reference image of the whole ground, and four overlapping new images."""
    reference = folder / "reference.tif"
    write_geotiff(reference, render_before(landscape, gsd), landscape.bounds)
    image = render_after(landscape, gsd)
    west, south, east, north = landscape.bounds
    middle_x, middle_y, half = (west + east) / 2, (south + north) / 2, OVERLAP_M / 2
    corners = {
        "nw": (west, middle_y - half, middle_x + half, north),
        "ne": (middle_x - half, middle_y - half, east, north),
        "sw": (west, south, middle_x + half, middle_y + half),
        "se": (middle_x - half, south, east, middle_y + half),
    }
    paths = []
    for name, bounds in corners.items():
        window: Window = from_bounds(*bounds, from_origin(west, north, gsd, gsd))
        rows, cols = window.round_offsets().round_lengths().toslices()
        path = folder / f"acquisition-{name}.tif"
        write_geotiff(path, image[:, rows, cols], bounds)
        paths.append(path)
    return reference, paths
