"""HTTP: backups of the stores a running service holds."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException
from pydantic import AwareDatetime, BaseModel, Field

from daemon.config import Scope
from daemon.problems import problems
from daemon.served import Behind, Departement
from daemon.tokens import needs

router = APIRouter(tags=["backups"])


class Backup(BaseModel):
    """A backup just made, verified."""

    departement: str
    file: str = Field(description="Its name in the service's backup folder.")
    bytes: int
    polygons: int
    newest: AwareDatetime | None = Field(description="When the last event in it was committed.")


class Made(BaseModel):
    """Backups just made."""

    backups: list[Backup]


@router.post(
    "/backup",
    status_code=201,
    dependencies=[Depends(needs(Scope.ADMIN))],
    responses=problems(401, 403, 409, 413, 422, 429),
)
def backup(behind: Behind, departement: Departement = None) -> Made:
    """Back a store up, or all, while events go on being committed."""
    if behind.backups is None:
        raise HTTPException(409, "This service has no backup folder; set backup_folder.")
    made = []
    for store in behind.some(departement):
        copied = behind.backups.make(store)
        made.append(
            Backup(
                departement=store.territory,
                file=copied.path.name,
                bytes=copied.size,
                polygons=copied.verdict.polygons,
                newest=copied.newest,
            )
        )
    return Made(backups=made)
