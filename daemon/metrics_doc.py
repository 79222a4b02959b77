"""``docs/metrics.md`` from the catalogue: ``python -m daemon.metrics_doc docs/metrics.md``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from daemon.catalogue import CATALOGUE
from daemon.families import Family

HEAD: Final = """# Metrics

Made from `daemon/catalogue.py` by `python -m daemon.metrics_doc docs/metrics.md`; do not edit.

Served at `/metrics`. Label values known beforehand begin at 0; a figure nobody knows is absent,
never 0. No label names a subscription, an event or an alert: every label has the bound given
here. Histograms are classic ones with the bounds given: the Python client has no instrument for
native histograms. The process's own metrics (`process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_open_fds` and others) come from the client library.

"""


def document() -> str:
    """The document, Markdown."""
    rows = [row(family) for family in CATALOGUE.values()]
    head = ["| metric | kind | unit | labels | meaning |", "| --- | --- | --- | --- | --- |"]
    return HEAD + "\n".join([*head, *rows]) + "\n"


def row(family: Family) -> str:
    """A line of the table."""
    labels = "; ".join(
        f"`{name}`: {values if isinstance(values, str) else _listed(name, values)}"
        for name, values in family.labels.items()
    )
    meaning = family.help
    if family.buckets:
        meaning += f" Bounds: {', '.join(f'{bound:g}' for bound in family.buckets)}."
    if family.only:
        meaning += f" Only with {family.only}."
    return f"| `{family.name}` | {family.kind} | {family.unit} | {labels} | {meaning} |"


def _listed(name: str, values: tuple[str, ...]) -> str:
    return "the running one" if name == "version" else ", ".join(values)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
