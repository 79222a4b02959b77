"""The map of a millésime as a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.ogc.columns import MAP_COLUMNS
from daemon.ogc.layers import Column, Key, Layer, Row, checked_key
from updater import map_pages
from updater.legal_near import statuses_near
from updater.map_pages import Part, State
from updater.reads import end_of
from updater.types import MapPolygon


@dataclass(frozen=True)
class MapLayer(Layer):
    """OCCUPATION_SOL of one millésime."""

    year: int

    @property
    def id(self) -> str:
        """As in ``ocsge-D032-2021``."""
        return f"ocsge-{self.store.territory}-{self.year}"

    @property
    def title(self) -> str:
        """As on a delivery."""
        return f"OCS GE {self.year}, {self.store.territory}"

    @property
    def description(self) -> str:
        """What it holds."""
        return (
            f"Occupation du sol à grande échelle, millésime {self.year} : la carte telle qu'elle "
            "est connue aujourd'hui pour la fin de cette année."
        )

    @property
    def columns(self) -> Mapping[str, Column]:
        """Those of the product."""
        return MAP_COLUMNS

    @property
    def interval(self) -> tuple[datetime, datetime | None]:
        """The first millésime's year to the end of this one's."""
        return end_of(self.store.millesime - 1), end_of(self.year)

    def rows(self, known: datetime, part: Part, *, after: Key | None, most: int) -> list[Row]:
        """In the order of versions, which neighbours have close together."""
        begin = after[0] if after else 0
        found = map_pages.page(self.store, self._state(known), part, after=begin, most=most)
        return self._shown(known, found)

    def count(self, known: datetime, part: Part) -> int | None:
        """Not within a rectangle, where everything in it would have to be looked at."""
        if part.ground is not None:
            return None
        return map_pages.count(self.store, self._state(known), part)

    def row(self, known: datetime, feature: str) -> Row | None:
        """One polygon by its id."""
        part = Part(equal={"id": feature})
        found = map_pages.page(self.store, self._state(known), part, after=0, most=1)
        return next(iter(self._shown(known, found)), None)

    def key(self, value: object) -> Key:
        """A version."""
        return checked_key(value, (int,))

    def _state(self, known: datetime) -> State:
        return State(end_of(self.year), known)

    def _shown(self, known: datetime, polygons: Sequence[MapPolygon]) -> list[Row]:
        legal = statuses_near(self.store, self._state(known), polygons)
        return [
            Row(
                p.id,
                {
                    "id": p.id,
                    "code_cs": p.code_cs,
                    "code_us": p.code_us,
                    "millesime": str(p.millesime),
                    "source": p.source,
                    "ossature": int(p.ossature),
                    "id_origine": p.id_origine,
                    "code_or": p.code_or,
                    "aire": float(p.geometry.area),
                    "artif": status.status.value,
                    "crit_seuil": status.by_threshold,
                },
                p.geometry,
                (p.version,),
            )
            for p, status in zip(polygons, legal, strict=True)
        ]
