"""One look at a source as the service takes it, and what came of it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.acquire.round import Tally
from daemon.acquire.settings import AcquireSettings
from daemon.acquire.sources import acquirer, state_file
from daemon.acquire.state import State
from daemon.config import Settings
from schemas.acquisition import AcquisitionItem
from schemas.envelope import parse_acquisition
from tests.sites import LOOPBACK

NOW = datetime(2024, 7, 1, 6, tzinfo=UTC)


def settings(folder: Path, source: AcquireSettings, **more: Any) -> Settings:
    """A configuration of one source that may call this machine."""
    return Settings(
        inbox=folder / "inbox",
        acquire=[source],
        acquire_folder=folder / "acquired",
        acquire_networks=LOOPBACK,
        **more,
    )


def look(
    folder: Path, source: AcquireSettings, *, now: datetime = NOW, ground: Any = None, **more: Any
) -> Tally:
    """One look."""
    where = settings(folder, source)
    made = acquirer(where, source, ground=lambda _: ground, now=lambda: now)
    with closing(made) as one:
        return one.once(**more)


def state(folder: Path, source: AcquireSettings) -> State:
    return state_file(settings(folder, source), source).load()


def inbox(folder: Path) -> dict[str, AcquisitionItem]:
    """Events in the inbox by id, each read as the service reads it."""
    files = sorted((folder / "inbox").glob("*.json")) if (folder / "inbox").is_dir() else []
    events = [parse_acquisition(path.read_bytes(), {}) for path in files]
    return {event.id: event.item for event in events}


def image_of(item: AcquisitionItem) -> Path:
    """The local file of an event's image."""
    from daemon.locate import asset_path

    return asset_path(item.image)
