"""``millesimed bench http``: tiles and the first paint of the map page, over a map the bench makes.

The application runs in a process of its own. First every tile is asked for once by one client, none
of them drawn before (cold); then many clients at a time walk over the map, each asking for one tile
after the other without a pause (load). The clients share the cores with the service, so what they
cost is in the figures.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import httpcore
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from shapely.geometry import box

from daemon.bench.browser import first_paint
from daemon.bench.detect import peak_memory
from daemon.bench.patch import CELL_M, CORNER, CRS, MILLESIME, make_map
from daemon.page.mercator import HALF, WEB, Tile
from detectors.types import Progress
from schemas.errors import MillesimedError
from schemas.policy import Sensor
from updater.crs import transformer

IMAGE_SIDE_PX: Final = 8192
IMAGE_GSD_M: Final = 0.5
"""An image of 4 km: four of them are a sheet of aerial images."""
COLD_TILES: Final = 40
ZOOMS: Final = {"vector": (13, 14, 15, 16), "overview": (10, 11, 12), "image": (14, 15, 16, 17)}
VIEW: Final = (3, 4)
"""Rows and columns of tiles on a screen."""
SHARES: Final = {"vector": 0.5, "image": 0.4, "overview": 0.1}
"""What a view consists of: the map and its image, and from time to time the whole from afar."""


class ServerDied(MillesimedError):
    """The process that serves is gone."""

    reason = "bench-server"


@dataclass(frozen=True, slots=True)
class Answer:
    """One tile: its kind, seconds, HTTP status and bytes."""

    kind: str
    seconds: float
    status: int
    size: int


def bench_http(
    *,
    polygons: int,
    clients: int,
    seconds: float,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Median, 95th percentile and errors of tiles, and seconds to the page's paints."""
    tick = progress or (lambda stage, done, total: None)
    with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as name:
        folder = Path(name)
        tick("map", 0, 4)
        _in_process(make_map, folder / "map.gpkg", polygons=polygons, seed=seed)
        _in_process(_make_store, folder, seed=seed)
        side = round(polygons**0.5) * CELL_M
        tick("page", 1, 4)
        with serving(folder / "D032.duckdb") as (url, _):
            page = first_paint(url)
        tick("cold", 2, 4)
        with serving(folder / "D032.duckdb") as (url, stopped):
            rng = np.random.default_rng([seed, 2])
            cold = asyncio.run(_in_turn(url, rng, side))
            tick("load", 3, 4)
            started = perf_counter()
            load = asyncio.run(_at_once(url, side, clients=clients, seconds=seconds, seed=seed))
            took = perf_counter() - started
            memory = stopped()
    tick("load", 4, 4)
    return {
        "polygons": round(polygons**0.5) ** 2,
        "clients": clients,
        "seconds": took,
        "cold": {"tiles": _figures(cold)},
        "load": {
            "tiles": _figures(load),
            "tiles_per_second": len(load) / took,
            "errors": sum(a.status not in {200, 204} for a in load),
        },
        "page": page,
        "server_peak_memory_bytes": memory,
    }


