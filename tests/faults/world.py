"""A small world whose events are cheap to judge: a map, pairs of real images, and what is sent.

Each valid event shows a new building on ground of its own, which the trained network finds in
tenths of a second; so what the map becomes does not depend on the order of events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry

from daemon.announce import event_bytes, item_of, when
from daemon.bench.patch import CORNER, CRS, make_map
from daemon.demo.render import write_geotiff
from daemon.submit import event_of
from detectors.synthetic import make_pair
from detectors.training import Example
from schemas.correction import Submission
from schemas.envelope import to_structured
from schemas.policy import Sensor
from schemas.subscription import ChannelKind, Wish
from updater.commit import add_image
from updater.crs import WGS84, reproject
from updater.importer import create_store
from updater.reads import ImageRecord
from updater.store import Store
from updater.subscriptions import accepted, save

SIDE, GSD_M = 128, 0.4
STEP_M = 56.0
"""Between two images: a little more than one covers."""
MARGIN_M = 60.0
PLOT_M = 70.0
FLOWN_BEFORE, FLOWN_AFTER = "2021-07-02", "2024-06-18"
WITH_BUILDING = (8, 12, 14, 17, 22, 40, 55, 66, 80, 86, 95, 124)
"""Seeds of made-up pairs in which the network finds a building of more than 250 m²."""


@dataclass(frozen=True)
class World:
    """Files of a map that events may come to; ``events``: structured CloudEvents, valid ones."""

    folder: Path
    store: Path
    map: Path
    events: list[bytes]


@lru_cache
def pair(number: int) -> Example:
    """Two made-up images of which the later one has a new building."""
    seed = WITH_BUILDING[number % len(WITH_BUILDING)]
    return make_pair(np.random.default_rng([77, seed]), size=SIDE)


def made_world(folder: Path, *, events: int, step_m: float = STEP_M, repeat: int = 1) -> World:
    """A map with a reference image and an acquisition for each of so many events, and somebody who
    wants to be told. ``repeat``: how often the ground of an image is repeated in either direction,
    which makes it large and slow to judge."""
    folder.mkdir(parents=True, exist_ok=True)
    across = int(np.ceil(events**0.5))
    plots = int(np.ceil((across * step_m + 2 * MARGIN_M) / PLOT_M))
    cover, db = folder / "map.gpkg", folder / "fresh.duckdb"
    make_map(cover, polygons=plots**2, seed=1)
    create_store(db, cover, territory="D032", millesime=2021)
    bodies = []
    with Store.open(db) as store:
        for number in range(events):
            row, col = divmod(number, across)
            west, south = CORNER + MARGIN_M + step_m * np.array([col, row])
            side = SIDE * repeat * GSD_M
            bounds = (west, south, west + side, south + side)
            before, after = (folder / f"{date}-{number:03}.tif" for date in ("before", "after"))
            write_geotiff(before, _tiled(pair(number).before, repeat), bounds)
            write_geotiff(after, _tiled(pair(number).after, repeat), bounds)
            known = item_of(before, acquired=when(FLOWN_BEFORE), sensor=Sensor.PVA)
            add_image(store, _reference(known.id, before, reproject(box(*bounds), CRS, store.crs)))
            bodies.append(event_bytes(item_of(after, **_flown()))[1])
        save(store, accepted(Wish(name="mairie", channel=ChannelKind.FOLDER)))
    return World(folder, db, cover, bodies)


def _tiled(image: npt.NDArray[np.uint8], times: int) -> npt.NDArray[np.uint8]:
    return np.tile(image, (1, times, times))


def _flown() -> dict[str, object]:
    return {"acquired": when(FLOWN_AFTER), "sensor": Sensor.PVA, "departement": "D032"}


def _reference(item: str, path: Path, footprint: object) -> ImageRecord:
    return ImageRecord(item, path, Sensor.PVA, when(FLOWN_BEFORE), GSD_M, footprint)


def submission(ground: BaseGeometry, *, comment: str = "seen on the way") -> dict[str, object]:
    """What somebody sends in who has seen a building there."""
    feature = {
        "type": "Feature",
        "geometry": mapping(reproject(ground, CRS, WGS84)),
        "properties": {"code_cs": "CS1.1.1.1", "code_us": "US5"},
    }
    return {
        "type": "FeatureCollection",
        "features": [feature],
        "observed": "2024-07-01T10:00:00Z",
        "source": "OCS communale",
        "comment": comment,
        "departement": "D032",
    }


def yard(number: int, *, across: int, side_m: float = 40.0) -> BaseGeometry:
    """Ground within the image of that number, of a world that has so many images in a row."""
    row, col = divmod(number, across)
    west, south = CORNER + MARGIN_M + STEP_M * np.array([col, row]) + 5.0
    return box(west, south, west + side_m, south + side_m)


def with_corrections(world: World, *, every: int = 3) -> World:
    """The same with somebody's word after every so many acquisitions: in turn on ground whose image
    is judged by then, and on ground whose image comes later."""
    across = int(np.ceil(len(world.events) ** 0.5))
    bodies = []
    for number, body in enumerate(world.events):
        bodies.append(body)
        if number % every == every - 1:
            turn = number // every
            there = number - turn % 2 if turn % 2 else len(world.events) - 1 - turn
            ground = yard(there, across=across)
            said = Submission.model_validate(submission(ground, comment=f"no. {turn}"))
            bodies.append(to_structured(event_of(said, "auch")))
    return replace(world, events=bodies)


def poison(world: World, number: int) -> bytes:
    """What can have no effect, of four kinds."""
    kinds = (
        b"\x89PNG, not JSON %d" % number,
        json.dumps({"specversion": "1.0", "id": f"bad-{number}"}).encode(),
        _altered(world, number, href="file:///nowhere/gone.tif"),
        _altered(world, number, href=(world.map).as_uri()),
    )
    return kinds[number % len(kinds)]


def _altered(world: World, number: int, *, href: str) -> bytes:
    shown = [body for body in world.events if b'"assets"' in body]
    document = json.loads(shown[number % len(shown)])
    document["id"] = document["data"]["id"] = f"poison-{number}"
    document["data"]["assets"]["image"] = {"href": href}
    return json.dumps(document).encode()


def stream(world: World) -> list[list[bytes]]:
    """What is sent, in portions of one valid event each; some with poison or with what was sent
    before, some with both."""
    portions = []
    for number, body in enumerate(world.events):
        portion = [body]
        if number % 4 == 1:
            portion.insert(0, poison(world, number // 4))
        if number % 3 == 2:
            portion.append(world.events[number - number % 2])
        if number % 8 == 5:
            portion.append(poison(world, number // 4))  # the same bytes at another place
        portions.append(portion)
    return portions
