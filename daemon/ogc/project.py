"""HTTP: a QGIS project on the collections."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from daemon.config import Scope
from daemon.ogc.addresses import ANY, answers
from daemon.ogc.catalogue import layers
from daemon.ogc.qgis import MEDIA, project
from daemon.ogc.query import Plain
from daemon.ogc.schemas import TEXT
from daemon.problems import problems
from daemon.served import Behind, base
from daemon.tokens import needs

router = APIRouter(
    prefix="/ogc",
    tags=["ogc"],
    dependencies=[Depends(needs(Scope.READ, counted=False))],
    responses=problems(422),
)


@router.get(
    "/project.qgs",
    responses=answers(TEXT, MEDIA),
    openapi_extra=ANY,
    response_class=Response,
)
def qgis_project(behind: Behind, request: Request, _: Plain) -> Response:
    """Every collection as a layer of a QGIS project, in the official colours."""
    text = project(layers(behind.stores), base(request))
    headers = {"Content-Disposition": 'attachment; filename="ocsge.qgs"'}
    return Response(text, media_type=MEDIA, headers=headers)
