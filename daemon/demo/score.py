"""Scoring the demo against its own truth. The only code that reads the truth file."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import shapely

from updater.diff import Differential

_TINY_M2 = 1e-6


def score(truth: Path, differential: Differential) -> dict[str, float]:
    """Precision, recall and F1 by area: ground whose cover the map says changed against ground
    whose cover did change."""
    changed = shapely.union_all(gpd.read_file(truth).geometry.to_numpy())
    found = shapely.union_all(
        [p.geometry for p in differential.pieces if p.cs_before != p.cs_after]
    )
    right = float(shapely.intersection(changed, found).area)
    precision = right / max(float(found.area), _TINY_M2)
    recall = right / max(float(changed.area), _TINY_M2)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, _TINY_M2),
    }
