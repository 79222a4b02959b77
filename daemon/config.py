"""Configuration: one TOML file, the environment over it, flags over both.

``millesimed.toml`` in the working folder is read when no ``--config`` is given. Environment
variables start with ``MILLESIMED_``, nested keys are joined by two underscores
(``MILLESIMED_KAFKA__SERVERS``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from daemon.acquire.settings import AcquireSettings
from daemon.publish.settings import PublicationSettings
from schemas.envelope import (
    TOPIC_ACQUISITIONS,
    TOPIC_ALERTS,
    TOPIC_CHANGES,
    TOPIC_DEAD_LETTERS,
    TOPIC_JUDGEMENTS,
    TOPIC_TASKS,
)
from schemas.errors import UsageError

DEFAULT_FILE = Path("millesimed.toml")


class KafkaSettings(BaseModel):
    """How to reach Kafka. ``options`` passes any librdkafka setting through (TLS, SASL)."""

    model_config = ConfigDict(extra="forbid")

    servers: str = Field(description="Bootstrap servers, host:port, comma-separated.")
    group: str = Field(default="millesimed", description="Consumer group.")
    acquisitions: str = Field(default=TOPIC_ACQUISITIONS, description="Topic to read.")
    changes: str = Field(default=TOPIC_CHANGES, description="Topic of changes.")
    alerts: str = Field(default=TOPIC_ALERTS, description="Topic of alerts.")
    dead_letters: str = Field(default=TOPIC_DEAD_LETTERS, description="Topic of dead letters.")
    tasks: str = Field(default=TOPIC_TASKS, description="Topic from update to detect processes.")
    judgements: str = Field(default=TOPIC_JUDGEMENTS, description="Topic of their answers.")
    catch_all: bool = Field(
        default=True,
        description="Of several update processes one only: dead letters of what is nobody's.",
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        repr=False,  # it may hold a password
        description="Further librdkafka settings, as in security.protocol.",
    )


class SmtpSettings(BaseModel):
    """How mail leaves. The password is best given as ``MILLESIMED_SMTP__PASSWORD``."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(description="Mail server.")
    port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is protected."
    )
    user: str | None = Field(default=None, description="Login, where the server wants one.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    sender: str = Field(description="Address mail comes from.")


class Scope(StrEnum):
    """What a token allows over HTTP."""

    READ = "read"
    SUBSCRIBE = "subscribe"
    REVIEW = "review"
    ADMIN = "admin"
    """All of the others."""


class TokenSettings(BaseModel):
    """One bearer token, kept as its SHA-256 (``millesimed token NAME`` makes both)."""

    model_config = ConfigDict(extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the token, hexadecimal.")
    scopes: list[Scope] = Field(min_length=1, description="What it allows.")
    territories: list[str] = Field(
        default_factory=list,
        description="Codes of territories it may correct and decide on; none allows every one.",
    )


class HttpSettings(BaseModel):
    """The HTTP server: health, metrics, feeds, subscriptions."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(default=True, description="Serve HTTP while running.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8460, ge=0, le=65535, description="Port; 0 takes a free one.")
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="Address the service is reached at from outside; links in messages need it.",
    )
    tokens: dict[str, TokenSettings] = Field(
        default_factory=dict,
        description="Bearer tokens by name; without any nothing may be written.",
    )
    public_read: bool = Field(
        default=True,
        description="Alerts and feeds are read without a token; false wants one with scope read.",
    )


class ExportSettings(BaseModel):
    """Files people ask the service for."""

    model_config = ConfigDict(extra="forbid")

    folder: Path | None = Field(
        default=None, description="Where they are kept; else `exports` by the store."
    )
    keep_days: float = Field(default=7.0, gt=0, description="Age from which a file is removed.")
    keep_bytes: int = Field(
        default=20_000_000_000, ge=1, description="All files together; the oldest go first."
    )
    at_once: int = Field(default=1, ge=1, le=4, description="Files written at the same time.")
    queue: int = Field(default=20, ge=1, description="Jobs that may wait.")
    spare_bytes: int = Field(
        default=1_000_000_000,
        ge=0,
        description="Room an export leaves on the disk, which the store may share.",
    )


class Settings(BaseSettings):
    """Everything a running service needs to know."""

    model_config = SettingsConfigDict(
        env_prefix="MILLESIMED_", env_nested_delimiter="__", extra="forbid"
    )

    db: list[Path] = Field(default_factory=list, description="Stores, one file per département.")
    inbox: Path | None = Field(default=None, description="Folder of acquisition events (files).")
    outbox: Path | None = Field(default=None, description="Folder for published events and feed.")
    kafka: KafkaSettings | None = Field(default=None, description="Kafka; none means files only.")
    smtp: SmtpSettings | None = Field(default=None, description="Mail server; none sends no mail.")
    http: HttpSettings = Field(default_factory=HttpSettings)
    exports: ExportSettings = Field(
        default_factory=ExportSettings, description="Files people ask for, and how long they stay."
    )
    webhook_networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="Networks webhooks may call though they are not public, as in 10.1.0.0/16.",
    )
    acquire: list[AcquireSettings] = Field(
        default_factory=list, description="Where images come from, one table each."
    )
    acquire_folder: Path | None = Field(
        default=None,
        description="Folder images are fetched into; else `acquired` by the store or inbox.",
    )
    acquire_networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="Networks images may be fetched from though they are not public.",
    )
    publication: PublicationSettings | None = Field(
        default=None, description="Where `millesimed publish` hands over maps; none publishes none."
    )
    digest_hour: int = Field(default=6, ge=0, le=23, description="Hour of digests, UTC.")
    asset_roots: list[Path] = Field(
        default_factory=list,
        description="Folders the images of events may lie in; none allows any local file.",
    )
    detector: str | None = Field(default=None, description="Detector; none chooses by the map.")
    weights: Path | None = Field(
        default=None, description="Weight file of the siamese detector; none takes the package's."
    )
    sentinel2: Literal["series", "pair"] = Field(
        default="series",
        description="Sentinel-2 against the history of its ground, or against a reference image.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where torch runs.")
    seed: int = Field(default=0, ge=0, description="Seed of everything that samples.")
    tile_size: int = Field(default=512, ge=64, le=8192, description="Tile side, pixels.")
    batch: int = Field(default=4, ge=1, le=256, description="Tiles judged at once.")
    exchange: Path | None = Field(
        default=None,
        description="Folder update and detect processes share; else `exchange` by the store.",
    )
    asked_at_once: int = Field(
        default=64, ge=1, description="Acquisitions asked for and not judged, at most (update)."
    )
    ask_again_seconds: float = Field(
        default=900.0, ge=0, description="Older tasks are given out again at the start (update)."
    )
    retry_seconds: float = Field(default=2.0, gt=0, description="Between two outbox rounds.")
    store_memory: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]*(\.[0-9]+)?(MB|GB|MiB|GiB)$",
        description="Memory the database of each open store may take, as in 512MB; none allows "
        "DuckDB 80 % of the machine's. Blocks of the file stay in it until it is full.",
    )
    checkpoint_seconds: float = Field(default=300.0, gt=0, description="Between checkpoints.")
    backup_folder: Path | None = Field(
        default=None, description="Where the running service writes backups; none makes none."
    )
    backup_hours: float = Field(default=24.0, gt=0, description="Between two backups of a store.")
    backups_kept: int = Field(default=7, ge=1, description="Backups of a store that are kept.")
    outbox_days: float = Field(
        default=30.0, ge=0, description="Age from which `compact` prunes what everyone has had."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="Where traces go over OTLP/HTTP, as in http://localhost:4318; else what "
        "OTEL_EXPORTER_OTLP_ENDPOINT says; without either none are made.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment overrides the file, which arrives as initial values."""
        return env_settings, init_settings

    def outbox_folder(self) -> Path:
        """Where published events go: the outbox set, or one beside the first store."""
        if self.outbox is not None:
            return self.outbox
        return (self.db[0].parent if self.db else Path()) / "outbox"

    def inbox_folder(self) -> Path:
        """Where events are dropped: the inbox set, or one beside the first store."""
        if self.inbox is not None:
            return self.inbox
        return (self.db[0].parent if self.db else Path()) / "inbox"

    def exports_folder(self) -> Path:
        """Where files people ask for are kept: the folder set, or one beside the first store."""
        if self.exports.folder is not None:
            return self.exports.folder
        return (self.db[0].parent if self.db else Path()) / "exports"

    def acquired_folder(self) -> Path:
        """Where images are fetched to: the folder set, or one beside the first store, or, on a
        machine without any, beside the inbox."""
        if self.acquire_folder is not None:
            return self.acquire_folder
        beside = self.db[0] if self.db else self.inbox or Path("inbox")
        return beside.parent / "acquired"

    def exchange_folder(self) -> Path:
        """What update and detect processes share: the folder set, or one beside the first store.

        Raises:
            UsageError: neither is known.
        """
        if self.exchange is None and not self.db:
            raise UsageError(
                "No exchange folder is configured; set `exchange` to the one the update process "
                "has."
            )
        return self.exchange or self.db[0].parent / "exchange"

    @field_validator("acquire")
    @classmethod
    def _names_differ(cls, sources: list[AcquireSettings]) -> list[AcquireSettings]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]}; each wants a name of its own")
        return sources


