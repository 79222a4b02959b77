"""HTTP: files of the map, asked for now and fetched when they are written.

Whoever knows a job's id may look at it and fetch its file: ids cannot be guessed, and only an admin
lists them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from fastapi.responses import FileResponse
from pydantic import AwareDatetime, BaseModel, Field

from daemon.config import Scope
from daemon.jobs.jobs import RETRY_SECONDS, Exports, Finished, QueueFull
from daemon.jobs.records import Job, JobState
from daemon.problems import problems
from daemon.served import Behind, Served, base
from daemon.tokens import needs
from schemas.errors import UsageError
from schemas.export import ExportFormat, ExportRequest

MEDIA: Final = {
    ExportFormat.GPKG: "application/geopackage+sqlite3",
    ExportFormat.SHP: "application/zip",
    ExportFormat.FGB: "application/vnd.flatgeobuf",
    ExportFormat.GEOPARQUET: "application/vnd.apache.parquet",
    ExportFormat.COG: "image/tiff",
    ExportFormat.GEOTIFF: "image/tiff",
}
POLL_SECONDS: Final = 2
"""How soon to ask again for a job that is under way."""
OPEN: Final[dict[str, Any]] = {"security": [{}]}
READ: Final = Depends(needs(Scope.READ))
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="As the answer to POST says.")]
router = APIRouter(prefix="/exports", tags=["exports"])
_TEXT: Final = {"schema": {"type": "string"}}
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file.",
        "content": {media: {} for media in sorted(set(MEDIA.values()))},
        "headers": {"ETag": _TEXT, "Content-Disposition": _TEXT, "Accept-Ranges": _TEXT},
    },
    206: {
        "description": "Parts of it (Range).",
        "content": {media: {} for media in sorted({*MEDIA.values(), "multipart/byteranges"})},
        "headers": {"ETag": _TEXT},
    },
    304: {"description": "The reader has it already (If-None-Match)."},
    416: {"description": "The file has no such part."},
}


class Links(BaseModel):
    """Addresses of a job."""

    self: str
    file: str | None = Field(default=None, description="Once it is done.")


class Export(BaseModel):
    """A job."""

    id: str
    state: JobState
    progress: float = Field(ge=0, le=1, description="Of the rows, those that are written.")
    request: ExportRequest
    departement: str
    created: AwareDatetime
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    expires: AwareDatetime | None = Field(default=None, description="When its file is removed.")
    file: str | None = Field(default=None, description="The file's name.")
    rows: int | None = Field(default=None, description="Of its first layer; pixels of a raster.")
    bytes: int | None = None
    sha256: str | None = None
    error: str | None = Field(default=None, description="Why it failed.")
    links: Links


class Listed(BaseModel):
    """Every job, newest first."""

    exports: list[Export]


def _jobs(behind: Served) -> Exports:
    if behind.exports is None:
        raise HTTPException(409, "This service writes no exports; use `millesimed export`.")
    return behind.exports


def _shown(request: Request, job: Job) -> Export:
    own = f"{base(request)}/exports/{job.id}"
    done = job.state is JobState.DONE
    return Export(
        **job.model_dump(include=Export.model_fields.keys() - {"request", "rows"}),
        request=job.request,
        rows=job.rows if job.file else None,
        links=Links(self=own, file=f"{own}/file" if done else None),
    )


@router.post(
    "",
    status_code=202,
    dependencies=[READ],
    responses={
        202: {"headers": {"Location": {"description": "Where to look.", **_TEXT}}},
        **problems(400, 401, 404, 409, 413, 422, 429, 503),
    },
    openapi_extra=OPEN,
)
def ask(behind: Behind, asked: ExportRequest, request: Request, response: Response) -> Export:
    """Ask for a file: a territory's map, differential, corrective patch, changelog or raster. The
    same of an unchanged map is answered with the job that is done."""
    try:
        job = _jobs(behind).ask(asked)
    except QueueFull as error:
        raise HTTPException(503, str(error), {"Retry-After": str(RETRY_SECONDS)}) from None
    except UsageError as error:
        raise HTTPException(422, str(error)) from None
    found = _shown(request, job)
    response.headers["Location"] = found.links.self
    return found


@router.get("", dependencies=[Depends(needs(Scope.ADMIN))], responses=problems(401, 409, 422, 429))
def listed(behind: Behind, request: Request) -> Listed:
    """Every job the service knows."""
    return Listed(exports=[_shown(request, job) for job in _jobs(behind).all()])


@router.get(
    "/{job}",
    dependencies=[Depends(needs(Scope.READ, counted=False))],  # a page polls it
    responses=problems(401, 404, 409, 422),
    openapi_extra=OPEN,
)
def look(behind: Behind, job: JobId, request: Request, response: Response) -> Export:
    """How far a job is."""
    found = _jobs(behind).find(job)
    if found.state in {JobState.QUEUED, JobState.RUNNING}:
        response.headers["Retry-After"] = str(POLL_SECONDS)
    response.headers["Cache-Control"] = "no-store"
    return _shown(request, found)


@router.delete(
    "/{job}", dependencies=[READ], responses=problems(401, 404, 409, 422, 429), openapi_extra=OPEN
)
def cancel(behind: Behind, job: JobId, request: Request) -> Export:
    """Give a job up that is not done."""
    try:
        return _shown(request, _jobs(behind).cancel(job))
    except Finished as error:
        raise HTTPException(409, str(error)) from None


@router.get(
    "/{job}/file",
    dependencies=[READ],
    response_class=FileResponse,
    responses={**_FILE, **problems(401, 404, 409, 410, 422, 429)},
    openapi_extra=OPEN,
)
def file(behind: Behind, job: JobId, request: Request) -> Response:
    """The file of a job, whole or in parts."""
    jobs = _jobs(behind)
    found = jobs.find(job)
    if found.state is JobState.EXPIRED:
        raise HTTPException(410, "This file is no longer kept; ask for it again.")
    if found.state is not JobState.DONE:
        raise HTTPException(
            409, f"This export is {found.state}; its file is there once it is done."
        )
    headers = {"ETag": f'"{found.sha256}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(
        jobs.path(found),
        media_type=MEDIA[found.request.format],
        filename=found.file,
        headers=headers | {"X-Content-Type-Options": "nosniff"},
    )
