"""The detectors by name, what each is, and which one stands where nobody chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from detectors.cva import Cva
from detectors.deep_cva import DeepCva
from detectors.errors import UnknownDetector
from detectors.irmad import IrMad
from detectors.map_guided import MapGuided
from detectors.siamese import COARSEST_GSD_M, Siamese
from detectors.types import Detector, Scene


@dataclass(frozen=True, slots=True)
class Entry:
    """A detector's maker, one line about it, and its source."""

    make: Callable[[], Detector]
    summary: str
    source: str


DETECTORS: Final[dict[str, Entry]] = {
    "cva": Entry(Cva, "length of the standardised radiometric change", "Malila 1980"),
    "irmad": Entry(IrMad, "iteratively reweighted multivariate alteration", "Nielsen 2007"),
    "deep-cva": Entry(DeepCva, "change vectors of ImageNet features", "Saha et al. 2019"),
    "siamese": Entry(
        Siamese,
        "a trained network that knows buildings, from two images alone",
        "Daudt et al. 2018; Zheng et al. 2021; trained on made-up pairs",
    ),
    "map-guided": Entry(
        MapGuided,
        "covers learned from the old map, compared between the dates",
        "this project; weak temporal supervision after arXiv 2601.02126",
    ),
}


def make_detector(name: str, *, weights: Path | None = None) -> Detector:
    """A fresh detector; ``weights`` replaces the package's own where a detector has some.

    Raises:
        UnknownDetector: listing the names there are; or weights for a detector without.
    """
    if name not in DETECTORS:
        raise UnknownDetector(f"There is no detector {name!r}; use {', '.join(DETECTORS)}.")
    if weights is None:
        return DETECTORS[name].make()
    if name != "siamese":
        raise UnknownDetector(f"{name} takes no weight file; only siamese does.")
    return Siamese(weights)


def detector_for(scene: Scene, name: str | None, *, weights: Path | None = None) -> Detector:
    """The detector asked for, or what judges this scene where nobody chose."""
    gsd = scene.grid.gsd_m
    chosen = name or default_detector(has_map=scene.has_map, gsd=gsd, bands=scene.bands)
    return make_detector(chosen, weights=weights)


def default_detector(*, has_map: bool, gsd: float | None = None, bands: int = 3) -> str:
    """What judges where nobody chose: the map where there is one, else the trained network where
    buildings can be seen, else IR-MAD.

    ``gsd``: metres per pixel, None where unknown (a bare PNG).
    """
    if has_map:
        return "map-guided"
    fine = gsd is None or gsd <= COARSEST_GSD_M
    return "siamese" if fine and bands >= 3 else "irmad"
