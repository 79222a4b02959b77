"""What travels between the roles: an image to be judged, and what a detector says of it.

Both messages are small. What a detector needs and what it finds lie in files of the exchange
folder; a message names the file and its checksum (a claim check).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas.acquisition import Departement

TASK_PATTERN: Final = r"^TK[0-9A-F]{20}$"
FILE_PATTERN: Final = r"^TK[0-9A-F]{20}\.[0-9a-f]{16}\.(context|judgement)\.arrow$"
"""A plain name: a message can point nowhere but into the exchange folder."""
CONTEXT_MISSING: Final = "context-missing"
"""The reason of a judgement that says nothing of the image: its context was not there, or was
another one than announced. The task is given out anew."""

TaskId = Annotated[str, Field(pattern=TASK_PATTERN)]


def task_id(departement: str, event: str) -> str:
    """The task of one event on one map, always the same."""
    digest = hashlib.sha256(f"{departement}|{event}".encode()).hexdigest()
    return f"TK{digest[:20].upper()}"


class Claim(BaseModel):
    """A file of the exchange folder and what it must hold."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(pattern=FILE_PATTERN, description="Name in the exchange folder.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal.")


class Task(BaseModel):
    """An acquisition that is to be judged against one map."""

    model_config = ConfigDict(frozen=True)

    task: TaskId
    attempt: int = Field(ge=1, description="How often it was given out.")
    event: str = Field(description="Key of the acquisition event: its source, #, its id.")
    item: str = Field(description="Id of the STAC Item.")
    departement: Departement
    context: Claim = Field(description="Item, references, map and outlines of alerts.")
    asked: AwareDatetime


class Judgement(BaseModel):
    """What a detector says of a task: a file with regions, or why there is none."""

    model_config = ConfigDict(frozen=True)

    task: TaskId
    attempt: int = Field(ge=1)
    event: str = Field(description="Key of the acquisition event.")
    departement: Departement
    result: Claim | None = Field(default=None, description="What was found; null if it failed.")
    reason: str | None = Field(default=None, description="Slug of the error, where it failed.")
    message: str | None = Field(default=None, description="One sentence: what was wrong.")
    judged: AwareDatetime

    @model_validator(mode="after")
    def _found_or_failed(self) -> Judgement:
        if (self.result is None) != (self.reason is not None and self.message is not None):
            raise ValueError("a judgement has a result, or a reason and a message")
        return self
