"""The pipeline's detect stage: from image files and a map to regions in the map's CRS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry.base import BaseGeometry

from daemon.config import Settings
from daemon.judging import Judged
from daemon.labels import MapLabels
from daemon.locate import Located, footprint_of
from detectors.engine import choose_device, detect_scene
from detectors.errors import NoOverlap, WrongCrs
from detectors.raster import open_dataset
from detectors.registry import detector_for
from detectors.scene import open_scene
from detectors.types import Grid, MapRasteriser, Progress
from detectors.vectorise import MIN_AREA_M2, looks_at, regions
from schemas.acquisition import AcquisitionItem
from schemas.policy import SENSOR_POLICY
from updater.types import MapPolygon


def judge(
    *,
    located: Located,
    polygons: Sequence[MapPolygon],
    map_crs: str,
    item: AcquisitionItem,
    settings: Settings,
    progress: Progress,
    outlines: Mapping[str, BaseGeometry],
) -> Judged:
    """Run the configured detector over an acquisition; ``outlines``: ground, in the map's CRS, of
    which the answer says what the image shows.

    Raises:
        DetectionError: whatever is wrong with the images.
    """
    check_announced(located.image, item)
    has_map = bool(polygons)

    def labels(grid: Grid) -> MapRasteriser:
        return MapLabels(polygons, map_crs=map_crs, grid=grid)

    policy = SENSOR_POLICY[item.properties.sensor]
    smallest = MIN_AREA_M2 if policy.patches else policy.min_alert_area
    with (
        open_scene(
            [image.path for image in located.references],
            located.image,
            labels=labels if has_map else None,
            device=choose_device(settings.device),
            whole_before=False,
            elevation=located.surfaces,
            progress=progress,
        ) as scene,
        detect_scene(
            scene,
            detector_for(scene, settings.detector, weights=settings.weights),
            seed=settings.seed,
            tile_size=settings.tile_size,
            batch=settings.batch,
            progress=progress,
        ) as found,
    ):
        return Judged(
            regions=regions(found, target_crs=map_crs, min_area=smallest),
            detector=found.detector,
            flagged=found.changed_fraction,
            pixels_per_second=found.megapixels_per_second * 1e6,
            grounds=looks_at(found, outlines, crs=map_crs),
            residual=scene.field.residual if scene.field.tiles else None,
        )


def check_announced(path: Path, item: AcquisitionItem) -> None:
    """The file is what the event says it is.

    Raises:
        WrongCrs: another CRS than announced.
        NoOverlap: the image lies elsewhere than the footprint.
    """
    from shapely import get_coordinates
    from shapely.geometry import box

    from updater.crs import WGS84, reproject

    with open_dataset(path) as dataset:
        found, bounds = dataset.crs, dataset.bounds
    announced = item.properties.proj_code
    if announced is not None and not _same_crs(found, announced):
        raise WrongCrs(
            f"{path.name} is in {found.to_string()}, the event says {announced}; correct one."
        )
    try:
        real = reproject(box(*bounds), found.to_wkt(), WGS84)
    except ProjError:
        raise WrongCrs(
            f"{path.name} is in a CRS that leads nowhere on Earth; project it to the map's."
        ) from None
    on_earth = np.isfinite(get_coordinates(real)).all()
    if not on_earth or not real.intersects(footprint_of(item)):
        raise NoOverlap(f"{path.name} lies outside the footprint of its event; correct one.")


def _same_crs(found: object, announced: str) -> bool:
    try:
        wanted = CRS.from_user_input(announced)
    except CRSError:
        raise WrongCrs(
            f"The event says {announced}, which is no CRS; give it as in EPSG:2154."
        ) from None
    return CRS.from_user_input(found).equals(wanted, ignore_axis_order=True)