def load(path: Path | None = None, **flags: Any) -> Settings:  # noqa: ANN401 - any setting
    """Settings from the file, the environment and the flags that are not None.

    Raises:
        UsageError: a missing or malformed file, an unknown key, a bad value.
    """
    values: dict[str, Any] = {}
    source = path or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if source is not None:
        values = _read(source)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        origin = f" in {source}" if source else ""
        raise UsageError(f"Configuration{origin}: {where}: {problem['msg']}.") from None
    except SettingsError as error:  # a variable of the environment that is to hold JSON
        found = re.search(r'field "(\w+)"', str(error))
        name = f"MILLESIMED_{found[1].upper()}" if found else "A MILLESIMED_ variable"
        raise UsageError(
            f"Configuration: {name} in the environment is no JSON; correct it, or set its parts "
            "one by one, as in MILLESIMED_KAFKA__SERVERS."
        ) from None
    given = {name: value for name, value in flags.items() if value is not None}
    return settings.model_copy(update=given)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(f"There is no configuration file {path}; check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file ({error}); correct it.") from None
    folder = path.parent
    if isinstance(values.get("db"), str):
        values["db"] = [values["db"]]
    _place(
        values,
        ("inbox", "outbox", "weights", "backup_folder", "acquire_folder", "exchange"),
        folder,
    )
    _place(values.get("exports"), ("folder",), folder)
    _place(values.get("publication"), ("folder", "token_file"), folder)
    sources = values.get("acquire")
    for source in sources if isinstance(sources, list) else []:
        _place(source, ("folder", "area"), folder)
    for key in ("db", "asset_roots"):
        if isinstance(values.get(key), list):
            values[key] = [folder / str(path) for path in values[key]]
    return values


def _place(table: object, keys: Sequence[str], folder: Path) -> None:
    """Paths of a table are as seen from the file's own folder."""
    if isinstance(table, dict):
        table |= {key: folder / str(table[key]) for key in keys if key in table}
