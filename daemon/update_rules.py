"""What an update process goes by: whose a message is, and which acquisition waits for which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from shapely.geometry.base import BaseGeometry

from schemas.acquisition import TERRITORY_PATTERN
from schemas.policy import CONTEXT_M
from schemas.task import CONTEXT_MISSING, Judgement
from updater.asked import Asked, Rival

SHARED_M: Final = 4.0
"""Two images share ground where what both cover is wider than this: on less neither sees half of
the smallest region (50 m², 7 m across), and tiles that adjoin overlap by a pixel or two."""


def must_wait(footprint: BaseGeometry, drawn_until: datetime, rivals: Sequence[Rival]) -> bool:
    """True where an acquisition may turn out otherwise once earlier ones are done with: they share
    ground with it, or lie around it and are old enough to alter the map it is compared with.

    ``drawn_until``: the latest date that map may be as of.
    """
    around = footprint.buffer(CONTEXT_M)
    return any(
        not rival.footprint.intersection(footprint).buffer(-SHARED_M / 2).is_empty
        or (rival.acquired <= drawn_until and rival.footprint.intersects(around))
        for rival in rivals
    )


def waited_for(row: Asked, judgement: Judgement) -> bool:
    """A judgement of the task that is out. One that only says its context was missing counts for
    the attempt it is of."""
    if row.task is None or row.task.task != judgement.task or row.judgement is not None:
        return False
    return judgement.reason != CONTEXT_MISSING or judgement.attempt == row.task.attempt


def departement_of(key: str) -> str | None:
    """The département a partition key names."""
    name = key.partition("/")[0]
    return name if re.fullmatch(TERRITORY_PATTERN, name) else None
