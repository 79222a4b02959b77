"""The map as a plan sees it while it works: current polygons, and where each came from.

Regions are applied one after the other; each finds the polygons its predecessors left. Nothing
here is stored: the difference between the first and the last state is the patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from updater.types import MapPolygon

_REBUILD_AFTER = 128
"""Polygons added since the last tree that are still searched one by one: a linear pass over
this many boxes costs less than building a tree over thousands."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What supports a changed polygon: mean probability, magnitude and number of looks."""

    probability: float
    magnitude: float
    looks: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A polygon of the workspace: ``parents`` are ids of the first state it stems from."""

    polygon: MapPolygon
    parents: frozenset[str]
    evidence: Evidence | None = None


class Workspace:
    """Polygons by key, searchable by place, with the state they started from."""

    def __init__(self, polygons: Sequence[MapPolygon]) -> None:
        self.first: dict[str, MapPolygon] = {p.id: p for p in polygons}
        self._entries: list[Entry | None] = [Entry(p, frozenset({p.id})) for p in polygons]
        self._build()

    def _build(self) -> None:
        self._keys = [i for i, entry in enumerate(self._entries) if entry is not None]
        self._tree = shapely.STRtree([self[i].polygon.geometry for i in self._keys])
        self._late: list[int] = []

    def __getitem__(self, key: int) -> Entry:
        entry = self._entries[key]
        if entry is None:
            raise KeyError(key)
        return entry

    def near(self, geometry: BaseGeometry, *, distance: float = 0.0) -> list[int]:
        """Keys of the polygons within a distance of a geometry, metres; 0 means touching."""
        if distance:
            found = self._tree.query(geometry, predicate="dwithin", distance=distance)
        else:
            found = self._tree.query(geometry, predicate="intersects")
        keys = [self._keys[i] for i in np.sort(found)]
        late = [k for k in self._late if self._entries[k] is not None]
        if late:
            shapes = [self[k].polygon.geometry for k in late]
            close = shapely.dwithin(shapes, geometry, distance)
            keys += [k for k, hit in zip(late, close, strict=True) if hit]
        return [k for k in keys if self._entries[k] is not None]

    def replace(self, keys: Iterable[int], entries: Iterable[Entry]) -> None:
        """Take some polygons out and put others in their place."""
        for key in keys:
            self._entries[key] = None
        for entry in entries:
            self._late.append(len(self._entries))
            self._entries.append(entry)
        if len(self._late) > _REBUILD_AFTER:
            self._build()

    def polygons(self) -> list[MapPolygon]:
        """The map as it stands."""
        return [entry.polygon for entry in self._entries if entry is not None]

    def outcome(self) -> tuple[list[MapPolygon], list[Entry]]:
        """Polygons of the first state that are gone, and entries that were not there."""
        alive = [entry for entry in self._entries if entry is not None]
        untouched = {id(entry.polygon) for entry in alive}
        retired = [p for p in self.first.values() if id(p) not in untouched]
        originals = {id(p) for p in self.first.values()}
        created = [entry for entry in alive if id(entry.polygon) not in originals]
        return retired, created
