"""What a STAC Item of someone else says: which sensor, which assets, with which radiometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from daemon.acquire.bands import REFLECTANCE
from daemon.acquire.files import Checksum
from daemon.acquire.watcher import AcquireError
from schemas.policy import SENSOR_POLICY, Sensor

PLATFORMS: Final = (
    ("sentinel-2", Sensor.SENTINEL_2),
    ("spot", Sensor.SPOT),
    ("pleiades", Sensor.PLEIADES),
    ("phr", Sensor.PLEIADES),
    ("pneo", Sensor.PLEIADES),
)
"""How platforms and constellations are called, and the family they are judged with."""
SENTINEL_BANDS: Final = ("blue", "green", "red", "nir", "swir16")
"""What is taken of Sentinel-2 where no assets are named: three to look at, two for masks."""
MEDIA: Final = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")


@dataclass(frozen=True, slots=True)
class Part:
    """An asset that makes the image, or one band of it. ``scale`` and ``offset`` lead to
    reflectance × 10 000."""

    name: str
    href: str
    checksum: Checksum | None
    size: int | None
    scale: float = 1.0
    offset: float = 0.0


def sensor_of(item: Mapping[str, Any]) -> Sensor:
    """The family of an Item's sensor.

    Raises:
        AcquireError: the Item does not say, or none of those the service can judge.
    """
    properties = item.get("properties") or {}
    words = [properties.get(k) for k in ("constellation", "platform", "mission")]
    text = " ".join(str(word) for word in words if word).lower().replace("_", "-")
    for name, sensor in PLATFORMS:
        if name in text:
            return _trusted(sensor, properties.get("gsd"))
    raise AcquireError(
        f"{item.get('id')} is of platform {text or 'unknown'!r}; say its `sensor` in the "
        "source's settings."
    )


def _trusted(sensor: Sensor, gsd: object) -> Sensor:
    if isinstance(gsd, int | float) and gsd > SENSOR_POLICY[sensor].max_gsd:
        raise AcquireError(
            f"Its pixel of {gsd:g} m is coarser than {sensor} is trusted at; choose another "
            "collection."
        )
    return sensor


def acquired_of(item: Mapping[str, Any]) -> datetime:
    """When the ground was seen; the end of a range where there is no single time.

    Raises:
        AcquireError: the Item does not say.
    """
    properties = item.get("properties") or {}
    for key in ("datetime", "end_datetime", "start_datetime"):
        if text := properties.get(key):
            try:
                found = datetime.fromisoformat(str(text))
            except ValueError:
                continue
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    raise AcquireError(f"{item.get('id')} has no date; tell the provider.")


def parts_of(item: Mapping[str, Any], wanted: Sequence[str], sensor: Sensor) -> list[Part]:
    """The assets that make the image: those wanted, by key or band name; of Sentinel-2 its usual
    bands; of others the only image there is.

    Raises:
        AcquireError: one is missing, or there is more than one to choose from.
    """
    assets: dict[str, dict[str, Any]] = item.get("assets") or {}
    names = list(wanted)
    if not names and sensor is Sensor.SENTINEL_2 and all(_named(assets, n) for n in SENTINEL_BANDS):
        names = list(SENTINEL_BANDS)
    if not names:
        images = [k for k, a in assets.items() if _is_image(a)]
        if len(images) != 1:
            raise AcquireError(
                f"{item.get('id')} has {len(images)} images ({', '.join(images)[:120]}); name one, "
                "or bands, in `assets`."
            )
        names = images
    found = []
    for name in names:
        key = _named(assets, name)
        if key is None:
            raise AcquireError(
                f"{item.get('id')} has no asset or band {name!r}; correct `assets` "
                f"({', '.join(assets)[:160]})."
            )
        found.append(_part(name, assets[key], several=len(names) > 1))
    return found


def _named(assets: Mapping[str, dict[str, Any]], name: str) -> str | None:
    """The key of an asset that is called so: by key, then by the name or common name of its only
    band. Of two with the same band the one that is data wins."""
    if name in assets:
        return name
    for key, asset in assets.items():
        bands = asset.get("eo:bands") or asset.get("bands") or []
        if len(bands) == 1 and _is_image(asset):
            words = {bands[0].get(k) for k in ("name", "common_name", "eo:common_name")}
            if name in words:
                return key
    return None


def _is_image(asset: Mapping[str, Any]) -> bool:
    media = str(asset.get("type") or "").lower()
    roles = asset.get("roles") or ["data"]
    unwanted = {"thumbnail", "overview", "metadata"} & set(roles)
    return media.startswith(MEDIA) and not unwanted and {"data", "visual"} & set(roles) != set()


def _part(name: str, asset: Mapping[str, Any], *, several: bool) -> Part:
    size = asset.get("file:size")
    scale, offset = _radiometry(asset) if several else (1.0, 0.0)
    return Part(
        name=name,
        href=_address(name, asset),
        checksum=Checksum.multihash(asset.get("file:checksum")),
        size=size if isinstance(size, int) else None,
        scale=scale,
        offset=offset,
    )


def _radiometry(asset: Mapping[str, Any]) -> tuple[float, float]:
    """Scale and offset to reflectance × 10 000, as STAC 1.0 (``raster:bands``) or 1.1 has them."""
    places = [*(asset.get("raster:bands") or []), *(asset.get("bands") or []), asset]
    for place in places:
        scale = place.get("scale", place.get("raster:scale"))
        offset = place.get("offset", place.get("raster:offset"))
        if isinstance(scale, int | float) and scale > 0:
            return float(scale) * REFLECTANCE, float(offset or 0.0) * REFLECTANCE
    return 1.0, 0.0


def _address(name: str, asset: Mapping[str, Any]) -> str:
    """The address over HTTP: the asset's own, or an alternate one."""
    others = [a.get("href") for a in (asset.get("alternate") or {}).values()]
    for href in (asset.get("href"), *others):
        if isinstance(href, str) and href.startswith(("https://", "http://")):
            return href
    raise AcquireError(
        f"The asset {name} has no address over HTTP ({str(asset.get('href'))[:60]}); choose one "
        "that has."
    )
