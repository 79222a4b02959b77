"""HTTP: a STAC API of the images behind the maps: core, collections, item search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Request
from fastapi.responses import JSONResponse, Response

from daemon.config import Scope
from daemon.ogc import schemas as ogc_schemas
from daemon.ogc.addresses import ANY, answers
from daemon.ogc.query import JSON, Plain, accepts, only, wrong
from daemon.problems import problems
from daemon.served import Behind, Served, base
from daemon.stac import schemas as stac_schemas
from daemon.stac.items import GEOJSON, STAC_VERSION, collections, item, link
from daemon.stac.query import ITEMS, SEARCH, Asked, asked_of, of_store, split
from daemon.tokens import Caller, Gate, needs
from schemas.policy import Sensor
from updater.image_search import Wanted, search
from updater.reads import EPOCH, ImageRecord
from updater.store import Store

CLASSES: Final = (
    *(
        f"https://api.stacspec.org/v1.0.0/{name}"
        for name in ("core", "collections", "ogcapi-features", "item-search")
    ),
    *(
        f"http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/{name}"
        for name in ("core", "geojson")
    ),
)
READ: Final = needs(Scope.READ, counted=False)
HEADERS: Final = {"Vary": "Authorization"}
"""A token changes what is seen."""
router = APIRouter(
    prefix="/stac",
    tags=["stac"],
    dependencies=[Depends(READ), accepts(*JSON)],
    responses=problems(422),
    default_response_class=JSONResponse,
)


def may_see_files(request: Request, caller: Annotated[Caller, Depends(READ)]) -> bool:
    """FastAPI dependency: the caller's token may read."""
    gate: Gate = request.app.state.gate
    name = caller.name
    return name is not None and bool({Scope.READ, Scope.ADMIN} & set(gate.tokens[name].scopes))


Files = Annotated[bool, Depends(may_see_files)]


@router.get("", responses=answers(stac_schemas.CATALOG), openapi_extra=ANY)
@router.get("/", include_in_schema=False)
def catalogue(behind: Behind, request: Request, _: Plain) -> dict[str, Any]:
    """What is here."""
    root = f"{base(request)}/stac"
    found = [
        link("child", f"{root}/collections/{c['id']}", title=c["title"])
        for c in collections(behind.stores, root)
    ]
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": "millesimed",
        "title": "millesimed",
        "description": "Les images de référence et les acquisitions derrière la carte.",
        "conformsTo": list(CLASSES),
        "links": [
            link("self", root),
            link("root", root),
            link("conformance", f"{root}/conformance"),
            link("data", f"{root}/collections"),
            link("search", f"{root}/search", GEOJSON, method="GET"),
            link("search", f"{root}/search", GEOJSON, method="POST"),
            link(
                *("service-desc", f"{base(request)}/openapi.json"),
                "application/vnd.oai.openapi+json;version=3.1",
            ),
            *found,
        ],
    }


@router.get("/conformance", responses=answers(ogc_schemas.CONFORMANCE), openapi_extra=ANY)
def conformance(_: Plain) -> dict[str, Any]:
    """Which parts of the standards hold."""
    return {"conformsTo": list(CLASSES)}


@router.get("/collections", responses=answers(stac_schemas.COLLECTIONS), openapi_extra=ANY)
def every_collection(behind: Behind, request: Request, _: Plain) -> dict[str, Any]:
    """A collection for each sensor."""
    root = f"{base(request)}/stac"
    links = [link("self", f"{root}/collections"), link("root", root)]
    return {"collections": collections(behind.stores, root), "links": links}


@router.get(
    "/collections/{collection}",
    responses=answers(stac_schemas.COLLECTION, "application/json", 404),
    openapi_extra=ANY,
)
def one_collection(behind: Behind, request: Request, collection: str, _: Plain) -> dict[str, Any]:
    """One sensor."""
    return _collection(behind, f"{base(request)}/stac", collection)


