"""What to do next, from what the platform says: pure functions of statuses, without memory.

A run that is killed leaves no state but the platform's, so the next one looks, and does what is
next. Everything is found by names that follow from the content, so nothing is made twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from updater.deliveries import SUMS, Part

Entity = Mapping[str, Any]
E = TypeVar("E", bound=Mapping[str, Any])
CONTENT_TAG: Final = "millesimed_content"
"""Tag of a delivery: what the bytes of its files are known by; of a configuration: what its body
is."""
MAP_TAG: Final = "millesimed_map"
"""Tag of stored data: the ground, as D032 or D032-32013."""
STATE_TAG: Final = "millesimed_state"
"""Tag of stored data: the state of the map it holds."""
YEAR_TAG: Final = "millesimed_millesime"
KNOWN_TAG: Final = "millesimed_known"
"""Tag of stored data: when that state was what was known."""
COMING_TAG: Final = "millesimed_coming"
"""Tag of stored data: the state, year, instant and delivery of changes that were asked for; what it
holds meanwhile is known once they are done. ``NOTHING`` where none are."""
NOTHING: Final = "-"
SHOWN_TAG: Final = "millesimed_shown"
"""Tag of a configuration: the content that its offering was last seen to show; ``NOTHING`` from
before it is changed until then."""


class Act(StrEnum):
    """What can be next."""

    CREATE_UPLOAD = "create the delivery"
    CLEAR = "remove files of another content"
    MARK = "say what the files are"
    SEND = "send files"
    CLOSE = "close the delivery"
    CHECK = "ask for checks"
    REOPEN = "open the delivery again"
    PROCESS = "ask for the processing"
    LAUNCH = "launch the processing"
    RESTART = "begin the processing anew"
    CONFIGURE = "create the configuration"
    RECONFIGURE = "change the configuration"
    OFFER = "create the offering"
    SYNCHRONISE = "have the offering follow"
    NOTE = "note what the offering shows"
    WAIT = "wait"
    FAIL = "give up"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Next:
    """What is next; ``why``: the status that says so."""

    act: Act
    why: str = ""
    send: tuple[Part, ...] = ()
    sums: bool = False
    stray: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A delivery as the platform has it. ``fed``: executions that took it in, oldest first."""

    upload: Entity | None = None
    tree: Mapping[str, int] = field(default_factory=dict)
    checks: Mapping[str, Sequence[Entity]] = field(default_factory=dict)
    stored: Entity | None = None
    fed: Sequence[Entity] = ()


def status(entity: Entity | None) -> str:
    """An entity's status; of one that is deleted or not there, nothing."""
    found = "" if entity is None else str(entity.get("status") or "")
    return "" if found == "DELETED" else found


def tags(entity: Entity | None) -> Mapping[str, str]:
    """An entity's tags."""
    found = None if entity is None else entity.get("tags")
    return found if isinstance(found, dict) else {}


def of_delivery(
    seen: Seen,
    parts: Sequence[Part] | None,
    content: str,
    *,
    sums_size: int = 0,
    checks: Iterable[str] = (),
    retry: bool = False,
) -> Next:
    """What is next for files that are to become stored data.

    ``parts`` None: what is processed is no delivery but other stored data. ``retry``: what failed
    is tried again, once.
    """
    if seen.fed:
        return of_execution(seen.fed[-1], seen.stored, retry=retry)
    if status(seen.stored) == "UNSTABLE":
        return Next(Act.FAIL, "stored data UNSTABLE")
    if parts is None:
        return Next(Act.PROCESS)
    match status(seen.upload):
        case "":
            return Next(Act.CREATE_UPLOAD)
        case "OPEN":
            return _of_open(seen, parts, content, sums_size)
        case "CLOSED":
            if seen.checks.get("failed"):
                return _failed(seen, retry)
            missing = set(checks) - {_check_of(c) for group in seen.checks.values() for c in group}
            return Next(Act.CHECK, "CLOSED") if missing else Next(Act.PROCESS, "CLOSED")
        case "UNSTABLE":
            return _failed(seen, retry)
        case other:  # CREATED, CHECKING, GENERATING, MODIFYING
            return Next(Act.WAIT, f"delivery {other}")


