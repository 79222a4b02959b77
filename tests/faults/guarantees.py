"""What was promised and what was tried, as a document.

``python -m tests.faults.guarantees TALLY.json > docs/guarantees.md``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.tally import Row, rows

PROMISES = (
    ("Every valid event has its effect exactly once", ("lost", "doubled")),
    ("The map is always a valid coverage", ("invalid",)),
    ("The file always opens", ("unopened",)),
)
INTRODUCTION = """\
# What is guaranteed, and how often that was tried

Every valid event has its effect exactly once; every invalid one is kept with its reason; no alert
is lost; the map is always a valid coverage; the file always opens. The tests below break things on
purpose, on real files, real stores and real processes, and count what went wrong. This page is
made by a run:

```sh
MILLESIMED_TALLY=tally.json pytest -m "faults or not faults" tests
python -m tests.faults.guarantees tally.json > docs/guarantees.md
```
"""


def document(found: Sequence[Row]) -> str:
    """The page: a table of faults, and each promise with its count."""
    lines = [INTRODUCTION]
    lines += ["| fault | tried | events lost | effects doubled | invalid maps | unopened files |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in found:
        counts = (row.tried, row.lost, row.doubled, row.invalid, row.unopened)
        name = row.fault.replace("|", "\\|")
        lines.append(f"| {name} | {' | '.join(_number(n) for n in counts)} |")
    total = sum(row.tried for row in found)
    lines += ["", f"{_number(total)} faults in all.", ""]
    for promise, columns in PROMISES:
        broken = sum(getattr(row, column) for row in found for column in columns)
        verdict = "held every time" if not broken else f"**broken {_number(broken)} times**"
        lines.append(f"- {promise}: {verdict}.")
    return "\n".join(lines) + "\n"


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NO-BREAK SPACE}")


def main() -> int:
    """Write the page; 1 where a promise was broken."""
    if len(sys.argv) != 2:
        sys.stderr.write("Give the tally: python -m tests.faults.guarantees tally.json\n")
        return 2
    found = rows(Path(sys.argv[1]))
    sys.stdout.write(document(found))
    return int(any(r.lost or r.doubled or r.invalid or r.unopened for r in found))


if __name__ == "__main__":
    sys.exit(main())
