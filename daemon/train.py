"""``millesimed train``: the store's own map and reference images as teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import shapely
from shapely.geometry.base import BaseGeometry

from detectors.annotated import AnnotatedSource, Annotation
from detectors.engine import choose_device
from detectors.map_source import MapSource
from detectors.raster import open_dataset
from detectors.siamese import default_weights
from detectors.synthetic import SyntheticSource
from detectors.training import Plan, Source, TrainingFailed, train
from detectors.types import Progress
from schemas.alert import Verdict
from schemas.policy import BUILDING, SENSOR_POLICY
from updater.crs import reproject
from updater.generalise import valid
from updater.reads import ImageRecord, alerts_now, images, shown_on
from updater.store import Store
from updater.types import AlertRecord, MapPolygon

AROUND_M: Final = 300.0
"""Map taken around an alert: more than half the diagonal of a window of 512 pixels of 0.6 m."""


def source_of(db: Path) -> AnnotatedSource | MapSource:
    """Every reference image of a store, with the buildings its map shows there, and the alerts that
    people decided on.

    Raises:
        StoreError: the store cannot be opened.
        TrainingFailed: it has no reference image, or none shows a building.
    """
    with Store.open(db) as store:
        found = images(store)
        if not found:
            raise TrainingFailed(
                f"{db.name} has no reference image; add some with `millesimed reference add`."
            )
        buildings = []
        for image in found:
            shapes = _buildings(shown_on(store, image, image.footprint))
            crs = _crs(image)
            buildings.append(tuple(shapely.to_wkb(reproject(s, store.crs, crs)) for s in shapes))
        decided = decisions(store)
    if not any(buildings):
        raise TrainingFailed(f"The map of {db.name} shows no building on its reference images.")
    source = MapSource(tuple(i.path for i in found), tuple(buildings))
    return AnnotatedSource(source, tuple(decided)) if decided else source


def decisions(store: Store) -> list[Annotation]:
    """The alerts that people accepted or rejected and whose two images the store still has, with
    the buildings before and after."""
    known = {image.item: image for image in images(store)}
    found = []
    for record in alerts_now(store):
        before = known.get(record.reference or "")
        after = next((known[a] for a in reversed(record.acquisitions) if a in known), None)
        if record.review is None or before is None or after is None:
            continue
        if not (_teaches(before) and _teaches(after)):
            continue
        crs = _crs(before)
        was, now = _sides(store, record, before, after)
        found.append(
            Annotation(
                before=before.path,
                after=after.path,
                ground=_moved([record.geometry], store.crs, crs)[0],
                built_before=_moved(was, store.crs, crs),
                built_after=_moved(now, store.crs, crs),
            )
        )
    return found


def _sides(
    store: Store, record: AlertRecord, before: ImageRecord, after: ImageRecord
) -> tuple[list[BaseGeometry], list[BaseGeometry]]:
    """Buildings on the two dates around an alert: around it by the map, on its ground by what was
    said of it."""
    around = record.geometry.buffer(AROUND_M)
    ground = valid(record.geometry)
    was = _buildings(shown_on(store, before, around))
    now = [shapely.difference(s, ground) for s in _buildings(shown_on(store, after, around))]
    if record.review is not None and record.review.verdict is Verdict.ACCEPTED:
        now += [ground] if record.after.code_cs == BUILDING else []
    else:  # rejected: on its ground is what was
        now += [shapely.intersection(s, ground) for s in was]
    return was, [s for s in now if s.area > 0]


def _buildings(polygons: Sequence[MapPolygon]) -> list[BaseGeometry]:
    return [p.geometry for p in polygons if p.code_cs == BUILDING]


def _teaches(image: ImageRecord) -> bool:
    """True for images that are still there and fine enough to show buildings."""
    policy = SENSOR_POLICY[image.sensor]
    return policy.patches and image.gsd <= policy.max_gsd and image.path.is_file()


def _crs(image: ImageRecord) -> str:
    with open_dataset(image.path) as dataset:
        return str(dataset.crs.to_wkt())


def _moved(shapes: Sequence[BaseGeometry], source: str, target: str) -> tuple[bytes, ...]:
    return tuple(shapely.to_wkb(reproject(shape, source, target)) for shape in shapes)


def run_training(
    *,
    db: Path | None,
    out: Path,
    plan: Plan,
    resume: bool,
    start_from: Path | None,
    device: str,
    progress: Progress | None,
) -> dict[str, Any]:
    """Train on a store, or on made-up pairs when there is none; gives the command's figures.

    Fine-tuning starts from the package's weights unless ``start_from`` says otherwise; made-up
    pairs start from nothing.
    """
    source: Source = SyntheticSource() if db is None else source_of(db)
    begin = start_from or (default_weights() if db is not None else None)
    return train(
        source,
        out,
        plan=plan,
        resume=resume,
        start_from=begin,
        progress=progress,
        device=choose_device(device),
    )
