"""``millesimed bench patch``: import and patching on maps of several sizes the bench makes itself.

Each map is an irregular partition of fields and plots; new buildings are patched into it event by
event, with planning, invariants and commit, and the same result is made once by overlaying the
whole layer, which is what keeping a map without a store comes to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from shapely import affinity
from shapely.geometry import Polygon, box, mapping

from daemon.bench.detect import peak_memory
from daemon.planning import assert_whole
from detectors.types import Progress, Region
from schemas.acquisition import AcquisitionItem
from schemas.dead_letter import Origin
from schemas.envelope import AcquisitionEvent
from schemas.nomenclature import CS_LEAVES
from schemas.policy import BUILDING, SENSOR_POLICY, Sensor
from updater import commit, planner, reads
from updater.importer import create_store
from updater.store import Store
from updater.types import Rules
from updater.verify import verify

CRS: Final = "EPSG:2154"
CELL_M: Final = 70.0
"""Mean side of a polygon: half a hectare, as in the product's denser communes."""
NODES: Final = 4
"""Vertices between two corners: outlines wander, and both sides of an edge share them."""
CORNER: Final = np.array([480_000.0, 6_250_000.0])
MILLESIME: Final = 2021
EVENT_SIDE_M: Final = 1_500.0
EVENT_REGIONS: Final = 24
FIELDS: Final = tuple(c for c in CS_LEAVES if c != BUILDING)


def make_map(path: Path, *, polygons: int, seed: int) -> int:
    """An irregular coverage of about so many polygons as a GeoPackage; gives how many it has."""
    rng = np.random.default_rng(seed)
    side = round(polygons**0.5)
    rings = _rings(rng, side)
    count = len(rings)
    frame = gpd.GeoDataFrame(
        {
            "id": [f"OCS{i:09d}" for i in range(count)],
            "code_cs": rng.choice(FIELDS, count),
            "code_us": rng.choice(["US1.1", "US5", "US6.3"], count),
            "millesime": np.full(count, str(MILLESIME)),
            "source": np.full(count, "calcul"),
            "ossature": np.zeros(count, np.int32),
            "id_origine": np.full(count, "NC"),
            "code_or": np.full(count, "NC"),
        },
        geometry=shapely.polygons(rings),
        crs=CRS,
    )
    frame.to_file(path, layer="OCCUPATION_SOL", driver="GPKG", engine="pyogrio")
    return count


def _rings(rng: np.random.Generator, side: int) -> npt.NDArray[np.float64]:
    """Closed rings ``(cell, vertex, 2)`` of a lattice whose corners and edges wander."""
    i, j = np.meshgrid(np.arange(side + 1), np.arange(side + 1), indexing="ij")
    corner = np.stack([j, i], axis=-1) * CELL_M + rng.uniform(-0.3, 0.3, (*i.shape, 2)) * CELL_M
    share = np.linspace(0, 1, NODES + 2)[1:-1, None]

    def edges(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Start and inner vertices of every edge, in the edge's own direction."""
        inner = a[..., None, :] * (1 - share) + b[..., None, :] * share
        inner += rng.uniform(-0.04, 0.04, inner.shape) * CELL_M
        whole = np.concatenate([a[..., None, :], inner], axis=-2) + CORNER
        return np.asarray(np.round(whole, 2))

    across = edges(corner[:, :-1], corner[:, 1:])
    up = edges(corner[:-1], corner[1:])
    ends = np.round(corner + CORNER, 2)
    top = np.concatenate([ends[1:, 1:, None], across[1:, :, :0:-1]], axis=2)
    left = np.concatenate([ends[1:, :-1, None], up[:, :-1, :0:-1]], axis=2)
    ring = np.concatenate([across[:-1], up[:, 1:], top, left, ends[:-1, :-1, None]], axis=2)
    return ring.reshape(side * side, -1, 2)


def building(rng: np.random.Generator, around: tuple[float, float]) -> Region:
    """A new building of 250 to 1 500 m² somewhere around a place."""
    x, y = np.asarray(around) + rng.uniform(-0.5, 0.5, 2) * EVENT_SIDE_M
    a, b = rng.uniform(16, 38, 2)
    shape = affinity.rotate(box(x - a / 2, y - b / 2, x + a / 2, y + b / 2), rng.uniform(0, 180))
    return Region(shape, "CS2.2.1", BUILDING, 0.95, 0.8)


def event_of(number: int, footprint: Polygon) -> AcquisitionEvent:
    """The acquisition a batch of regions comes from."""
    acquired = datetime(2024, 6, 18, 10, tzinfo=UTC)
    item = AcquisitionItem.model_validate(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"bench-{number}",
            "geometry": mapping(footprint),
            "properties": {
                "datetime": acquired.isoformat(),
                "gsd": 0.2,
                "millesimed:sensor": "pva",
                "proj:code": CRS,
                "proj:shape": [1, 1],
                "proj:transform": [0.2, 0, 0, 0, -0.2, 0],
            },
            "assets": {"image": {"href": f"bench-{number}.tif"}},
        }
    )
    return AcquisitionEvent(f"bench-{number}", "urn:millesimed:bench", acquired, item)


