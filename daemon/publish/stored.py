"""From files to stored data: deliveries, checks, processings, until the platform holds a map."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import structlog

from daemon.publish.http import EXECUTIONS, Entity, fed_with
from daemon.publish.plan import Plan, Stage, Target
from daemon.publish.steps import (
    COMING_TAG,
    CONTENT_TAG,
    KNOWN_TAG,
    MAP_TAG,
    NOTHING,
    STATE_TAG,
    YEAR_TAG,
    Act,
    Next,
    Seen,
    of_delivery,
    status,
    tags,
)
from daemon.publish.token import PublishError
from daemon.publish.turns import Turns
from updater.deliveries import SUMS, Batch

log = structlog.get_logger()


class Storing:
    """The stored data of one publication."""

    def __init__(self, turns: Turns, plan: Plan) -> None:
        self._turns, self._plan = turns, plan
        self._api, self._settings = turns.api, turns.settings
        self._batches: dict[str, Batch] = {}

    def run(self) -> str:
        """Make what the plan wants, one of the other; gives the id of the last.

        Raises:
            PublishError: it failed, or takes longer than the settings grant.
        """
        stored: Entity | None = None
        for target in self._plan.targets:
            stored = self._make(target, stored)
        return str((stored or {})["_id"])

    def tidy(self) -> None:
        """Remove the files that were delivered."""
        for batch in self._batches.values():
            shutil.rmtree(batch.folder, ignore_errors=True)

    def _make(self, target: Target, source: Entity | None) -> Entity:
        """Stored data, with what it is made of; ``source``: what tiles are made of."""
        found = self._turns.patiently(lambda: self._stored(target))
        if found is not None and self._holds(target, found):
            return found
        number = self._turns.patiently(lambda: self._reached(target, source))
        while number < len(target.stages):
            again = self._advance(target, number, source)
            number = 0 if again else number + 1
        made = self._turns.patiently(lambda: self._stored(target))
        if made is None:
            raise PublishError(f"The stored data {target.name} is gone; run this again.")
        held = {
            MAP_TAG: target.holds,
            STATE_TAG: self._plan.state.id,
            YEAR_TAG: str(self._plan.state.millesime),
            KNOWN_TAG: self._plan.state.known.isoformat(),
            COMING_TAG: NOTHING,
        }
        self._turns.patiently(lambda: self._api.tag("stored_data", str(made["_id"]), held))
        self._turns.done.changed = True
        return made

    def _reached(self, target: Target, source: Entity | None) -> int:
        """The last stage that was asked for, by its place; the first where none was."""
        stored = self._stored(target)
        places = range(len(target.stages) - 1, 0, -1)
        return next((n for n in places if self._fed(stored, target.stages[n], source)), 0)

    def _advance(self, target: Target, number: int, source: Entity | None) -> bool:
        """Take a stage to its end; True where the stored data begins anew."""
        stage = target.stages[number]

        def look() -> tuple[Next, Seen]:
            return self._next_of(target, stage, source, number == 0)

        def act(found: tuple[Next, Seen]) -> bool:
            return self._do(found, target, stage, source)

        return self._turns.until_done(stage.name, stage.title, look, act)

    def _holds(self, target: Target, stored: Entity) -> bool:
        here = tags(stored)
        wanted = (target.holds, self._plan.state.id)
        return (here.get(MAP_TAG), here.get(STATE_TAG)) == wanted and status(stored) == "GENERATED"

    def _stored(self, target: Target) -> Entity | None:
        if target.onto is not None:
            return self._api.get("stored_data", target.onto)
        return self._turns.named("stored_data", target.name)

    def _next_of(
        self, target: Target, stage: Stage, source: Entity | None, first: bool
    ) -> tuple[Next, Seen]:
        stored = self._stored(target)
        if not status(stored):
            stored = None
        fed = self._fed(stored, stage, source)
        if fed or stage.make is None:
            seen = Seen(stored=stored, fed=fed)
            return of_delivery(seen, None, "", retry=self._turns.may_retry(stage.name)), seen
        upload = self._turns.named("uploads", stage.name)
        tree: Mapping[str, int] = {}
        checks: Mapping[str, Sequence[Entity]] = {}
        if status(upload) == "OPEN" and upload is not None:
            tree = self._api.tree(str(upload["_id"]))
        elif upload is not None and status(upload):
            checks = self._api.checks(str(upload["_id"]))
        batch = self._batch(stage) if status(upload) in {"", "OPEN"} else None
        seen = Seen(upload, tree, checks, stored)
        step = of_delivery(
            seen,
            batch.parts if batch else (),
            batch.content if batch else "",
            sums_size=(batch.folder / SUMS).stat().st_size if batch else 0,
            checks=self._settings.checks,
            retry=self._turns.may_retry(stage.name),
        )
        if step.act is Act.PROCESS and stored is None and not first and target.onto is None:
            step = Next(Act.FAIL, "stored data DELETED")  # made by an earlier stage, then removed
        return step, seen

    def _fed(self, stored: Entity | None, stage: Stage, source: Entity | None) -> list[Entity]:
        """Executions that took a stage in, oldest first."""
        if stored is None:
            return []
        if stage.make is None:
            return fed_with(self._api, stored, "stored_data", _id=str((source or {}).get("_id")))
        return fed_with(self._api, stored, "upload", name=stage.name)

    def _batch(self, stage: Stage) -> Batch:
        if stage.name not in self._batches and stage.make is not None:
            self._batches[stage.name] = stage.make()
        return self._batches[stage.name]

    def _do(
        self, found: tuple[Next, Seen], target: Target, stage: Stage, source: Entity | None
    ) -> bool:
        """Do what is next; True where the stored data begins anew."""
        step, seen = found
        if step.act in {Act.PROCESS, Act.LAUNCH, Act.RESTART}:
            return self._process(step, target, stage, seen, source)
        upload = str((seen.upload or {}).get("_id"))
        match step.act:
            case Act.CREATE_UPLOAD:
                self._api.create("uploads", self._upload_body(stage))
            case Act.CLEAR:
                for path in step.stray:
                    self._api.unsend(upload, path)
            case Act.MARK:
                self._api.tag("uploads", upload, {CONTENT_TAG: self._batch(stage).content})
            case Act.SEND:
                self._send(upload, stage, step)
            case Act.CLOSE:
                self._api.do("uploads", upload, "close")
            case Act.CHECK:
                self._api.do("uploads", upload, "checks", list(self._settings.checks))
            case Act.REOPEN:
                self._turns.retried(stage.name)
                self._api.tag("uploads", upload, {CONTENT_TAG: "again"})  # every file goes again
                self._api.do("uploads", upload, "open")
        return False

    def _process(
        self, step: Next, target: Target, stage: Stage, seen: Seen, source: Entity | None
    ) -> bool:
        if step.act is Act.LAUNCH:
            self._api.do(EXECUTIONS, str(seen.fed[-1]["_id"]), "launch")
            return False
        if step.act is Act.RESTART:
            self._turns.retried(stage.name)
            if target.onto is None and seen.stored is not None:
                self._api.delete("stored_data", str(seen.stored["_id"]))
                return True
        elif target.onto is not None:
            self._api.tag("stored_data", target.onto, {COMING_TAG: self._coming(stage)})
        self._api.create(EXECUTIONS, self._execution_body(target, stage, seen, source))
        return False

    def _coming(self, stage: Stage) -> str:
        state = self._plan.state
        return f"{state.id} {state.millesime} {state.known.isoformat()} {stage.name}"

    def _upload_body(self, stage: Stage) -> Entity:
        product = self._plan.ground.product
        return {
            "name": stage.name,
            "description": f"{product.title}: {stage.title}",
            "type": stage.upload_type,
            "srs": product.crs,
        }

    def _execution_body(
        self, target: Target, stage: Stage, seen: Seen, source: Entity | None
    ) -> Entity:
        """As the platform documents it; not tried against the real service."""
        inputs: dict[str, list[str]] = {}
        if stage.make is None:
            inputs["stored_data"] = [str((source or {})["_id"])]
        else:
            upload = seen.upload or self._turns.named("uploads", stage.name)
            if upload is None:
                raise PublishError(
                    f"The delivery {stage.name} is gone; publish the map whole, without "
                    "--incremental."
                )
            inputs["upload"] = [str(upload["_id"])]
        output = {"name": target.name} if seen.stored is None else {"id": seen.stored["_id"]}
        return {
            "processing": stage.processing,
            "inputs": inputs,
            "output": {"stored_data": output},
            "parameters": dict(stage.parameters),
        }

    def _send(self, upload: str, stage: Stage, step: Next) -> None:
        batch = self._batch(stage)
        for path in step.stray:  # half there
            self._api.unsend(upload, path)
        there = batch.size - sum(part.size for part in step.send)
        for part in step.send:
            self._send_one(upload, batch, part.name, part.remote, there)
            there += part.size
            self._turns.done.sent += part.size
        if step.sums:
            self._send_one(upload, batch, SUMS, None, there)

    def _send_one(
        self, upload: str, batch: Batch, name: str, remote: str | None, there: int
    ) -> None:
        read = 0

        def tick(count: int) -> None:
            nonlocal read
            read += count
            self._turns.progress("upload, bytes", min(there + read, batch.size), batch.size)

        self._api.send(upload, batch.folder / name, remote=remote, tick=tick)
        log.info("publish_sent", upload=upload, file=name)
