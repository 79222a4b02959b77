"""A small real scene for tests: a corner of the demo landscape as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import from_bounds
from shapely.geometry import box

from daemon.announce import drop, event_bytes, item_of, when
from daemon.config import HttpSettings, Settings
from daemon.demo.landscape import CRS, DEPARTEMENT, MILLESIME, make_landscape
from daemon.demo.render import GSD_M, render_after, render_before, write_geotiff
from schemas.policy import Sensor
from updater.commit import add_image
from updater.crs import reproject
from updater.generalise import polygons_of
from updater.importer import create_store
from updater.reads import ImageRecord
from updater.store import Store

FLOWN_BEFORE, FLOWN_AFTER = "2021-07-02", "2024-06-18"
SIDE_M = 320.0


@dataclass(frozen=True)
class SmallScene:
    """Files of a 320 m square with true changes in it."""

    map: Path
    zone: Path
    reference: Path
    after: Path
    truth: gpd.GeoDataFrame
    bounds: tuple[float, float, float, float]


def make_small_scene(folder: Path, *, seed: int = 5) -> SmallScene:
    """Cut the square with the most changed ground out of a demo landscape."""
    landscape = make_landscape(seed)
    west, south, east, north = landscape.bounds
    corners = [
        (x, y)
        for x in (west, west + 200, west + 400, west + 600, east - SIDE_M)
        for y in (south, south + 200, south + 400, south + 600, north - SIDE_M)
    ]
    houses = landscape.before[landscape.before["kind"] == "roof"]

    def worth(corner: tuple[float, float]) -> float:
        """Changed ground, where there are houses enough to learn what one looks like."""
        square = box(*corner, corner[0] + SIDE_M, corner[1] + SIDE_M)
        known = int(houses.within(square).sum())
        return float(landscape.changes.intersection(square).area.sum()) * (known >= 12)

    x, y = max(corners, key=worth)
    frame = box(x, y, x + SIDE_M, y + SIDE_M)
    rows = []
    for row in landscape.before.drop(columns="kind").to_dict("records"):
        for number, part in enumerate(polygons_of(row["geometry"].intersection(frame))):
            rows.append({**row, "id": f"{row['id']}-{number}", "geometry": part})
    cover = gpd.GeoDataFrame(rows, crs=CRS)
    cover.to_file(folder / "OCCUPATION_SOL.gpkg", layer="OCCUPATION_SOL")
    landscape.zone_construite.to_file(folder / "ZONE_CONSTRUITE.gpkg", layer="ZONE_CONSTRUITE")
    window = from_bounds(*frame.bounds, from_origin(west, north, GSD_M, GSD_M))
    cut = window.round_offsets().round_lengths().toslices()
    for name, image in (("before", render_before(landscape)), ("after", render_after(landscape))):
        write_geotiff(folder / f"{name}.tif", image[:, cut[0], cut[1]], frame.bounds)
    return SmallScene(
        map=folder / "OCCUPATION_SOL.gpkg",
        zone=folder / "ZONE_CONSTRUITE.gpkg",
        reference=folder / "before.tif",
        after=folder / "after.tif",
        truth=landscape.changes.clip(frame),
        bounds=frame.bounds,
    )


def prepared(folder: Path, scene: SmallScene) -> Settings:
    """A folder ready to run: store, reference, empty inbox; gives its settings."""
    db = folder / "D032.duckdb"
    create_store(db, scene.map, territory=DEPARTEMENT, millesime=MILLESIME, zone=scene.zone)
    item = item_of(scene.reference, acquired=when(FLOWN_BEFORE), sensor=Sensor.PVA)
    with Store.open(db) as store, rasterio.open(scene.reference) as image:
        add_image(
            store,
            ImageRecord(
                item=item.id,
                path=scene.reference,
                sensor=Sensor.PVA,
                acquired=when(FLOWN_BEFORE),
                gsd=GSD_M,
                footprint=reproject(box(*image.bounds), CRS, store.crs),
            ),
        )
    return Settings(
        db=[db],
        inbox=folder / "inbox",
        outbox=folder / "outbox",
        http=HttpSettings(enabled=False),
        device="cpu",
    )


def announced(
    inbox: Path, image: Path, *, name: str | None = None, acquired: str = FLOWN_AFTER
) -> str:
    """Drop the event of an image into an inbox; gives its id."""
    item = item_of(image, acquired=when(acquired), sensor=Sensor.PVA, departement=DEPARTEMENT)
    event_id, body = event_bytes(item)
    drop(inbox, name or event_id, body)
    return event_id