@router.get(
    "/collections/{collection}/items",
    responses=answers(stac_schemas.ITEMS, GEOJSON, 404),
    openapi_extra={**ANY, "parameters": stac_schemas.LIMITED},
    response_class=Response,
)
def of_collection(behind: Behind, request: Request, collection: str, files: Files) -> Response:
    """Its items, newest first."""
    root = f"{base(request)}/stac"
    _collection(behind, root, collection)
    given: dict[str, Any] = only(request, ITEMS)
    names = given.get("collections")
    if names and collection not in names.split(","):
        raise wrong("collections", f"this address has the items of {collection} only.")
    asked = asked_of({**split(given), "collections": [collection]})
    return _page(behind, request, asked, files, given, root)


@router.get(
    "/collections/{collection}/items/{item_id}",
    responses=answers(stac_schemas.ITEM, GEOJSON, 404),
    openapi_extra=ANY,
    response_class=Response,
)
def one_item(
    behind: Behind,
    request: Request,
    collection: str,
    item_id: Annotated[str, Path(max_length=256)],
    files: Files,
    _: Plain,
) -> Response:
    """One item."""
    root = f"{base(request)}/stac"
    _collection(behind, root, collection)
    wanted = Wanted(sensors=[Sensor(collection)], items=[item_id])
    for store in behind.stores:
        for image in search(store, wanted, most=1):
            return _json(item(store, image, root, with_files=files))
    raise HTTPException(404, f"{collection} has no item {item_id[:80]}.")


@router.get(
    "/search",
    responses=answers(stac_schemas.ITEMS, GEOJSON),
    openapi_extra={**ANY, "parameters": stac_schemas.SEARCHED},
    response_class=Response,
)
def get_search(behind: Behind, request: Request, files: Files) -> Response:
    """Items by place, time, id and sensor, newest first."""
    given: dict[str, Any] = only(request, (*SEARCH, "f"))
    return _page(behind, request, asked_of(split(given)), files, given, f"{base(request)}/stac")


@router.post(
    "/search",
    responses=answers(stac_schemas.ITEMS, GEOJSON, 422),
    openapi_extra=ANY,
    response_class=Response,
)
def post_search(
    behind: Behind, request: Request, files: Files, body: Annotated[dict[str, Any], Body()]
) -> Response:
    """The same; what is asked for stands in the body."""
    for name in body:
        if name not in SEARCH:
            there = ", ".join(SEARCH)
            raise HTTPException(400, f"There is no member {name[:40]!r} here; there are {there}.")
    return _page(behind, request, asked_of(body), files, body, f"{base(request)}/stac")


def _collection(behind: Served, root: str, name: str) -> dict[str, Any]:
    for found in collections(behind.stores, root):
        if found["id"] == name:
            return found
    raise HTTPException(404, f"There is no collection {name[:60]}; /stac/collections lists them.")


def _page(
    behind: Served,
    request: Request,
    asked: Asked,
    files: bool,
    given: Mapping[str, Any],
    root: str,
) -> Response:
    found: dict[str, tuple[Store, ImageRecord]] = {}
    for store in behind.stores:
        for image in of_store(store, asked):
            found.setdefault(image.item, (store, image))  # on the border of two départements
    rows = sorted(found.values(), key=lambda pair: pair[1].item)
    rows.sort(key=lambda pair: pair[1].acquired, reverse=True)
    shown = rows[: asked.limit]
    here = f"{base(request)}{request.url.path}"
    query = urlencode(list(request.query_params.multi_items()))
    links = [link("self", f"{here}?{query}" if query else here, GEOJSON), link("root", root)]
    if len(rows) > len(shown):
        last = shown[-1][1]
        microseconds = (last.acquired - EPOCH) // timedelta(microseconds=1)
        more = {**given, "token": json.dumps([microseconds, last.item])}
        if request.method == "POST":
            links.append(link("next", here, GEOJSON, method="POST", body=more))
        else:
            links.append(link("next", f"{here}?{urlencode(more)}", GEOJSON, method="GET"))
    features = [item(store, image, root, with_files=files) for store, image in shown]
    return _json(
        {
            "type": "FeatureCollection",
            "features": features,
            "links": links,
            "numberReturned": len(features),
        }
    )


def _json(document: Mapping[str, Any]) -> Response:
    body = json.dumps(document, ensure_ascii=False)
    return Response(body, media_type=GEOJSON, headers=HEADERS)
