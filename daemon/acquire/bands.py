"""One image out of the files of a satellite scene: bands on the finest one's grid, in one GeoTIFF.

Values become reflectance × 10 000 with 0 where there is no data, as the detectors take them:
since 2022 products of Sentinel-2 carry an offset that would else look like change everywhere.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from daemon.acquire.http import xml_of
from daemon.acquire.watcher import AcquireError
from daemon.files import settle
from detectors.raster import open_dataset

REFLECTANCE: Final = 10_000
"""What stands for a reflectance of 1."""
ROWS: Final = 512
"""Rows read at once, and the side of the blocks written."""
BAND_IDS: Final = (
    *(f"B{n:02d}" for n in range(1, 9)),
    "B8A",
    *(f"B{n:02d}" for n in range(9, 13)),
)
"""Bands in the order of ``band_id`` in a product's metadata."""
MOST_METADATA: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Band:
    """A one-band file: reflectance × 10 000 is ``value × scale + offset``, except where it is 0."""

    name: str
    path: Path
    scale: float = 1.0
    offset: float = 0.0


def stack(bands: Sequence[Band], target: Path) -> Path:
    """The bands as one image; there already, it is left as it is.

    Raises:
        AcquireError: a file cannot be read to its end.
        MillesimedError: it is no image.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with ExitStack() as stack:
            sources = [stack.enter_context(open_dataset(band.path)) for band in bands]
            finest = min(sources, key=lambda source: abs(source.transform.a))
            views = [_on_grid(stack, source, finest) for source in sources]
            with rasterio.open(
                staged,
                "w",
                driver="GTiff",
                width=finest.width,
                height=finest.height,
                count=len(bands),
                dtype="uint16",
                crs=finest.crs,
                transform=finest.transform,
                nodata=0,
                tiled=True,
                blockxsize=ROWS,
                blockysize=ROWS,
                compress="deflate",
                predictor=2,
                bigtiff="if_safer",
            ) as out:
                out.descriptions = [band.name for band in bands]
                for row in range(0, finest.height, ROWS):
                    window = Window(0, row, finest.width, min(ROWS, finest.height - row))
                    for number, (band, view) in enumerate(zip(bands, views, strict=True), 1):
                        out.write(
                            _reflectance(view.read(1, window=window), band), number, window=window
                        )
        settle(staged, target)
    except (RasterioError, OSError) as error:
        detail = " ".join(str(error).split())[:120]
        raise AcquireError(f"{target.stem} cannot be put together ({detail}).") from None
    finally:
        staged.unlink(missing_ok=True)
    return target


def _on_grid(
    stack: ExitStack, source: rasterio.DatasetReader, finest: rasterio.DatasetReader
) -> rasterio.DatasetReader | WarpedVRT:
    same = source.shape == finest.shape and source.transform == finest.transform
    if same and source.crs == finest.crs:
        return source
    return stack.enter_context(
        WarpedVRT(
            source,
            crs=finest.crs,
            transform=finest.transform,
            width=finest.width,
            height=finest.height,
            resampling=Resampling.bilinear,
            src_nodata=0,
            nodata=0,
        )
    )


def _reflectance(values: np.ndarray, band: Band) -> np.ndarray:
    scaled = np.rint(values.astype(np.float64) * band.scale + band.offset)
    return np.where(values == 0, 0, np.clip(scaled, 1, 65535)).astype(np.uint16)


def in_product(folder: Path, names: Sequence[str]) -> list[Band]:
    """Bands of an unpacked product of Sentinel-2 (``.SAFE``), each at its finest, with the scale
    and offset its metadata give.

    Raises:
        AcquireError: a band or the metadata are missing.
    """
    images = sorted(folder.rglob("*.jp2")) + sorted(folder.rglob("*.tif"))
    tunings = _tunings(folder)
    found = []
    for name in names:
        fitting = {p: _resolution(p.stem, name) for p in images if "IMG_DATA" in p.parts}
        ranked = sorted((r, p) for p, r in fitting.items() if r is not None)
        if not ranked:
            raise AcquireError(f"The product has no band {name}; correct `bands` of the source.")
        scale, offset = tunings.get(name, (1.0, 0.0))
        found.append(Band(name, ranked[0][1], scale, offset))
    return found


def _resolution(stem: str, name: str) -> int | None:
    """Metres of a pixel as a file's name gives them (0 at level 1C, which has each band once); None
    for another band."""
    found = re.search(rf"_{re.escape(name)}(?:_(\d+)m)?$", stem)
    return None if found is None else int(found[1] or 0)


def _tunings(folder: Path) -> Mapping[str, tuple[float, float]]:
    """Scale and offset of every band from the product's metadata."""
    path = next(iter(sorted(folder.rglob("MTD_MSIL*.xml"))), None)
    if path is None or path.stat().st_size > MOST_METADATA:
        raise AcquireError("The product has no metadata (MTD_MSIL*.xml); fetch it again.")
    root = xml_of(path.read_bytes(), path.name)
    quantities = [e.text for e in root.iter() if _local(e.tag) in QUANTIFICATION]
    scale = REFLECTANCE / float(quantities[0]) if quantities and quantities[0] else 1.0
    offsets = {
        BAND_IDS[int(e.attrib["band_id"])]: float(e.text or 0)
        for e in root.iter()
        if _local(e.tag) in OFFSETS and int(e.attrib.get("band_id", -1)) in range(len(BAND_IDS))
    }
    return {name: (scale, offsets.get(name, 0.0) * scale) for name in BAND_IDS}


QUANTIFICATION: Final = {"BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE"}
OFFSETS: Final = {"BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"}


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def wanted_of(names: Sequence[str]) -> re.Pattern[str]:
    """Members of a product's archive that ``in_product`` needs."""
    bands = "|".join(map(re.escape, names))
    return re.compile(rf"(?:^|/)MTD_MSIL\w+\.xml$|/IMG_DATA/.*_(?:{bands})(?:_\d+m)?\.(?:jp2|tif)$")