def _figures(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Figures of every kind of tile, and of all together."""
    groups = {kind: [a for a in answers if a.kind == kind] for kind in SHARES} | {"all": answers}
    return {
        kind: {
            "tiles": len(group),
            "median_ms": float(np.median([a.seconds for a in group]) * 1000),
            "p95_ms": float(np.quantile([a.seconds for a in group], 0.95) * 1000),
            "mean_bytes": float(np.mean([a.size for a in group])),
            "errors": sum(a.status not in {200, 204} for a in group),
        }
        for kind, group in groups.items()
        if group
    }


def _in_process(work: Any, *given: Any, **named: Any) -> None:  # noqa: ANN401 - any function
    maker = get_context("spawn").Process(target=work, args=given, kwargs=named)
    maker.start()
    maker.join()
    if maker.exitcode:
        raise ServerDied("The map of the bench could not be made; is there disk and memory?")


def _make_store(folder: Path, *, seed: int) -> None:
    """The store of the map, with an image over its south-west corner."""
    from updater.commit import add_image
    from updater.importer import create_store
    from updater.reads import ImageRecord
    from updater.store import Store

    create_store(folder / "D032.duckdb", folder / "map.gpkg", territory="D032", millesime=MILLESIME)
    rng = np.random.default_rng([seed, 3])
    path, side = folder / "ortho.tif", IMAGE_SIDE_PX * IMAGE_GSD_M
    north = CORNER[1] + side
    transform = from_origin(CORNER[0], north, IMAGE_GSD_M, IMAGE_GSD_M)
    profile = {"driver": "GTiff", "width": IMAGE_SIDE_PX, "height": IMAGE_SIDE_PX, "count": 3}
    profile |= {"dtype": "uint8", "crs": CRS, "transform": transform, "tiled": True}
    fields = rng.integers(40, 220, (3, IMAGE_SIDE_PX // 64, IMAGE_SIDE_PX // 64))
    with rasterio.open(path, "w", compress="deflate", **profile) as image:
        for band in range(3):
            whole = np.kron(fields[band], np.ones((64, 64), np.uint8))
            image.write((whole + rng.integers(0, 32, whole.shape)).astype(np.uint8), band + 1)
        image.build_overviews([2, 4, 8, 16], Resampling.average)
    with Store.open(folder / "D032.duckdb") as store:
        taken = datetime(MILLESIME, 6, 18, tzinfo=UTC)
        ground = box(CORNER[0], CORNER[1], CORNER[0] + side, north)
        add_image(store, ImageRecord("ortho", path, Sensor.PVA, taken, IMAGE_GSD_M, ground))


def _serve(db: Path, pipe: Connection) -> None:
    """Serve a store until told to stop; says the port first and the memory it took last."""
    import socket

    from daemon.config import HttpSettings
    from daemon.http import HttpServer, application
    from daemon.metrics import Metrics
    from updater.store import Store

    class Running:
        """A service that is well."""

        metrics, alive, ready = Metrics(), True, True

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Store.open(db) as store:
        settings = HttpSettings(port=port)
        server = HttpServer(application(Running(), [store], settings), settings)
        server.start()
        pipe.send(port)
        pipe.recv()
        server.stop()
    pipe.send(peak_memory())


@contextmanager
def serving(db: Path) -> Iterator[tuple[str, Any]]:
    """The address of an application in a process of its own, and how to stop it, which gives the
    memory it took."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(db, there))
    process.start()
    there.close()
    found: list[int] = []

    def stop() -> int:
        if not found:
            here.send("stop")
            found.append(here.recv())
        return found[0]

    try:
        yield f"http://127.0.0.1:{here.recv()}", stop
        stop()
    except EOFError:
        raise ServerDied("The process that serves tiles died; its words stand above.") from None
    finally:
        if not found:
            process.terminate()
        process.join()


def address(kind: str, tile: Tile) -> str:
    """Where a tile is."""
    path, form = {
        "vector": (f"map/{MILLESIME}", "mvt"),
        "overview": (f"overview/couverture/{MILLESIME}", "png"),
        "image": (f"image/{MILLESIME}", "webp"),
    }[kind]
    return f"/tiles/D032/{path}/{tile.z}/{tile.x}/{tile.y}.{form}"


def some_tile(rng: np.random.Generator, kind: str, side: float) -> Tile:
    """A tile somewhere on the map, or on the image."""
    room = min(side, IMAGE_SIDE_PX * IMAGE_GSD_M) if kind == "image" else side
    x, y = rng.uniform(0.02, 0.98, 2) * room + CORNER
    east, north = transformer(CRS, WEB).transform(x, y)
    zoom = int(rng.choice(ZOOMS[kind]))
    step = 2 * HALF / 2**zoom
    return Tile(zoom, int((east + HALF) // step), int((HALF - north) // step))


async def _ask(pool: httpcore.AsyncConnectionPool, url: str, kind: str, tile: Tile) -> Answer:
    started = perf_counter()
    try:
        answer = await pool.request(
            "GET", url + address(kind, tile), headers={"Accept-Encoding": "gzip"}
        )
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        return Answer(kind, perf_counter() - started, 0, 0)
    return Answer(kind, perf_counter() - started, answer.status, len(answer.content))


async def _in_turn(url: str, rng: np.random.Generator, side: float) -> list[Answer]:
    """Tiles of every kind, none twice, one after the other."""
    found = []
    async with httpcore.AsyncConnectionPool(max_connections=1) as pool:
        for kind in SHARES:
            tiles = dict.fromkeys(some_tile(rng, kind, side) for _ in range(COLD_TILES))
            found += [await _ask(pool, url, kind, tile) for tile in tiles]
    return found


async def _at_once(
    url: str, side: float, *, clients: int, seconds: float, seed: int
) -> list[Answer]:
    """Many clients, each walking from view to view."""
    found: list[Answer] = []
    until = perf_counter() + seconds

    async def walk(number: int) -> None:
        rng = np.random.default_rng([seed, 4, number])
        while perf_counter() < until:
            kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
            corner = some_tile(rng, kind, side)
            for row in range(VIEW[0]):
                for column in range(VIEW[1]):
                    if perf_counter() < until:
                        tile = Tile(corner.z, corner.x + column, corner.y + row)
                        found.append(await _ask(pool, url, kind, tile))

    async with httpcore.AsyncConnectionPool(max_connections=clients) as pool:
        await asyncio.gather(*(walk(number) for number in range(clients)))
    return found
