"""A millésime as pixels, square by square: each has the class of the polygon its middle lies in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.features import rasterize
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin
from rasterio.windows import Window

from schemas.export import ExportFormat, ExportTheme
from schemas.legal import LegalStatus
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE
from updater.artificialisation import statuses
from updater.clip import clipped
from updater.export_made import Tell, polygons_of
from updater.export_plan import Plan
from updater.export_rows import Part
from updater.export_sums import Sums
from updater.export_warp import Grid, warp
from updater.types import MapPolygon

Colour = tuple[int, int, int]
ARTIFICIAL_RGB: Final[dict[bool, Colour]] = {True: (213, 94, 0), False: (214, 228, 236)}
"""As on the map page: told apart by any eye."""
_COVER: Final = {code: number for number, code in enumerate(CS_LEAVES, start=1)}
_USAGE: Final = {code: number for number, code in enumerate(US_CODES, start=1)}
_BAND: Final = {
    ExportTheme.COVER: "code_cs",
    ExportTheme.USAGE: "code_us",
    ExportTheme.LEGAL: "artif",
}
NON_ARTIFICIAL, ARTIFICIAL = 1, 2
"""Values of the legal theme; 0 is no map in any."""


def colours(theme: ExportTheme) -> dict[int, tuple[int, int, int, int]]:
    """The colour of each value; 0 is transparent."""
    known = {code: entry.rgb for code, entry in (COUVERTURE | USAGE).items()}
    found: dict[int, Colour] = {
        ExportTheme.COVER: {value: known[code] for code, value in _COVER.items()},
        ExportTheme.USAGE: {value: known[code] for code, value in _USAGE.items()},
        ExportTheme.LEGAL: {
            NON_ARTIFICIAL: ARTIFICIAL_RGB[False],
            ARTIFICIAL: ARTIFICIAL_RGB[True],
        },
    }[theme]
    return {0: (0, 0, 0, 0)} | {value: (*rgb, 255) for value, rgb in found.items()}


def labels(theme: ExportTheme) -> dict[str, str]:
    """What each value stands for, as tags of the file: ``1`` → ``CS1.1.1.1``."""
    if theme is ExportTheme.LEGAL:
        names = [LegalStatus.NON_ARTIF.value, LegalStatus.ARTIF.value]
    else:
        names = list(_COVER if theme is ExportTheme.COVER else _USAGE)
    return {str(value): name for value, name in enumerate(names, start=1)}


def values(polygons: Sequence[MapPolygon], theme: ExportTheme) -> list[int]:
    """The value of each polygon."""
    if theme is ExportTheme.LEGAL:
        return [
            ARTIFICIAL if s.status is LegalStatus.ARTIF else NON_ARTIFICIAL
            for s in statuses(polygons)
        ]
    if theme is ExportTheme.COVER:
        return [_COVER.get(p.code_cs or "", 0) for p in polygons]
    return [_USAGE.get(p.code_us or "", 0) for p in polygons]


def write_raster(plan: Plan, given: Iterable[Part], path: Path, tell: Tell) -> int:
    """The raster of a plan; gives how many pixels it has.

    Raises:
        OSError, rasterio's errors: the disk does not take it, or not whole.
    """
    plain = path.with_name(f".plain-{path.name}")

    def describe(target: Any) -> None:  # noqa: ANN401 - rasterio has no types
        target.write_colormap(1, colours(plan.theme))
        target.set_band_description(1, _BAND[plan.theme])
        target.update_tags(1, **labels(plan.theme))

    sums = Sums()
    with rasterio.open(plain, "w", **_profile(plan, plan.plain, plan.crs)) as target:
        describe(target)
        for part in given:
            window = Window(*plan.window(part.square))
            pixels = _square(plan, part, window)
            target.write(pixels, 1, window=window)
            sums.note(window, pixels)
            tell(window.width * window.height)
    if plan.target != plan.crs:
        sums.check(plain)
        source, plain = plain, path.with_name(f".warped-{path.name}")
        sums = warp(source, plain, _profile(plan, plan.grid, plan.target), describe, tell)
        source.unlink()
    if plan.request.format is ExportFormat.COG:
        copy_raster(
            plain,
            path,
            driver="COG",
            compress="deflate",
            overview_resampling="mode",
            bigtiff="if_safer",
        )
        plain.unlink()
    else:
        plain.rename(path)
    sums.check(path)
    return plan.grid.size


def _square(plan: Plan, part: Part, window: Window) -> npt.NDArray[np.uint8]:
    polygons = polygons_of(part.rows)
    said = values(polygons, plan.theme)
    shapes = [(p.geometry, value) for p, value in zip(polygons, said, strict=True)]
    if plan.ground is not None:
        shapes = [(p.geometry, said[i]) for i, p in clipped(polygons, plan.ground)]
    out = np.zeros((window.height, window.width), np.uint8)
    if shapes:
        transform = from_origin(part.square[0], part.square[3], plan.pixel, plan.pixel)
        rasterize(shapes, out=out, transform=transform)
    return out


def _profile(plan: Plan, grid: Grid, crs: str) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "height": grid.rows,
        "width": grid.columns,
        "count": 1,
        "dtype": "uint8",
        "crs": crs,
        "transform": grid.transform,
        "nodata": 0,
        "tiled": True,
        "blockxsize": plan.block,
        "blockysize": plan.block,
        "compress": "deflate",
        "sparse_ok": True,
        "bigtiff": "if_safer",
    }
