"""The OCS GE nomenclature: cover (CS) and usage (US) codes, French labels, hierarchy, colours.

Source: IGN OCS GE 2.0 as published in the seed tables ``couverture.csv`` and ``usage.csv`` of the
State's "Mon Diagnostic Artificialisation" (MTES-MCT/sparte), which carry the official display
colours. Bold leaves of the product are the only covers allowed in data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Code:
    """One entry of the nomenclature: its code, French label and display colour (``#rrggbb``)."""

    code: str
    label: str
    colour: str

    @property
    def parent(self) -> str | None:
        """Code of the entry one level up, or None at the root (``CS1.1`` → ``CS1``)."""
        head, dot, _ = self.code.rpartition(".")
        return head if dot else None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Display colour as three bytes."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


def _table(*rows: tuple[str, str, str]) -> dict[str, Code]:
    return {code: Code(code, label, colour) for code, label, colour in rows}


COUVERTURE: Final[dict[str, Code]] = _table(
    ("CS1", "Sans végétation", "#ff377a"),
    ("CS1.1", "Surfaces anthropisées", "#ff377a"),
    ("CS1.1.1", "Zones imperméables", "#ff377a"),
    ("CS1.1.1.1", "Zones bâties", "#ff377a"),
    ("CS1.1.1.2", "Zones non bâties (routes, places, parkings…)", "#ff9191"),
    ("CS1.1.2", "Zones perméables", "#ffff99"),
    ("CS1.1.2.1", "Zones à matériaux minéraux", "#ffff99"),
    ("CS1.1.2.2", "Zones à autres matériaux composites", "#a64d00"),
    ("CS1.2", "Surfaces naturelles", "#cccccc"),
    ("CS1.2.1", "Sols nus (sable, pierres meubles, rochers saillants…)", "#cccccc"),
    ("CS1.2.2", "Surfaces d'eau (continentale et maritime)", "#00ccf2"),
    ("CS1.2.3", "Névés et glaciers", "#a6e6cc"),
    ("CS2", "Avec végétation", "#80ff00"),
    ("CS2.1", "Végétation ligneuse", "#80ff00"),
    ("CS2.1.1", "Formations arborées", "#80be00"),
    ("CS2.1.1.1", "Peuplement de feuillus", "#80ff00"),
    ("CS2.1.1.2", "Peuplement de conifères", "#00a600"),
    ("CS2.1.1.3", "Peuplement mixte", "#80be00"),
    ("CS2.1.2", "Formations arbustives et sous-arbrisseaux", "#a6ff80"),
    ("CS2.1.3", "Autres formations ligneuses (vignes et autres lianes)", "#e68000"),
    ("CS2.2", "Végétation non ligneuse", "#ccf24d"),
    (
        "CS2.2.1",
        "Formations herbacées (pelouses, prairies, terres arables, roselières…)",
        "#ccf24d",
    ),
    (
        "CS2.2.2",
        "Autres formations non ligneuses (lichen, mousse, bananiers, bambous…)",
        "#ccffcc",
    ),
)
"""Every cover level, leaves and parents, in code order."""

USAGE: Final[dict[str, Code]] = _table(
    ("US1", "Production primaire", "#008000"),
    ("US1.1", "Agriculture", "#ffffa8"),
    ("US1.2", "Sylviculture", "#008000"),
    ("US1.3", "Activités d'extraction", "#a600cc"),
    ("US1.4", "Pêche et aquaculture", "#000099"),
    ("US1.5", "Autre production primaire", "#996633"),
    ("US2", "Production secondaire", "#e6004d"),
    ("US235", "Production secondaire, tertiaire et usage résidentiel", "#e6004d"),
    ("US3", "Production tertiaire", "#ff8c00"),
    ("US4", "Réseaux de transport, logistique et infrastructures", "#cc0000"),
    ("US4.1", "Réseaux de transport", "#cc0000"),
    ("US4.1.1", "Routier", "#cc0000"),
    ("US4.1.2", "Ferré", "#5a5a5a"),
    ("US4.1.3", "Aérien", "#e6cce6"),
    ("US4.1.4", "Eau (navigable)", "#0066ff"),
    ("US4.1.5", "Autres réseaux de transport", "#660033"),
    ("US4.2", "Services de logistique et de stockage", "#ff0000"),
    ("US4.3", "Réseaux d'utilité publique", "#ff4b00"),
    ("US5", "Usage résidentiel", "#be0961"),
    ("US6", "Autre usage", "#ffcc00"),
    ("US6.1", "Zones en transition", "#ff4dff"),
    ("US6.2", "Zones abandonnées", "#404040"),
    ("US6.3", "Sans usage", "#f0f028"),
    ("US6.6", "Usage inconnu", "#ffcc00"),
)
"""Every usage level, accepted codes and parents, in code order."""

CS_LEAVES: Final[tuple[str, ...]] = (
    "CS1.1.1.1",
    "CS1.1.1.2",
    "CS1.1.2.1",
    "CS1.1.2.2",
    "CS1.2.1",
    "CS1.2.2",
    "CS1.2.3",
    "CS2.1.1.1",
    "CS2.1.1.2",
    "CS2.1.1.3",
    "CS2.1.2",
    "CS2.1.3",
    "CS2.2.1",
    "CS2.2.2",
)
"""The fourteen covers allowed in data, in code order."""

US_CODES: Final[tuple[str, ...]] = tuple(
    code for code in USAGE if code not in {"US1", "US4", "US4.1", "US6"}
)
"""The twenty usages allowed in data."""

CS_INDEX: Final[dict[str, int]] = {code: i for i, code in enumerate(CS_LEAVES, start=1)}
"""Raster value of each cover leaf, 1 to 14; 0 means unknown or outside the map."""

CS_FROM_INDEX: Final[dict[int, str]] = {i: code for code, i in CS_INDEX.items()}
"""Cover leaf of each raster value."""


def ancestors(code: str) -> tuple[str, ...]:
    """The code itself, then its parents up to the root."""
    table = COUVERTURE if code.startswith("CS") else USAGE
    chain = [code]
    while (parent := table[chain[-1]].parent) is not None and parent in table:
        chain.append(parent)
    return tuple(chain)


def class_distance(a: str, b: str) -> int:
    """Steps between two codes of the same table through their nearest common ancestor.

    0 for equal codes; two codes without a common ancestor are one step further apart than
    their roots. Used to choose the best neighbour of a piece below the minimum unit.
    """
    up_a, up_b = ancestors(a), ancestors(b)
    for steps_a, code in enumerate(up_a):
        if code in up_b:
            return steps_a + up_b.index(code)
    return len(up_a) + len(up_b)
