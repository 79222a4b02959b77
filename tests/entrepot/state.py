"""What a platform holds, and the faults a client may meet there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import geopandas as gpd

TOKEN = "entrepot-Zq7-2kLm9"
STANDARD, VECTOR, EXTRA = "check-standard", "check-vector", "check-extra"
INTEGRATION, COPY, PYRAMID = "vector-to-db", "copy-archive", "pyramid"
ENDPOINT = "endpoint-wfs"
ROOT = "/api/datastores/here/"
UNDER_WAY = {"WAITING", "PROGRESS"}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, *words: str, after: str | None = None) -> None:
        super().__init__(status)
        self.status, self.words, self.after = status, list(words), after


@dataclass
class Fault:
    """What happens to the next calls of some kind: ``status`` instead of an answer, the connection
    cut after ``cut`` bytes of the body, or after the effect (``drop``), or ``run`` before it."""

    calls: str
    times: int = 1
    status: int | None = None
    after: str | None = None
    cut: int | None = None
    drop: bool = False
    run: Callable[[], None] | None = None


@dataclass
class Table:
    """A table of a database."""

    key: str | None
    frame: gpd.GeoDataFrame


@dataclass
class Platform:
    """One datastore."""

    folder: Path
    things: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    logins: list[dict[str, str]] = field(default_factory=list)
    tables: dict[str, dict[str, Table]] = field(default_factory=dict)
    processing_ends: list[str] = field(default_factory=list)
    offering_ends: list[str] = field(default_factory=list)
    corrupt: int = 0
    """How many files to damage when they come in, at their size."""
    url: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def every(self, kind: str) -> list[dict[str, Any]]:
        return list(self.things.setdefault(kind, {}).values())

    def only(self, kind: str) -> dict[str, Any]:
        (found,) = self.every(kind)
        return found

    def new(self, kind: str, status: str, **more: Any) -> dict[str, Any]:
        made = self.things.setdefault(kind, {})
        number = next(self.numbers)
        id_ = f"{kind.partition('/')[0]}-{number:05d}"
        made[id_] = {
            "_id": id_,
            "status": status,
            "tags": {},
            "creation": f"2026-01-01T00:00:00.{number:06d}Z",
            **more,
        }
        return made[id_]

    def of(self, kind: str, id_: str) -> dict[str, Any]:
        try:
            return self.things.setdefault(kind, {})[id_]
        except KeyError:
            raise Refusal(404, f"no {kind} {id_}") from None

    def home(self, id_: str) -> Path:
        return self.folder / id_

    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("GET ")]


def files_of(folder: Path) -> dict[str, Path]:
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def must(holds: bool, status: int, words: str) -> None:
    if not holds:
        raise Refusal(status, words)
