"""``millesimed train``: the store's own map and reference images as teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import shapely

from detectors.engine import choose_device
from detectors.map_source import MapSource
from detectors.raster import open_dataset
from detectors.siamese import default_weights
from detectors.synthetic import SyntheticSource
from detectors.training import Plan, Source, TrainingFailed, train
from detectors.types import Progress
from schemas.policy import BUILDING
from updater.crs import reproject
from updater.reads import images, shown_on
from updater.store import Store


def source_of(db: Path) -> MapSource:
    """Every reference image of a store, with the buildings its map shows there.

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
            polygons = shown_on(store, image, image.footprint)
            with open_dataset(image.path) as dataset:
                crs = dataset.crs.to_wkt()
            shapes = [
                reproject(p.geometry, store.crs, crs) for p in polygons if p.code_cs == BUILDING
            ]
            buildings.append(tuple(shapely.to_wkb(s) for s in shapes))
    if not any(buildings):
        raise TrainingFailed(f"The map of {db.name} shows no building on its reference images.")
    return MapSource(tuple(i.path for i in found), tuple(buildings))


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
