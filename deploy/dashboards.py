"""The Grafana dashboards: ``python -m deploy.dashboards`` writes them to grafana/dashboards.

Each answers one person's question. ``operations``: are the maps late, and where does it hang?
``production``: how far is the millésime? ``artificialisation``: what ground changed in law?
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

from deploy.operations import operations
from deploy.panels import HALF, SECONDS, SHARE, SQUARE_METRES, WHERE, lines, page, places, rows

FOLDER: Final = Path(__file__).parent / "grafana" / "dashboards"


def production() -> board.Dashboard:
    """How far is the millésime, département by département?"""
    sheet = page("production", "production", "now-30d", production.__doc__ or "")
    place = "{{departement}}"
    for panel in (
        rows(
            "Ground looked at",
            "Share of each map that imagery of a millésime has looked at, changed or not.",
            SHARE,
            f"max by (departement, millesime) (millesimed_millesime_covered_ratio{WHERE})",
        ),
        rows(
            "Newest image in the map",
            "Its age.",
            SECONDS,
            f"departement:millesimed_map_age_seconds:max{WHERE}",
        ),
        lines(
            "Progress",
            "Share of each map that imagery of a millésime has looked at.",
            SHARE,
            (
                f"max by (departement, millesime) (millesimed_millesime_covered_ratio{WHERE})",
                f"{place} {{{{millesime}}}}",
            ),
            width=HALF,
        ),
        lines(
            "Ground looked at, square metres",
            "Of each map, by millésime.",
            SQUARE_METRES,
            (
                f"max by (departement, millesime) (millesimed_millesime_covered_ratio{WHERE}) "
                "* on (departement) group_left () "
                "max by (departement) (millesimed_map_area_square_meters)",
                f"{place} {{{{millesime}}}}",
            ),
            width=HALF,
        ),
        lines(
            "Ground patched, per day",
            "Of the polygons opened: more than what changed, for neighbours learn vertices.",
            SQUARE_METRES,
            (
                "sum by (departement) "
                f"(increase(millesimed_patched_area_square_meters_total{WHERE}[1d]))",
                place,
            ),
        ),
        lines(
            "Polygons opened, per day",
            "By patches, all départements.",
            units.Short,
            ("sum(increase(millesimed_patched_polygons_total[1d]))", "polygons"),
        ),
        lines(
            "Alert states entered, per day",
            "All départements.",
            units.Short,
            (
                "sum by (kind, state) (increase(millesimed_alerts_total[1d]))",
                "{{kind}} {{state}}",
            ),
        ),
    ):
        sheet.with_panel(panel)
    return sheet


def artificialisation() -> board.Dashboard:
    """What ground did patches make artificial, or give back, and where?"""
    text = artificialisation.__doc__ or ""
    sheet = page("artificialisation", "artificialisation", "now-30d", text)
    for kind, title in (
        ("artificialisation", "Artificialised"),
        ("desartificialisation", "Désartificialised"),
    ):
        sheet.with_panel(
            places(title, "Over the time shown, by département.", SQUARE_METRES, _flux(kind))
        )
    record = "departement_kind:millesimed_changed_area_square_meters:increase1d"
    for panel in (
        lines(
            "Flux, per day",
            "By legal effect; `other` changes no status.",
            SQUARE_METRES,
            (f"{record}{WHERE}", "{{departement}} {{kind}}"),
            width=HALF,
        ),
        lines(
            "Net, per day",
            "Artificialised less désartificialised: the Climate and Resilience law's balance.",
            SQUARE_METRES,
            (
                f"sum by (departement) ({_of(record, 'artificialisation')}) - "
                f"sum by (departement) ({_of(record, 'desartificialisation')})",
                "{{departement}}",
            ),
            width=HALF,
        ),
        rows(
            "Ground by transition",
            "From which cover to which, over the time shown, all départements.",
            SQUARE_METRES,
            "sum by (cs_before, cs_after) "
            "(increase(millesimed_transition_area_square_meters_total[$__range]))",
        ),
        rows(
            "Polygons by transition",
            "Pieces of ground, over the time shown, all départements.",
            units.Short,
            "sum by (cs_before, cs_after) "
            "(increase(millesimed_transition_polygons_total[$__range]))",
        ),
    ):
        sheet.with_panel(panel)
    return sheet


def _of(record: str, kind: str) -> str:
    return f'{record}{{departement=~"$departement",kind="{kind}"}}'


def _flux(kind: str) -> str:
    changed = _of("millesimed_changed_area_square_meters_total", kind)
    return (
        f"sum by (departement) (increase({changed}[$__range])) "
        "* on (departement) group_left (latitude, longitude) "
        "max by (departement, latitude, longitude) (millesimed_departement_info)"
    )


def documents() -> dict[str, str]:
    """Every dashboard by its file name, as JSON."""
    sheets = {
        "operations.json": operations(),
        "production.json": production(),
        "artificialisation.json": artificialisation(),
    }
    return {name: _encoded(sheet.build()) for name, sheet in sheets.items()}


def _encoded(sheet: model.Dashboard) -> str:
    """JSON with panels numbered in their order, so that a link to one keeps its target."""
    for number, panel in enumerate(sheet.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(sheet) + "\n"


if __name__ == "__main__":
    for file, body in documents().items():
        (FOLDER / file).write_text(body, encoding="utf-8")
