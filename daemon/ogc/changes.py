"""Differentials and alerts as collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from daemon.ogc.columns import ALERT_COLUMNS, DIFF_COLUMNS
from daemon.ogc.layers import Column, Key, Layer, Row, checked_key
from updater import alert_pages, diff_pages
from updater.alert_rows import rank
from updater.diff import DiffPiece
from updater.generalise import as_multi
from updater.map_pages import Part
from updater.reads import end_of
from updater.types import AlertRecord


@dataclass(frozen=True)
class DifferentialLayer(Layer):
    """What changed from one millésime to another."""

    first: int
    last: int

    @property
    def id(self) -> str:
        """As in ``differentiel-D032-2021-2024``."""
        return f"differentiel-{self.store.territory}-{self.first}-{self.last}"

    @property
    def title(self) -> str:
        """Both years."""
        return f"Différentiel OCS GE {self.first}–{self.last}, {self.store.territory}"

    @property
    def description(self) -> str:
        """What it holds."""
        return (
            f"Tout sol dont la couverture ou l'usage diffère entre les millésimes {self.first} et "
            f"{self.last}, évolutions et corrections, avec l'effet légal selon la matrice."
        )

    @property
    def columns(self) -> Mapping[str, Column]:
        """Those of the exported differential."""
        return DIFF_COLUMNS

    @property
    def interval(self) -> tuple[datetime, datetime | None]:
        """From the end of the first year to the end of the last."""
        return self.span

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The same, for both ends are known."""
        return end_of(self.first), end_of(self.last)

    def rows(self, known: datetime, part: Part, *, after: Key | None, most: int) -> list[Row]:
        """In the order of the older polygons' versions."""
        begin: diff_pages.Key = (after[0], after[1]) if after else (0, "")
        takes = _taker(part.equal)
        ground = replace(part, equal={})
        found = diff_pages.page(
            self.store, self.span, known, ground, after=begin, most=most, takes=takes
        )
        return [self._shown(key, piece) for key, piece in found]

    def count(self, known: datetime, part: Part) -> int | None:
        """Counting would overlay everything."""
        return None

    def row(self, known: datetime, feature: str) -> Row | None:
        """One piece by the ids of both its polygons."""
        older, _, newer = feature.partition("~")
        found = diff_pages.piece_of(self.store, self.span, known, older, newer)
        return self._shown(*found) if found else None

    def key(self, value: object) -> Key:
        """Version of the older polygon, id of the newer."""
        return checked_key(value, (int, str))

    def _shown(self, key: Key, piece: DiffPiece) -> Row:
        return Row(
            f"{piece.id_before}~{piece.id_after}",
            _properties(piece),
            as_multi(piece.geometry),
            key,
        )


@dataclass(frozen=True)
class AlertLayer(Layer):
    """Alerts in their latest state."""

    @property
    def id(self) -> str:
        """As in ``alertes-D032``."""
        return f"alertes-{self.store.territory}"

    @property
    def title(self) -> str:
        """With the place."""
        return f"Alertes d'artificialisation, {self.store.territory}"

    @property
    def description(self) -> str:
        """What it holds."""
        return (
            "Changements vus sur les images, dans leur dernier état ; l'adresse /alerts/{id} en "
            "dit tout."
        )

    @property
    def columns(self) -> Mapping[str, Column]:
        """What an alert says, flat."""
        return ALERT_COLUMNS

    @property
    def interval(self) -> tuple[datetime, datetime | None]:
        """From the end of the delivered millésime on."""
        return end_of(self.store.millesime), None

    def latest(self) -> datetime:
        """When an alert last changed."""
        return alert_pages.latest(self.store)

    def rows(self, known: datetime, part: Part, *, after: Key | None, most: int) -> list[Row]:
        """By id."""
        begin = after[0] if after else ""
        found = alert_pages.page(self.store, known, part, after=begin, most=most)
        return [_alert(record) for record in found]

    def count(self, known: datetime, part: Part) -> int | None:
        """There are few."""
        return alert_pages.count(self.store, known, part)

    def row(self, known: datetime, feature: str) -> Row | None:
        """One alert."""
        found = self.rows(known, Part(equal={"id": feature}), after=None, most=1)
        return next(iter(found), None)

    def key(self, value: object) -> Key:
        """An id."""
        return checked_key(value, (str,))


def _alert(record: AlertRecord) -> Row:
    before, after = record.before, record.after
    properties = {
        "id": record.id,
        "kind": record.kind.value,
        "state": record.state.value,
        "reason": record.reason,
        "cs_avant": before.code_cs,
        "us_avant": before.code_us,
        "artif_avant": before.status.value,
        "cs_apres": after.code_cs,
        "us_apres": after.code_us,
        "artif_apres": after.status.value,
        "surface": round(float(record.geometry.area), 2),
        "probability": record.probability,
        "looks": record.looks,
        "evidence": record.evidence,
        "rank": round(rank(record), 1),
        "seen_first": record.seen_first.date().isoformat(),
        "seen_last": record.seen_last.date().isoformat(),
        "known_at": record.known_at.isoformat(),
        "lieux": ", ".join(place.name for place in record.places),
    }
    return Row(record.id, properties, record.geometry, (record.id,))


def _properties(piece: DiffPiece) -> dict[str, Any]:
    return {
        "id_avant": piece.id_before,
        "id_apres": piece.id_after,
        "cs_avant": piece.cs_before,
        "us_avant": piece.us_before,
        "cs_apres": piece.cs_after,
        "us_apres": piece.us_after,
        "nature": piece.kind.value,
        "artificialisation": piece.artificialisation,
        "surface": float(piece.geometry.area),
    }


def _taker(equal: Mapping[str, Any]) -> Callable[[DiffPiece], bool]:
    def takes(piece: DiffPiece) -> bool:
        shown = _properties(piece)
        return all(shown[name] == value for name, value in equal.items())

    return takes
