"""Backup of a live store, restore to a point in time, compaction: each a copy that is verified
before it gets its name, with the Sentinel-2 histories that belong to it beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from schemas.envelope import ALERT_TYPE
from schemas.subscription import ChannelKind
from updater.clock import Clock, utc_now
from updater.copies import Condition, write_copy
from updater.deep import PRUNED
from updater.errors import StoreError, StoreLocked
from updater.histories import folder_of
from updater.migrations import LATEST
from updater.reads import FOREVER, as_of, map_now
from updater.store import Store, log_of
from updater.subscriptions import channel_name, subscriptions
from updater.types import MapPolygon
from updater.verify import Verdict, verify

MADE: Final = "backed_up"
"""Fact of a backup: when it was made (ISO 8601). All that was known by then is in it."""
STAGED: Final = ".staged"
REPLACED: Final = ".replaced"


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy: its file, size in bytes, verdict, and when the last event in it was committed."""

    path: Path
    size: int
    verdict: Verdict
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: bytes before and after, messages pruned."""

    before: int
    after: int
    pruned: int


def backup(store: Store, path: Path) -> Copied:
    """Copy an open store, also while events are committed to it; whole and verified, or not at all.

    Raises:
        StoreError: the file exists already, or the copy does not verify.
    """
    for taken in (path, folder_of(path)):
        if taken.exists():
            raise StoreError(f"{taken} exists already; choose another file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = _staged(path)
    try:
        write_copy(store, staged, facts={MADE: store.clock()})
        verdict, newest = _checked(staged)
        _settle(staged, path)
    finally:
        drop(staged)
    return Copied(path, path.stat().st_size, verdict, newest)


def restore(source: Path, db: Path, *, at: datetime | None = None, force: bool = False) -> Copied:
    """Make a store from a backup, as it was known at a time where one is given; what was there
    before is set aside as ``NAME.replaced``.

    A state of the past does not know how far Kafka had been read: its topics are read from their
    beginning, and what has had its effect is recognised by its key.

    Raises:
        StoreError: the target exists and ``force`` is not given, or is in use; the backup is
            unreadable, or knows no map of that time; the copy is not what the backup says.
    """
    if db.exists() and not force:
        raise StoreError(f"{db} exists already; give --force to set it aside and replace it.")
    if db.resolve() == source.resolve():
        raise StoreError("A backup cannot be restored onto itself; give another --db.")
    for _, aside in _asides(db):
        if aside.exists():
            raise StoreError(f"{aside} was set aside before; move it away first.")
    _refuse_in_use(db)
    staged = _staged(db)
    db.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Store.open(source, read_only=True) as store:
            if at is not None:
                _refuse_unknown(store, at)
            write_copy(store, staged, {"meta": ("key <> ?", [MADE])}, known_at=at)
            expected = _content(_state(store, at))
        verdict, newest = _checked(staged)
        with Store.open(staged, read_only=True) as made:
            if _content(map_now(made)) != expected:
                raise StoreError("The copy is not the map the backup holds; keep both, report it.")
        _refuse_in_use(db)  # still
        for path, aside in _asides(db):
            path.rename(aside)
        _settle(staged, db)
    finally:
        drop(staged)
    return Copied(db, db.stat().st_size, verdict, newest)


def compact(
    db: Path,
    *,
    channels: Sequence[str] = (),
    alert_channels: Sequence[str] = (),
    outbox_days: float | None = None,
    clock: Clock = utc_now,
) -> Compacted:
    """Write a store anew without dead space, history whole, indexes rebuilt, and put it in the
    place of the old file.

    ``channels``, ``alert_channels``: who must have had a message before it is pruned, besides
    everyone with a position in the store and every subscriber. ``outbox_days``: age from which a
    message is; None prunes none.

    Raises:
        StoreError: the store is in use, or the copy does not verify; the old file stays.
    """
    with Store.open(db):  # repaired and brought up to date, where it needs that
        pass
    before, staged = db.stat().st_size, _staged(db)
    try:
        with Store.open(db, read_only=True, clock=clock) as store:  # keeps writers out
            keep: dict[str, Condition] = {}
            facts = {}
            if outbox_days is not None:
                since = store.clock() - timedelta(days=outbox_days)
                keep["outbox"] = _unpruned(store, channels, alert_channels, since)
                facts[PRUNED] = max(since, _fact(store, PRUNED) or since)
            copied = write_copy(store, staged, keep, facts=facts, with_histories=False)
            pruned = _count(store) - copied["outbox"]
            _checked(staged, beside=db)
            with Store.open(staged, read_only=True) as made:
                if _content(map_now(made)) != _content(map_now(store)):
                    raise StoreError("The compact copy is another map; the old file stays.")
            _settle(staged, db)
    finally:
        drop(staged)
    return Compacted(before, db.stat().st_size, pruned)


def _unpruned(
    store: Store, channels: Sequence[str], alert_channels: Sequence[str], since: datetime
) -> Condition:
    """What of the outbox stays: what is younger, what somebody lacks, what was given up or passed
    over."""
    positions = dict(store.execute("SELECT channel, seq FROM positions").fetchall())
    told = {
        channel_name(s.id) for s in subscriptions(store) if s.channel is not ChannelKind.FEED
    } | set(alert_channels)
    whole = {c for c in positions if not c.startswith(channel_name(""))} - told
    everyone = min((positions.get(c, 0) for c in whole | set(channels)), default=0)
    alerts = min((positions.get(c, 0) for c in told), default=everyone)
    return (
        "NOT (created < ? AND seq <= ? AND (type <> ? OR seq <= ?)) "
        "OR seq IN (SELECT seq FROM store.parked) OR seq IN (SELECT seq FROM store.passed_over)",
        [since, everyone, ALERT_TYPE, alerts],
    )


def _count(store: Store) -> int:
    row = store.execute("SELECT count(*) FROM outbox").fetchone()
    return int(row[0]) if row else 0


def _fact(store: Store, key: str) -> datetime | None:
    row = store.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
    return datetime.fromisoformat(row[0]) if row else None


def _refuse_unknown(store: Store, at: datetime) -> None:
    """A state the backup cannot know must not be made up of what it knows."""
    (first,) = store.execute("SELECT min(recorded) FROM polygons").fetchone() or (None,)
    (latest,) = store.execute(LATEST).fetchone() or (None,)
    made = _fact(store, MADE)
    if first is None or at < first:
        raise StoreError(f"{store.path.name} has no map of that time; its first is of {first}.")
    if made is not None and at > max(made, latest):
        raise StoreError(
            f"{store.path.name} was made on {made} and knows nothing later; take a newer one, "
            "or leave --at out."
        )


def _state(store: Store, at: datetime | None) -> list[MapPolygon]:
    """The map by what was known at a time."""
    return map_now(store) if at is None else as_of(store, valid_at=FOREVER, recorded_at=at)


def _content(polygons: Sequence[MapPolygon]) -> list[tuple[object, ...]]:
    """All a map says."""
    return sorted((p.version, p.id, p.code_cs, p.code_us, p.geometry.wkb) for p in polygons)


def _checked(path: Path, *, beside: Path | None = None) -> tuple[Verdict, datetime | None]:
    """The verdict on a copy, and when its last event was committed; ``beside``: the store whose
    histories are its own."""
    with Store.open(path) as made:  # a copy of an older store is brought up to date
        verdict = verify(made, deep=True, beside=beside)
        row = made.execute("SELECT max(recorded) FROM events").fetchone()
    if not verdict.valid:
        raise StoreError(
            "The copy does not verify and was dropped; `millesimed verify --deep` says what is "
            "wrong with the original."
        )
    return verdict, row[0] if row else None


def drop(path: Path) -> None:
    """Remove a copy with all that belongs to it."""
    path.unlink(missing_ok=True)
    log_of(path).unlink(missing_ok=True)
    shutil.rmtree(folder_of(path), ignore_errors=True)


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{STAGED}")


def _settle(staged: Path, path: Path) -> None:
    """Put a finished copy in its place, durably; the store last, for it says that all is there."""
    with staged.open("rb") as stream:
        os.fsync(stream.fileno())
    if folder_of(staged).exists():
        folder_of(staged).rename(folder_of(path))
    staged.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_in_use(db: Path) -> None:
    """A store another process holds must not be replaced under it; one that is broken may."""
    if not db.exists():
        return
    try:
        with Store.open(db, read_only=True):
            pass
    except StoreLocked:
        raise
    except StoreError:
        return


def _asides(db: Path) -> list[tuple[Path, Path]]:
    """What lies where a store is to be, and what it is called once set aside: the log first, for
    it fits no other file, and may be all that was left."""
    log_file, histories = log_of(db), folder_of(db)
    pairs = [
        (log_file, log_of(db.with_name(db.name + REPLACED))),
        (histories, histories.with_name(histories.name + REPLACED)),
        (db, db.with_name(db.name + REPLACED)),
    ]
    return [(path, aside) for path, aside in pairs if path.exists()]
