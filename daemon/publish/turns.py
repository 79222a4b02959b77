"""One turn after the other: look at the platform, do what is next, wait, until nothing is left.

Nothing about a publication is kept here. Each turn looks afresh and does one thing, so that a lost
answer, a cut connection and a killed process all end the same way: the next look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from daemon.acquire.http import Passing
from daemon.publish.http import Entity, Entrepot, Wait, bear, patiently
from daemon.publish.settings import PublicationSettings
from daemon.publish.steps import Act, Next, Seen, status
from daemon.publish.token import PlatformRefused, PublishError
from daemon.publish.words import failure
from detectors.types import Progress

log = structlog.get_logger()
T = TypeVar("T")

MOST_ALIKE: Final = 5
"""How often one thing may be next in turn before the platform is held not to do it."""


@dataclass
class Published:
    """What came of it. ``sent``: bytes of files; ``changed``: anything was done at all;
    ``pruned``: names of the superseded stored data that were removed, ``unpruned``: of those the
    platform would not remove."""

    stored: str = ""
    configuration: str = ""
    offering: str = ""
    urls: list[str] = field(default_factory=list)
    sent: int = 0
    changed: bool = False
    pruned: list[str] = field(default_factory=list)
    unpruned: list[str] = field(default_factory=list)


class Turns:
    """What every part of a publication shares: the platform, patience, what was done."""

    def __init__(
        self,
        api: Entrepot,
        settings: PublicationSettings,
        *,
        retry: bool,
        progress: Progress,
        wait: Wait = time.sleep,
    ) -> None:
        """``retry``: what the platform says has failed is tried again, once each."""
        self.api, self.settings, self.done = api, settings, Published()
        self.progress = progress
        self._retry, self._wait = retry, wait
        self._retried: set[str] = set()
        self._ids: dict[tuple[str, str], str] = {}

    def until_done(
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
                    raise PublishError(failure(self.api, name, step, found[1], found[2:]))
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
            self.progress("checks", ended, total)
            return
        done = int(step.act is Act.DONE)
        self.progress(f"{title} · {step.why or step.act.value}", done, 1)

    def _wait_for(self, name: str, step: Next, since: float) -> None:
        hours = self.settings.patience_hours
        if time.monotonic() - since > hours * 3600:
            raise PublishError(
                f"{name} has been waiting for {hours:g} h ({step.why}); run this again to go on, "
                "nothing is lost."
            )
        self._wait(self.settings.poll_seconds)

    def patiently(self, call: Callable[[], T]) -> T:
        """What a call that may be repeated gives in the end.

        Raises:
            PublishError: it does not go well.
        """
        return patiently(self._wait, call)

    def may_retry(self, name: str) -> bool:
        """True where what failed may be tried again and was not yet."""
        return self._retry and name not in self._retried

    def retried(self, name: str) -> None:
        """Its one new try is being made."""
        self._retried.add(name)

    def named(self, kind: str, name: str) -> Entity | None:
        """An entity by its name; looked up in the list once."""
        known = self._ids.get((kind, name))
        if known is not None:
            try:
                return self.api.get(kind, known)
            except PlatformRefused as error:
                if error.status != 404:
                    raise
                del self._ids[kind, name]
        found = self.api.find(kind, name=name)
        if found is not None and (kind == "configurations" or status(found)):
            self._ids[kind, name] = str(found["_id"])
            return found
        return None
