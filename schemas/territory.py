"""What a territory is."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class TerritoryKind(StrEnum):
    """Territories people ask for, from the smallest."""

    COMMUNE = "commune"
    EPCI = "epci"
    SCOT = "scot"
    DEPARTEMENT = "departement"
    OTHER = "other"
