"""Images the stores know as STAC 1.1: an Item each, a Collection for each sensor.

Where a file lies on this machine is nobody's business but the operator's: an Item has assets only
for a caller with a token that may read; everyone sees place, time, sensor and grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import rasterio
import shapely
from rasterio.errors import RasterioError
from shapely.geometry import box
from shapely.geometry import shape as shape_of

from daemon.announce import PROJECTION
from schemas.policy import Sensor
from updater.crs import GEOJSON_DECIMALS, epsg_of, to_geojson
from updater.export import world_bounds
from updater.image_search import Holding, holdings
from updater.reads import ImageRecord
from updater.store import Store

STAC_VERSION: Final = "1.1.0"
GEOJSON: Final = "application/geo+json"
TITLES: Final = {
    Sensor.PVA: "Prises de vues aériennes",
    Sensor.SPOT: "SPOT 6 et 7",
    Sensor.PLEIADES: "Pléiades",
    Sensor.SENTINEL_2: "Sentinel-2",
}
MEDIA: Final = {
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".jp2": "image/jp2",
    ".png": "image/png",
}
GRIDS_KEPT: Final = 4096
"""Headers of images remembered: some kilobytes for all tiles of ten campaigns' département."""


def link(rel: str, href: str, type_: str = "application/json", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """A link as every document here has them."""
    return {"rel": rel, "href": href, "type": type_, **more}


def item(store: Store, image: ImageRecord, root: str, *, with_files: bool) -> dict[str, Any]:
    """The Item of an image; ``root``: address of the catalogue."""
    shape = to_geojson(image.footprint, store.crs).model_dump(mode="json")
    bounds = shapely.bounds(shape_of(shape)).tolist()
    parent = f"{root}/collections/{image.sensor.value}"
    grid = grid_of(image.path)
    properties = {
        "datetime": _z(image.acquired),
        "gsd": image.gsd,
        "millesimed:sensor": image.sensor.value,
        "millesimed:departement": store.territory,
        **grid,
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION] if grid else [],
        "id": image.item,
        "collection": image.sensor.value,
        "geometry": shape,
        "bbox": bounds,
        "properties": properties,
        "links": [
            link("self", f"{parent}/items/{image.item}", GEOJSON),
            link("root", root),
            link("parent", parent),
            link("collection", parent),
        ],
        "assets": assets(image) if with_files else {},
    }


def assets(image: ImageRecord) -> dict[str, Any]:
    """The files of an image."""
    found = {"image": _asset(image.path, "data")}
    if image.elevation is not None:
        found["elevation"] = _asset(image.elevation, "data")
    return found


def _asset(path: Path, role: str) -> dict[str, Any]:
    found: dict[str, Any] = {"href": path.absolute().as_uri(), "roles": [role]}
    media = MEDIA.get(path.suffix.lower())
    return found | ({"type": media} if media else {})


def grid_of(path: Path) -> dict[str, Any]:
    """The projection extension's account of an image; empty where it cannot be read now."""
    try:
        return _grid(path)
    except (RasterioError, OSError):
        return {}


@lru_cache(maxsize=GRIDS_KEPT)
def _grid(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as image:
        epsg = epsg_of(image.crs) if image.crs is not None else None
        return {
            "proj:code": f"EPSG:{epsg}" if epsg else None,
            "proj:shape": list(image.shape),
            "proj:transform": list(image.transform)[:6],
            "proj:bbox": list(image.bounds),
        }


def collections(stores: Sequence[Store], root: str) -> list[dict[str, Any]]:
    """A Collection for each sensor that any store has an image of."""
    parts: dict[Sensor, list[tuple[Store, Holding]]] = {}
    for store in stores:
        for holding in holdings(store):
            parts.setdefault(holding.sensor, []).append((store, holding))
    return [_collection(sensor, parts[sensor], root) for sensor in Sensor if sensor in parts]


def _collection(
    sensor: Sensor, parts: Sequence[tuple[Store, Holding]], root: str
) -> dict[str, Any]:
    place = f"{root}/collections/{sensor.value}"
    grounds = [box(*world_bounds([box(*held.extent)], store.crs)) for store, held in parts]
    bounds = [round(degree, GEOJSON_DECIMALS) for degree in shapely.total_bounds(grounds).tolist()]
    first, last = min(h.first for _, h in parts), max(h.last for _, h in parts)
    places = ", ".join(store.territory for store, _ in parts)
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": sensor.value,
        "title": TITLES[sensor],
        "description": f"{TITLES[sensor]} : les images qui ont servi à la carte de {places}.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [bounds]},
            "temporal": {"interval": [[_z(first), _z(last)]]},
        },
        "summaries": {
            "gsd": {
                "minimum": min(h.finest for _, h in parts),
                "maximum": max(h.coarsest for _, h in parts),
            }
        },
        "links": [
            link("self", place),
            link("root", root),
            link("parent", root),
            link("items", f"{place}/items", GEOJSON),
        ],
    }


def _z(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.isoformat().replace("+00:00", "Z")
