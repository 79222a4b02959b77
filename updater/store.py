"""The file of one département: opening, recovering, locking and transactions. DuckDB + spatial.

Opening loads the spatial extension into an in-memory database first and attaches the file to
it, because replaying a write-ahead log that holds R-tree statements needs the extension.

**The R-tree trap.** After ``kill -9`` with R-tree changes in the log, DuckDB 1.5.x raises
"Operation requires a flat vector" on the first use of the index, and once that has happened even
``DROP INDEX`` fails (duckdb-spatial #861, fixed upstream after this wheel). The rows are intact.
So a log left beside the file means an unclean shutdown, and then the very first statements drop
every R-tree, ``CHECKPOINT``, make them again, ``CHECKPOINT``, before anything can touch one. A kill
inside those leaves a log again, and the next opening starts over.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import duckdb
import structlog

from schemas.acquisition import TERRITORY_PATTERN
from updater import faults
from updater.clock import Clock, SteadyClock, utc_now
from updater.errors import CheckpointPostponed, StoreError, StoreLocked
from updater.migrations import CREATE_INDEX, DROP_INDEX, INDEXES, LATEST, MIGRATIONS, SCHEMA_VERSION
from updater.trouble import explained, is_of_the_data, of_store

log = structlog.get_logger()
T = TypeVar("T")

CHECKPOINT_SECONDS: Final = 5.0
"""How long a checkpoint waits for readers that are still at an older state."""
CHECKPOINT_PAUSE_SECONDS: Final = 0.05


def log_of(db: Path) -> Path:
    """The write-ahead log of a store, there or not."""
    return db.with_name(db.name + ".wal")


def log_bytes(db: Path) -> int:
    """Size of its log; more than 0 while a process holds the store, and after a kill."""
    try:
        return log_of(db).stat().st_size
    except FileNotFoundError:  # closed, or folded in since the last commit
        return 0


def load_spatial(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the spatial extension from its wheel; install it only where the wheel has none."""
    import duckdb_extension_spatial

    home = Path(duckdb_extension_spatial.__file__).parent / "extensions"
    wheel = home / f"v{duckdb.__version__}" / "spatial.duckdb_extension"
    if wheel.is_file():
        connection.load_extension(str(wheel))
        return
    connection.install_extension("spatial")
    connection.load_extension("spatial")


def _attach(path: Path, *, read_only: bool, memory: str | None = None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"memory_limit": memory} if memory else {})
    try:
        load_spatial(connection)
        quoted = str(path).replace("'", "''")
        mode = " (READ_ONLY)" if read_only else ""
        connection.execute(f"ATTACH '{quoted}' AS store{mode}")  # ATTACH takes no parameters
        connection.execute("USE store")
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        connection.close()
        text = " ".join(str(error).split())
        if "lock" in text.lower():
            raise StoreLocked(
                f"The store {path.name} is in use by another process; stop the service or ask "
                "it over HTTP."
            ) from None
        raise explained(error) or StoreError(
            f"The store {path.name} does not open ({text[:200]}); restore it from a backup."
        ) from None
    return connection


