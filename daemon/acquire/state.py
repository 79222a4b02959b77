"""What a source has been asked for already: cursor, debts, last success; one JSON file each.

A file beside the images rather than a table of the store: a look by hand must work while the
service holds the store, and on a machine that has none. Nothing is lost by that. The id of an event
follows from the image, so a crash between announcing and saving announces the same event once more,
and the store knows it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.acquire.watcher import AcquireError, Cursor, Ref
from daemon.files import write_durably


class Busy(AcquireError):
    """Another process looks at the source."""


@dataclass(slots=True)
class Debt:
    """Something that could not be fetched yet. Times are ISO 8601."""

    label: str
    data: dict[str, Any]
    tries: int
    since: str
    next: str
    why: str


@dataclass(slots=True)
class State:
    """``of``: fingerprint of the settings the cursor belongs to. ``owed``: tried again;
    ``given_up``: only when asked to."""

    of: str = ""
    cursor: Cursor = field(default_factory=dict)
    owed: dict[str, Debt] = field(default_factory=dict)
    given_up: dict[str, Debt] = field(default_factory=dict)
    success: str | None = None
    announced: int = 0

    def owe(self, ref: Ref, *, now: datetime, again: datetime, why: str) -> Debt:
        """Note that something could not be fetched."""
        known = self.owed.get(ref.key) or self.given_up.pop(ref.key, None)
        debt = Debt(
            label=ref.label,
            data=ref.data,
            tries=(known.tries if known else 0) + 1,
            since=known.since if known else now.isoformat(),
            next=again.isoformat(),
            why=why,
        )
        self.owed[ref.key] = debt
        return debt

    def give_up(self, key: str) -> None:
        """Try something no more by itself."""
        self.given_up[key] = self.owed.pop(key)

    def settle(self, key: str) -> None:
        """Something is announced at last."""
        self.owed.pop(key, None)
        self.given_up.pop(key, None)

    def due(self, now: datetime, *, all_of_them: bool = False) -> list[Ref]:
        """What is to be tried again; ``all_of_them``: what was given up too."""
        waiting = {k: d for k, d in self.owed.items() if datetime.fromisoformat(d.next) <= now}
        if all_of_them:
            waiting = {**self.owed, **self.given_up}
        return [Ref(key, debt.label, debt.data) for key, debt in waiting.items()]


class StateFile:
    """The state of one source on disk."""

    def __init__(self, folder: Path, name: str, identity: dict[str, Any]) -> None:
        self.path = folder / f"{name}.json"
        self._lock = folder / f".{name}.lock"
        text = json.dumps(identity, sort_keys=True, default=str)
        self._of = hashlib.sha256(text.encode()).hexdigest()[:16]

    def load(self) -> State:
        """What is known; a fresh state where nothing is, or where the settings list other images.

        Raises:
            AcquireError: the file is damaged.
        """
        try:
            document = json.loads(self.path.read_bytes())
            for part in ("owed", "given_up"):
                document[part] = {key: Debt(**debt) for key, debt in document[part].items()}
            state = State(**document)
        except FileNotFoundError:
            return State(of=self._of)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise AcquireError(
                f"{self.path} is damaged; remove it, and the source is looked at anew (what was "
                "announced already is recognised)."
            ) from None
        return state if state.of == self._of else State(of=self._of)

    def save(self, state: State) -> None:
        """Keep it through a crash of the machine."""
        write_durably(self.path, json.dumps(asdict(state), ensure_ascii=False).encode())

    @contextmanager
    def held(self) -> Iterator[None]:
        """One look at a time, across processes; freed by a crash.

        Raises:
            Busy: another process looks.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("wb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"{self.path.stem} is being looked at by another process; wait for it."
                ) from None
            yield
