"""A made-up country for ``millesimed bench capacity``: départements with maps, and acquisitions of
them that are metadata only.

Every département is the same irregular map, moved: one is prepared, each store gets it under its
own code on ground of its own. An acquisition says which scene of a département it covers and how
many buildings are new there; its image is one file all of them share, of which only the address is
looked at.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pystac
import shapely
from cloudevents.core.bindings.kafka import KafkaMessage
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry

from daemon.bench.patch import CELL_M, CORNER, CRS, MILLESIME, building, make_map
from daemon.bench.process import heard, spawned
from detectors.types import Progress, Region
from schemas.envelope import ACQUISITION_TYPE, cloud_event, to_kafka
from schemas.policy import Sensor
from updater.commit import add_image
from updater.crs import WGS84, reproject
from updater.importer import load, prepare
from updater.reads import ImageRecord
from updater.store import Store
from updater.types import MapPolygon

SCENE_M: Final = 1_000.0
"""Side of a scene: the km² of an event that the plan counts with."""
EDGE_M: Final = 2 * CELL_M
"""Map beyond the outermost scenes, whose outline wanders."""
APART_M: Final = 60_000.0
"""Between two départements; a hundred of them stay where Lambert-93 is good."""
WEST_SOUTH: Final = (200_000.0, 6_150_000.0)
ACROSS: Final = 10
GSD_M: Final = 0.2
FLOWN: Final = (datetime(2021, 7, 2, 10, tzinfo=UTC), datetime(2024, 6, 18, 10, tzinfo=UTC))
SOURCE: Final = "urn:millesimed:bench"
DETECTOR: Final = "made-up/1"
_NAMED: Final = re.compile(r"^made-up-(?P<departement>D\d{3})-(?P<scene>\d+)-(?P<changes>\d+)$")


@dataclass(frozen=True, slots=True)
class Scene:
    """One acquisition: where it lies, which scene of its département it is, new buildings."""

    departement: str
    number: int
    changes: int
    footprint: BaseGeometry

    @property
    def name(self) -> str:
        """The id of its item, which says all a made-up judgement needs."""
        return f"made-up-{self.departement}-{self.number}-{self.changes}"


@dataclass(frozen=True, slots=True)
class Country:
    """The stores by département, and the file every image of it is."""

    stores: dict[str, Path]
    image: Path
    scenes: int


def make_country(
    folder: Path,
    *,
    departements: int,
    scenes: int,
    seed: int,
    progress: Progress | None = None,
) -> Country:
    """Stores whose maps hold so many scenes each, and a reference image for all of each map."""
    side = math.ceil(math.sqrt(scenes)) * SCENE_M + 2 * EDGE_M
    source, image = folder / "map.gpkg", folder / "image.tif"
    image.touch()
    make_map(source, polygons=math.ceil(side / CELL_M) ** 2, seed=seed)
    polygons, _ = prepare(source, millesime=MILLESIME)
    stores = {}
    for number in range(departements):
        code = f"D{number + 1:03d}"
        stores[code] = _store(folder / f"{code}.duckdb", code, polygons, corner_of(code), image)
        if progress is not None:
            progress("stores", number + 1, departements)
    return Country(stores, image, scenes)


def made_apart(
    folder: Path, *, departements: int, scenes: int, seed: int, progress: Progress | None = None
) -> Country:
    """The same, made by another process so that its memory is not the bench's."""
    folder.mkdir(exist_ok=True)
    with spawned(_make, folder, departements, scenes, seed) as (_, pipe):
        while not isinstance(said := heard(pipe, "maker of the maps"), Country):
            if progress is not None:
                progress(*said)
    return said


def _make(folder: Path, departements: int, scenes: int, seed: int, answer: Any) -> None:  # noqa: ANN401
    answer.send(
        make_country(
            folder,
            departements=departements,
            scenes=scenes,
            seed=seed,
            progress=lambda *told: answer.send(told),
        )
    )