@dataclass(frozen=True, slots=True)
class Rows:
    """What a statement gave, whole. An answer that is not fetched to its end keeps its transaction
    open until its thread asks again; after the next commit no checkpoint would pass it."""

    rows: list[tuple[Any, ...]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Every row."""
        return self.rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row."""
        return self.rows[0] if self.rows else None


class Store:
    """One département's map, its history, alerts and outbox.

    One writer at a time: ``transaction`` serialises threads of this process, the file's lock
    keeps other processes out. Readers use their own cursor and see the last commit.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, clock: Clock) -> None:
        self._connection = connection
        self._writing = threading.RLock()
        self._closed = False
        self._local = threading.local()
        self._facts: dict[str, str] = {}
        self.remembered: dict[str, Any] = {}
        """What was asked of the map and no patch changes."""
        self.path = path
        self.clock: Clock = SteadyClock(clock)
        self.repaired = False
        self.read_only = False
        self.commits = 0
        """Transactions since it was opened: what was read before may be out of date after one."""
        self._kept: dict[str, tuple[int, Any]] = {}

    @classmethod
    def create(cls, path: Path, *, territory: str, crs: str, millesime: int) -> Self:
        """A new, empty store.

        Raises:
            StoreError: the file exists already, or the territory is no département code.
        """
        import re

        if path.exists():
            raise StoreError(f"{path} exists already; choose another file or remove it first.")
        if not re.fullmatch(TERRITORY_PATTERN, territory):
            raise StoreError(f"{territory!r} is no département code; give it as in D032.")
        path.parent.mkdir(parents=True, exist_ok=True)
        store = cls(_attach(path, read_only=False), path, utc_now)
        with store.transaction() as cursor:
            for step in MIGRATIONS:
                cursor.execute(step)
            cursor.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    ("schema", str(SCHEMA_VERSION)),
                    ("territory", territory),
                    ("crs", crs),
                    ("millesime", str(millesime)),
                ],
            )
        return store

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        clock: Clock = utc_now,
        memory: str | None = None,
    ) -> Self:
        """An existing store, repaired after an unclean shutdown, at the current schema.

        ``memory``: what the database may take, as in ``512MB``; else what DuckDB allows itself.

        Raises:
            StoreError: no such file, no store, or made by a newer version.
            StoreLocked: another process writes to it.
        """
        if not path.is_file():
            raise StoreError(f"There is no store at {path}; make one with `millesimed init`.")
        unclean = log_bytes(path) > 0
        connection = _attach(path, read_only=read_only and not unclean, memory=memory)
        store = cls(connection, path, clock)
        store.read_only = read_only and not unclean
        try:
            if unclean or not (read_only or store._has_index()):
                store._rebuild_index()
            if unclean:
                store.repaired = True
                log.warning("store_repaired", store=path.name)
            store._migrate()
            (latest,) = store.execute(LATEST).fetchone() or (None,)
            store.clock = SteadyClock(clock, since=latest)
        except duckdb.Error as error:
            store._connection.close()
            raise explained(error) or StoreError(
                f"{path.name} is no millesimed store ({str(error)[:120]}); make one with "
                "`millesimed init`."
            ) from None
        except StoreError:
            store._connection.close()
            raise
        return store

    @staticmethod
    def held(path: Path) -> bool:
        """True while another process has the store open. Whoever waits for a store asks this before
        opening it: between the look for a log and the lock its holder could still be killed, and
        leave a log that was not seen. Not to be asked by the process that has it open: locks are
        the process's, and go with the first handle that is closed."""
        try:
            with path.open("r+b") as handle:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of at once
        except BlockingIOError:
            return True
        except OSError:  # opening says what is wrong
            return False
        return False

    def _has_index(self) -> bool:
        """False after a kill inside a recovery, which may leave a checkpointed file without a log
        and without every index, and for a file made before there were as many."""
        rows = self._connection.execute(
            "SELECT index_name FROM duckdb_indexes() WHERE database_name = 'store'"
        ).fetchall()  # to its end: see Rows
        return {row[0] for row in rows} >= INDEXES.keys()

    def _rebuild_index(self) -> None:
        for statement in (DROP_INDEX, "CHECKPOINT store", CREATE_INDEX, "CHECKPOINT store"):
            self._connection.execute(statement)
            faults.reached("in-repair")

    def build_index(self) -> None:
        """Build the R-trees over everything loaded (once, after a bulk load) and checkpoint."""
        with self._writing:
            self._connection.execute(CREATE_INDEX)
            self._connection.execute("CHECKPOINT store")

    def _migrate(self) -> None:
        found = int(self.meta("schema"))
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"The store {self.path.name} has schema {found}, newer than this program's "
                f"{SCHEMA_VERSION}; upgrade millesimed."
            )
        if self.read_only:  # an older one is read as it is
            return
        for number in range(found, SCHEMA_VERSION):
            with self.transaction() as cursor:
                cursor.execute(MIGRATIONS[number])
                cursor.execute("UPDATE meta SET value = ? WHERE key = 'schema'", [str(number + 1)])

    def meta(self, key: str) -> str:
        """A fact about the store, which never changes while it is open: ``territory``, ``crs``,
        ``millesime`` or ``schema``."""
        if key in self._facts:
            return self._facts[key]
        row = self.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        if row is None:
            raise StoreError(f"The store {self.path.name} lacks {key!r}; restore it.")
        if key != "schema":  # which a migration moves on
            self._facts[key] = str(row[0])
        return str(row[0])

    @property
    def territory(self) -> str:
        """Département code, as in ``D032``."""
        return self.meta("territory")

    @property
    def crs(self) -> str:
        """CRS of every geometry, as in ``EPSG:2154``."""
        return self.meta("crs")

    @property
    def millesime(self) -> int:
        """Year of the millésime the store was made from."""
        return int(self.meta("millesime"))

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """This thread's own connection to the same database."""
        found = getattr(self._local, "cursor", None)
        if found is None:
            found = self._connection.cursor()
            found.execute("USE store")
            self._local.cursor = found
        return found

    def execute(self, sql: str, parameters: list[Any] | dict[str, Any] | None = None) -> Rows:
        """Run one statement on this thread's cursor and fetch all it gives. Parameters are bound,
        by place or by name."""
        return Rows(self.cursor.execute(sql, parameters or []).fetchall())

    def kept(self, what: str, look: Callable[[], T]) -> T:
        """What a look at the store gives, kept until the next transaction: nobody else writes to
        it, and looking every second at a hundred stores at rest would keep a core busy.

        ``what``: names the look.
        """
        commits = self.commits  # first: what is committed meanwhile is looked at the next time
        known = self._kept.get(what)
        if known is None or known[0] != commits:
            known = self._kept[what] = commits, look()
        return cast(T, known[1])

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: all of it is committed, or none.

        Raises:
            StoreError: the disk or the database failed.
            duckdb.Error: the values cannot be written.
        """
        with self._writing, self._explaining():
            cursor = self.cursor
            cursor.execute("BEGIN")
            try:
                yield cursor
                cursor.execute("COMMIT")
                self.commits += 1
            except BaseException:
                with suppress(duckdb.Error):  # a failed commit has rolled back already
                    cursor.execute("ROLLBACK")
                raise

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """What the database says of disks as a sentence."""
        try:
            yield
        except duckdb.Error as error:
            if is_of_the_data(error):
                raise
            raise of_store(self.path.name, error) from None

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file; waits a little for readers of an older state.

        Raises:
            CheckpointPostponed: a long reader keeps it from being folded in; the next time will do.
            StoreError: the disk or the database failed; what was committed is still in the log.
        """
        until = time.monotonic() + CHECKPOINT_SECONDS
        faults.reached("in-checkpoint")
        while not self._folded(last=time.monotonic() >= until):
            time.sleep(CHECKPOINT_PAUSE_SECONDS)

    def _folded(self, *, last: bool) -> bool:
        """Try one checkpoint; False where a reader is in its way and this is not the ``last``."""
        with self._writing, self._explaining():
            try:
                self.cursor.execute("CHECKPOINT store")
            except duckdb.TransactionException:  # so a full disk is called, the first time only
                try:
                    self._connection.execute("CHECKPOINT store")
                except duckdb.TransactionException as error:
                    if not last:
                        return False
                    text = (
                        f"Somebody reads {self.path.name} ({' '.join(str(error).split())[:200]})."
                    )
                    raise CheckpointPostponed(text) from None
            faults.reached("in-checkpoint")
            return True

    def close(self) -> None:
        """Checkpoint and let go of the file; closing twice is as good as once."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            try:
                faults.reached("in-checkpoint")
                if not self.read_only:
                    self._connection.execute("CHECKPOINT store")
                faults.reached("in-checkpoint")
            except duckdb.Error as error:
                log.warning("checkpoint_failed", store=self.path.name, error=str(error)[:200])
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
