"""What ``millesimed bench service`` sends: a map, images of small sites on it, events in bursts.

A site is looked at four times: a building is there twice, then it is gone twice. Looks of many
sites are interleaved, so that every part of a run has the same mix, and each site's looks are far
enough apart to be campaigns of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer
from rasterio.transform import from_origin
from shapely.geometry import box

from daemon.announce import drop, event_bytes, item_of
from daemon.bench.patch import CELL_M, CORNER, CRS, make_map
from daemon.config import KafkaSettings
from detectors.cva import Cva
from detectors.types import Tile, TileScores
from schemas.nomenclature import CS_INDEX
from schemas.policy import BUILDING, Sensor
from updater.commit import add_image
from updater.importer import create_store
from updater.reads import ImageRecord
from updater.store import Store

DEPARTEMENT: Final = "D032"
MILLESIME: Final = 2021
MEADOW: Final = "CS2.2.1"
GSD_M: Final = 0.5
SIDE_PX: Final = 64
ROOF_PX: Final = 32
"""256 m²: above the product's smallest building."""
PITCH_M: Final = 48.0
"""Between two sites, so that no two share ground."""
LOOKS: Final = 4
LOOK_DAYS: Final = 60
"""Between two looks at a site: twice what makes a campaign."""
LOOK_LAG: Final = 10
"""Sites announced between two looks at one."""
FLOWN: Final = datetime(2022, 6, 1, 10, tzinfo=UTC)
AGAIN_EVERY: Final = 20
"""One event in so many is announced a second time."""
POISON_EVERY: Final = 50
"""Beside one in so many comes a message that is no event."""
BURST: Final = 100
"""Times the mean rate at which the events of a burst come."""
BURST_SECONDS: Final = 20.0
"""Between two bursts."""
DETECTOR: Final = "cva-cover"
STRIP_PX: Final = 256


class CvaCover(Cva):
    """``cva`` that says what changed ground is: what became brighter a building, the rest meadow.
    ``cva`` itself names no cover, and without one nothing is patched."""

    name = DETECTOR

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """As ``cva``, with covers."""
        found = []
        for tile, scores in zip(tiles, super().detect(tiles), strict=True):
            brighter = tile.after.mean(dim=0) > tile.before.mean(dim=0)
            roof = torch.full_like(scores.probability, CS_INDEX[BUILDING], dtype=torch.uint8)
            meadow = torch.full_like(roof, CS_INDEX[MEADOW])
            covers = torch.where(brighter, roof, meadow)
            found.append(TileScores(scores.probability, scores.magnitude, to_class=covers))
        return found


@dataclass(slots=True)
class Sent:
    """What was sent, by what it is."""

    events: int = 0
    again: int = 0
    poison: int = 0
    seconds: float = 0.0

    @property
    def messages(self) -> int:
        """All of it."""
        return self.events + self.again + self.poison


@dataclass(frozen=True, slots=True)
class Ground:
    """The map's side in metres, and the places of sites in it, in no order a map knows."""

    side: float
    sites: npt.NDArray[np.float64] = field(repr=False)


def ground_of(polygons: int, seed: int) -> Ground:
    """Where sites lie on a map of so many polygons."""
    side = round(polygons**0.5) * CELL_M
    steps = np.arange(CELL_M, side - CELL_M - SIDE_PX * GSD_M, PITCH_M)
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    places = np.floor(places / GSD_M) * GSD_M
    return Ground(side, np.random.default_rng(seed).permutation(places) + CORNER)


def make_ground(folder: Path, polygons: int, seed: int) -> None:
    """The store with its map and one reference image of all of it."""
    source, db, image = folder / "map.gpkg", folder / "store.duckdb", folder / "reference.tif"
    make_map(source, polygons=polygons, seed=seed)
    create_store(db, source, territory=DEPARTEMENT, millesime=MILLESIME)
    side = ground_of(polygons, seed).side
    _write_reference(image, round(side / GSD_M), seed)
    west, south = CORNER
    with Store.open(db) as store:
        add_image(
            store,
            ImageRecord(
                item="reference",
                path=image,
                sensor=Sensor.PVA,
                acquired=datetime(MILLESIME, 7, 1, tzinfo=UTC),
                gsd=GSD_M,
                footprint=box(west, south, west + side, south + side),
            ),
        )


def _profile(west: float, north: float, width: int, height: int) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 3,
        "dtype": "uint8",
        "crs": CRS,
        "transform": from_origin(west, north, GSD_M, GSD_M),
        "compress": "deflate",
        "zlevel": 1,
        "photometric": "RGB",
    }


