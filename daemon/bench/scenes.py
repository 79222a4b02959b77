"""Two made-up years of Sentinel-2 over a landscape whose every change is known.

Fields with rotating crops, meadows, woods, villages and roads; 50 artificialisations in the second
year and 200 things that are none; half the ground cloudy on each date, with a mask that misses
some edges. Everything follows from the seed. Grid: 10 m, Lambert-93.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import shapely
from rasterio.transform import from_origin
from shapely.geometry import Polygon

from daemon.bench import spectra
from daemon.bench.parcels import CODES, Parcel, Rect, Site, Truth, parcels, polygon, smooth
from daemon.bench.sites import END, YEAR, plant
from daemon.bench.spectra import BANDS
from detectors.types import BoolArray, FloatArray, Grid, IntArray

CRS: Final = "EPSG:2154"
GSD_M: Final = 10
FINE: Final = 2
"""Parcels are drawn on cells of half a pixel, so that pixels on edges are mixed."""
START: Final = datetime(2023, 1, 1, 10, 56, tzinfo=UTC)
REVISIT_DAYS: Final = 5
CORNER: Final = (501_760.0, 6_302_720.0)
"""South-west corner: in the middle of a 512-pixel block, as no acquisition fits them."""
SNOW_DAYS: Final = 3
NOISE: Final = (18.0, 0.015)
"""Sensor noise: reflectance × 10 000, and share of the signal."""
MISSED: Final = 0.125
"""Share of the edges of clouds and shadows that the mask misses."""
HAZE: Final = np.array([1.0, 0.75, 0.55, 0.25, 0.08, 0.05], np.float32)
"""How an error of the atmospheric correction spreads over the bands."""


class Scenery:
    """A landscape and its acquisitions."""

    def __init__(self, seed: int, *, size: int = 330) -> None:
        self.seed, self.size = seed, size
        rng = np.random.default_rng([seed, 0])
        self._parcels = parcels(rng, size * GSD_M)
        self._sites = plant(rng, self._parcels)
        self.dates = [START + timedelta(days=d) for d in range(0, END, REVISIT_DAYS)]
        north = CORNER[1] + size * GSD_M
        transform = from_origin(CORNER[0], north, GSD_M, GSD_M)
        self.grid = Grid(CRS, transform, (size, size), 0)
        self._year_shift = rng.normal(0, 6, 3)
        self._wetness = _rain(rng, len(self.dates))
        self._texture = np.exp(0.05 * smooth(rng, size, 3.0) + 0.02 * rng.normal(size=(size, size)))
        self._snow = self._snow_dates(rng)
        self._labels, self._owner, self._site_rows = self._drawn()

    @property
    def truth(self) -> list[Truth]:
        """What happened, sites first, then the days of snow on everything."""
        found = []
        for site in self._sites:
            built = START + timedelta(days=site.built) if site.artificial else None
            ends = None if np.isinf(site.ends) else START + timedelta(days=site.ends)
            begins = START + timedelta(days=site.begins)
            outline = polygon(site.rect, CORNER)
            found.append(Truth(site.kind, site.artificial, outline, begins, built, ends))
        side = self.size * GSD_M
        for index in self._snow:
            day = self.dates[index]
            frame = polygon((0, 0, side, side), CORNER)
            found.append(Truth("snow", False, frame, day, None, day))
        return found

    def polygons(self) -> list[tuple[Polygon, str, str]]:
        """The map as it was before the first scene: outline, cover, usage; a valid coverage of the
        frame, with neighbours sharing every vertex."""
        outlines = [polygon(p.rect, CORNER) for p in self._parcels]
        lines = shapely.get_parts(shapely.union_all(shapely.boundary(outlines)))
        faces = shapely.get_parts(shapely.polygonize(lines))
        found = shapely.STRtree(outlines).query(shapely.point_on_surface(faces), "within")
        owner = dict(found.T.tolist())
        return [(face, *CODES[self._parcels[owner[i]].kind]) for i, face in enumerate(faces)]

    def scene(self, index: int) -> tuple[FloatArray, BoolArray, datetime]:
        """One acquisition: reflectance × 10 000 ``(band, row, col)`` in the order of ``BANDS``,
        what its mask calls clear, and when it was taken."""
        rng = np.random.default_rng([self.seed, 1, index])
        day = float(index * REVISIT_DAYS)
        ground = self._ground(day, float(self._wetness[index]))
        image = _seen(rng, ground[self._labels]) * self._texture
        if index in self._snow:
            depth = np.clip(0.85 + 0.2 * smooth(rng, self.size, 20.0), 0.2, 1)
            image += depth * (spectra.SNOW[:, None, None] - image)
        image, valid = self._cloudy(rng, image, 0.3 if index in self._snow else 1.0)
        image, valid = self._missed_on_sites(rng, image, valid, day)
        image = _measured(rng, image)
        return image, valid, self.dates[index]

    def _snow_dates(self, rng: np.random.Generator) -> list[int]:
        winter = [i for i, d in enumerate(self.dates) if d.month in {1, 2, 12}]
        late = [i for i in winter if i * REVISIT_DAYS > YEAR]
        first = int(rng.choice(late))
        rest = rng.choice([i for i in winter if i != first], SNOW_DAYS - 1, replace=False)
        return sorted([first, *(int(i) for i in rest)])

    def _drawn(self) -> tuple[IntArray, list[int], list[list[tuple[int, FloatArray | None]]]]:
        """Label of each fine cell; parcel of each label; labels and materials of each site."""
        side = self.size * FINE
        labels = np.zeros((side, side), np.int64)
        owner: list[int] = []

        def draw(rect: Rect, parcel: int) -> int:
            step = GSD_M / FINE
            west, south, east, north = (round(v / step) for v in rect)
            labels[side - north : side - south, west:east] = len(owner)
            owner.append(parcel)
            return len(owner) - 1

        for index, parcel in enumerate(self._parcels):
            draw(parcel.rect, index)
        rows: list[list[tuple[int, FloatArray | None]]] = []
        for site in self._sites:
            parts: list[tuple[Rect, FloatArray | None]] = [*site.parts] or [(site.rect, None)]
            rows.append([(draw(rect, site.parcel), paint) for rect, paint in parts])
        return labels, owner, rows

    def _ground(self, day: float, wetness: float) -> FloatArray:
        """Spectrum of each label, ``(label, band)``."""
        each = np.stack([self._parcel(p, day, wetness) for p in self._parcels])
        table = each[self._owner]
        for site, rows in zip(self._sites, self._site_rows, strict=True):
            if not site.begins <= day < site.ends:
                continue
            parcel = self._parcels[site.parcel]
            for label, paint in rows:
                table[label] = self._happened(site, parcel, table[label], day, wetness, paint)
        return np.asarray(table, np.float32)

    def _parcel(self, parcel: Parcel, day: float, wetness: float) -> FloatArray:
        if parcel.kind == "crop":
            return self._crop(parcel, day, wetness, _crop_on(parcel, day))
        of_year = day - parcel.shift - float(self._year_shift[min(1, int(day // YEAR))])
        if parcel.kind in {"meadow", "fallow", "garden"}:
            green, dry = spectra.shares("meadow", of_year % YEAR + 1)
            for cut in parcel.mown:
                short = 0.65 * max(0.0, 1 - (day - cut) / 28) if day >= cut else 0.0
                green, dry = green * (1 - short), dry + 0.5 * short * green
            ground = spectra.soil(parcel.limestone, wetness)
            return spectra.field("meadow", parcel.vigour * green, dry, ground)
        if parcel.kind == "broadleaf":
            leaves, _ = spectra.shares("broadleaf", of_year % YEAR + 1)
            mixed = leaves * spectra.LEAF_ON + (1 - leaves) * spectra.LEAF_OFF
            return np.asarray(parcel.vigour * mixed, np.float32)
        if parcel.kind == "conifer":
            return parcel.vigour * spectra.CONIFER
        wet = 0.15 * wetness if parcel.kind != "water" else 0.0
        return parcel.material * (1 - wet)

    def _crop(self, parcel: Parcel, day: float, wetness: float, crop: str) -> FloatArray:
        of_year = day - parcel.shift - float(self._year_shift[min(1, int(day // YEAR))])
        green, dry = spectra.shares(crop, of_year % YEAR + 1)
        ground = spectra.soil(parcel.limestone, wetness)
        return spectra.field(crop, parcel.vigour * green, dry, ground)

    def _happened(
        self,
        site: Site,
        parcel: Parcel,
        before: FloatArray,
        day: float,
        wetness: float,
        paint: FloatArray | None,
    ) -> FloatArray:
        """A site's spectrum once it has begun."""
        age = day - site.begins
        ground = spectra.soil(parcel.limestone, wetness)
        if paint is not None:
            wet = 1 - 0.15 * wetness
            return paint * wet if day >= site.built else spectra.SUBSOIL * (1 - 0.4 * wetness)
        if site.kind == "ploughed meadow":
            autumn = site.begins % YEAR > 220
            crop = "wheat" if autumn else "maize"
            bare = age < 40 or (not autumn and day < YEAR + 125)
            return ground if bare else self._crop(parcel, day, wetness, crop)
        if site.kind == "clear-cut":
            weeds = float(np.clip((age - 60) / 300, 0, 0.5)) * (0.5 + 0.5 * _summer(day))
            return np.asarray(spectra.SLASH * (1 - weeds) + spectra.GRASS * weeds, np.float32)
        if site.kind == "burn":
            healed = age / (site.ends - site.begins)
            return np.asarray((1 - healed) * spectra.CHAR + healed * before, np.float32)
        new = {
            "kept bare": ground,
            "mown": 0.75 * spectra.HAY + 0.1 * spectra.GRASS + 0.15 * ground,
            "flood": 0.85 * spectra.FLOOD + 0.15 * before,
            "drought": 0.25 * before + 0.55 * spectra.DUST + 0.2 * ground,
            "early harvest": 0.45 * spectra.STRAW + 0.55 * ground,
        }.get(site.kind, before)
        return np.asarray(new, np.float32)

    def _cloudy(
        self, rng: np.random.Generator, image: FloatArray, most: float
    ) -> tuple[FloatArray, BoolArray]:
        """Clouds and their shadows over an image, and the mask that knows most of them."""
        cover = most * float(rng.beta(0.7, 0.7))
        heights = smooth(rng, self.size, float(rng.choice([15.0, 30.0, 60.0])))
        opacity = np.clip((heights - np.quantile(heights, 1 - cover)) / 0.3, 0, 1)
        shift = (int(rng.integers(-30, -8)), int(rng.integers(-15, 16)))
        shade = np.roll(opacity, shift, (0, 1))
        light = 1 - shade * (1 - spectra.SHADOW[:, None, None])
        seen = image * light
        seen += opacity * (spectra.CLOUD[:, None, None] * rng.uniform(0.75, 1.25) - seen)
        hidden = _mask(rng, opacity) | _mask(rng, shade)
        return seen, ~hidden

    def _missed_on_sites(
        self, rng: np.random.Generator, image: FloatArray, valid: BoolArray, day: float
    ) -> tuple[FloatArray, BoolArray]:
        """Clouds and shadows of about a hectare that the mask does not know at all."""
        rows, cols = np.mgrid[: self.size, : self.size].astype(np.float32) + 0.5
        for site in self._sites:
            here = site.kind in {"missed cloud", "missed shadow"}
            if not here or not site.begins - REVISIT_DAYS < day <= site.ends:
                continue
            west, south, east, north = site.rect
            away = np.hypot(
                cols - (west + east) / 2 / GSD_M,
                rows - (self.size - (south + north) / 2 / GSD_M),
            )
            amount = np.clip((rng.uniform(5, 9) - away) / 2.5, 0, 1) * rng.uniform(0.4, 1)
            if site.kind == "missed cloud":
                image = image + amount * (spectra.CLOUD[:, None, None] - image)
            else:
                image = image * (1 - amount * (1 - spectra.SHADOW[:, None, None]))
        return image, valid


