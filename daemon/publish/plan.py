"""What is to be published: which states of the map, as which deliveries, into which stored data.

Names follow from the content, so that the same map has the same names whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import geopandas as gpd

from daemon.publish.settings import PublicationSettings
from schemas.errors import UsageError
from schemas.export import ExportFormat, ExportProduct, ExportRequest
from updater.deliveries import (
    Batch,
    batch,
    fingerprint,
    frame_at,
    short,
    write_changes,
    write_structure,
    write_whole,
)
from updater.export_plan import plan_of
from updater.export_write import export_to
from updater.increments import increment
from updater.product import Product
from updater.reads import FOREVER, end_of, zone_construite_parts
from updater.store import Store
from updater.territories import Territory, find_territory

STRUCTURE: Final = "structure"
DATA: Final = "data"
CHANGES: Final = "changes"
TILES: Final = "tiles"


@dataclass(frozen=True, slots=True)
class Ground:
    """Which map, cut to which territory, of which year. ``name``: as D032 or D032-32013."""

    product: Product
    place: Territory | None

    @property
    def name(self) -> str:
        product = self.product
        if product.territory == product.departement:
            return product.departement
        return f"{product.departement}-{product.territory}"


@dataclass(frozen=True, slots=True)
class State:
    """A state of the map as it is delivered. ``id``: what it is known by; ``known``: the instant
    whose knowledge it is."""

    id: str
    millesime: int
    known: datetime
    frame: gpd.GeoDataFrame
    zones: gpd.GeoDataFrame | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One processing. ``name``: of the delivery that feeds it, or without ``make`` of the stored
    data that does."""

    title: str
    name: str
    processing: str
    parameters: Mapping[str, Any]
    make: Callable[[], Batch] | None
    upload_type: str = "VECTOR"


