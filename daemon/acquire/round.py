"""One look at a source: fetch what is new, announce it, and only then remember having seen it.

What cannot be fetched does not hold up the rest: it becomes a debt, is tried again with growing
pauses, and is given up after a while. A source that does not answer keeps its cursor, and the next
look goes on where this one stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import pystac
import structlog

from daemon.acquire.settings import AcquireSettings
from daemon.acquire.state import State, StateFile
from daemon.acquire.watcher import AcquireError, Ref, Stopped, Watcher
from schemas.errors import MillesimedError

log = structlog.get_logger()

FIRST_AGAIN: Final = timedelta(minutes=5)
LONGEST_AGAIN: Final = timedelta(hours=12)
GIVE_UP_AFTER: Final = timedelta(days=14)
"""From the first try on: longer than a provider takes to mend a delivery in a holiday week."""
MOST_OWED: Final = 1_000
"""Debts above which a source is not looked at further: something is wrong with all of it."""


class Meter(Protocol):
    """Told of what a look brings."""

    def announced(self, kind: str, count: int) -> None:
        """Images were announced."""
        ...

    def failed(self, kind: str) -> None:
        """An image, or a whole look, failed."""
        ...


class Unmetered:
    """For a look by hand."""

    def announced(self, kind: str, count: int) -> None:
        """Nobody counts."""

    def failed(self, kind: str) -> None:
        """Nobody counts."""


@dataclass(slots=True)
class Tally:
    """What one look brought. ``error``: why it ended early."""

    name: str
    kind: str
    events: list[str] = field(default_factory=list)
    failed: int = 0
    owed: int = 0
    given_up: int = 0
    error: str | None = None

    def figures(self) -> dict[str, Any]:
        """As ``--json`` gives it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "announced": len(self.events),
            "events": self.events,
            "failed": self.failed,
            "owed": self.owed,
            "given_up": self.given_up,
            "error": self.error,
        }


@dataclass(slots=True)
class Acquirer:
    """Looks at one source. ``announce`` writes an event durably."""

    settings: AcquireSettings
    watcher: Watcher
    file: StateFile
    announce: Callable[[pystac.Item], object]
    now: Callable[[], datetime]
    meter: Meter = field(default_factory=Unmetered)
    chance: random.Random = field(default_factory=random.Random)

    def once(self, *, retry_all: bool = False) -> Tally:
        """One look; what goes wrong with the source is in the tally.

        Raises:
            Busy: another process looks.
            Stopped: the service was asked to stop.
        """
        tally = Tally(self.settings.name, self.settings.kind)
        with self.file.held():
            state = self.file.load()
            try:
                self._look(state, tally, retry_all=retry_all)
            except (MillesimedError, OSError) as error:
                tally.error = str(error)
                tally.failed += 1
                self.meter.failed(tally.kind)
                log.warning("acquire_failed", source=tally.name, error=str(error))
            else:
                state.success = self.now().isoformat()
                self.file.save(state)
            tally.owed, tally.given_up = len(state.owed), len(state.given_up)
        return tally

    def _look(self, state: State, tally: Tally, *, retry_all: bool) -> None:
        if due := state.due(self.now(), all_of_them=retry_all):
            self._bring(due, state, tally)
            self.file.save(state)
        for page in self.watcher.poll(dict(state.cursor)):
            self._bring(page.refs, state, tally)
            state.cursor = page.cursor
            self.file.save(state)
            if len(state.owed) > MOST_OWED:
                raise AcquireError(
                    f"{tally.name} owes {len(state.owed)} images; see why with "
                    "`millesimed acquire list`."
                )

    def _bring(self, refs: Sequence[Ref], state: State, tally: Tally) -> None:
        """Fetch and announce; what fails becomes a debt."""
        for ref, found in self._fetched(refs):
            if isinstance(found, list):
                for item in found:
                    item.properties["title"] = ref.label
                    self.announce(item)
                    tally.events.append(item.id)
                state.settle(ref.key)
                state.announced += len(found)
                self.meter.announced(tally.kind, len(found))
                log.info("acquired", source=tally.name, what=ref.label, images=len(found))
            else:
                tally.failed += 1
                self.meter.failed(tally.kind)
                self._owe(ref, state, found)

    def _owe(self, ref: Ref, state: State, why: str) -> None:
        now, known = self.now(), state.owed.get(ref.key)
        tries = known.tries if known else 0
        again = min(LONGEST_AGAIN, FIRST_AGAIN * int(2 ** min(tries, 16)))
        again = again * self.chance.uniform(0.5, 1.0)
        debt = state.owe(ref, now=now, again=now + again, why=why)
        late = now - datetime.fromisoformat(debt.since) >= GIVE_UP_AFTER
        if late:
            state.give_up(ref.key)
        event = "acquire_given_up" if late else "acquire_owed"
        log.warning(event, source=self.settings.name, what=ref.label, why=why, tries=debt.tries)

    def _fetched(self, refs: Sequence[Ref]) -> Iterator[tuple[Ref, list[pystac.Item] | str]]:
        """What was fetched, in order; a sentence where something was not."""
        if len(refs) <= 1:
            yield from ((ref, self._fetch(ref)) for ref in refs)
            return
        with ThreadPoolExecutor(self.settings.downloads, thread_name_prefix="acquire") as pool:
            works = [pool.submit(self._fetch, ref) for ref in refs]
            try:
                for ref, work in zip(refs, works, strict=True):
                    yield ref, work.result()
            finally:
                for work in works:
                    work.cancel()

    def _fetch(self, ref: Ref) -> list[pystac.Item] | str:
        try:
            return self.watcher.fetch(ref)
        except Stopped:
            raise
        except MillesimedError as error:
            return str(error)
        except OSError as error:
            return f"{ref.label} cannot be kept ({error.strerror or error}); see to the disk."
        except Exception as error:
            log.exception("acquire_broke", source=self.settings.name, what=ref.label)
            return f"{ref.label} cannot be taken in ({type(error).__name__}); see the log."

    def close(self) -> None:
        """Let go of connections."""
        self.watcher.close()
