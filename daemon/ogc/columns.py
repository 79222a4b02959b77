"""The properties of the features of each kind of collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from daemon.ogc.layers import Column
from schemas.alert import AlertKind, AlertState
from schemas.change import ChangeKind
from schemas.legal import LegalStatus
from schemas.nomenclature import CS_LEAVES, US_CODES

CS: Final = Column("Couverture du sol", queryable=True, codes=tuple(CS_LEAVES))
US: Final = Column("Usage du sol", queryable=True, codes=tuple(US_CODES))
STATUSES: Final = tuple(status.value for status in LegalStatus)
AREA: Final = Column("Surface en m²", "number")
MAP_COLUMNS: Final[Mapping[str, Column]] = {
    "id": Column("Identifiant du polygone", queryable=True),
    "code_cs": CS,
    "code_us": US,
    "millesime": Column("Année des images", queryable=True),
    "source": Column("Source de la géométrie", queryable=True),
    "ossature": Column("1 : ossature (routes et voies ferrées)", "integer", queryable=True),
    "id_origine": Column("Identifiant d'origine", queryable=True),
    "code_or": Column("Code d'origine", queryable=True),
    "aire": AREA,
    "artif": Column("Statut selon le décret 2023-1096", codes=STATUSES),
    "crit_seuil": Column("Statut décidé par un seuil", "boolean"),
}
"""The columns of the exported product."""
DIFF_COLUMNS: Final[Mapping[str, Column]] = {
    "id_avant": Column("Polygone du premier millésime", queryable=True),
    "id_apres": Column("Polygone du second millésime", queryable=True),
    "cs_avant": CS,
    "us_avant": US,
    "cs_apres": CS,
    "us_apres": US,
    "nature": Column(
        "Évolution du sol ou correction de la carte",
        queryable=True,
        codes=tuple(kind.value for kind in ChangeKind),
    ),
    "artificialisation": Column("+1, −1 ou 0, selon la matrice", "integer", queryable=True),
    "surface": AREA,
}
"""The columns of the exported differential."""
ALERT_COLUMNS: Final[Mapping[str, Column]] = {
    "id": Column("Identifiant de l'alerte", queryable=True),
    "kind": Column("Nature", queryable=True, codes=tuple(kind.value for kind in AlertKind)),
    "state": Column("État", queryable=True, codes=tuple(state.value for state in AlertState)),
    "reason": Column("Raison du rejet ou du remplacement"),
    "cs_avant": replace(CS, queryable=False),
    "us_avant": replace(US, queryable=False),
    "artif_avant": Column("Statut avant", codes=STATUSES),
    "cs_apres": replace(CS, queryable=False),
    "us_apres": replace(US, queryable=False),
    "artif_apres": Column("Statut après", codes=STATUSES),
    "surface": AREA,
    "probability": Column("Probabilité, de 0 à 1", "number"),
    "looks": Column("Observations qui montrent le changement", "integer"),
    "evidence": Column("Probabilité pondérée × observations²", "number"),
    "rank": Column("Surface × probabilité × poids légal", "number"),
    "seen_first": Column("Vu pour la première fois", format="date"),
    "seen_last": Column("Vu pour la dernière fois", format="date"),
    "known_at": Column("Connu du système", format="date-time"),
    "lieux": Column("Communes et autres territoires"),
}
