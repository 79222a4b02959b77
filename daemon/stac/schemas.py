"""What the addresses under /stac answer and can be asked, as JSON Schema."""

from __future__ import annotations

from typing import Final

from daemon.ogc import schemas as ogc_schemas
from daemon.ogc.schemas import NUMBER, TEXT, listed, parameter, record
from daemon.stac.query import DEFAULT

ITEM: Final = record(
    *("type", "stac_version", "id", "collection", "geometry", "bbox", "properties"),
    *("links", "assets"),
    type={"type": "string", "enum": ["Feature"]},
    stac_version=TEXT,
    id=TEXT,
    collection=TEXT,
    geometry=ogc_schemas.GEOMETRY,
    bbox=listed(NUMBER, minItems=4, maxItems=4),
    properties=record("datetime", "gsd", datetime=TEXT, gsd=NUMBER),
    links=ogc_schemas.LINKS,
    assets={"type": "object"},
)
ITEMS: Final = record(
    *("type", "features", "links", "numberReturned"),
    type={"type": "string", "enum": ["FeatureCollection"]},
    features=listed(ITEM),
    links=ogc_schemas.LINKS,
    numberReturned={"type": "integer", "minimum": 0},
)
COLLECTION: Final = record(
    *("type", "stac_version", "id", "description", "license", "extent", "links"),
    type={"type": "string", "enum": ["Collection"]},
    stac_version=TEXT,
    id=TEXT,
    description=TEXT,
    license=TEXT,
    extent=ogc_schemas.EXTENT,
    links=ogc_schemas.LINKS,
)
CATALOG: Final = record(
    *("type", "stac_version", "id", "description", "conformsTo", "links"),
    type={"type": "string", "enum": ["Catalog"]},
    stac_version=TEXT,
    id=TEXT,
    description=TEXT,
    conformsTo=listed(TEXT),
    links=ogc_schemas.LINKS,
)
COLLECTIONS: Final = record(
    "collections", "links", collections=listed(COLLECTION), links=ogc_schemas.LINKS
)
LIMITED: Final = [
    parameter("limit", {"type": "integer", "minimum": 1, "default": DEFAULT}, "Items on a page."),
    parameter("bbox", listed(NUMBER, minItems=4, maxItems=6), "Degrees, west first."),
    parameter("datetime", TEXT, "A time or an interval (RFC 3339)."),
    parameter("token", TEXT, "Where a page begins; from the link to it."),
]
SEARCHED: Final = [
    *LIMITED,
    parameter("intersects", TEXT, "A GeoJSON geometry."),
    parameter("ids", listed(TEXT), "Items."),
    parameter("collections", listed(TEXT), "Sensors."),
]
