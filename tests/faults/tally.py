"""Counting what was tried and what came of it, so that the guarantees can be written down.

Rows are appended to the file that ``MILLESIMED_TALLY`` names, one JSON object a line, which
processes may do at the same time; without the variable nothing is written.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "MILLESIMED_TALLY"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of fault: how often it was tried, and how often something went wrong."""

    fault: str
    tried: int
    lost: int = 0
    doubled: int = 0
    invalid: int = 0
    unopened: int = 0
    failed: int = 0
    """Tests that ended before they could count: what they would have counted is not known."""


def tally(
    fault: str, *, tried: int, lost: int = 0, doubled: int = 0, invalid: int = 0, unopened: int = 0
) -> None:
    """Note a fault that was tried: events lost, effects doubled, invalid maps, unopened files."""
    _note(Row(fault, tried, lost, doubled, invalid, unopened))


def failure(test: str) -> None:
    """Note a test that failed, for a page without it would say more than was found."""
    _note(Row(f"failed: {test}", tried=0, failed=1))


def _note(row: Row) -> None:
    place = os.environ.get(VARIABLE)
    if not place:
        return
    line = json.dumps(asdict(row), ensure_ascii=False) + "\n"
    with Path(place).open("a", encoding="utf-8") as stream:
        stream.write(line)  # one write of less than a page: whole, whoever else writes


def rows(path: Path) -> list[Row]:
    """Everything noted, faults of one name added up, in the order they first came."""
    found: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = Row(**json.loads(line))
        known = found.get(row.fault)
        found[row.fault] = row if known is None else _sum(known, row)
    return list(found.values())


def _sum(a: Row, b: Row) -> Row:
    return Row(
        a.fault,
        a.tried + b.tried,
        a.lost + b.lost,
        a.doubled + b.doubled,
        a.invalid + b.invalid,
        a.unopened + b.unopened,
        a.failed + b.failed,
    )
