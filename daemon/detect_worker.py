"""A detect worker's part of the way: from a task to its judgement. It opens no store.

A task is done with when its judgement is on the broker's disks. Where the worker dies before that,
the task comes again, to it or to another; a second judgement of a task is recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from daemon.assets import asset_path
from daemon.config import Settings
from daemon.exchange import ClaimMissing, Exchange
from daemon.freight import DamagedFreight, context_from, judged_bytes
from daemon.journey import about, journey
from daemon.judging import Context, Judged
from daemon.locate import sealed_up
from daemon.metrics import Metrics
from daemon.outcomes import Interrupted, Outcome, failure
from daemon.sources import Message
from daemon.suspects import judged_warily
from schemas.envelope import parse_task
from schemas.errors import MillesimedError
from schemas.task import CONTEXT_MISSING, Claim, Judgement, Task
from updater import faults

log = structlog.get_logger()


class Answers(Protocol):
    """Where judgements go."""

    def send(self, judgement: Judgement, stopping: Callable[[], bool]) -> None:
        """Send one; returns once it cannot get lost."""
        ...


class Detecting:
    """Carries tasks to their judgements."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        exchange: Exchange,
        answers: Answers,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._settings = settings
        self._metrics = metrics
        self._exchange = exchange
        self._answers = answers
        self._stopping = stopping

    def left_over(self) -> tuple[Message, ...]:
        """Nothing: a worker remembers nothing."""
        return ()

    def rest(self) -> bool:
        """Nothing is under way between two tasks."""
        return True

    def leave(self) -> None:
        """Nothing either."""

    @journey
    def handle(self, message: Message) -> Outcome:
        """Judge one task.

        Raises:
            Interrupted: asked to stop; the task must come again.
            StoreError: the disk anything is worked out on fails; likewise.
        """
        self._metrics.last_event.set(datetime.now(UTC).timestamp())
        try:
            task = parse_task(message.value or b"", dict(message.headers))
        except MillesimedError as error:
            log.error("task_refused", error=str(error), offset=message.origin.offset)
            return self._ended(Outcome.REFUSED)
        event_id = task.event.rpartition("#")[2]  # as the update process's log has it
        about(event_id=event_id, item=task.item, store=task.departement, task=task.task)
        judgement = self._judgement(task)
        faults.reached("before-answer")
        self._answers.send(judgement, self._stopping)
        log.info("task_judged", reason=judgement.reason)
        return self._ended(Outcome.JUDGED)

    def _ended(self, outcome: Outcome) -> Outcome:
        self.counts[outcome] += 1
        self._metrics.events.labels(outcome.value).inc()
        about(outcome=outcome.value)
        return outcome

    def _judgement(self, task: Task) -> Judgement:
        try:
            context = context_from(self._exchange.get(task.departement, task.context))
        except (ClaimMissing, DamagedFreight) as error:
            # judged by another in the meantime, or lost: who asked knows
            return _said(task, reason=CONTEXT_MISSING, message=str(error))
        acquired = context.item.acquired
        log.info("task_begun", image=context.item.image.href)
        try:
            with self._metrics.stage("detect", acquired=acquired):
                judged = self._judged(task, context)
                about(detector=judged.detector)
            faults.reached("after-detect")
            body = judged_bytes(judged)
            claim = self._exchange.put(task.departement, task.task, "judgement", body)
            return _said(task, result=claim)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has a name
            reason, text = failure(error)
            return _said(task, reason=reason, message=text)

    def _judged(self, task: Task, context: Context) -> Judged:
        mark = self._exchange.mark(task.departement, task.task)
        return judged_warily(mark, task.task, self._sealed(context), self._settings, self._tick)

    def _sealed(self, context: Context) -> Context:
        """The context with its image as this process may open it."""
        item, roots = context.item, self._settings.asset_roots
        located = replace(
            context.located,
            image=asset_path(item.image, roots),
            elevation=asset_path(item.elevation, roots) if item.elevation else None,
        )
        return replace(context, located=sealed_up(located, item))

    def _tick(self, stage: str, done: int, total: int) -> None:
        if self._stopping():
            raise Interrupted


def _said(
    task: Task,
    *,
    result: Claim | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> Judgement:
    return Judgement(
        task=task.task,
        attempt=task.attempt,
        event=task.event,
        departement=task.departement,
        result=result,
        reason=reason,
        message=message,
        judged=datetime.now(UTC),
    )
