"""What the addresses under /ogc and /stac answer, as JSON Schema that OpenAPI 3.0 and 3.1 both
read."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}


def listed(items: Schema, **more: Any) -> Schema:  # noqa: ANN401 - keywords of JSON Schema
    """An array."""
    return {"type": "array", "items": items, **more}


def record(*required: str, **properties: Schema) -> Schema:
    """An object."""
    found: Schema = {"type": "object", "properties": properties}
    return found | {"required": list(required)} if required else found


LINK: Final = record("href", "rel", href=TEXT, rel=TEXT, type=TEXT, title=TEXT)
LINKS: Final = listed(LINK, minItems=1)
EXTENT: Final = record(
    spatial=record("bbox", bbox=listed(listed(NUMBER, minItems=4, maxItems=6), minItems=1)),
    temporal=record("interval", interval=listed(listed({}, minItems=2, maxItems=2), minItems=1)),
)
LANDING: Final = record("links", title=TEXT, description=TEXT, links=LINKS)
CONFORMANCE: Final = record("conformsTo", conformsTo=listed(TEXT, minItems=1))
COLLECTION: Final = record(
    *("id", "links"),
    id=TEXT,
    title=TEXT,
    description=TEXT,
    links=LINKS,
    extent=EXTENT,
    itemType=TEXT,
    crs=listed(TEXT),
    storageCrs=TEXT,
)
COLLECTIONS: Final = record("collections", "links", collections=listed(COLLECTION), links=LINKS)
QUERYABLES: Final = record(
    *("$schema", "$id", "type", "properties"),
    **{
        "$schema": TEXT,
        "$id": TEXT,
        "type": {"enum": ["object"]},
        "properties": {"type": "object"},
    },
)
GEOMETRY: Final = record(
    *("type", "coordinates"),
    type={"type": "string", "enum": ["Polygon", "MultiPolygon"]},
    coordinates=listed(listed(listed({}))),
)
FEATURE: Final = record(
    *("type", "id", "geometry", "properties"),
    type={"type": "string", "enum": ["Feature"]},
    id=TEXT,
    geometry=GEOMETRY,
    properties={"type": "object"},
    links=LINKS,
)
FEATURES: Final = record(
    *("type", "features", "links", "timeStamp", "numberReturned"),
    type={"type": "string", "enum": ["FeatureCollection"]},
    features=listed(FEATURE),
    links=LINKS,
    timeStamp={"type": "string", "format": "date-time"},
    numberMatched={"type": "integer", "minimum": 0},
    numberReturned={"type": "integer", "minimum": 0},
)
PROBLEM: Final = record(
    *("title", "status", "detail"), title=TEXT, status={"type": "integer"}, detail=TEXT
)


def parameter(name: str, schema: Schema, description: str) -> Schema:
    """A parameter in the query."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
        "style": "form",
        "explode": False,
    }


def items_parameters(default: int, most: int) -> list[Schema]:
    """What can be asked of the features of any collection."""
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return [
        parameter(
            "limit", limit, "Features on a page; a larger number gives the largest there is."
        ),
        parameter(
            "bbox",
            listed(NUMBER, minItems=4, maxItems=6),
            "Two corners of a rectangle; features that touch it.",
        ),
        parameter("bbox-crs", {"type": "string", "format": "uri"}, "CRS of bbox; else CRS84."),
        parameter("crs", {"type": "string", "format": "uri"}, "CRS of the answer; else CRS84."),
        parameter(
            "datetime",
            TEXT,
            "A time or an interval (RFC 3339, .. leaves an end open); what was so on the ground "
            "at some time in it.",
        ),
        parameter("f", {"type": "string", "enum": ["json"]}, "The only format."),
        parameter(
            "as-of",
            {"type": "string", "format": "date-time"},
            "By what was on record at this time; links to further pages have it.",
        ),
        parameter("after", TEXT, "Where a page begins; from the link to it."),
    ]
