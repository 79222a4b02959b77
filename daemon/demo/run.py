"""Running the demo: make the ground, then let the real service do its work on it.

The service gets what a production team would give it: a map file, a reference image, new images,
events in an inbox. One event comes twice and one is poison.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import shapely
from shapely.geometry import shape

from daemon.announce import drop, event_bytes, item_of, when
from daemon.config import HttpSettings, Settings
from daemon.demo.landscape import DEPARTEMENT, MILLESIME, Landscape, make_landscape
from daemon.demo.picture import draw
from daemon.demo.render import acquisitions
from daemon.demo.score import score
from daemon.service import Service, handled
from detectors.types import Progress
from schemas.alert import AlertState
from schemas.export import ExportFormat, ExportProduct, ExportRequest
from schemas.policy import Sensor
from updater.commit import add_image
from updater.crs import WGS84, reproject
from updater.diff import Differential, differential
from updater.diff_files import differential_frame
from updater.errors import StoreError
from updater.export import write_vector
from updater.export_plan import plan_of
from updater.export_write import export_to
from updater.importer import create_store
from updater.reads import ImageRecord, alerts_now, as_of, end_of
from updater.store import Store
from updater.types import AlertRecord, MapPolygon
from updater.verify import verify

FLOWN_BEFORE, FLOWN_AFTER = "2021-07-02", "2024-06-18"
NEXT_MILLESIME = 2024
POISON = b'{"specversion": "1.0", "id": "poison", "type": "fr.millesimed.acquisition.v1", '


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo shows: figures for scripts, rows for people."""

    figures: dict[str, Any]
    changes: list[dict[str, Any]]
    told: list[dict[str, Any]]


def run_demo(*, seed: int, folder: Path, progress: Progress | None = None) -> DemoReport:
    """The whole demo in a folder.

    Raises:
        StoreError: the folder already holds a demo.
    """
    started = perf_counter()
    db = folder / f"{DEPARTEMENT}.duckdb"
    if db.exists():
        raise StoreError(f"{folder} already holds a demo; choose another --workdir.")
    folder.mkdir(parents=True, exist_ok=True)
    tick = progress or (lambda stage, done, total: None)
    tick("paint", 0, 3)
    landscape = make_landscape(seed)
    reference, images = _write_inputs(landscape, folder)
    tick("paint", 3, 3)
    create_store(
        db,
        folder / "input" / "OCCUPATION_SOL.gpkg",
        territory=DEPARTEMENT,
        millesime=MILLESIME,
        zone=folder / "input" / "ZONE_CONSTRUITE.gpkg",
    )
    _add_reference(db, reference)
    _announce(images, folder / "inbox")
    settings = Settings(
        db=[db],
        inbox=folder / "inbox",
        outbox=folder / "outbox",
        http=HttpSettings(enabled=False),
        device="cpu",
        seed=seed,
    )
    service = Service(settings, once=True, progress=tick)
    service.run()
    (folder / "metrics.prom").write_bytes(service.metrics.text())
    with Store.open(db) as store:
        report = _report(store, service, landscape, folder, (reference, images), started)
    (folder / "figures.json").write_text(json.dumps(report.figures, indent=1), encoding="utf-8")
    return report


def _write_inputs(landscape: Landscape, folder: Path) -> tuple[Path, list[Path]]:
    """Map, zone, images and truth as files, as deliveries come."""
    inputs = folder / "input"
    columns = landscape.before.drop(columns="kind")
    write_vector(columns, inputs / "OCCUPATION_SOL.gpkg")
    write_vector(
        landscape.zone_construite, inputs / "ZONE_CONSTRUITE.gpkg", layer="ZONE_CONSTRUITE"
    )
    write_vector(landscape.changes, folder / "truth.gpkg", layer="TRUTH")
    return acquisitions(landscape, inputs)


def _add_reference(db: Path, reference: Path) -> None:
    item = item_of(reference, acquired=when(FLOWN_BEFORE), sensor=Sensor.PVA)
    with Store.open(db) as store:
        add_image(
            store,
            ImageRecord(
                item=item.id,
                path=reference.resolve(),
                sensor=Sensor.PVA,
                acquired=when(FLOWN_BEFORE),
                gsd=float(item.properties["gsd"]),
                footprint=reproject(shape(item.geometry), WGS84, store.crs),
            ),
        )


