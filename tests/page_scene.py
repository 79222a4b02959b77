"""A served store with two millésimes, images of both, a commune and alerts, for the map page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import geopandas as gpd
import rasterio
from shapely.geometry import box, mapping

from daemon.announce import item_of, when
from daemon.demo.landscape import CRS, DEPARTEMENT, MILLESIME
from daemon.planning import assert_whole, with_places
from detectors.types import Region
from schemas.acquisition import AcquisitionItem
from schemas.dead_letter import Origin
from schemas.envelope import AcquisitionEvent
from schemas.policy import SENSOR_POLICY, Sensor
from schemas.territory import TerritoryKind
from tests.scenes import FLOWN_AFTER, FLOWN_BEFORE, SmallScene
from updater import alerts, commit, planner, reads
from updater.crs import WGS84, reproject
from updater.importer import create_store
from updater.store import Store
from updater.territories import add_territories
from updater.types import Rules

COMMUNE = "32013"


@dataclass(frozen=True)
class PageScene:
    """The store, and the items of its images."""

    store: Store
    reference: str
    after: str


def page_scene(folder: Path, scene: SmallScene) -> PageScene:
    """The small scene with its true changes patched in, as one sure aerial look would do it."""
    db = folder / "D032.duckdb"
    create_store(db, scene.map, territory=DEPARTEMENT, millesime=MILLESIME, zone=scene.zone)
    store = Store.open(db)
    before = _image(store, scene.reference, FLOWN_BEFORE)
    after = _image(store, scene.after, FLOWN_AFTER)
    _commune(store, folder, scene)
    _patched(store, scene, reference=before, item=after)
    return PageScene(store, before, after)


def _image(store: Store, path: Path, flown: str) -> str:
    item = item_of(path, acquired=when(flown), sensor=Sensor.PVA)
    with rasterio.open(path) as image:
        footprint = reproject(box(*image.bounds), CRS, store.crs)
        gsd = abs(image.transform.a)
    record = reads.ImageRecord(item.id, path, Sensor.PVA, when(flown), gsd, footprint)
    commit.add_image(store, record)
    return str(item.id)


def _commune(store: Store, folder: Path, scene: SmallScene) -> None:
    """A commune that holds the west of the ground, with half of what was built."""
    west, south, _, north = scene.bounds
    built = scene.truth[scene.truth.cs_after.str.startswith("CS1.1.1")]
    border = float(built.centroid.x.median())
    frame = gpd.GeoDataFrame(
        {"code_insee": [COMMUNE], "nom": ["Auch"]},
        geometry=[box(west, south, border, north)],
        crs=CRS,
    )
    frame.to_file(folder / "communes.gpkg")
    add_territories(store, folder / "communes.gpkg", TerritoryKind.COMMUNE)


def _patched(store: Store, scene: SmallScene, *, reference: str, item: str) -> None:
    event = _event(scene, item, when(FLOWN_AFTER))
    regions = [
        Region(row.geometry, row.cs_before, row.cs_after, 0.95 - 0.02 * number, 0.8)
        for number, row in enumerate(scene.truth.itertuples())
        if row.geometry.geom_type == "Polygon" and row.cs_before != row.cs_after
    ]
    rules = Rules(
        event=event.key,
        acquired=event.item.acquired,
        sensor=Sensor.PVA,
        policy=SENSOR_POLICY[Sensor.PVA],
        detector="test/1",
        gsd=0.2,
        zone_construite=reads.zone_construite(store, scene.bounds),
    )
    polygons = reads.neighbourhood(store, [region.geometry for region in regions])
    patch = planner.plan(polygons, regions, rules)
    assert_whole(polygons, patch)
    look = alerts.Look(item, Sensor.PVA, rules.acquired, store.clock(), "test/1", reference)
    raised = with_places(store, alerts.follow([], patch.sightings, look))
    origin = Origin(source="kafka", topic="t", partition=0, offset=0, path=None)
    commit.commit(store, commit.Effect(event, rules, patch, raised, None, origin))


def _event(scene: SmallScene, item: str, acquired: datetime) -> AcquisitionEvent:
    ground = reproject(box(*scene.bounds), CRS, WGS84)
    made = AcquisitionItem.model_validate(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": item,
            "geometry": mapping(ground),
            "properties": {
                "datetime": acquired.isoformat(),
                "gsd": 0.2,
                "millesimed:sensor": "pva",
                "proj:code": CRS,
                "proj:shape": [1, 1],
                "proj:transform": [0.2, 0, 0, 0, -0.2, 0],
            },
            "assets": {"image": {"href": scene.after.name}},
        }
    )
    return AcquisitionEvent(item, "urn:millesimed:test", acquired, made)
