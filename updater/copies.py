"""A store as a fresh file: a new, empty one that takes in every row one transaction sees.

So the copy is a state the store really had, however many events are committed meanwhile, and holds
no dead space. The file itself must not be copied by this process: closing any handle of it would
let go of the lock that keeps other processes out (POSIX record locks).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import duckdb

from updater import histories
from updater.errors import StoreError
from updater.migrations import CREATE_INDEX, MIGRATIONS
from updater.store import Store
from updater.trouble import explained

KNOWN_SINCE: Final = ("recorded", "received", "created")
"""Columns that say when a row became known, by their order of precedence."""
HELD: Final = ".held"
"""Ends the name of the folder beside a store that keeps its histories while they are copied."""

Condition = tuple[str, Sequence[Any]]
"""Which rows of a table: SQL and its parameters."""
ALL: Final[Condition] = ("true", ())
NONE: Final[Condition] = ("false", ())


def write_copy(
    store: Store,
    path: Path,
    keep: Mapping[str, Condition] | None = None,
    *,
    known_at: datetime | None = None,
    facts: Mapping[str, datetime] | None = None,
    with_histories: bool = True,
) -> dict[str, int]:
    """Copy what one transaction sees into a new file, and the histories it names beside that; gives
    how many rows of each table.

    ``keep``: which rows of some tables, all of the others. ``known_at``: only what was known then,
    and no offsets, for how far Kafka had been read then is not known. ``facts``: noted in the copy.

    Raises:
        StoreError: the disk does not take it, or the store cannot be read.
    """
    held = store.path.with_name(f".{store.path.name}.{uuid4().hex}{HELD}")
    try:
        with _beside(store, path) as (cursor, name):
            for step in MIGRATIONS[: int(store.meta("schema"))]:
                cursor.execute(step)
            tables = _tables(cursor)
            with_histories = with_histories and "series" in tables
            with store.transaction():  # nobody commits, and so no history goes, in between
                cursor.execute("BEGIN")
                cursor.execute("SELECT count(*) FROM store.meta").fetchall()  # its state from here
                named = _named(cursor, "store") if with_histories else []
                histories.give(histories.folder_of(store.path), named, held)
            counts = {
                table: _take(cursor, name, table, _which(table, columns, keep or {}, known_at))
                for table, columns in tables.items()
            }
            if "passed_over" in tables:  # it does not say since when
                cursor.execute("DELETE FROM passed_over WHERE seq NOT IN (SELECT seq FROM outbox)")
            for fact, moment in (facts or {}).items():
                text = moment.astimezone(UTC).isoformat()
                cursor.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [fact, text])
            _copy_sequences(cursor)
            named = _named(cursor, name) if with_histories else []
            cursor.execute("COMMIT")
            cursor.execute(CREATE_INDEX)
            cursor.execute(f"CHECKPOINT {name}")
        histories.give(held, named, histories.folder_of(path))
    except (duckdb.Error, OSError) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        raise explained(error) or StoreError(
            f"The copy cannot be made ({text}); {store.path.name} is as it was."
        ) from None
    finally:
        shutil.rmtree(held, ignore_errors=True)
    return counts


@contextmanager
def _beside(store: Store, path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A connection whose database is another, new file, under the name given with it; the store is
    ``store`` to it."""
    name = f"beside_{uuid4().hex}"
    cursor = store.cursor.cursor()
    quoted = str(path).replace("'", "''")
    try:
        cursor.execute(f"ATTACH '{quoted}' AS {name}")  # ATTACH takes no parameters
        cursor.execute(f"USE {name}")
        cursor.execute("SET TimeZone = 'UTC'")
        yield cursor, name
    finally:
        with suppress(duckdb.Error):  # no transaction was left open
            cursor.execute("ROLLBACK")
        with suppress(duckdb.Error):  # it was not attached
            cursor.execute("USE store")
            cursor.execute(f"DETACH {name}")
        cursor.close()


def _tables(cursor: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Every table of the store with its columns."""
    rows = cursor.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() "
        "WHERE database_name = 'store' AND table_name IN (SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = 'store') GROUP BY table_name ORDER BY table_name"
    ).fetchall()
    return dict(rows)


def _which(
    table: str,
    columns: Sequence[str],
    keep: Mapping[str, Condition],
    known_at: datetime | None,
) -> Condition:
    where, values = keep.get(table, ALL)
    if known_at is None:
        return where, values
    if table == "offsets":
        return NONE
    known = next((column for column in KNOWN_SINCE if column in columns), None)
    if known is None:
        return where, values
    return f"({where}) AND {known} <= ?", [*values, known_at]


def _take(cursor: duckdb.DuckDBPyConnection, name: str, table: str, condition: Condition) -> int:
    """Copy some rows of a table; gives how many."""
    where, values = condition
    ((count,),) = cursor.execute(
        f'INSERT INTO {name}."{table}" BY NAME SELECT * FROM store."{table}" WHERE {where}',
        list(values),
    ).fetchall()
    return int(count)


def _named(cursor: duckdb.DuckDBPyConnection, name: str) -> histories.Named:
    return cursor.execute(f"SELECT block, file FROM {name}.series ORDER BY block").fetchall()


def _copy_sequences(cursor: duckdb.DuckDBPyConnection) -> None:
    """Sequences go on where the store's are: no number is given out twice."""
    rows = cursor.execute(
        "SELECT sequence_name, coalesce(last_value + 1, start_value) FROM duckdb_sequences() "
        "WHERE database_name = 'store' ORDER BY 1"
    ).fetchall()
    for name, start in rows:
        cursor.execute(f"DROP SEQUENCE {name}")
        first = int(start)
        cursor.execute(f"CREATE SEQUENCE {name} START {first}")
