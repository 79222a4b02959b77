"""From a call of the command to a plan: which state, and for changes, what they go onto."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from daemon.options import moment
from daemon.publish.http import (
    EXECUTIONS,
    Entity,
    Entrepot,
    Wait,
    fed_with,
    patiently,
)
from daemon.publish.plan import Ground, Plan, State, changes, ground_of, kind_of, state_of, whole
from daemon.publish.settings import PublicationSettings
from daemon.publish.steps import (
    COMING_TAG,
    KNOWN_TAG,
    MAP_TAG,
    NOTHING,
    STATE_TAG,
    YEAR_TAG,
    status,
    tags,
)
from daemon.publish.token import PublishError
from schemas.errors import UsageError
from updater.store import Store


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command was asked for."""

    db: Path
    folder: Path
    millesime: int
    territory: str | None = None
    incremental: bool = False
    since: str | None = None


def prepared(
    api: Entrepot, settings: PublicationSettings, wish: Wish, *, wait: Wait = time.sleep
) -> Plan:
    """What is to be done; the store is closed again by then.

    Raises:
        UsageError, PublishError: there is no such map, or nothing that changes could go onto.
    """
    kind = kind_of(settings)
    takes_changes = kind == "tables" and settings.keyed
    if wish.incremental and not takes_changes:
        raise UsageError(
            "Only tables with a primary key take changes; set `publication.keyed` and a service "
            "other than DOWNLOAD, or leave --incremental out."
        )
    with Store.open(wish.db) as store:
        ground = ground_of(store, wish.territory, wish.millesime)
        state = state_of(store, ground, kind)
        # tiles are named after the tables they were made of, which are looked for by their name
        if not wish.incremental and (not takes_changes or settings.pyramid is not None):
            return whole(store, settings, ground, state, wish.folder)
        held = patiently(wait, lambda: holdings(api, ground.name))
        if wish.incremental:
            held = [patiently(wait, partial(settled, api, one, state.id)) for one in held]
        else:  # changes that are being made, or failed, are no hindrance to making it anew
            held = [one for one in held if tags(one).get(COMING_TAG, NOTHING) == NOTHING]
        done = [one for one in held if tags(one)[STATE_TAG] == state.id]
        if done:  # whole or by changes: it is there
            return changes(
                settings, ground, state, wish.folder, old=state, onto=str(done[-1]["_id"])
            )
        if not wish.incremental:
            return whole(store, settings, ground, state, wish.folder)
        old = _state_before(store, ground, kind, wish, held)
    onto = [one for one in held if tags(one)[STATE_TAG] == old.id]
    if not onto:
        raise PublishError(
            f"No stored data holds {ground.name} of {old.millesime} as this store knows it "
            f"({_listed(held)}); publish it whole first, without --incremental."
        )
    return changes(settings, ground, state, wish.folder, old=old, onto=str(onto[-1]["_id"]))


def holdings(api: Entrepot, name: str) -> list[Entity]:
    """The stored data that hold a map whole, by when they came to be known."""
    rows = api.every("stored_data", {f"tags[{MAP_TAG}]": name})
    found = [api.get("stored_data", str(row["_id"])) for row in rows]
    wanted = {MAP_TAG, STATE_TAG, YEAR_TAG, KNOWN_TAG}
    ours = [
        one
        for one in found
        if status(one) and wanted <= tags(one).keys() and tags(one)[MAP_TAG] == name
    ]
    return sorted(ours, key=lambda one: tags(one)[KNOWN_TAG])


def settled(api: Entrepot, stored: Entity, wanted: str) -> Entity:
    """Stored data whose tags say what it holds: changes an earlier run asked for, of which nobody
    took note, are noted where they were made and forgotten where they were not. Those of the
    ``wanted`` state are left to the run that goes on with them.

    Raises:
        PublishError: they are still being made, or failed.
    """
    coming = tags(stored).get(COMING_TAG, NOTHING)
    if coming == NOTHING or coming.split()[0] == wanted:
        return stored
    state, year, known, delivery = coming.split()
    asked = fed_with(api, stored, "upload", name=delivery)
    found = status(asked[-1]) if asked else ""
    if found not in {"", "CREATED", "SUCCESS"} or status(stored) != "GENERATED":
        raise PublishError(
            f"The delivery {delivery} is not in {stored['name']} yet (processing {found or 'lost'},"
            f" stored data {status(stored)}); run this again when it is, or publish the map whole."
        )
    if found == "CREATED":  # never launched
        api.delete(EXECUTIONS, str(asked[-1]["_id"]))
    made = {STATE_TAG: state, YEAR_TAG: year, KNOWN_TAG: known} if found == "SUCCESS" else {}
    api.tag("stored_data", str(stored["_id"]), {**made, COMING_TAG: NOTHING})
    return api.get("stored_data", str(stored["_id"]))


def _state_before(
    store: Store, ground: Ground, kind: str, wish: Wish, held: Sequence[Entity]
) -> State:
    """What is published: as the call says, else as the newest stored data does."""
    if wish.since is not None:
        if re.fullmatch(r"\d{4}", wish.since):
            return state_of(store, ground, kind, millesime=int(wish.since))
        return state_of(store, ground, kind, known=moment(wish.since))
    if not held:
        raise PublishError(
            f"No stored data holds {ground.name}; publish it whole first, without --incremental."
        )
    newest = tags(held[-1])
    return state_of(
        store,
        ground,
        kind,
        millesime=int(newest[YEAR_TAG]),
        known=datetime.fromisoformat(newest[KNOWN_TAG]),
    )


def _listed(held: Sequence[Entity]) -> str:
    """What there is instead."""
    said = [f"{tags(one)[YEAR_TAG]} as known at {tags(one)[KNOWN_TAG]}" for one in held]
    return f"there is {', '.join(said)}" if said else "there is none of it"
