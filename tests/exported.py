"""Stores to export from, one of them with three looks, of which one corrects, and a commune in its
west; and what the command does with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
from shapely.geometry import box

from schemas.change import ChangeKind
from schemas.export import ExportRequest
from schemas.territory import TerritoryKind
from tests.map_store import MILLESIME, building, made_store, patched
from updater.crs import legal_crs
from updater.export_plan import plan_of
from updater.export_write import export_to
from updater.importer import load
from updater.store import Store
from updater.territories import Territory, add_territories
from updater.types import MapPolygon

COMMUNE = "32013"
WEST = box(-10, -10, 333.3, 610)
YEARS = {"before": 2021, "after": 2024}
WANTED: dict[str, dict[str, Any]] = {
    "map": {"product": "map", "millesime": 2024},
    "differential": {"product": "differential", **YEARS},
    "corrective": {"product": "corrective", **YEARS},
    "changelog": {"product": "changelog", **YEARS},
    "raster": {"product": "raster", "millesime": 2024, "resolution": 2},
}
"""What each product is asked for with, but for the format."""


def wanted(product: str, format_: str, **more: object) -> ExportRequest:
    """A request."""
    return ExportRequest.model_validate({**WANTED[product], "format": format_, **more})


def store_of(path: Path, polygons: Sequence[MapPolygon], *, territory: str = "D032") -> Store:
    """A store that holds some polygons of 2021, and no built-up zone."""
    crs = legal_crs(territory)
    store = Store.create(path, territory=territory, crs=crs, millesime=MILLESIME)
    load(store, polygons, [], millesime=MILLESIME)
    return store


def written_to(
    store: Store, out: Path, request: ExportRequest, place: Territory | None = None
) -> tuple[Path, int]:
    """A file as the command writes it, and its rows."""
    return export_to(store, plan_of(store, request, place), out, lambda _: None)


def exported_store(folder: Path, *, side: float = 600.0) -> Store:
    """The store."""
    store, _ = made_store(folder / "D032.duckdb", seed=9, side=side)
    patched(store, 1, [building(120, 150), building(300, 420, 60, 40)])
    patched(store, 2, [building(480, 200)], days=30)
    patched(store, 3, [building(90, 480, 50, 40)], days=40, kind=ChangeKind.CORRECTION)
    frame = gpd.GeoDataFrame(
        {"code_insee": [COMMUNE], "nom": ["Auch"]}, geometry=[WEST], crs=store.crs
    )
    frame.to_file(folder / "communes.gpkg")
    add_territories(store, folder / "communes.gpkg", TerritoryKind.COMMUNE)
    return store