def _grass(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    base = np.array([70, 105, 60], np.uint8)[:, None, None]
    return base + rng.integers(0, 12, (3, height, width), dtype=np.uint8)


def _write_reference(path: Path, side_px: int, seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    profile = _profile(CORNER[0], CORNER[1] + side_px * GSD_M, side_px, side_px)
    tiles = {"tiled": True, "blockxsize": STRIP_PX, "blockysize": STRIP_PX}
    with rasterio.open(path, "w", **profile, **tiles) as target:
        for row in range(0, side_px, STRIP_PX):
            height = min(STRIP_PX, side_px - row)
            window = rasterio.windows.Window(0, row, side_px, height)
            target.write(_grass(rng, height, side_px), window=window)


def _write_site(path: Path, corner: npt.NDArray[np.float64], *, built: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = _grass(rng, SIDE_PX, SIDE_PX)
    if built:
        roof = slice((SIDE_PX - ROOF_PX) // 2, (SIDE_PX + ROOF_PX) // 2)
        pixels[:, roof, roof] = rng.integers(205, 225, (3, ROOF_PX, ROOF_PX), dtype=np.uint8)
    profile = _profile(corner[0], corner[1] + SIDE_PX * GSD_M, SIDE_PX, SIDE_PX)
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels)


def messages(folder: Path, ground: Ground) -> Iterator[tuple[str, bytes]]:
    """Names and bodies of messages without end: events, some of them twice, some that are none."""
    for number in _numbers():
        look, site = number % LOOKS, number // LOOKS - number % LOOKS * LOOK_LAG
        if site < 0:
            continue
        place = ground.sites[site % len(ground.sites)]
        cycle = site // len(ground.sites)
        built = look < LOOKS // 2
        path = folder / f"{site}-{'built' if built else 'bare'}.tif"
        if not path.exists():
            _write_site(path, place, built=built, seed=number)
        acquired = FLOWN + timedelta(days=LOOK_DAYS * (look + cycle * LOOKS))
        item = item_of(path, acquired=acquired, sensor=Sensor.PVA, departement=DEPARTEMENT)
        _, body = event_bytes(item)
        yield f"{number:09d}", body


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


Put = Callable[[str, bytes], None]


def inbox_put(inbox: Path) -> Put:
    """Sends by writing files."""

    def put(name: str, body: bytes) -> None:
        drop(inbox, name, body)

    return put


def kafka_put(settings: KafkaSettings) -> Put:
    """Sends to the topic, as events in binary mode; what is no event goes as it is."""
    producer = Producer({"bootstrap.servers": settings.servers, "linger.ms": 5})

    def put(_: str, body: bytes) -> None:
        try:
            event = JSONFormat().read(CloudEvent, body)
        except ValueError:
            producer.produce(settings.acquisitions, value=body)
        else:
            record = to_binary(event, JSONFormat())
            headers: list[tuple[str, str | bytes | None]] = list(record.headers.items())
            producer.produce(
                settings.acquisitions, value=record.value, key=record.key, headers=headers
            )
        producer.flush()

    return put


def send(
    stock: Iterator[tuple[str, bytes]], put: Put, *, rate: float, events: int, seconds: float
) -> Sent:
    """Send at a mean rate (events per second) in bursts of ``BURST`` times that, until there were
    so many events or seconds (0 is no limit); what is sent next is made in the quiet between."""
    sent, began = Sent(), time.monotonic()
    size = max(1, round(rate * BURST_SECONDS))
    while (not events or sent.events < events) and (not seconds or sent.seconds < seconds):
        left = events - sent.events if events else size
        burst = [next(stock) for _ in range(min(size, left))]
        due = began + sent.events / rate
        time.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        for index, (name, body) in enumerate(burst):
            time.sleep(max(0.0, started + index / (rate * BURST) - time.monotonic()))
            put(name, body)
            sent.events += 1
            if sent.events % AGAIN_EVERY == 0:
                put(f"{name}-again", body)
                sent.again += 1
            if sent.events % POISON_EVERY == 0:
                put(f"{name}-poison", f"no event {name}".encode())
                sent.poison += 1
        sent.seconds = time.monotonic() - began
    return sent


def run_sender(
    folder: Path,
    polygons: int,
    seed: int,
    kafka: str | None,
    orders: Any,  # noqa: ANN401 - a pipe's end
) -> None:
    """In a process of its own: for each order (rate, events, seconds; 0 is no limit) send, and say
    how much; ``None`` ends it."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    stock = messages(images, ground_of(polygons, seed))
    put = kafka_put(KafkaSettings(servers=kafka)) if kafka else inbox_put(folder / "inbox")
    for rate, events, seconds in iter(orders.recv, None):
        orders.send(asdict(send(stock, put, rate=rate, events=events, seconds=seconds)))
