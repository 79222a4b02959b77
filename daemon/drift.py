"""Whether a detector still flags what it used to: an EWMA control chart (Roberts 1959).

The share of a scene that is flagged is taken as log odds, for shares of 0.1 % and of 1 % are as
far apart as those of 1 % and 10 %. A fast average of recent scenes is compared with the slow mean
and spread of all of them; its distance, in standard deviations of such an average, is what drifts.
One odd scene moves it little, a run of them a lot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FAST: Final = 0.2
"""Weight of the newest scene in the average of recent ones: about ten scenes count."""
SLOW: Final = 0.01
"""Least weight of the newest scene in the normal: about two hundred scenes are remembered."""
LEAST_SPREAD: Final = 0.1
"""Log odds: shares within a tenth of each other are the same."""
LEAST_SHARE: Final = 1e-6
"""A pixel of a megapixel: what nothing flagged is taken for."""


@dataclass(slots=True)
class Chart:
    """The state of one detector; ``count`` scenes seen."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    recent: float = 0.0

    def add(self, share: float) -> float:
        """Take in a scene's flagged share, 0 to 1; gives the drift in standard deviations, 0 for
        the first scene, which is its own normal."""
        p = min(1 - LEAST_SHARE, max(LEAST_SHARE, share))
        value = math.log(p / (1 - p))
        self.count += 1
        if self.count == 1:
            self.mean = self.recent = value
            return 0.0
        self.recent += FAST * (value - self.recent)
        drift = (self.recent - self.mean) / (self.spread * _narrowing(self.count))
        weight = max(SLOW, 1 / self.count)
        step = value - self.mean
        self.mean += weight * step
        self.variance = (1 - weight) * (self.variance + weight * step**2)
        return drift

    @property
    def spread(self) -> float:
        """Standard deviation of a scene about the normal, log odds."""
        return max(LEAST_SPREAD, math.sqrt(self.variance))


def _narrowing(count: int) -> float:
    """Spread of the average of recent scenes in that of one scene."""
    return math.sqrt(FAST / (2 - FAST) * (1 - (1 - FAST) ** (2 * count)))
