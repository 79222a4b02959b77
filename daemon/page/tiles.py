"""Vector tiles (Mapbox Vector Tile 2) of the map, of what changed, and of alerts.

Outlines go to the tile's grid here, for all polygons at once; DuckDB's ``ST_AsMVT`` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from daemon.page.mercator import Tile, onto
from schemas.nomenclature import CS_LEAVES, US_CODES
from updater.alert_rows import rank
from updater.diff import DiffPiece
from updater.generalise import as_multi
from updater.page_reads import view
from updater.store import Store
from updater.types import AlertRecord

EXTENT: Final = 4096
"""Steps on a tile's side: an eighth of a pixel."""
MARGIN: Final = 64
"""Steps beyond the edge, so that an outline's width has no seam there."""
LEAST_STEPS: Final = 4.0
"""Area, in steps, below which a polygon of the map is left out: a fiftieth of a pixel."""
MAP_FROM: Final = 13
"""First zoom at which the map comes as polygons; before, as a picture (``page.overview``)."""
POLYGONAL: Final = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
OUTLINES_FROM: Final = 11
"""First zoom at which an outline is drawn: a pixel is 27 m there, as long as a small alert."""
POINTS_TO: Final = 15
"""Last zoom at which a point stands for an outline."""
CS_NAMES: Final = pa.array([None, *CS_LEAVES])
US_NAMES: Final = pa.array([None, *US_CODES])

Shapes = npt.NDArray[np.object_]
_WRITE: Final = (
    "SELECT ST_AsMVT({{'geom': ST_GeomFromWKB(geom), {columns}}}, '{layer}', {extent}, 'geom') "
    "FROM drawn_tile"
)


def on_grid(shapes: Shapes, tile: Tile, crs: str) -> Shapes:
    """Outlines in a CRS on the grid of a tile, cut at its margin; empty where nothing is left."""
    fit = onto(tile, crs)
    placed = shapely.transform(shapes, lambda points: np.rint(fit(points) * EXTENT))
    low, high = -MARGIN, EXTENT + MARGIN
    kept = shapely.clip_by_rect(placed, low, low, high, high)
    mixed = np.flatnonzero(~np.isin(shapely.get_type_id(kept), POLYGONAL) & ~shapely.is_empty(kept))
    for index in mixed:  # a corner or an edge that only touches the margin
        kept[index] = as_multi(kept[index])
    return np.asarray(shapely.orient_polygons(kept))


def written(store: Store, layer: str, shapes: Shapes, columns: Mapping[str, pa.Array]) -> bytes:
    """A tile of one layer; shapes are on its grid, empty ones are left out."""
    kept = np.flatnonzero(~shapely.is_empty(shapes))
    if not len(kept):
        return b""
    wkb = pa.array(shapely.to_wkb(shapes[kept]), pa.binary())
    table = pa.table({"geom": wkb, **{name: c.take(kept) for name, c in columns.items()}})
    sql = _WRITE.format(
        columns=", ".join(f"'{name}': {name}" for name in columns), layer=layer, extent=EXTENT
    )
    cursor = store.cursor
    cursor.register("drawn_tile", table)
    try:
        row = cursor.execute(sql).fetchall()
    finally:
        cursor.unregister("drawn_tile")
    return bytes(row[0][0])


def map_tile(store: Store, tile: Tile, *, valid_at: datetime) -> bytes:
    """Polygons of the map as the ground was at an instant: ``id``, ``cs``, ``us``, ``artif`` (0, 1)
    and ``since``, the year they are from."""
    seen = view(store, tile.window(store.crs, MARGIN / EXTENT), valid_at=valid_at)
    if not seen.ids:
        return b""
    shapes = on_grid(seen.shapes, tile, store.crs)
    large = np.flatnonzero(shapely.area(shapes) >= LEAST_STEPS)
    columns = {
        "id": pa.array(seen.ids),
        "cs": CS_NAMES.take(pa.array(seen.cover)),
        "us": US_NAMES.take(pa.array(seen.usage)),
        "artif": pa.array(seen.artificial.astype(np.int32)),
        "since": pa.array(seen.since.astype(np.int32)),
    }
    return written(store, "map", shapes[large], {k: c.take(large) for k, c in columns.items()})


@dataclass(frozen=True, slots=True)
class Drawable:
    """Outlines of a store that are looked up by place, and what each of them says."""

    shapes: Shapes
    columns: Mapping[str, pa.Array]
    tree: shapely.STRtree

    @classmethod
    def of(cls, shapes: Sequence[Any], columns: Mapping[str, Sequence[Any]]) -> Drawable:
        """From values in the same order."""
        array = np.array(shapes, dtype=object)
        made = {name: pa.array(list(values)) for name, values in columns.items()}
        return cls(array, made, shapely.STRtree(array))

    def near(self, tile: Tile, crs: str) -> npt.NDArray[np.intp]:
        """Indices of those that touch a tile, in order."""
        window = shapely.box(*tile.window(crs, MARGIN / EXTENT))
        return np.sort(self.tree.query(window))


def changes_of(pieces: Sequence[DiffPiece]) -> Drawable:
    """What differs between two millésimes, ready to be cut into tiles: ids and codes before and
    after, ``kind`` (evolution, correction), ``artif`` (−1, 0, 1) and area, m²."""
    return Drawable.of(
        [p.geometry for p in pieces],
        {
            "id": [p.id_after for p in pieces],
            "id_before": [p.id_before for p in pieces],
            "cs_before": [p.cs_before for p in pieces],
            "cs": [p.cs_after for p in pieces],
            "us_before": [p.us_before for p in pieces],
            "us": [p.us_after for p in pieces],
            "kind": [p.kind.value for p in pieces],
            "artif": [p.artificialisation for p in pieces],
            "area": [round(float(p.geometry.area)) for p in pieces],
        },
    )


def alerts_of(records: Sequence[AlertRecord]) -> Drawable:
    """Alerts, ready to be cut into tiles: ``kind``, ``state``, probability, area, rank."""
    return Drawable.of(
        [r.geometry for r in records],
        {
            "id": [r.id for r in records],
            "kind": [r.kind.value for r in records],
            "state": [r.state.value for r in records],
            "probability": [round(r.probability, 3) for r in records],
            "area": [round(float(r.geometry.area)) for r in records],
            "rank": [round(rank(r), 1) for r in records],
        },
    )


def drawn_tile(
    store: Store, tile: Tile, layer: str, drawable: Drawable, *, points: bool = False
) -> bytes:
    """The part of some outlines that lies on a tile; with ``points``, a layer of one in each
    too (``…-points``): from afar an outline is smaller than a pixel, and only those are drawn."""
    near = drawable.near(tile, store.crs)
    if not len(near):
        return b""
    columns = {name: values.take(near) for name, values in drawable.columns.items()}
    body = b""
    if tile.z >= OUTLINES_FROM:
        body = written(store, layer, on_grid(drawable.shapes[near], tile, store.crs), columns)
    if points and tile.z <= POINTS_TO:
        # layers of a tile follow each other (MVT 2, 4.1), so tiles are joined end to end
        body += written(
            store, f"{layer}-points", _middles(drawable.shapes[near], tile, store), columns
        )
    return body


def _middles(shapes: Shapes, tile: Tile, store: Store) -> Shapes:
    """A point in each outline, on the grid of a tile; empty where another tile has it."""
    place = np.rint(
        onto(tile, store.crs)(shapely.get_coordinates(shapely.point_on_surface(shapes))) * EXTENT
    )
    found = np.asarray(shapely.points(place))
    found[((place < 0) | (place >= EXTENT)).any(axis=1)] = shapely.Point()
    return found