def _of_open(seen: Seen, parts: Sequence[Part], content: str, sums_size: int) -> Next:
    marked = tags(seen.upload).get(CONTENT_TAG)
    if marked != content:
        stray = tuple(seen.tree)
        return Next(Act.CLEAR, stray=stray) if stray else Next(Act.MARK)
    wanted = {part.remote: part.size for part in parts} | {SUMS: sums_size}
    stray = tuple(path for path in seen.tree if path not in wanted)
    if stray:
        return Next(Act.CLEAR, stray=stray)
    send = tuple(part for part in parts if seen.tree.get(part.remote) != part.size)
    sums = seen.tree.get(SUMS) != sums_size
    if send or sums:
        broken = [part.remote for part in send] + [SUMS] * sums
        stray = tuple(path for path in broken if path in seen.tree)
        return Next(Act.SEND, send=send, sums=sums, stray=stray)
    return Next(Act.CLOSE)


def _failed(seen: Seen, retry: bool) -> Next:
    return Next(Act.REOPEN if retry else Act.FAIL, f"delivery {status(seen.upload)}")


def _check_of(execution: Entity) -> str:
    check = execution.get("check")
    return str(check.get("_id")) if isinstance(check, dict) else ""


def of_execution(execution: Entity, stored: Entity | None, *, retry: bool = False) -> Next:
    """What is next for a processing that was asked for."""
    found = status(execution)
    match found:
        case "CREATED":
            return Next(Act.LAUNCH, found)
        case "SUCCESS":
            return _of_stored(stored)
        case "FAILURE" | "ABORTED":
            return Next(Act.RESTART if retry else Act.FAIL, f"processing {found}")
        case other:  # WAITING, PROGRESS
            return Next(Act.WAIT, f"processing {other}")


def _of_stored(stored: Entity | None) -> Next:
    match status(stored):
        case "GENERATED":
            return Next(Act.DONE, "GENERATED")
        case "UNSTABLE" | "":
            return Next(Act.FAIL, f"stored data {status(stored) or 'DELETED'}")
        case other:  # CREATED, GENERATING, MODIFYING
            return Next(Act.WAIT, f"stored data {other}")


def of_service(
    configuration: Entity | None,
    offerings: Sequence[Entity],
    *,
    content: str,
    endpoint: str,
    synchronised: bool,
    retry: bool = False,
) -> Next:
    """What is next for a configuration and its offering.

    ``content``: what the configuration's body is known by. ``synchronised``: this run had the
    offering follow already.
    """
    if configuration is None:
        return Next(Act.CONFIGURE)
    if tags(configuration).get(CONTENT_TAG) != content:
        return Next(Act.RECONFIGURE)
    ours = on_endpoint(offerings, endpoint)
    if not ours:
        return Next(Act.OFFER)
    match status(ours[0]):
        case "PUBLISHED":
            if status(configuration) == "SYNCHRONIZING":
                return Next(Act.WAIT, "configuration SYNCHRONIZING")
            if tags(configuration).get(SHOWN_TAG) == content:
                return Next(Act.DONE, "PUBLISHED")
            return Next(Act.NOTE if synchronised else Act.SYNCHRONISE, "PUBLISHED")
        case "UNSTABLE":
            return Next(Act.SYNCHRONISE if retry else Act.FAIL, "offering UNSTABLE")
        case other:  # PUBLISHING, MODIFYING, UNPUBLISHING
            return Next(Act.WAIT, f"offering {other}")


def on_endpoint(offerings: Sequence[E], endpoint: str) -> list[E]:
    """Those of a configuration's offerings that are on an endpoint, or do not say where."""
    return [one for one in offerings if _endpoint_of(one) in {endpoint, ""}]


def _endpoint_of(offering: Entity) -> str:
    found = offering.get("endpoint")
    return str(found.get("_id") or "") if isinstance(found, dict) else str(found or "")
