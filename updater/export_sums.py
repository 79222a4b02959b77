"""Whether a raster on the disk is what was written: GDAL says nothing of tiles that a full disk did
not take when a file is closed, and they read as no map, or not at all."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

Where = tuple[int, int, int, int]


class Sums:
    """Sums of what was written into the windows of a raster."""

    def __init__(self) -> None:
        self._known: dict[Where, int] = {}

    def note(self, window: Window, values: npt.NDArray[np.uint8]) -> None:
        """Remember what a window was given."""
        self._known[window.flatten()] = zlib.crc32(values.tobytes())

    def check(self, path: Path) -> None:
        """Read a file back, overviews too.

        Raises:
            OSError, rasterio's errors: it is not whole.
        """
        with rasterio.open(path) as image:
            for where, known in self._known.items():
                if zlib.crc32(image.read(1, window=Window(*where)).tobytes()) != known:
                    raise OSError(errno.ENOSPC, "the file is not whole", path.name)
            levels = len(image.overviews(1))
        for level in range(levels):
            with rasterio.open(path, overview_level=level) as image:
                for _, window in image.block_windows(1):
                    image.read(1, window=window)
