"""The legal definition of an artificialised surface, as data.

Source: article R.101-1 of the code de l'urbanisme and its annex, décret 2023-1096 of
27 November 2023, and the State's CS × US passage matrix. The matrix is exact; how the official
chain applies the décret's thresholds is not published, see ``updater.artificialisation``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from schemas.nomenclature import CS_LEAVES, US_CODES


class LegalStatus(StrEnum):
    """Status of a surface under the décret, spelled as the official layer spells it."""

    ARTIF = "artif"
    NON_ARTIF = "non artif"


IMPERMEABLE: Final[frozenset[str]] = frozenset({"CS1.1.1.1", "CS1.1.1.2"})
"""Covers that let no water through."""

BUILT_COVER: Final[str] = "CS1.1.1.1"

_HERBACEOUS_ARTIFICIAL_USES: Final[frozenset[str]] = frozenset(
    u for u in US_CODES if u in {"US2", "US3", "US5", "US235", "US6.1", "US6.2"} or u[:3] == "US4"
)
_ALL_USES: Final[frozenset[str]] = frozenset(US_CODES)

MATRIX: Final[dict[str, frozenset[str]]] = {
    cs: {
        "CS1.1.1.1": _ALL_USES,
        "CS1.1.1.2": _ALL_USES,
        "CS1.1.2.1": _ALL_USES - {"US1.3"},
        "CS1.1.2.2": _ALL_USES,
        "CS2.2.1": _HERBACEOUS_ARTIFICIAL_USES,
        "CS2.2.2": _HERBACEOUS_ARTIFICIAL_USES,
    }.get(cs, frozenset())
    for cs in CS_LEAVES
}
"""For each cover leaf, the usages under which it counts as artificialised."""

BUILT_THRESHOLD_M2: Final[float] = 50.0
"""Footprint from which a building is artificialised whatever surrounds it (annex, category 1)."""

SURFACE_THRESHOLD_M2: Final[float] = 2500.0
"""Smallest surface the other categories qualify; smaller ones take the status around them."""


THRESHOLD_RULES: Final[dict[LegalStatus, str]] = {
    LegalStatus.NON_ARTIF: "artificialised surface of less than 2 500 m², with no more than 50 m² "
    "of buildings, enclosed in ground that is not",
    LegalStatus.ARTIF: "surface of less than 2 500 m² enclosed in artificialised ground",
}
"""What the décret's thresholds say where they decide against the matrix, by the status given."""


def legal_status(code_cs: str | None, code_us: str | None) -> LegalStatus:
    """Status of a cover under a usage by the matrix alone.

    A missing or unknown code is never artificialised: the law needs a reason, absence is none.
    """
    artificial = code_us in MATRIX.get(code_cs or "", frozenset())
    return LegalStatus.ARTIF if artificial else LegalStatus.NON_ARTIF


def matrix_row(code_cs: str) -> str:
    """The row of the matrix that decides for a cover, as one readable sentence."""
    uses = MATRIX[code_cs]
    if not uses:
        return f"{code_cs}: never artificialised"
    if uses == _ALL_USES:
        return f"{code_cs}: artificialised under any usage"
    if len(uses) == len(_ALL_USES) - 1:
        (left_out,) = _ALL_USES - uses
        return f"{code_cs}: artificialised under any usage except {left_out}"
    return f"{code_cs}: artificialised under {', '.join(u for u in US_CODES if u in uses)}"
