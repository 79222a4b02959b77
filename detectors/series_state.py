"""What is kept of every pixel between two Sentinel-2 acquisitions, and the file it is kept in.

One block of 512 × 512 pixels is one state and one file; blocks lie on a raster of their CRS, so
that any acquisition of the ground falls on the same ones. 145 bytes a pixel: 38 MB a block.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine
from safetensors import SafetensorError
from safetensors.numpy import load, save

from detectors.errors import DamagedState
from detectors.types import BoolArray, FloatArray, Grid

VERSION: Final = 1
BLOCK: Final = 512
"""Pixels a side of a block: 5.12 km, 484 of them in a Sentinel-2 tile."""
EPOCH: Final = datetime(2015, 1, 1, tzinfo=UTC)
"""Day 0: Sentinel-2 has flown since that year. Days are whole, in UTC."""
SEEN_KEPT: Final = 400
"""Acquisition ids that are remembered: over two years of two orbits."""
LAYERS: Final[dict[str, tuple[int, type[np.generic]]]] = {
    "moments": (18, np.float32),
    "lowest": (9, np.float32),
    "first": (3, np.float32),
    "total": (3, np.float32),
    "last": (1, np.float32),
    "count": (1, np.uint16),
    "since": (1, np.uint16),
    "began": (1, np.uint16),
    "run": (1, np.uint8),
    "clean": (1, np.uint8),
    "quiet": (1, np.uint8),
}
"""Layers of a state, ``(number, row, col)``, and their type:

moments: weighted sums of the fit (6 of the regressors, 9 with the features, 3 of their squares)
lowest: the three lowest NDVI, the three lowest rises and the three lowest negatives of brightness,
ascending, infinite where not yet seen
first, total: features at the first anomaly of the open run, and their sum over its anomalies
last: brightness at its last anomaly
count, since: clear looks taken into the history, and the day of the first
began: day of the open run's first anomaly
run, clean, quiet: anomalies in the open run, clean looks since, anomalies in a row that look like
no change this monitor knows
"""

Layers = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class SeriesState:
    """The history of one grid. ``newest``: the newest acquisition taken in; ``seen``: the last
    acquisition ids, oldest first. Nobody changes a state; ``observe`` and ``settle`` give new
    ones."""

    grid: Grid
    layers: Layers
    newest: datetime | None = None
    seen: tuple[str, ...] = ()

    @classmethod
    def empty(cls, grid: Grid) -> SeriesState:
        """A state without any history."""
        layers: Layers = {
            name: np.zeros((number, *grid.shape), dtype) for name, (number, dtype) in LAYERS.items()
        }
        layers["lowest"][:] = np.inf
        return cls(grid, layers)

    def remembering(self, acquisition: str, acquired: datetime, layers: Layers) -> SeriesState:
        """The state after one more acquisition."""
        newest = acquired if self.newest is None else max(self.newest, acquired)
        seen = (*self.seen, acquisition)[-SEEN_KEPT:]
        return replace(self, layers=self.layers | layers, newest=newest, seen=seen)


def settle(state: SeriesState, mask: BoolArray) -> SeriesState:
    """A fresh history on the pixels of ``mask`` ``(row, col)``: to be called once the map has taken
    their change in."""
    layers = {name: layer.copy() for name, layer in state.layers.items()}
    for name, layer in layers.items():
        layer[:, mask] = np.inf if name == "lowest" else 0
    return replace(state, layers=layers)


def day_of(moment: datetime) -> int:
    """Whole days since ``EPOCH``."""
    return (moment - EPOCH).days


def blocks(grid: Grid) -> Iterator[Grid]:
    """The blocks that a grid touches, row by row, each whole.

    They begin at multiples of 512 pixels from the origin of the CRS (plus the part of a pixel that
    the grid itself is off), whatever the grid's own extent.
    """
    size = grid.gsd
    side = BLOCK * size
    west, north = grid.transform.c, grid.transform.f
    off_x, off_y = west % size, north % size
    if min(off_x, size - off_x) < 1e-6 * size:
        off_x = 0.0
    if min(off_y, size - off_y) < 1e-6 * size:
        off_y = 0.0
    east, south = west + grid.shape[1] * size, north - grid.shape[0] * size
    first_col = math.floor((west - off_x) / side + 1e-9)
    last_col = math.ceil((east - off_x) / side - 1e-9)
    first_row = math.floor((south - off_y) / side + 1e-9)
    last_row = math.ceil((north - off_y) / side - 1e-9)
    for row in range(last_row, first_row, -1):
        for col in range(first_col, last_col):
            corner = Affine(size, 0, col * side + off_x, 0, -size, row * side + off_y)
            yield Grid(grid.crs, corner, (BLOCK, BLOCK), BLOCK)


def block_name(block: Grid) -> str:
    """A file name for a block: its place in blocks of its CRS, east then north."""
    side = BLOCK * block.gsd
    col = math.floor(block.transform.c / side + 1e-9)
    row = math.floor(block.transform.f / side + 1e-9)
    return f"{block.gsd:g}m_{col}_{row}.safetensors"


def save_state(path: Path, state: SeriesState) -> None:
    """Write a state whole or not at all. The same state gives the same bytes."""
    tensors = {name: np.ascontiguousarray(layer) for name, layer in state.layers.items()}
    header = {
        "version": VERSION,
        "crs": state.grid.crs,
        "transform": list(state.grid.transform)[:6],
        "shape": list(state.grid.shape),
        "block": state.grid.block,
        "newest": state.newest.isoformat() if state.newest else None,
        "seen": list(state.seen),
    }
    text = json.dumps(header, sort_keys=True)
    # one entry: the order of several would differ from run to run
    content = save(tensors, metadata={"series": text + "\n" + _digest(text, tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staged.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def load_state(path: Path) -> SeriesState:
    """Read a state back.

    Raises:
        DamagedState: the file is cut short, altered, or written by another version.
    """
    content = path.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + length])
        text, _, digest = entries["__metadata__"]["series"].rpartition("\n")
        header = json.loads(text)
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedState(
            f"{path.name} is no whole time series; remove it and feed its acquisitions again."
        ) from None
    if header.get("version") != VERSION:
        raise DamagedState(
            f"{path.name} is a time series of version {header.get('version')}, not {VERSION}; "
            "remove it and feed its acquisitions again."
        )
    if digest != _digest(text, tensors) or set(tensors) != set(LAYERS):
        raise DamagedState(
            f"{path.name} was altered since it was written; remove it and feed its acquisitions "
            "again."
        )
    rows, cols = header["shape"]
    grid = Grid(header["crs"], Affine(*header["transform"]), (rows, cols), header["block"])
    newest = datetime.fromisoformat(header["newest"]) if header["newest"] else None
    return SeriesState(
        grid, {name: tensors[name] for name in LAYERS}, newest, tuple(header["seen"])
    )


def _digest(text: str, tensors: Layers) -> str:
    """SHA-256 over the header and every layer."""
    summed = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        layer = tensors[name]
        summed.update(f"{name}{layer.shape}{layer.dtype}".encode())
        summed.update(np.ascontiguousarray(layer).data)
    return summed.hexdigest()


def stack(layers: Layers, name: str) -> FloatArray:
    """A copy of one layer, to be changed."""
    return np.asarray(layers[name]).copy()
