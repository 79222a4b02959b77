"""Publishing a map: look at the platform, do what is next, until the map is to be seen.

Nothing about a publication is kept here. Each turn looks afresh and does one thing, so that a lost
answer, a cut connection and a killed process all end the same way: the next look.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from daemon.acquire_http import Passing
from daemon.publish_http import (
    EXECUTIONS,
    Entity,
    Entrepot,
    PlatformRefused,
    PublishError,
    bear,
    fed_with,
    patiently,
)
from daemon.publish_plan import Plan, Stage, Target, configuration_body
from daemon.publish_settings import PublicationSettings
from daemon.publish_steps import (
    COMING_TAG,
    CONTENT_TAG,
    KNOWN_TAG,
    MAP_TAG,
    NOTHING,
    SHOWN_TAG,
    STATE_TAG,
    YEAR_TAG,
    Act,
    Next,
    Seen,
    of_delivery,
    of_service,
    status,
    tags,
)
from daemon.publish_words import failure
from detectors.types import Progress
from updater.deliveries import SUMS, Batch, short

log = structlog.get_logger()

MOST_ALIKE: Final = 5
"""How often one thing may be next in turn before the platform is held not to do it."""


@dataclass
class Published:
    """What came of it. ``sent``: bytes of files; ``changed``: anything was done at all."""

    stored: str = ""
    configuration: str = ""
    offering: str = ""
    urls: list[str] = field(default_factory=list)
    sent: int = 0
    changed: bool = False


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Nobody else on this machine publishes the same map meanwhile.

    Raises:
        PublishError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PublishError(
            f"Another process is publishing {name}; wait for its end, then run this again."
        ) from None
    else:
        yield
    finally:
        os.close(handle)


class Publisher:
    """One publication on its way."""

    def __init__(
        self,
        api: Entrepot,
        settings: PublicationSettings,
        plan: Plan,
        *,
        retry: bool = False,
        progress: Progress,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """``retry``: what the platform says has failed is tried again, once each."""
        self._api, self._settings, self._plan = api, settings, plan
        self._retry, self._progress, self._wait = retry, progress, wait
        self._retried: set[str] = set()
        self._ids: dict[tuple[str, str], str] = {}
        self._batches: dict[str, Batch] = {}
        self.done = Published()

    def run(self) -> Published:
        """Publish, from wherever an earlier run was.

        Raises:
            PublishError: it failed, or takes longer than the settings grant.
        """
        stored = None
        for target in self._plan.targets:
            stored = self._make(target, stored)
        self.done.stored = str((stored or {})["_id"])
        self._serve(self.done.stored)
        for batch in self._batches.values():
            shutil.rmtree(batch.folder, ignore_errors=True)
        return self.done

    # stored data

    def _make(self, target: Target, source: Entity | None) -> Entity:
        """Stored data, with what it is made of; ``source``: what tiles are made of."""
        found = patiently(self._wait, lambda: self._stored(target))
        if found is not None and self._holds(target, found):
            return found
        number = patiently(self._wait, lambda: self._reached(target, source))
        while number < len(target.stages):
            again = self._advance(target, number, source)
            number = 0 if again else number + 1
        made = patiently(self._wait, lambda: self._stored(target))
        if made is None:
            raise PublishError(f"The stored data {target.name} is gone; run this again.")
        held = {
            MAP_TAG: target.holds,
            STATE_TAG: self._plan.state.id,
            YEAR_TAG: str(self._plan.state.millesime),
            KNOWN_TAG: self._plan.state.known.isoformat(),
            COMING_TAG: NOTHING,
        }
        patiently(self._wait, lambda: self._api.tag("stored_data", str(made["_id"]), held))
        self.done.changed = True
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

        return self._until_done(stage.name, stage.title, look, act)

    def _holds(self, target: Target, stored: Entity) -> bool:
        here = tags(stored)
        wanted = (target.holds, self._plan.state.id)
        return (here.get(MAP_TAG), here.get(STATE_TAG)) == wanted and status(stored) == "GENERATED"

    def _stored(self, target: Target) -> Entity | None:
        if target.onto is not None:
            return self._api.get("stored_data", target.onto)
        return self._named("stored_data", target.name)

    def _next_of(
        self, target: Target, stage: Stage, source: Entity | None, first: bool
    ) -> tuple[Next, Seen]:
        stored = self._stored(target)
        if not status(stored):
            stored = None
        fed = self._fed(stored, stage, source)
        if fed or stage.make is None:
            seen = Seen(stored=stored, fed=fed)
            return of_delivery(seen, None, "", retry=self._may(stage.name)), seen
        upload = self._named("uploads", stage.name)
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
            retry=self._may(stage.name),
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
                self._retried.add(stage.name)
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
            self._retried.add(stage.name)
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
            upload = seen.upload or self._named("uploads", stage.name)
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
            self.done.sent += part.size
        if step.sums:
            self._send_one(upload, batch, SUMS, None, there)

    def _send_one(
        self, upload: str, batch: Batch, name: str, remote: str | None, there: int
    ) -> None:
        read = 0

        def tick(count: int) -> None:
            nonlocal read
            read += count
            self._progress("upload, bytes", min(there + read, batch.size), batch.size)

        self._api.send(upload, batch.folder / name, remote=remote, tick=tick)
        log.info("publish_sent", upload=upload, file=name)

    # configuration and offering

    def _serve(self, stored: str) -> None:
        body = configuration_body(self._settings, self._plan.texts, stored)
        service = self._settings.service
        content = short(repr((body, service.endpoint, service.open)).encode())
        synchronised = False

        def look() -> tuple[Next, Entity | None, Sequence[Entity]]:
            configuration = self._named("configurations", body["name"])
            offerings = self._api.offerings(str(configuration["_id"])) if configuration else []
            step = of_service(
                configuration,
                offerings,
                content=content,
                endpoint=service.endpoint,
                synchronised=synchronised,
                retry=self._may("offering"),
            )
            self.done.configuration = str((configuration or {}).get("_id") or "")
            if offerings:
                self.done.offering = str(offerings[0]["_id"])
                self.done.urls = [_address(one) for one in offerings[0].get("urls") or []]
            return step, configuration, offerings

        def act(found: tuple[Next, Entity | None, Sequence[Entity]]) -> bool:
            nonlocal synchronised
            step, configuration, offerings = found
            id_ = str((configuration or {}).get("_id"))
            match step.act:
                case Act.CONFIGURE:
                    made = self._api.create("configurations", body)
                    self._api.tag("configurations", str(made["_id"]), {CONTENT_TAG: content})
                case Act.RECONFIGURE:
                    self._api.replace("configurations", id_, body)
                    self._api.tag("configurations", id_, {CONTENT_TAG: content})
                case Act.OFFER:
                    offered = {"endpoint": service.endpoint, "open": service.open}
                    self._api.create(f"configurations/{id_}/offerings", offered)
                    synchronised = True
                case Act.SYNCHRONISE:
                    if step.why == "offering UNSTABLE":
                        self._retried.add("offering")
                    self._api.replace("offerings", str(offerings[0]["_id"]))
                    synchronised = True
                case Act.NOTE:
                    self._api.tag("configurations", id_, {SHOWN_TAG: content})
            return False

        self._until_done(body["name"], "publication", look, act)

    # turns

    def _until_done(
        self, name: str, title: str, look: Callable[[], Any], act: Callable[[Any], bool]
    ) -> bool:
        """Look and act until nothing is left; True where all that led here is to be done again."""
        alike, last, since, failures = 0, Next(Act.DONE), time.monotonic(), 0
        while True:
            try:
                found = look()
                step: Next = found[0]
                if (step.act, step.why) != (last.act, last.why):
                    alike, last, since = 0, step, time.monotonic()
                self._show(title, step, found[1])
                if step.act is Act.DONE:
                    return False
                if step.act is Act.FAIL:
                    raise PublishError(failure(self._api, name, step, found[1], found[2:]))
                if step.act is Act.WAIT:
                    self._wait_for(name, step, since)
                    continue
                alike += 1
                if alike > MOST_ALIKE:
                    raise PublishError(
                        f"The platform does not do it ({step.act}, {name}) though it says so; look "
                        "at the datastore, then run this again."
                    )
                log.info("publish_step", step=step.act.value, name=name)
                again = act(found)
            except Passing as error:
                failures += 1
                bear(error, failures, self._wait)
                continue
            failures = 0
            self.done.changed = True
            if again:
                return True

    def _show(self, title: str, step: Next, seen: object) -> None:
        if step.act is Act.SEND:
            return
        checks = seen.checks if isinstance(seen, Seen) else {}
        total = sum(len(group) for group in checks.values())
        if step.why == "delivery CHECKING" and total:
            ended = sum(len(checks.get(name, ())) for name in ("passed", "failed"))
            self._progress("checks", ended, total)
            return
        done = int(step.act is Act.DONE)
        self._progress(f"{title} · {step.why or step.act.value}", done, 1)

    def _wait_for(self, name: str, step: Next, since: float) -> None:
        hours = self._settings.patience_hours
        if time.monotonic() - since > hours * 3600:
            raise PublishError(
                f"{name} has been waiting for {hours:g} h ({step.why}); run this again to go on, "
                "nothing is lost."
            )
        self._wait(self._settings.poll_seconds)

    def _may(self, name: str) -> bool:
        return self._retry and name not in self._retried

    def _named(self, kind: str, name: str) -> Entity | None:
        """An entity by its name; looked up in the list once."""
        known = self._ids.get((kind, name))
        if known is not None:
            try:
                return self._api.get(kind, known)
            except PlatformRefused as error:
                if error.status != 404:
                    raise
                del self._ids[kind, name]
        found = self._api.find(kind, name=name)
        if found is not None and (kind == "configurations" or status(found)):
            self._ids[kind, name] = str(found["_id"])
            return found
        return None


def _address(url: object) -> str:
    return str(url.get("url")) if isinstance(url, dict) else str(url)
