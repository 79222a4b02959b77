"""The detectors by name, what each is, and which one stands where nobody chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from detectors.cva import Cva
from detectors.deep_cva import DeepCva
from detectors.errors import UnknownDetector
from detectors.irmad import IrMad
from detectors.map_guided import MapGuided
from detectors.types import Detector


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
    "map-guided": Entry(
        MapGuided,
        "covers learned from the old map, compared between the dates",
        "this project; weak temporal supervision after arXiv 2601.02126",
    ),
}


def make_detector(name: str) -> Detector:
    """A fresh detector.

    Raises:
        UnknownDetector: listing the names there are.
    """
    if name not in DETECTORS:
        raise UnknownDetector(f"There is no detector {name!r}; use {', '.join(DETECTORS)}.")
    return DETECTORS[name].make()


def default_detector(*, has_map: bool) -> str:
    """What judges where nobody chose: the map where there is one, else deep features."""
    return "map-guided" if has_map else "deep-cva"
