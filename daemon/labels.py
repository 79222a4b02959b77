"""The previous map as a raster of cover classes on a scene's grid, window by window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from rasterio.features import rasterize
from shapely.geometry import box

from detectors.types import ByteArray, Grid, Window
from schemas.nomenclature import CS_INDEX
from updater.crs import reproject
from updater.types import MapPolygon


class MapLabels:
    """Rasterises a map on demand: ``labels(window)`` is uint8 ``(rows, cols)``, values of
    ``CS_INDEX``, 0 where the map has no polygon or no code."""

    def __init__(self, polygons: Sequence[MapPolygon], *, map_crs: str, grid: Grid) -> None:
        crs = grid.crs or map_crs
        self._grid = grid
        self._shapes = [reproject(p.geometry, map_crs, crs) for p in polygons]
        self._values = [CS_INDEX.get(p.code_cs or "", 0) for p in polygons]
        self._tree = shapely.STRtree(self._shapes)

    def __call__(self, window: Window) -> ByteArray:
        """Cover classes of one window of the grid."""
        transform = self._grid.transform_of(window)
        west, north = transform @ (0, 0)
        east, south = transform @ (window.width, window.height)
        frame = box(min(west, east), min(north, south), max(west, east), max(north, south))
        hits = np.sort(self._tree.query(frame, predicate="intersects"))
        shape = (window.height, window.width)
        if not len(hits):
            return np.zeros(shape, dtype=np.uint8)
        values = ((self._shapes[i], self._values[i]) for i in hits)
        drawn = rasterize(values, out_shape=shape, transform=transform, fill=0, dtype="uint8")
        return np.asarray(drawn, np.uint8)
