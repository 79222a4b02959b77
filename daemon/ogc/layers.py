"""What every kind of collection can do: name its columns, read a page of its features or one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from updater import reads
from updater.export import world_bounds
from updater.map_pages import Part, latest
from updater.reads import Bounds
from updater.store import Store

Key = tuple[Any, ...]
"""Place of a feature in the order of its collection; JSON."""
_EXTENTS: WeakKeyDictionary[Store, Bounds | None] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Column:
    """A property of the features of a collection; ``type`` as JSON Schema names it."""

    title: str
    type: str = "string"
    format: str | None = None
    queryable: bool = False
    codes: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        found: dict[str, Any] = {"title": self.title, "type": self.type}
        if self.format:
            found["format"] = self.format
        if self.codes:
            found["enum"] = list(self.codes)
        return found


@dataclass(frozen=True, slots=True)
class Row:
    """A feature before it is written: id, properties, outline in the store's CRS, its place."""

    id: str
    properties: dict[str, Any]
    geometry: BaseGeometry
    key: Key


@dataclass(frozen=True)
class Layer(ABC):
    """A collection. ``known`` below: what was on record at that time."""

    store: Store

    @property
    @abstractmethod
    def id(self) -> str:
        """Its name in addresses."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a person calls it."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it holds."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, Column]:
        """Properties of its features."""

    @property
    @abstractmethod
    def interval(self) -> tuple[datetime, datetime | None]:
        """Time of what it shows."""

    @abstractmethod
    def rows(self, known: datetime, part: Part, *, after: Key | None, most: int) -> list[Row]:
        """At most so many features, in the order of their keys, beyond one."""

    @abstractmethod
    def count(self, known: datetime, part: Part) -> int | None:
        """How many features there are; None where counting is as much work as reading all."""

    @abstractmethod
    def row(self, known: datetime, feature: str) -> Row | None:
        """One feature."""

    @abstractmethod
    def key(self, value: object) -> Key:
        """A key as JSON gives it back.

        Raises:
            ValueError: it is none.
        """

    def latest(self) -> datetime:
        """When what it shows was last written to."""
        return latest(self.store)

    @property
    def extent(self) -> Bounds | None:
        """Bounds of the map in the store's CRS, None where it is empty; no patch moves them."""
        if _EXTENTS.get(self.store) is None:
            _EXTENTS[self.store] = reads.extent(self.store)
        return _EXTENTS[self.store]

    @property
    def world(self) -> Bounds | None:
        """The same in degrees."""
        found = self.extent
        return None if found is None else world_bounds([box(*found)], self.store.crs)


def checked_key(value: object, kinds: tuple[type, ...]) -> Key:
    """A key as JSON gives it back, of values of these kinds.

    Raises:
        ValueError: it is none.
    """
    if (
        not isinstance(value, list)
        or len(value) != len(kinds)
        or not all(type(part) is kind for part, kind in zip(value, kinds, strict=True))
        or any(isinstance(part, int) and not 0 <= part < 2**62 for part in value)
    ):
        raise ValueError("no key of this collection")
    return tuple(value)
