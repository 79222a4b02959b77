"""The differential as files: IGN's layers, the evolution matrix, and a changelog to follow."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import shapely

from schemas.change import ChangeKind
from schemas.legal import legal_status
from schemas.nomenclature import COUVERTURE, CS_LEAVES
from updater.diff import Differential, DiffPiece
from updater.export import write_layers
from updater.generalise import as_multi
from updater.types import MapPolygon

DIFFERENTIAL_LAYER: Final = "DIFFERENTIEL"
ARTIFICIALISATION_LAYER: Final = "ZAN_EVOL"
CORRECTION_LAYER: Final = "PATCH_CORR"
NOTHING: Final = "RAS"
"""What a corrective patch says of a code that was right."""
NULL: Final = "null"


def differential_frame(differential: Differential, crs: str) -> gpd.GeoDataFrame:
    """The OCS GE differential layer: codes before and after, legal effect, surface."""
    pieces = differential.pieces
    return gpd.GeoDataFrame(
        {
            "id_avant": [p.id_before for p in pieces],
            "id_apres": [p.id_after for p in pieces],
            "cs_avant": [p.cs_before for p in pieces],
            "us_avant": [p.us_before for p in pieces],
            "cs_apres": [p.cs_after for p in pieces],
            "us_apres": [p.us_after for p in pieces],
            "nature": [p.kind.value for p in pieces],
            "artificialisation": np.array([p.artificialisation for p in pieces], dtype=np.int32),
            "surface": [float(p.geometry.area) for p in pieces],
        },
        geometry=[as_multi(p.geometry) for p in pieces],
        crs=crs,
    )


def artificialisation_frame(
    differential: Differential, crs: str, *, years: tuple[str, str]
) -> gpd.GeoDataFrame:
    """The artificialisation differential: evolutions of legal status only, +1 or −1."""
    pieces = [
        p for p in differential.pieces if p.artificialisation and p.kind is ChangeKind.EVOLUTION
    ]
    first, last = years

    def status(cs: str | None, us: str | None) -> str:
        return legal_status(cs, us).value

    return gpd.GeoDataFrame(
        {
            f"id_{first}": [p.id_before for p in pieces],
            f"cs_{first}": [p.cs_before for p in pieces],
            f"us_{first}": [p.us_before for p in pieces],
            f"artif_{first}": [status(p.cs_before, p.us_before) for p in pieces],
            f"id_{last}": [p.id_after for p in pieces],
            f"cs_{last}": [p.cs_after for p in pieces],
            f"us_{last}": [p.us_after for p in pieces],
            f"artif_{last}": [status(p.cs_after, p.us_after) for p in pieces],
            "artificialisation": np.array([p.artificialisation for p in pieces], dtype=np.int32),
            "surface": [float(p.geometry.area) for p in pieces],
        },
        geometry=[as_multi(p.geometry) for p in pieces],
        crs=crs,
    )


def correction_frame(differential: Differential, crs: str) -> gpd.GeoDataFrame:
    """The corrective patch: what the older millésime should have said; ``RAS`` where a code was
    right."""
    pieces = [p for p in differential.pieces if p.kind is ChangeKind.CORRECTION]

    def corrected(was: str | None, now: str | None) -> str:
        return NOTHING if was == now else now or NULL

    return gpd.GeoDataFrame(
        {
            "id": [p.id_before for p in pieces],
            "code_cs": [p.cs_before for p in pieces],
            "code_us": [p.us_before for p in pieces],
            "cs_corr": [corrected(p.cs_before, p.cs_after) for p in pieces],
            "us_corr": [corrected(p.us_before, p.us_after) for p in pieces],
            "surface": [float(p.geometry.area) for p in pieces],
        },
        geometry=[as_multi(p.geometry) for p in pieces],
        crs=crs,
    )


def write_differential(
    differential: Differential, path: Path, *, crs: str, years: tuple[str, str]
) -> None:
    """The three layers as one GeoPackage."""
    layers = {
        DIFFERENTIAL_LAYER: differential_frame(differential, crs),
        ARTIFICIALISATION_LAYER: artificialisation_frame(differential, crs, years=years),
        CORRECTION_LAYER: correction_frame(differential, crs),
    }
    write_layers(layers, path)


def write_matrix_csv(differential: Differential, path: Path) -> None:
    """Cover before × cover after as CSV, hectares."""
    names, table = matrix_table(differential)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cs_avant", *names])
        for name, row in zip(names, table, strict=True):
            writer.writerow([name, *(f"{value:.4f}" for value in row)])


def matrix_table(differential: Differential) -> tuple[list[str], np.ndarray]:
    """Covers, and hectares ``(before, after)`` between them."""
    names = [*CS_LEAVES, NULL]
    place = {name: index for index, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for before, row in differential.matrix().items():
        for after, area in row.items():
            table[place[before], place[after]] += area / 10_000
    return names, table


def write_matrix_png(differential: Differential, path: Path, *, title: str) -> None:
    """The evolution matrix as a heat map, hectares on a logarithmic scale."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    names, table = matrix_table(differential)
    labels = [f"{n}  {COUVERTURE[n].label[:28]}" if n in COUVERTURE else n for n in names]
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots()
    top = max(float(table.max()), 0.02)
    shown = axes.imshow(
        np.where(table > 0, table, np.nan), norm=LogNorm(vmin=0.01, vmax=top), cmap="cividis_r"
    )
    for i, j in zip(*np.nonzero(table), strict=True):
        value = table[i, j]
        colour = "white" if value > top / 10 else "black"
        axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_xlabel("couverture après")
    axes.set_ylabel("couverture avant")
    axes.set_title(title)
    figure.colorbar(shown, ax=axes, label="hectares", shrink=0.7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def changelog_frame(
    old: Sequence[MapPolygon],
    new: Sequence[MapPolygon],
    pieces: Sequence[DiffPiece],
    crs: str,
) -> gpd.GeoDataFrame:
    """Every polygon of two states with what became of it: ``added`` and ``removed`` (an id that
    is in one state only), ``changed`` (same id, other codes or outline), ``unchanged``.

    Following the rows with their geometry, a reader turns the first state into the second without
    touching the store. ``codes_changed``: m² of the polygon whose codes differ between the two.
    """
    before, after = {p.id: p for p in old}, {p.id: p for p in new}
    moved: dict[str, float] = {}
    for piece in pieces:
        for name in {piece.id_before, piece.id_after}:
            moved[name] = moved.get(name, 0.0) + float(piece.geometry.area)
    rows: list[tuple[str, str, MapPolygon | None, MapPolygon | None]] = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is None or now is None:
            status = "added" if was is None else "removed"
        else:
            status = "unchanged" if _same(was, now) else "changed"
        rows.append((name, status, was, now))
    return gpd.GeoDataFrame(
        {
            "id": [name for name, _, _, _ in rows],
            "status": [status for _, status, _, _ in rows],
            "cs_avant": [was.code_cs if was else None for _, _, was, _ in rows],
            "us_avant": [was.code_us if was else None for _, _, was, _ in rows],
            "cs_apres": [now.code_cs if now else None for _, _, _, now in rows],
            "us_apres": [now.code_us if now else None for _, _, _, now in rows],
            "source": [p.source for _, _, was, now in rows if (p := now or was) is not None],
            "codes_changed": [moved.get(name, 0.0) for name, _, _, _ in rows],
        },
        geometry=[p.geometry for _, _, was, now in rows if (p := now or was) is not None],
        crs=crs,
    )


def _same(was: MapPolygon, now: MapPolygon) -> bool:
    if was.version == now.version and was.version:
        return True
    codes = (was.code_cs, was.code_us) == (now.code_cs, now.code_us)
    return codes and bool(shapely.equals_identical(was.geometry, now.geometry))
