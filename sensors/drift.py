"""Slow changes that are no fault: a machine that ages, the seasons, a sensor that creeps.

What each row of the picture and each indicator has slowly moved by since the normal period is taken out before a
snapshot is judged: an exponential mean of the past (EWMA: Roberts, "Control chart tests based on geometric moving
averages", Technometrics 1959), which follows while nothing is wrong and stands still while something is. It goes no
further from the normal period than a stated number of spreads, so that no fault can be learnt away: however slowly it
creeps, it is seen less that much, and a fast one is seen whole.

Shape suffixes: c channel, h row of the picture, w column, i indicator.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class InSpreads(NamedTuple):
    """A snapshot, in spreads from the means of the normal period: picture (C, H, W), indicators (I,), overall level."""

    picture: NDArray[np.float32]
    indicators: Floats
    level: float


class Drift:
    """What has slowly moved, in spreads of the normal period.

    Args:
        limit: no further than so many spreads.
        over: snapshots over which it is followed (the time constant of the exponential mean).
    """

    def __init__(self, *, limit: float, over: int) -> None:
        self.limit, self.over = limit, over
        self._picture_ch: Floats = np.zeros((1, 1))
        self._indicators_i: Floats = np.zeros(1)
        self._level = 0.0

    @property
    def used(self) -> float:
        """The share of its limit that it is at, of whatever is farthest: at 1 somebody should look."""
        farthest = max(np.abs(self._picture_ch).max(), np.abs(self._indicators_i).max(), abs(self._level))
        return float(farthest / self.limit)

    def without(self, seen: InSpreads) -> InSpreads:
        """A snapshot as it would be without the drift so far."""
        picture_chw = (seen.picture - self._picture_ch[..., None]).astype(np.float32)
        return InSpreads(picture_chw, seen.indicators - self._indicators_i, seen.level - self._level)

    def follow(self, seen: InSpreads) -> None:
        """Moves towards a snapshot, as it was seen, in which nothing is wrong."""
        self._picture_ch = self._moved(self._picture_ch, seen.picture.mean(axis=-1, dtype=np.float64))
        self._indicators_i = self._moved(self._indicators_i, seen.indicators)
        self._level = float(self._moved(self._level, seen.level))

    def _moved(self, now: Any, to: Any) -> Any:
        return now + (np.clip(to, -self.limit, self.limit) - now) / self.over

    def memory(self) -> dict[str, Any]:
        """All of it, as plain JSON."""
        return {"picture": self._picture_ch.tolist(), "indicators": self._indicators_i.tolist(), "level": self._level}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Goes on from :meth:`memory`."""
        if memory:
            self._picture_ch = np.array(memory["picture"], dtype=np.float64)
            self._indicators_i = np.array(memory["indicators"], dtype=np.float64)
            self._level = float(memory["level"])
