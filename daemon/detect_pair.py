"""``millesimed detect``: one pair of images, with or without a map, into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daemon.labels import MapLabels
from daemon.preview import draw_detection
from detectors.engine import choose_device, detect_scene
from detectors.registry import detector_for
from detectors.scene import open_scene
from detectors.types import Grid, MapRasteriser, Progress
from detectors.vectorise import regions, write_regions
from updater.importer import prepare


def detect_pair(  # noqa: PLR0913 - as many as the command has flags
    before: Path,
    after: Path,
    *,
    out: Path,
    detector: str | None,
    map_path: Path | None,
    device: str,
    weights: Path | None = None,
    elevation: tuple[Path, Path] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write ``change.tif``, ``regions.gpkg`` and a picture, ``change.png``; gives the figures.

    Raises:
        DetectionError: whatever is wrong with the images.
        ImportFailed: the map cannot be read.
    """
    found_map = prepare(map_path, millesime=2000) if map_path is not None else None

    def labels(grid: Grid) -> MapRasteriser:
        polygons, report = found_map or ([], None)
        crs = report.crs if report else grid.crs or ""
        return MapLabels(polygons, map_crs=crs, grid=grid)

    place = choose_device(device)
    with (
        open_scene(
            [before],
            after,
            labels=labels if found_map else None,
            device=place,
            elevation=([elevation[0]], elevation[1]) if elevation else None,
            progress=progress,
        ) as scene,
        detect_scene(
            scene, detector_for(scene, detector, weights=weights), progress=progress
        ) as found,
    ):
        found.write(out / "change.tif")
        areas = regions(found)
        write_regions(areas, out / "regions.gpkg", crs=scene.grid.crs)
        draw_detection(
            out / "change.png",
            before=before,
            after=after,
            probability=out / "change.tif",
            grid=scene.grid,
            regions=areas,
        )
        return {
            "detector": found.detector,
            "regions": len(areas),
            "changed_fraction": found.changed_fraction,
            "seconds": found.seconds,
            "megapixels_per_second": found.megapixels_per_second,
            "device": str(place),
            "shift": list(scene.field.offset),
            "registration_residual": scene.field.residual,
        }
