"""What the stores of a service that does not run say of it; they are only read."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.config import Settings
from daemon.status import NOT_RUNNING, Status
from schemas.errors import MillesimedError
from updater import outbox, progress
from updater.review import dead_letters
from updater.store import Store, log_bytes


def read(settings: Settings, trouble: str) -> Status:
    """The status of stores nobody works on; ``trouble``: why they are asked themselves."""
    found = Status(taken=datetime.now(UTC), url=None, state=NOT_RUNNING, trouble=trouble)
    events, reasons = Counter[str](), Counter[str]()
    waiting: dict[str, dict[str, Any]] = {}
    heard: list[datetime] = []
    for path in settings.db:
        row = _file(path)
        found.stores.append(row)
        if row["trouble"] is not None:
            continue
        try:
            with Store.open(path, read_only=True) as store:
                row |= {"store": store.territory, "map": progress.newest_image(store)}
                _count(store, events, reasons, heard)
                _backlog(store, _channels(settings), waiting)
        except MillesimedError as error:
            row["trouble"] = str(error)
    found.events = {**events, "last": max(heard, default=None)}
    found.dead_letters = dict(reasons)
    found.outbox = list(waiting.values())
    if settings.kafka is None or settings.inbox is not None:
        folder = settings.inbox_folder()
        found.lag = {"inbox": len(list(folder.glob("*.json")))} if folder.is_dir() else {}
    return found


def _file(path: Path) -> dict[str, Any]:
    """A store as the file system knows it; one with a log is not opened, for that would mend it."""
    row: dict[str, Any] = {"store": path.name, "trouble": None}
    try:
        file = path.stat()
        size = log_bytes(path)
        row |= {
            "bytes": file.st_size,
            "log_bytes": size,
            "free_bytes": shutil.disk_usage(path.parent).free,
            "checkpoint": datetime.fromtimestamp(file.st_mtime, UTC),
        }
    except OSError as error:
        row["trouble"] = f"{path} cannot be read ({error.strerror}); check `db`."
        return row
    if size:
        row["trouble"] = (
            f"{path.name} has a log that is not folded in: a process holds it, or was killed; the "
            "next start mends it."
        )
    return row


def _channels(settings: Settings) -> list[str]:
    return ["folder", *(["kafka"] if settings.kafka is not None else [])]


def _count(
    store: Store, events: Counter[str], reasons: Counter[str], heard: list[datetime]
) -> None:
    (processed,) = store.execute("SELECT count(*) FROM events").fetchone() or (0,)
    events["processed"] += int(processed)
    for letter in dead_letters(store):
        events["dead-lettered"] += 1
        reasons[letter.reason] += 1
    if (last := progress.last_heard(store)) is not None:
        heard.append(last)


def _backlog(store: Store, channels: list[str], waiting: dict[str, dict[str, Any]]) -> None:
    for channel in channels:
        count, since = outbox.depth(store, channel)
        row = waiting.setdefault(channel, {"channel": channel, "depth": 0, "age_seconds": 0.0})
        row["depth"] += count
        if since is not None:
            row["age_seconds"] = max(row["age_seconds"], (store.clock() - since).total_seconds())