def _crop_on(parcel: Parcel, day: float) -> str:
    """The crop of a day; the next one begins in October, rapeseed at the end of August."""
    number = 0
    for year, after in enumerate(parcel.crops[1:]):
        change = (238 if after == "rapeseed" else 287) + parcel.shift
        number += day >= YEAR * year + change
    return parcel.crops[number]


def _summer(day: float) -> float:
    return float(np.cos(2 * np.pi * (day - 190) / YEAR))


def _rain(rng: np.random.Generator, count: int) -> FloatArray:
    """How wet bare soil is on each date, 0 to 1, wetter in winter."""
    days = np.arange(count) * REVISIT_DAYS
    level = 0.45 + 0.3 * np.cos(2 * np.pi * days / YEAR) + rng.normal(0, 0.25, count)
    return np.asarray(np.clip(level, 0, 1), np.float32)


def _seen(rng: np.random.Generator, fine: FloatArray) -> FloatArray:
    """Fine cells ``(row, col, band)`` as pixels ``(band, row, col)``: averaged, blurred by the
    optics, moved by an error of position of a sixth of a pixel."""
    side = fine.shape[0] // FINE
    image = fine.reshape(side, FINE, side, FINE, -1).mean(axis=(1, 3)).transpose(2, 0, 1)
    for axis, offset in zip((1, 2), rng.normal(0, 0.16, 2), strict=True):
        taps = np.exp(-((np.arange(-1, 2) - offset) ** 2) / (2 * 0.42**2))
        taps /= taps.sum()
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[axis] = (1, 1)
        wide = np.pad(image, padding, mode="edge")
        image = sum(
            float(tap) * np.take(wide, np.arange(n, n + side), axis=axis)
            for n, tap in enumerate(taps)
        )
    return np.asarray(image, np.float32)


def _mask(rng: np.random.Generator, opacity: FloatArray) -> BoolArray:
    """What the mask hides: all but some of the edges."""
    edge = opacity < 0.6
    field = smooth(rng, opacity.shape[0], 25.0)
    forgotten = edge & (field > np.quantile(field, 1 - MISSED))
    return np.asarray((opacity > 0.02) & ~forgotten, bool)


def _measured(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """With the scene's own gain, haze and slope, and the sensor's noise."""
    side = image.shape[1]
    gain = 1 + rng.normal(0, 0.03) + rng.normal(0, 0.012, len(BANDS))
    slope = rng.normal(0, 0.02) * np.linspace(-1, 1, side)
    haze = rng.normal(0, 45) * HAZE
    image = image * gain[:, None, None] * (1 + slope) + haze[:, None, None]
    noise = rng.normal(size=image.shape) * (NOISE[0] + NOISE[1] * image)
    return np.asarray(np.clip(np.round(image + noise), 1, 12_000), np.float32)
