"""Which collections there are: for each store its millésimes, differentials and alerts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from daemon.ogc.changes import AlertLayer, DifferentialLayer
from daemon.ogc.features import MapLayer
from daemon.ogc.layers import Layer
from updater.map_pages import millesimes
from updater.store import Store

NAME: Final = re.compile(
    r"(?:ocsge-(?P<map>\w+)-(?P<year>\d{4})|differentiel-(?P<diff>\w+)-(?P<first>\d{4})-"
    r"(?P<last>\d{4})|alertes-(?P<alerts>\w+))"
)


def layers(stores: Sequence[Store]) -> list[Layer]:
    """Every collection that is listed: for each store its millésimes, the differentials from each
    to the next and from the first to the last, and its alerts."""
    found: list[Layer] = []
    for store in stores:
        years = millesimes(store)
        spans = list(pairwise(years))
        if len(years) > 2:
            spans.append((years[0], years[-1]))
        found += [MapLayer(store, year) for year in years]
        found += [DifferentialLayer(store, *span) for span in spans]
        found.append(AlertLayer(store))
    return found


def layer_of(stores: Sequence[Store], name: str) -> Layer | None:
    """A collection by its name, any two millésimes of a store in order included."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    words = match.groupdict()
    place = words["map"] or words["diff"] or words["alerts"]
    store = next((s for s in stores if s.territory == place), None)
    if store is None:
        return None
    if words["alerts"]:
        return AlertLayer(store)
    years = millesimes(store)
    if words["map"]:
        year = int(words["year"])
        return MapLayer(store, year) if year in years else None
    first, last = int(words["first"]), int(words["last"])
    if first < last and {first, last} <= set(years):
        return DifferentialLayer(store, first, last)
    return None