def corner_of(departement: str) -> tuple[float, float]:
    """South-west corner of a département's map, whole metres."""
    row, col = divmod(int(departement[1:]) - 1, ACROSS)
    return WEST_SOUTH[0] + col * APART_M, WEST_SOUTH[1] + row * APART_M


def _store(
    db: Path,
    code: str,
    polygons: Sequence[MapPolygon],
    corner: tuple[float, float],
    image: Path,
) -> Path:
    ground = np.array([p.geometry for p in polygons], dtype=object)
    moved = shapely.transform(ground, lambda xy: np.round(xy + (np.array(corner) - CORNER), 2))
    whole = box(*shapely.total_bounds(moved))
    with Store.create(db, territory=code, crs=CRS, millesime=MILLESIME) as store:
        own = [replace(p, geometry=shape) for p, shape in zip(polygons, moved, strict=True)]
        load(store, own, [], millesime=MILLESIME)
        known = ImageRecord(f"reference-{code}", image, Sensor.PVA, FLOWN[0], GSD_M, whole)
        add_image(store, known)
    return db


def scenes_of(departement: str, *, scenes: int, changes_per_scene: float, seed: int) -> list[Scene]:
    """The scenes of a département, adjoining, each with a Poisson number of new buildings."""
    across = math.ceil(math.sqrt(scenes))
    rng = np.random.default_rng([seed, int(departement[1:])])
    counts = rng.poisson(changes_per_scene, scenes).tolist()
    west, south = corner_of(departement)
    found = []
    for number, changes in enumerate(counts):
        row, col = divmod(number, across)
        x, y = west + EDGE_M + col * SCENE_M, south + EDGE_M + row * SCENE_M
        ground = box(x, y, x + SCENE_M, y + SCENE_M)
        found.append(Scene(departement, number, int(changes), ground))
    return found


def record_of(scene: Scene, image: Path) -> KafkaMessage:
    """The acquisition event of a scene. Its key names the département, its item does not, so that
    the footprint selects the store."""
    edge = shapely.segmentize(scene.footprint, SCENE_M / 16)  # as `daemon.announce` draws them
    footprint = reproject(edge, CRS, WGS84)
    west, _, _, north = scene.footprint.bounds
    pixels = round(SCENE_M / GSD_M)
    item = pystac.Item(
        id=scene.name,
        geometry=mapping(footprint),
        bbox=list(footprint.bounds),
        datetime=FLOWN[1],
        properties={
            "proj:code": CRS,
            "proj:shape": [pixels, pixels],
            "proj:transform": [GSD_M, 0, west, 0, -GSD_M, north],
            "gsd": GSD_M,
            "millesimed:sensor": Sensor.PVA.value,
        },
    )
    item.add_asset("image", pystac.Asset(href=image.resolve().as_uri(), roles=["data"]))
    return to_kafka(
        cloud_event(
            type_=ACQUISITION_TYPE,
            id_=scene.name,
            source=SOURCE,
            data=item.to_dict(include_self_link=False, transform_hrefs=False),
            time=FLOWN[1],
            key=f"{scene.departement}/{scene.number}",
        )
    )


def made_up_regions(item: str, footprint: BaseGeometry) -> list[Region]:
    """The new buildings that a scene's name promises, on its ground; the same ones every time.

    Raises:
        ValueError: no scene of this country is called that.
    """
    named = _NAMED.match(item)
    if named is None:
        raise ValueError(f"{item!r} is no scene of the made-up country.")
    rng = np.random.default_rng(int(hashlib.sha256(item.encode()).hexdigest()[:16], 16))
    middle = footprint.centroid
    found: list[Region] = []
    while len(found) < int(named["changes"]):
        # `building` spreads over more than a scene
        region = building(rng, (middle.x, middle.y))
        if footprint.contains(region.geometry.buffer(CELL_M / 2)):
            found.append(region)
    return found
