"""Which store an acquisition concerns, which image it is to be compared with, and whether its
asset may be opened at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlparse

import shapely
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from schemas.acquisition import AcquisitionItem, Asset
from schemas.errors import MillesimedError
from schemas.policy import CAMPAIGN_DAYS, COMPARABLE_GSD_RATIO
from updater.crs import WGS84, reproject
from updater.errors import OlderThanMap, OutsideMap, ReferenceMissing
from updater.reads import ImageRecord, extent, images_in
from updater.store import Store


class AssetRefused(MillesimedError):
    """The image's address is not one this service opens."""

    reason = "asset-refused"


class AssetMissing(MillesimedError):
    """The image is not where the event says."""

    reason = "asset-missing"


@dataclass(frozen=True, slots=True)
class Located:
    """An acquisition placed: its image, footprint in the store's CRS, images to compare with."""

    image: Path
    footprint: BaseGeometry
    references: Sequence[ImageRecord]
    elevation: Path | None = None

    @property
    def surfaces(self) -> tuple[list[Path], Path] | None:
        """Surface models of before and after, where every image has one."""
        before = [r.elevation for r in self.references if r.elevation is not None]
        if self.elevation is None or len(before) < len(self.references):
            return None
        return list(dict.fromkeys(before)), self.elevation


def asset_path(asset: Asset) -> Path:
    """The local file of an asset.

    Raises:
        AssetRefused: any address but a plain path or ``file://`` one.
        AssetMissing: no such file.
    """
    href = asset.href
    parsed = urlparse(href)
    if parsed.scheme not in {"", "file"} or parsed.netloc not in {"", "localhost"}:
        raise AssetRefused(f"The image address {href[:200]!r} is no local file; copy it first.")
    path = Path(unquote(parsed.path))
    if path.parts[:1] == ("/",) and path.parts[1:2] and path.parts[1].startswith("vsi"):
        raise AssetRefused(f"The image address {href[:200]!r} is a virtual path; give a file.")
    if not path.is_file():
        raise AssetMissing(f"The image {path.name} is not there; deliver it, then retry the event.")
    return path


def stores_of(item: AcquisitionItem, stores: Sequence[Store]) -> list[Store]:
    """The stores whose map the footprint touches.

    Raises:
        OutsideMap: none does.
    """
    footprint = shape(item.geometry.model_dump())
    if not footprint.is_valid:
        footprint = shapely.make_valid(footprint)
    found = []
    for store in stores:
        wanted = item.properties.departement
        if wanted is not None and wanted != store.territory:
            continue
        bounds = extent(store)
        if bounds is None:
            continue
        local = reproject(footprint, WGS84, store.crs)
        if local.intersection(box(*bounds)).area > 0:
            found.append(store)
    if not found:
        raise OutsideMap(
            f"The footprint of {item.id} touches no map of this service; check its département "
            "or add the store."
        )
    return found


def locate(store: Store, item: AcquisitionItem) -> Located:
    """The image of an acquisition and what it is to be compared with.

    References are images of the same kind of pixel taken before this campaign; among them the
    newest campaign wins.

    Raises:
        AssetRefused, AssetMissing: the image cannot be had.
        OlderThanMap: every reference of the ground is newer.
        ReferenceMissing: the ground has no reference at all.
    """
    path = asset_path(item.image)
    elevation = asset_path(item.elevation) if item.elevation else None
    footprint = reproject(shape(item.geometry.model_dump()), WGS84, store.crs)
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
