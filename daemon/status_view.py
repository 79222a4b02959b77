"""A status on a terminal: tables that a person reads from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.status import Status

DRIFTED_SIGMAS: Final = 3.0
"""From here on a detector flags another share of its scenes than it used to."""
UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60))


def view(status: Status) -> RenderableType:
    """Everything there is to show; tables nobody has anything for are left out."""
    tables = [
        _table("Stages", status.stages, {"newest": _when, "seconds": _seconds}),
        _table("Outbox", status.outbox, {"age_seconds": age}),
        _table("Waiting", _waiting(status), {}),
        _table("Dead letters", _named(status.dead_letters, "reason", "events"), {}),
        _table("Stores", status.stores, _STORE),
        _table("Sources", status.sources, {"last_success": _when, "cursor": _cursor}),
        _table("Exports", _named(status.export_jobs, "state", "jobs"), {}),
        _table("Exports waited for or failed", [_export(r) for r in status.exports], _SINCE),
        _table("Publications", [_publication(r) for r in status.publications], _SINCE),
        _table("Detectors", status.detectors, _DETECTOR),
        _table("GPU", status.gpus, {"busy": _share, "used_bytes": _size, "total_bytes": _size}),
    ]
    return Group(_head(status), *(table for table in tables if table is not None))


def _head(status: Status) -> Panel:
    well = status.trouble is None
    lines = [Text(status.state, style="bold green" if well else "bold red")]
    if status.trouble is not None:
        lines.append(Text(status.trouble, style="red"))
    if status.version is not None:
        where = f"millesimed {status.version} at {status.url}"
        lines.append(Text(f"{where}, up {age(status.up_seconds)}"))
    events = dict(status.events)
    last, rate = events.pop("last", None), events.pop("per_hour", None)
    if events:
        counts = ", ".join(f"{_number(count)} {name}" for name, count in events.items())
        pace = f"; {_number(rate)} an hour" if rate is not None else ""
        lines.append(Text(f"events: {counts}{pace}; the last {_when(last)}"))
    taken = f"{status.taken:%Y-%m-%d %H:%M:%S} UTC"
    return Panel(Group(*lines), title="millesimed", subtitle=taken, title_align="left")


def _waiting(status: Status) -> list[dict[str, Any]]:
    rows = _named(status.lag, "partition", "events")
    if status.waiting_seconds:
        rows.append({"partition": "the oldest, for", "events": age(status.waiting_seconds)})
    return rows


def _export(row: Mapping[str, Any]) -> dict[str, Any]:
    what = f"{row['product']} {row['years']} {row['territory']}, {row['format']}"
    since = row["began"] or row["asked"]
    return {"export": what, "state": row["state"], "since": since, "why": row["error"]}


def _publication(row: Mapping[str, Any]) -> dict[str, Any]:
    what = " ".join(str(row[name]) for name in ("map", "millesime") if row[name] is not None)
    why = row["error"] or row["step"]
    return {"publication": what, "state": row["state"], "since": row["since"], "at": why}


def _named(counts: Mapping[str, float], name: str, value: str) -> list[dict[str, Any]]:
    return [{name: key, value: count} for key, count in counts.items()]


def _table(title: str, rows: Sequence[Mapping[str, Any]], how: Mapping[str, Any]) -> Table | None:
    """Rows with the columns any of them has; ``how``: what writes a column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    if not names:
        return None
    table = Table(title=title, title_justify="left", expand=True)
    for name in names:
        numbers = all(isinstance(row.get(name), int | float | None) for row in rows)
        header = name.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")
        table.add_column(header, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        cells = [row.get(name) for name in names]
        table.add_row(
            *("–" if c is None else how.get(n, _cell)(c) for n, c in zip(names, cells, strict=True))
        )
    return table


def _cell(value: Any) -> RenderableType:  # noqa: ANN401 - whatever a status holds
    return _number(value) if isinstance(value, int | float) else Text(str(value))


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _seconds(value: float) -> str:
    return f"{value:,.3f} s" if value < 1 else f"{value:,.1f} s"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _size(value: float) -> str:
    return decimal(int(value))


def _when(value: datetime | str | None) -> str:
    if value is None:
        return "–"
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment:%Y-%m-%d %H:%M}"


def _cursor(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {place}" for name, place in value.items()) or "–"


def _drift(value: float) -> Text:
    return Text(f"{value:+.1f} σ", style="red" if abs(value) >= DRIFTED_SIGMAS else "")


def _pace(value: float) -> str:
    return f"{value / 1e6:,.1f} Mpx/s"


def age(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    for unit, length in UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


_STORE: Final = {
    "bytes": _size,
    "log_bytes": _size,
    "free_bytes": _size,
    "checkpoint": _when,
    "map": _when,
}
_SINCE: Final = {"since": _when}
_DETECTOR: Final = {"flagged": _share, "drift_sigmas": _drift, "pixels_per_second": _pace}