def _announce(images: list[Path], inbox: Path) -> None:
    """One event per image, the first once more, and one that is no event at all."""
    for number, path in enumerate(images, start=1):
        item = item_of(path, acquired=when(FLOWN_AFTER), sensor=Sensor.PVA, departement=DEPARTEMENT)
        event_id, body = event_bytes(item)
        drop(inbox, f"{number}-{event_id}", body)
        if number == 1:
            drop(inbox, f"3-again-{event_id}", body)
    drop(inbox, "2-poison", POISON)


def _report(
    store: Store,
    service: Service,
    landscape: Landscape,
    folder: Path,
    images: tuple[Path, list[Path]],
    started: float,
) -> DemoReport:
    before = as_of(store, valid_at=end_of(MILLESIME))
    after = as_of(store, valid_at=end_of(NEXT_MILLESIME))
    found = differential(store, end_of(MILLESIME), end_of(NEXT_MILLESIME))
    _write_outputs(store, found, folder)
    draw(
        folder / "changes.png",
        before=images[0],
        after=images[1],
        pieces=found.pieces,
        bounds=landscape.bounds,
    )
    records = alerts_now(store)
    figures = {
        "events": handled(service),
        "map": _map_figures(before, after),
        "coverage": _coverage_figures(store, before, after),
        "alerts": {
            state.value: sum(1 for r in records if r.state is state)
            for state in (
                AlertState.FIRST,
                AlertState.PROVISIONAL,
                AlertState.CONFIRMED,
                AlertState.REJECTED,
            )
        },
        "accuracy": score(folder / "truth.gpkg", found),
        "seconds": perf_counter() - started,
    }
    return DemoReport(figures, _change_rows(found), _told_rows(records))


def _write_outputs(store: Store, found: Differential, folder: Path) -> None:
    asked = ExportRequest(
        product=ExportProduct.MAP, millesime=NEXT_MILLESIME, format=ExportFormat.GPKG
    )
    export_to(store, plan_of(store, asked, None), folder, lambda _: None)
    write_vector(
        differential_frame(found, store.crs),
        folder / f"OCS-GE_2-0_DIFF-{MILLESIME}-{NEXT_MILLESIME}_{store.territory}.gpkg",
        layer="DIFFERENTIEL",
    )


def _map_figures(before: list[MapPolygon], after: list[MapPolygon]) -> dict[str, int]:
    now = {p.id: shapely.to_wkb(p.geometry) for p in after}
    codes = {p.id: (p.code_cs, p.code_us) for p in after}
    untouched = sum(
        1
        for p in before
        if now.get(p.id) == shapely.to_wkb(p.geometry) and codes[p.id] == (p.code_cs, p.code_us)
    )
    return {
        "millesime_from": MILLESIME,
        "millesime_to": NEXT_MILLESIME,
        "polygons_before": len(before),
        "polygons_after": len(after),
        "patched": len(before) - untouched,
        "untouched": untouched,
    }


def _coverage_figures(
    store: Store, before: list[MapPolygon], after: list[MapPolygon]
) -> dict[str, Any]:
    verdict = verify(store, deep=True)
    old = float(shapely.area([p.geometry for p in before]).sum())
    new = float(shapely.area([p.geometry for p in after]).sum())
    return {
        "valid": verdict.valid,
        "overlaps": verdict.overlaps,
        "gaps": verdict.gaps,
        "area_drift": abs(new - old) / old,
    }


def _change_rows(found: Differential) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str]] = Counter()
    areas: Counter[tuple[str, str]] = Counter()
    for piece in found.pieces:
        key = (str(piece.cs_before), str(piece.cs_after))
        counts[key] += 1
        areas[key] += round(piece.geometry.area)
    return [
        {"from": a, "to": b, "pieces": counts[a, b], "m²": areas[a, b]}
        for a, b in sorted(areas, key=lambda key: -areas[key])
        if areas[a, b]  # what is left are splinters along outlines that were drawn anew
    ]


def _told_rows(records: list[AlertRecord]) -> list[dict[str, Any]]:
    groups = Counter((r.kind.value, r.state.value) for r in records)
    return [
        {"alert": kind, "state": state, "count": count, "told": "outbox folder, feed"}
        for (kind, state), count in sorted(groups.items())
    ]
