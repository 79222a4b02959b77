"""What a command shows: one JSON object on stdout, or tables and bars for a person on stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from detectors.types import Progress as Tick

CONSOLE = Console(stderr=True)
"""People read stderr; stdout belongs to scripts."""
PIPED_WIDTH = 500
"""Columns of a table that goes into a file or a pipe: as wide as it needs."""


def emit(document: dict[str, Any] | list[Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows as a table on stdout; nothing but a sentence where there are none. Cells may be folded,
    never cut: an id is there to be copied, and stays on one line."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    if not rows:
        console.print(f"{title}: none.")
        return
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def show_figures(title: str, figures: dict[str, Any]) -> None:
    """Named figures, one a line; those within another under its name."""
    show(title, [{"what": name, "value": value} for name, value in _flat(figures)])


def _flat(figures: dict[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{under}{name}.")
        else:
            yield f"{under}{name}", value


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows as a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return "–" if value is None else str(value)


@contextmanager
def bar(title: str) -> Iterator[Tick]:
    """A progress bar on stderr; gives the function that long work calls."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=CONSOLE,
        transient=True,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def tick(stage: str, done: int, total: int) -> None:
            name = stage.partition(" · ")[0]  # figures may follow: "train · loss 0.31 · F1 0.8"
            if name not in tasks:
                tasks[name] = progress.add_task("", total=total)
            progress.update(
                tasks[name], description=f"{title} {stage}", completed=done, total=total
            )

        yield tick


@contextmanager
def busy(title: str) -> Iterator[None]:
    """For long work that cannot say how far it is: that it goes on, and since when, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        progress.add_task(title, total=None)
        yield
