"""What failed at the platform, in a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from daemon.publish.http import Entity, Entrepot
from daemon.publish.steps import Next, Seen, status

TAIL: Final = 3
"""Lines of a log that are shown: its end says what went wrong."""
LINE: Final = 200
AGAIN: Final = "run this again with --resume"


def failure(api: Entrepot, name: str, step: Next, seen: Any, more: Sequence[Any]) -> str:  # noqa: ANN401
    """Why a publication stops, and what to do. ``more``: the offerings of a configuration."""
    if not isinstance(seen, Seen):
        return (
            f"The offering of {name} is UNSTABLE (id {_id(more[0][0]) if more and more[0] else '?'}"
            f"): the service could not take the configuration; check `publication.service`, then "
            f"{AGAIN} to have it follow once more, or delete the offering."
        )
    if step.why.startswith("delivery"):
        return _of_checks(api, name, seen)
    if step.why.startswith("processing"):
        execution = seen.fed[-1]
        said = _tail(api.log("processings/executions", _id(execution)))
        return (
            f"The processing of {name} ended as {status(execution)}{said}; correct what it says, "
            f"then {AGAIN} to have it done once more."
        )
    return (
        f"The stored data of {name} is {step.why.rpartition(' ')[2]} (id {_id(seen.stored)}) and "
        "cannot be published; delete it, and publish the map whole, without --incremental."
    )


def _of_checks(api: Entrepot, name: str, seen: Seen) -> str:
    failed = seen.checks.get("failed") or []
    told = []
    for one in failed:
        check = one.get("check") or {}
        said = _tail(api.log("checks/executions", _id(one)))
        told.append(f"{check.get('name') or check.get('_id') or 'a check'}{said}")
    what = ", ".join(told) or "no check says why"
    return (
        f"The delivery {name} is {status(seen.upload)} (id {_id(seen.upload)}), its checks failed: "
        f"{what}; {AGAIN} to open it and send its files again, or delete it."
    )


def _tail(lines: Sequence[str]) -> str:
    """The end of a log, in brackets."""
    kept = [" ".join(line.split())[:LINE].rstrip(".") for line in lines if line.strip()][-TAIL:]
    return f" ({' / '.join(kept)})" if kept else ""


def _id(entity: Entity | Any) -> str:  # noqa: ANN401 - a mapping of either kind, or none
    return str(entity.get("_id")) if entity is not None else "?"
