"""HTTP: OGC API - Features, parts 1 (core, GeoJSON, OpenAPI 3.0), 2 (CRS) and the queryables of 3.

A page is read from the store at once, a bounded number of features, and written as it is sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import shapely
from fastapi import APIRouter, Depends, HTTPException, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from daemon.config import Scope
from daemon.ogc import openapi as ogc_openapi
from daemon.ogc import schemas as ogc_schemas
from daemon.ogc.catalogue import layer_of, layers
from daemon.ogc.crs import offered, presented, uri_of
from daemon.ogc.layers import Layer, Row
from daemon.ogc.openapi import GEOJSON, SCHEMA_JSON
from daemon.ogc.query import (
    DEFAULT,
    JSON,
    MOST,
    OPENAPI,
    Plain,
    Query,
    accepts,
    crs_of,
    only,
    query_of,
)
from daemon.ogc.schemas import Schema, items_parameters, parameter
from daemon.problems import problems
from daemon.served import Behind, base
from daemon.tokens import needs

AT_ONCE: Final = 2
"""Pages read at the same time; more would take the cores from detection."""
MOST_WAITING: Final = 12
"""Calls that wait for one of these; there are forty threads for all requests together."""
BUSY_SECONDS: Final = 2
CHUNK: Final = 100
"""Features written at once."""
PART1: Final = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/"
PART2: Final = "http://www.opengis.net/spec/ogcapi-features-2/1.0/conf/"
PART3: Final = "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/"
CLASSES: Final = (
    *(f"{PART1}{name}" for name in ("core", "geojson", "oas30")),
    f"{PART2}crs",
    *(f"{PART3}{name}" for name in ("queryables", "queryables-query-parameters")),
)
QUERYABLES_REL: Final = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
API_MEDIA: Final = f"{OPENAPI};version=3.0"
ANY: Final[dict[str, Any]] = {"security": [{}]}
"""For OpenAPI: a token may be sent, and need not be."""

router = APIRouter(
    prefix="/ogc",
    tags=["ogc"],
    dependencies=[Depends(needs(Scope.READ, counted=False))],
    responses=problems(422),
    default_response_class=JSONResponse,
)
reading = threading.BoundedSemaphore(AT_ONCE)
waiting = threading.BoundedSemaphore(AT_ONCE + MOST_WAITING)


@contextmanager
def turn() -> Iterator[None]:
    """Wait to read a page.

    Raises:
        HTTPException: 503, too many wait.
    """
    if not waiting.acquire(blocking=False):
        detail = "Too many pages are being read; try again."
        raise HTTPException(503, detail, {"Retry-After": str(BUSY_SECONDS)})
    try:
        with reading:
            yield
    finally:
        waiting.release()


def answers(schema: Schema, media: str = "application/json", *more: int) -> dict[Any, Any]:
    """For OpenAPI: what an address answers."""
    good = {"description": "Here it is.", "content": {media: {"schema": schema}}}
    return {200: good, **problems(400, 401, 406, 413, 429, *more)}


def link(rel: str, href: str, type_: str = "application/json", title: str = "") -> dict[str, str]:
    """A link as every document here has them."""
    found = {"rel": rel, "href": href, "type": type_}
    return found | {"title": title} if title else found


def found_layer(behind: Behind, collection: Annotated[str, Path(max_length=100)]) -> Layer:
    """FastAPI dependency: the collection of an address.

    Raises:
        HTTPException: 404, there is none.
    """
    found = layer_of(behind.stores, collection)
    if found is None:
        raise HTTPException(
            404, f"There is no collection {collection[:60]}; /ogc/collections lists them."
        )
    return found


Found = Annotated[Layer, Depends(found_layer)]
TAKES_JSON: Final = accepts(*JSON)


@router.get(
    "", responses=answers(ogc_schemas.LANDING), openapi_extra=ANY, dependencies=[TAKES_JSON]
)
@router.get("/", include_in_schema=False, dependencies=[TAKES_JSON])
def landing(request: Request, _: Plain) -> dict[str, Any]:
    """What is here."""
    root = base(request)
    return {
        "title": "millesimed",
        "description": "Occupation du sol à grande échelle : millésimes, différentiels, alertes.",
        "links": [
            link("self", f"{root}/ogc", title="Cette page"),
            link("service-desc", f"{root}/ogc/api", API_MEDIA, "OpenAPI 3.0"),
            link("conformance", f"{root}/ogc/conformance", title="Classes de conformité"),
            link("data", f"{root}/ogc/collections", title="Collections"),
            link("related", f"{root}/stac", title="STAC : les images"),
            link("related", f"{root}/", "text/html", "Carte"),
        ],
    }


@router.get(
    "/conformance",
    responses=answers(ogc_schemas.CONFORMANCE),
    openapi_extra=ANY,
    dependencies=[TAKES_JSON],
)
def conformance(_: Plain) -> dict[str, Any]:
    """Which parts of the standards hold."""
    return {"conformsTo": list(CLASSES)}


@router.get(
    "/api",
    responses=answers({"type": "object"}, OPENAPI),
    openapi_extra=ANY,
    response_class=Response,
    dependencies=[accepts(OPENAPI, *JSON)],
)
def api(behind: Behind, request: Request, _: Plain) -> Response:
    """These addresses as OpenAPI 3.0, collection by collection."""
    found = ogc_openapi.document(layers(behind.stores), f"{base(request)}/ogc")
    return Response(json.dumps(found, ensure_ascii=False), media_type=API_MEDIA)


@router.get(
    "/collections",
    responses=answers(ogc_schemas.COLLECTIONS),
    openapi_extra=ANY,
    dependencies=[TAKES_JSON],
)
def collections(behind: Behind, request: Request, _: Plain) -> dict[str, Any]:
    """Every collection."""
    root = f"{base(request)}/ogc/collections"
    return {
        "links": [link("self", root)],
        "collections": [described(layer, root) for layer in layers(behind.stores)],
    }


@router.get(
    "/collections/{collection}",
    responses=answers(ogc_schemas.COLLECTION, "application/json", 404),
    openapi_extra=ANY,
    dependencies=[TAKES_JSON],
)
def collection(layer: Found, request: Request, _: Plain) -> dict[str, Any]:
    """One collection."""
    return described(layer, f"{base(request)}/ogc/collections")


@router.get(
    "/collections/{collection}/queryables",
    responses=answers(ogc_schemas.QUERYABLES, SCHEMA_JSON, 404),
    openapi_extra=ANY,
    response_class=Response,
    dependencies=[accepts(SCHEMA_JSON, *JSON)],
)
def queryables(layer: Found, request: Request, _: Plain) -> Response:
    """The columns its features can be asked by, as JSON Schema."""
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{base(request)}/ogc/collections/{layer.id}/queryables",
        "type": "object",
        "title": layer.title,
        "properties": {
            name: column.schema() for name, column in layer.columns.items() if column.queryable
        },
        "additionalProperties": False,
    }
    return Response(json.dumps(found, ensure_ascii=False), media_type=SCHEMA_JSON)


@router.get(
    "/collections/{collection}/items",
    responses=answers(ogc_schemas.FEATURES, GEOJSON, 404, 503),
    openapi_extra={**ANY, "parameters": items_parameters(DEFAULT, MOST)},
    response_class=Response,
    dependencies=[TAKES_JSON],
)
def items(layer: Found, request: Request) -> Response:
    """A page of its features."""
    query = query_of(request, layer)
    with turn():
        rows = layer.rows(query.known, query.part, after=query.after, most=query.limit + 1)
        matched = layer.count(query.known, query.part)
    shown = rows[: query.limit]
    head = {
        "type": "FeatureCollection",
        "timeStamp": datetime.now(UTC).isoformat(),
        "numberReturned": len(shown),
        "links": _page_links(request, layer, query, shown, more=len(rows) > len(shown)),
    }
    if matched is not None:
        head["numberMatched"] = matched
    return StreamingResponse(
        _written(head, shown, layer, query.crs),
        media_type=GEOJSON,
        headers={"Content-Crs": f"<{query.crs}>"},
    )


@router.get(
    "/collections/{collection}/items/{feature}",
    responses=answers(ogc_schemas.FEATURE, GEOJSON, 404, 503),
    openapi_extra={
        **ANY,
        "parameters": [parameter("crs", {"type": "string", "format": "uri"}, "Else CRS84.")],
    },
    response_class=Response,
    dependencies=[TAKES_JSON],
)
def item(layer: Found, request: Request, feature: Annotated[str, Path(max_length=200)]) -> Response:
    """One feature."""
    crs = crs_of(layer, "crs", only(request, ("crs", "f")).get("crs"))
    with turn():
        row = layer.row(layer.latest(), feature)
    if row is None:
        raise HTTPException(404, f"{layer.id} has no feature {feature[:60]}.")
    place = f"{base(request)}/ogc/collections/{layer.id}"
    links = [
        link("self", f"{place}/items/{quote(row.id, safe='')}", GEOJSON),
        link("collection", place),
    ]
    (shape,) = presented([row.geometry], layer.store.crs, crs)
    body = _feature(row, shapely.to_geojson(shape), links)
    return Response(body, media_type=GEOJSON, headers={"Content-Crs": f"<{crs}>"})


def described(layer: Layer, root: str) -> dict[str, Any]:
    """A collection as ``/collections`` tells of it."""
    place = f"{root}/{layer.id}"
    since, until = layer.interval
    extent: dict[str, Any] = {
        "temporal": {"interval": [[since.isoformat(), until.isoformat() if until else None]]}
    }
    if layer.world is not None:
        extent["spatial"] = {"bbox": [[round(degree, 7) for degree in layer.world]]}
    found = {
        "id": layer.id,
        "title": layer.title,
        "description": layer.description,
        "itemType": "feature",
        "extent": extent,
        "crs": offered(layer.store.crs),
        "links": [
            link("self", place),
            link("items", f"{place}/items", GEOJSON, layer.title),
            link(QUERYABLES_REL, f"{place}/queryables", SCHEMA_JSON),
        ],
    }
    storage = uri_of(layer.store.crs)
    return found | ({"storageCrs": storage} if storage else {})


def _page_links(
    request: Request, layer: Layer, query: Query, shown: Sequence[Row], *, more: bool
) -> list[dict[str, str]]:
    """This page, the next one of the same state, the collection."""
    place = f"{base(request)}/ogc/collections/{layer.id}"
    given = list(request.query_params.multi_items())
    asked = f"?{urlencode(given)}" if given else ""
    found = [link("self", f"{place}/items{asked}", GEOJSON), link("collection", place)]
    if more:
        kept = [(k, v) for k, v in given if k not in {"as-of", "after"}]
        kept += [("as-of", query.known.isoformat()), ("after", json.dumps(shown[-1].key))]
        found.append(link("next", f"{place}/items?{urlencode(kept)}", GEOJSON))
    return found


def _written(head: dict[str, Any], rows: Sequence[Row], layer: Layer, crs: str) -> Iterator[bytes]:
    """A feature collection, a few features at a time."""
    yield json.dumps(head, ensure_ascii=False)[:-1].encode() + b', "features": ['
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        shapes = presented([row.geometry for row in part], layer.store.crs, crs)
        texts = shapely.to_geojson(shapes)
        lines = [_feature(row, text) for row, text in zip(part, texts, strict=True)]
        yield (",\n" if start else "").encode() + ",\n".join(lines).encode()
    yield b"]}"


def _feature(row: Row, geometry: str, links: Sequence[dict[str, str]] = ()) -> str:
    head: dict[str, Any] = {"type": "Feature", "id": row.id, "properties": row.properties}
    if links:
        head["links"] = list(links)
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "geometry": {geometry}}}'
