"""What is no longer shown: superseded stored data, of which the newest few are kept.

Nothing that a configuration uses is removed, nor the tables behind tiles that one uses, nor
anything while an offering may still show what its configuration no longer names. Like the rest, it
looks at the platform each time: a run that is killed half way leaves the rest to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import structlog

from daemon.publish.http import EXECUTIONS, Entity, Entrepot
from daemon.publish.plan import TILES, Plan
from daemon.publish.prepare import holdings
from daemon.publish.steps import CONTENT_TAG, SHOWN_TAG, STATE_TAG, on_endpoint, status, tags
from daemon.publish.token import PlatformRefused
from daemon.publish.turns import Turns

log = structlog.get_logger()

AT_REST: Final = frozenset({"GENERATED", "UNSTABLE"})
"""Statuses of stored data that nobody works on."""
ENDED: Final = frozenset({"SUCCESS", "FAILURE", "ABORTED"})
"""Statuses of a processing that has ended."""
GONE: Final = 404


def prune(turns: Turns, plan: Plan) -> None:
    """Remove what the settings do not keep; what the platform refuses to remove is named in
    ``turns.done.unpruned``.

    Raises:
        PublishError: the platform does not answer.
    """
    api, keep = turns.api, turns.settings.keep_superseded
    ground = plan.ground.name
    held = {
        name: turns.patiently(partial(holdings, api, name))
        for name in (ground, f"{ground}/{TILES}")
    }
    mine = [target.holds for target in plan.targets]
    if all(len(held[name]) <= keep + 1 for name in mine):  # the one that is shown, and those kept
        return
    every = [one for group in held.values() for one in group]
    used = turns.patiently(lambda: _used(api, {str(one["_id"]) for one in every}))
    # where not even what was just published is seen to be used, nothing is known to be unused
    if used is None or turns.done.stored not in used or turns.patiently(lambda: _elsewhere(turns)):
        log.info("publish_prune_postponed", map=ground)
        return
    shown = {plan.state.id} | {tags(one)[STATE_TAG] for one in every if str(one["_id"]) in used}
    for name in mine:
        old = [one for one in held[name] if tags(one)[STATE_TAG] not in shown]
        for one in old[: max(0, len(old) - keep)]:
            _remove(turns, one)


def _used(api: Entrepot, ours: set[str]) -> set[str] | None:
    """Which of some stored data configurations use; None where one that does is changing, so that
    its offering may show others."""
    found: set[str] = set()
    for row in api.every("configurations", {}):
        one = api.get("configurations", str(row["_id"]))
        if one.get("status") == "DELETED":
            continue
        uses = ours & set(_words(one.get("type_infos")))
        known, id_ = tags(one), str(one["_id"])
        settled = known.get(SHOWN_TAG) == known.get(CONTENT_TAG)
        if uses and not settled and api.offerings(id_):
            return None
        found |= uses
    return found


def _words(value: Any) -> Iterator[str]:  # noqa: ANN401 - as JSON comes
    """Every text in a document: an id that stands anywhere in a configuration is in use."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _words(inner)


def _elsewhere(turns: Turns) -> bool:
    """True where this map's configuration is offered on another endpoint too, which this command
    does not make follow."""
    offerings: Sequence[Entity] = turns.api.offerings(turns.done.configuration)
    ours = on_endpoint(offerings, turns.settings.service.endpoint)
    return len(ours) < len([one for one in offerings if status(one)])


def _remove(turns: Turns, stored: Entity) -> None:
    api, id_ = turns.api, str(stored["_id"])
    if status(stored) not in AT_REST or turns.patiently(lambda: _worked_on(api, id_)):
        return
    try:
        turns.patiently(lambda: api.delete("stored_data", id_))
    except PlatformRefused as error:
        if error.status != GONE:  # gone: removed, and the answer was lost
            log.warning("publish_prune_refused", stored=stored["name"], error=str(error))
            turns.done.unpruned.append(str(stored["name"]))
            return
    log.info("publish_pruned", stored=stored["name"])
    turns.done.pruned.append(str(stored["name"]))
    turns.done.changed = True


def _worked_on(api: Entrepot, stored: str) -> bool:
    """True while a processing makes or changes stored data, or is about to."""
    rows = api.every(EXECUTIONS, {"output_stored_data": stored})
    return any(status(api.get(EXECUTIONS, str(row["_id"]))) not in ENDED for row in rows)