@dataclass(frozen=True, slots=True)
class Target:
    """Stored data and what makes it: new, by its name, or changed in place (``onto``, its id).
    ``holds``: what it is of, for changes to find what they may go onto."""

    name: str
    holds: str
    stages: Sequence[Stage]
    onto: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one call publishes."""

    ground: Ground
    state: State
    folder: Path
    targets: Sequence[Target]

    @property
    def texts(self) -> dict[str, str]:
        """What settings may name in braces."""
        return {"territory": self.ground.name, "millesime": str(self.state.millesime)}


def ground_of(store: Store, territory: str | None, millesime: int) -> Ground:
    """The map of a territory.

    Raises:
        NotFound: there is no such territory.
    """
    place = find_territory(store, territory or store.territory)
    return Ground(Product.of(store, place, millesime), place)


def state_of(
    store: Store,
    ground: Ground,
    kind: str,
    *,
    millesime: int | None = None,
    known: datetime | None = None,
) -> State:
    """A state of the map: a millésime (else the ground's own) by what was known at an instant
    (else now).

    Raises:
        UsageError: the store has no map of then.
    """
    year = millesime or ground.product.millesime
    moment = known or store.clock()
    shape = ground.place.geometry if ground.place else None
    frame = frame_at(store, end_of(year), recorded_at=moment if known else FOREVER, ground=shape)
    if frame.empty:
        raise UsageError(
            f"The store has no map for {year}; its first millésime is {store.millesime}."
        )
    said = f"{kind} {ground.name} {year} {fingerprint(frame)}"
    return State(short(said.encode()), year, moment, frame, _zones(store, ground, shape))


def _zones(store: Store, ground: Ground, shape: Any) -> gpd.GeoDataFrame | None:  # noqa: ANN401
    parts = zone_construite_parts(store)
    if not parts:
        return None
    frame = gpd.GeoDataFrame(
        {
            "id": [f"ZC{number:06d}" for number in range(1, len(parts) + 1)],
            "millesime": [str(ground.product.millesime)] * len(parts),
        },
        geometry=parts,
        crs=store.crs,
    )
    return frame if shape is None else frame.clip(shape, keep_geom_type=True)


def kind_of(settings: PublicationSettings) -> str:
    """What kind of delivery a service takes: files as they are, or tables."""
    return "archive" if settings.service.type == "DOWNLOAD" else "tables"


def whole(
    store: Store, settings: PublicationSettings, ground: Ground, state: State, folder: Path
) -> Plan:
    """Everything of a state, into stored data of its own."""
    name = f"ocsge_{ground.name}_{state.millesime}_{state.id}"
    if kind_of(settings) == "archive":
        stages = [_archive(store.path, settings, ground, state, name, folder)]
    else:
        stages = [
            _stage(
                settings, DATA, name, folder, lambda to: write_whole(to, state.frame, state.zones)
            )
        ]
        if settings.keyed:
            crs = ground.product.crs
            stages.insert(
                0, _stage(settings, STRUCTURE, name, folder, lambda to: write_structure(to, crs))
            )
    return Plan(
        ground, state, folder, [Target(name, ground.name, stages), *_tiles(settings, ground, name)]
    )


def changes(
    settings: PublicationSettings,
    ground: Ground,
    state: State,
    folder: Path,
    *,
    old: State,
    onto: str,
) -> Plan:
    """What changed since a state, onto the stored data that holds it."""
    both = short(f"{old.id} {state.id} {settings.outline_updates}".encode())
    name = f"ocsge_{ground.name}_{state.millesime}_{both}"
    found = increment(old.frame, state.frame, outlines=settings.outline_updates)
    stage = _stage(
        settings,
        CHANGES,
        name,
        folder,
        lambda to: write_changes(to, found),
        {"update": bool(len(found.updated)), "delete": bool(found.deleted)},
    )
    stages = [stage] if found.rows else []
    target = Target(name, ground.name, stages, onto)
    return Plan(ground, state, folder, [target, *_tiles(settings, ground, name)])


def _stage(
    settings: PublicationSettings,
    title: str,
    name: str,
    folder: Path,
    fill: Callable[[Path], None],
    parameters: Mapping[str, Any] | None = None,
) -> Stage:
    called = f"{name}_{title}"
    return Stage(
        title,
        called,
        settings.processing,
        {**settings.parameters, **(parameters or {})},
        lambda: batch(folder / called, fill),
    )


def _archive(
    db: Path,
    settings: PublicationSettings,
    ground: Ground,
    state: State,
    name: str,
    folder: Path,
) -> Stage:
    """The product as `millesimed export` writes it, with its metadata."""
    asked = ExportRequest(
        product=ExportProduct.MAP, millesime=state.millesime, format=ExportFormat.GPKG
    )

    def fill(to: Path) -> None:
        with Store.open(db) as store:  # what came since is not of this state
            made = plan_of(store, asked, ground.place, known_at=state.known)
            export_to(store, made, to, lambda _: None)

    made = _stage(settings, DATA, name, folder, fill)
    return Stage(made.title, made.name, made.processing, made.parameters, made.make, "ARCHIVE")


def _tiles(settings: PublicationSettings, ground: Ground, name: str) -> list[Target]:
    if settings.pyramid is None:
        return []
    called = f"{name}_{TILES}"
    made = settings.pyramid
    stage = Stage(TILES, name, made.processing, made.parameters, None)
    return [Target(called, f"{ground.name}/{TILES}", [stage])]


def configuration_body(
    settings: PublicationSettings, texts: Mapping[str, str], stored: str
) -> dict[str, Any]:
    """The configuration of a service over stored data (its id).

    Bodies of WFS and WMS-VECTOR as the platform documents them, of WMTS-TMS and DOWNLOAD as in the
    workflows of sdk-entrepot; not tried against the real service. Settings add to any of them.
    """
    service = settings.service

    def filled(text: str) -> str:
        return text.format(**texts)

    about = {
        "title": filled(service.title),
        "abstract": filled(service.abstract),
        "keywords": service.keywords,
    }
    layer = filled(service.layer_name)
    used: dict[str, Any] = {"stored_data": stored}
    infos: dict[str, Any] = dict(about)
    match service.type:
        case "WFS":
            relation = {"native_name": "occupation_sol", **about, **service.relation}
            used["relations"] = [relation]
            infos = {}
        case "WMS-VECTOR":
            used["relations"] = [{"name": "occupation_sol", **service.relation}]
        case "DOWNLOAD":
            used |= {"sub_name": layer, "title": about["title"], "format": "GPKG"}
    return {
        "type": service.type,
        "name": layer,
        "layer_name": layer,
        "type_infos": {**infos, "used_data": [{**used, **service.used_data}], **service.type_infos},
    }
