"""Which store an acquisition concerns, and which image it is to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from daemon.assets import Seal, asset_path, sealed
from schemas.acquisition import AcquisitionItem
from schemas.policy import CAMPAIGN_DAYS, COMPARABLE_GSD_RATIO
from updater.crs import WGS84, reproject
from updater.errors import OlderThanMap, OutsideMap, ReferenceMissing
from updater.reads import ImageRecord, extent, images_in
from updater.store import Store


@dataclass(frozen=True, slots=True)
class Located:
    """An acquisition placed: its image, footprint in the store's CRS, images to compare with."""

    image: Path
    footprint: BaseGeometry
    references: Sequence[ImageRecord]
    elevation: Path | None = None
    seals: Sequence[Seal] = ()

    @property
    def surfaces(self) -> tuple[list[Path], Path] | None:
        """Surface models of before and after, where every image has one."""
        before = [r.elevation for r in self.references if r.elevation is not None]
        if self.elevation is None or len(before) < len(self.references):
            return None
        return list(dict.fromkeys(before)), self.elevation


def stores_of(item: AcquisitionItem, stores: Sequence[Store]) -> list[Store]:
    """The stores whose map the footprint touches.

    Raises:
        OutsideMap: none does.
    """
    footprint = footprint_of(item)
    found = []
    for store in stores:
        wanted = item.properties.departement
        if wanted is not None and wanted != store.territory:
            continue
        bounds = extent(store)
        if bounds is None:
            continue
        local = _local(footprint, store)
        if local is not None and local.intersection(box(*bounds)).area > 0:
            found.append(store)
    if not found:
        raise OutsideMap(
            f"The footprint of {item.id} touches no map of this service; check its département "
            "or add the store."
        )
    return found


def footprint_of(item: AcquisitionItem) -> BaseGeometry:
    """Where an acquisition says it lies: valid, EPSG:4326."""
    return shapely.make_valid(shape(item.geometry.model_dump()))


def _local(footprint: BaseGeometry, store: Store) -> BaseGeometry | None:
    """A footprint in the store's CRS; None where that CRS does not reach."""
    local = reproject(footprint, WGS84, store.crs)
    if not np.isfinite(shapely.get_coordinates(local)).all():
        return None
    return shapely.make_valid(local)


def placed(store: Store, item: AcquisitionItem) -> BaseGeometry:
    """The footprint in the store's CRS.

    Raises:
        OutsideMap: it lies where that CRS does not reach.
    """
    footprint = _local(footprint_of(item), store)
    if footprint is None:
        raise OutsideMap(f"The footprint of {item.id} leaves the map's {store.crs}; correct it.")
    return footprint


def locate_alone(store: Store, item: AcquisitionItem, *, roots: Sequence[Path] = ()) -> Located:
    """The image of an acquisition that is judged against the history of its ground.

    Raises:
        AssetRefused, AssetMissing, AssetChanged, OutsideMap: as `locate`.
    """
    path = asset_path(item.image, roots)
    return Located(path, placed(store, item), [], seals=[sealed(item.image, path)])


def locate(store: Store, item: AcquisitionItem, *, roots: Sequence[Path] = ()) -> Located:
    """The image of an acquisition and what it is to be compared with, its files sealed.

    Raises:
        AssetChanged: a file is another one than announced; else as `compared`.
    """
    return sealed_up(compared(store, item, roots=roots), item)


def sealed_up(located: Located, item: AcquisitionItem) -> Located:
    """The same with its files sealed.

    Raises:
        AssetRefused, AssetMissing, AssetChanged: a file cannot be had, or is another one.
    """
    seals = [sealed(item.image, located.image)]
    if item.elevation and located.elevation:
        seals.append(sealed(item.elevation, located.elevation))
    return replace(located, seals=seals)


def compared(store: Store, item: AcquisitionItem, *, roots: Sequence[Path] = ()) -> Located:
    """The image of an acquisition and what it is to be compared with, its pixels unread.

    References are images of the same kind of pixel taken before this campaign; among them the
    newest campaign wins. ``roots``: folders images may come from; none allows any.

    Raises:
        AssetRefused, AssetMissing: the image cannot be had.
        OutsideMap: the footprint lies where the map's CRS does not reach.
        OlderThanMap: every reference of the ground is newer.
        ReferenceMissing: the ground has no reference at all.
    """
    path = asset_path(item.image, roots)
    elevation = asset_path(item.elevation, roots) if item.elevation else None
    footprint = placed(store, item)
    known = [
        image
        for image in images_in(store, footprint.bounds)
        if image.item != item.id
        and image.footprint.intersection(footprint).area > 0
        and _comparable(image.gsd, item.properties.gsd)
    ]
    if not known:
        raise ReferenceMissing(
            f"No reference image of about {item.properties.gsd:g} m covers {item.id}; add one "
            "with `millesimed reference add`, then retry the event."
        )
    campaign = timedelta(days=CAMPAIGN_DAYS)
    older = [image for image in known if image.acquired + campaign <= item.acquired]
    if not older:
        raise OlderThanMap(
            f"The acquisition {item.id} of {item.acquired:%Y-%m-%d} is not newer than the map's "
            f"own image of {min(i.acquired for i in known):%Y-%m-%d}; it adds nothing."
        )
    newest = max(image.acquired for image in older)
    return Located(
        image=path,
        footprint=footprint,
        references=[i for i in older if i.acquired + campaign > newest],
        elevation=elevation,
    )


def _comparable(a: float, b: float) -> bool:
    return max(a, b) <= COMPARABLE_GSD_RATIO * min(a, b)
