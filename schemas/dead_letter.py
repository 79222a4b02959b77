"""The dead letter: an event that could not have its effect, kept whole with the reason."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Origin(BaseModel):
    """Where the bytes came from."""

    model_config = ConfigDict(frozen=True)

    source: Literal["inbox", "kafka"]
    topic: str = Field(description="Kafka topic, or the inbox folder's name.")
    partition: int = 0
    offset: int | None = Field(default=None, description="Kafka offset; null for a file.")
    path: str | None = Field(default=None, description="File name in the inbox.")


class DeadLetter(BaseModel):
    """One event in the dead letters."""

    model_config = ConfigDict(frozen=True)

    id: str
    event: str | None = Field(description="CloudEvents id where one could be read.")
    origin: Origin
    reason: str = Field(description="Slug of the error class.")
    message: str = Field(description="One sentence: what was wrong and what to do.")
    attempts: int = Field(ge=1)
    received: AwareDatetime
    headers: dict[str, str] = Field(default_factory=dict)
    payload_base64: str = Field(description="The original bytes.")
    truncated: bool = Field(
        default=False,
        description="True when the bytes were too many to keep here; the file stays aside.",
    )