@dataclass(slots=True)
class Patched:
    """What a run of events did: polygons whose cover changed, and seconds of the whole and of the
    commits alone."""

    changed: int = 0
    written: int = 0
    ignored: int = 0
    seconds: float = 0.0
    commit_seconds: float = 0.0


def patch_events(store: Store, events: Sequence[Sequence[Region]], *, first: int = 0) -> Patched:
    """Each event through look-up, plan, invariants and commit, as the service does it."""
    done = Patched()
    for number, regions in enumerate(events, start=first):
        started = perf_counter()
        grounds = [region.geometry for region in regions]
        event = event_of(number, box(0.1, 43.1, 0.2, 43.2))
        rules = Rules(
            event=event.key,
            acquired=event.item.acquired,
            sensor=Sensor.PVA,
            policy=SENSOR_POLICY[Sensor.PVA],
            detector="bench/1",
            gsd=0.2,
        )
        polygons = reads.neighbourhood(store, grounds)
        patch = planner.plan(polygons, regions, rules)
        assert_whole(polygons, patch)
        origin = Origin(source="kafka", topic="bench", partition=0, offset=number, path=None)
        committing = perf_counter()
        commit.commit(store, commit.Effect(event, rules, patch, [], None, origin))
        done.commit_seconds += perf_counter() - committing
        done.seconds += perf_counter() - started
        done.changed += len({piece.polygon for piece in patch.pieces})
        done.written += len(patch.created)
        done.ignored += sum(patch.ignored.values())
    return done


def _import(source: Path, db: Path, answer: Any) -> None:  # noqa: ANN401 - a pipe's end
    started = perf_counter()
    report = create_store(db, source, territory="D032", millesime=MILLESIME)
    answer.send((perf_counter() - started, peak_memory(), report.valid, dict(report.repaired)))


def measured_import(source: Path, db: Path) -> tuple[float, int, bool, dict[str, int]]:
    """Seconds, peak memory (bytes), validity and repairs of an import in a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_import, args=(source, db, there))
    process.start()
    there.close()
    try:
        found: tuple[float, int, bool, dict[str, int]] = here.recv()
    except EOFError:
        raise RuntimeError("The import died; is there enough memory?") from None
    finally:
        process.join()
    return found


def overlay_seconds(source: Path, regions: Sequence[Region]) -> float:
    """Seconds to make the same map by overlaying the whole layer with one event's regions."""
    layer = gpd.read_file(source, engine="pyogrio")
    ground = gpd.GeoDataFrame(
        {"new_cs": [r.to_cs for r in regions]}, geometry=[r.geometry for r in regions], crs=CRS
    )
    started = perf_counter()
    gpd.overlay(layer, ground, how="identity", keep_geom_type=True)
    return perf_counter() - started


def bench_patch(
    *, sizes: Sequence[int], events: int, seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Figures for each size, and how the cost of a changed polygon grows with the map."""
    found = []
    for number, size in enumerate(sizes, start=1):
        with tempfile.TemporaryDirectory(prefix="millesimed-bench-") as folder:
            found.append(_one_size(Path(folder), size, events, seed))
        if progress is not None:
            progress("sizes", number, len(sizes))
    first, last = found[0], found[-1]
    return {
        "sizes": found,
        "growth": last["seconds_per_changed_polygon"] / first["seconds_per_changed_polygon"],
        "peak_memory_bytes": max(row["import_peak_memory_bytes"] for row in found),
    }


def _one_size(folder: Path, size: int, events: int, seed: int) -> dict[str, Any]:
    source, db = folder / "map.gpkg", folder / "D032.duckdb"
    maker = get_context("spawn").Process(
        target=make_map, args=(source,), kwargs={"polygons": size, "seed": seed}
    )
    maker.start()
    maker.join()
    seconds, memory, valid, repaired = measured_import(source, db)
    rng = np.random.default_rng([seed, 1])
    side = round(size**0.5) * CELL_M
    margin = min(EVENT_SIDE_M, side / 2)
    batches = []
    for _ in range(events + 1):
        place = rng.uniform(margin / 2, side - margin / 2, 2) + CORNER
        batches.append([building(rng, (place[0], place[1])) for _ in range(EVENT_REGIONS)])
    with Store.open(db) as store:
        patch_events(store, batches[-1:])  # the first look warms the file's cache
        done = patch_events(store, batches[:-1], first=1)
        verdict = verify(store).valid
    each = done.seconds / max(1, done.changed)
    whole = overlay_seconds(source, batches[0])
    return {
        "polygons": round(size**0.5) ** 2,
        "import_seconds": seconds,
        "import_peak_memory_bytes": memory,
        "import_valid": valid,
        "import_repaired": repaired,
        "events": events,
        "changed_polygons": done.changed,
        "regions_ignored": done.ignored,
        "changed_polygons_per_second": done.changed / done.seconds,
        "seconds_per_changed_polygon": each,
        "commit_share": done.commit_seconds / done.seconds,
        "valid_after": verdict,
        "overlay_seconds": whole,
        "overlay_over_event": whole / (done.seconds / events),
        "file_bytes": db.stat().st_size,
    }
