"""What was promised and what was tried, as a document.

``python -m tests.faults.guarantees TALLY.json > docs/guarantees.md``
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.tally import Row, rows

PROMISES = (
    (
        "Every valid event has its effect once, every invalid one is kept, no alert is lost",
        ("lost", "doubled"),
    ),
    ("The map is always a valid coverage", ("invalid",)),
    ("The file always opens", ("unopened",)),
)
INTRODUCTION = """\
# What is guaranteed, and how often that was tried

Every valid event has its effect exactly once; every invalid one is kept with its reason; no alert
is lost; the map is always a valid coverage; the file always opens. The tests below break things on
purpose, on real files, real stores and real processes, and count what went wrong. After every kill
the store is opened and verified, and must still have every event, dead letter and message it had
before; at the end it must say what one that was left alone says: the same map, history, lineage,
alerts, dead letters and messages, each message in its first copy, in the same order. Nobody writes
this page; a run does:

```sh
MILLESIMED_TALLY=tally.json pytest -m "faults or not faults" tests
python -m tests.faults.guarantees tally.json > docs/guarantees.md
```
"""
HEAD = "| fault | tried | events lost | effects doubled | invalid maps | unopened files |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: |"
SPACE = "\N{NO-BREAK SPACE}"


def document(found: Sequence[Row]) -> str:
    """The page: a table of faults, and each promise with its count."""
    counted = [row for row in found if not row.failed]
    lines = [INTRODUCTION, HEAD, RULE]
    for row in counted:
        counts = (row.tried, row.lost, row.doubled, row.invalid, row.unopened)
        name = row.fault.replace("|", "\\|")
        lines.append(f"| {name} | {' | '.join(_number(n) for n in counts)} |")
    total = sum(row.tried for row in counted)
    lines += ["", f"{_number(total)} faults in all.", ""]
    for promise, columns in PROMISES:
        broken = sum(getattr(row, column) for row in counted for column in columns)
        verdict = "held every time" if not broken else f"**broken {_number(broken)} times**"
        lines.append(f"- {promise}: {verdict}.")
    for row in (row for row in found if row.failed):
        lines.append(f"- **{row.fault}**")
    return "\n".join(lines) + "\n"


def table(page: str) -> list[Row]:
    """The rows a page was made of.

    Raises:
        ValueError: a table of another form.
    """
    lines = [line for line in page.splitlines() if line.startswith("|")]
    if lines[:2] != [HEAD, RULE]:
        raise ValueError("The table has other columns; make the page again.")
    found = []
    for line in lines[2:]:
        name, *counts = re.split(r"(?<!\\)\|", line)[1:-1]
        numbers = [int(count.replace(SPACE, "")) for count in counts]
        found.append(Row(name.strip().replace("\\|", "|"), *numbers))
    return found


def _number(value: int) -> str:
    return f"{value:,}".replace(",", SPACE)


def main() -> int:
    """Write the page; 1 where a promise was broken or a test failed."""
    if len(sys.argv) != 2:
        sys.stderr.write("Give the tally: python -m tests.faults.guarantees tally.json\n")
        return 2
    found = rows(Path(sys.argv[1]))
    sys.stdout.write(document(found))
    return int(any(r.lost or r.doubled or r.invalid or r.unopened or r.failed for r in found))


if __name__ == "__main__":
    sys.exit(main())
