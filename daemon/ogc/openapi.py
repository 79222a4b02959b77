"""The OpenAPI 3.0 document of the addresses under /ogc: one path for each collection, so that a
reader sees which columns each can be asked by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from daemon import __version__
from daemon.ogc import schemas as ogc_schemas
from daemon.ogc.layers import Layer
from daemon.ogc.query import DEFAULT, MOST
from daemon.ogc.schemas import Schema, items_parameters, parameter
from daemon.problems import MEDIA

GEOJSON: Final = "application/geo+json"
SCHEMA_JSON: Final = "application/schema+json"
PROBLEMS: Final = ("400", "404", "406", "default")
SCHEMAS: Final[dict[str, Schema]] = {
    "landingPage": ogc_schemas.LANDING,
    "confClasses": ogc_schemas.CONFORMANCE,
    "collections": ogc_schemas.COLLECTIONS,
    "collection": ogc_schemas.COLLECTION,
    "queryables": ogc_schemas.QUERYABLES,
    "featureCollectionGeoJSON": ogc_schemas.FEATURES,
    "featureGeoJSON": ogc_schemas.FEATURE,
    "problem": ogc_schemas.PROBLEM,
}


def document(layers: Sequence[Layer], base: str) -> dict[str, Any]:
    """The document; ``base``: address of the landing page."""
    parameters = {p["name"]: p for p in items_parameters(DEFAULT, MOST)}
    paths: dict[str, Any] = {
        "/": {"get": _operation("Landing page", "landing", "landingPage")},
        "/conformance": {"get": _operation("Conformance classes", "conformance", "confClasses")},
        "/collections": {"get": _operation("All collections", "collections", "collections")},
    }
    for layer in layers:
        paths |= _paths(layer, list(parameters))
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "millesimed, OGC API - Features",
            "version": __version__,
            "description": "The land-cover map by millésime, its differentials and its alerts.",
        },
        "servers": [{"url": base}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "parameters": parameters,
            "responses": {
                "problem": {
                    "description": "What is wrong, and what to do.",
                    "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/problem"}}},
                }
            },
        },
    }


def _paths(layer: Layer, parameters: Sequence[str]) -> dict[str, Any]:
    place, name = f"/collections/{layer.id}", layer.id
    asked: list[Schema] = [{"$ref": f"#/components/parameters/{p}"} for p in parameters]
    asked += [
        parameter(column, _kind(found.type), found.title)
        for column, found in layer.columns.items()
        if found.queryable
    ]
    one = {"name": "featureId", "in": "path", "required": True, "schema": ogc_schemas.TEXT}
    crs = [{"$ref": "#/components/parameters/crs"}]
    return {
        place: {"get": _operation(layer.title, f"collection-{name}", "collection")},
        f"{place}/queryables": {
            "get": _operation(
                *("Columns to ask by", f"queryables-{name}", "queryables"), media=SCHEMA_JSON
            )
        },
        f"{place}/items": {
            "get": _operation(
                *("Features", f"items-{name}", "featureCollectionGeoJSON"),
                media=GEOJSON,
                parameters=asked,
            )
        },
        f"{place}/items/{{featureId}}": {
            "get": _operation(
                *("A feature", f"item-{name}", "featureGeoJSON"),
                media=GEOJSON,
                parameters=[one, *crs],
            )
        },
    }


def _kind(type_: str) -> Schema:
    return {"type": type_}


def _operation(
    summary: str,
    name: str,
    schema: str,
    *,
    media: str = "application/json",
    parameters: Sequence[Schema] = (),
) -> dict[str, Any]:
    body = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    wrong = {code: {"$ref": "#/components/responses/problem"} for code in PROBLEMS}
    return {
        "summary": summary,
        "operationId": name,
        "parameters": list(parameters),
        "responses": {"200": {"description": summary, "content": {media: body}}, **wrong},
    }
