"""From a score over time to alarms: smoothing, persistence, hysteresis; and the plain rules they are compared with.

Everything here looks back only.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.errors import DataError

# A twelfth of a year, in which alarms are counted.
HOURS_PER_MONTH = 730.5
# How far a machine is from its normal, in four steps as in ISO 20816's zones A to D.
LEVELS = ("acceptable", "monitor", "alarm", "danger")
# In shares of the threshold: where a score is worth a look, and where an alarm becomes danger.
MONITOR_FROM, DANGER_FROM = 0.7, 2.0


@dataclass(frozen=True, kw_only=True)
class AlarmRule:
    """One setting for all machines of a kind.

    Attributes:
        smooth: the score is the median of the last so many.
        needed, of: an alarm starts when ``needed`` of the last ``of`` smoothed scores lie above the threshold.
        clear_below: share of the threshold under which a score counts as calm again.
        clear_after: an alarm ends after so many calm scores in a row.

    Raises:
        DataError: a rule by which no alarm could start or end.
    """

    smooth: int = 9
    needed: int = 5
    of: int = 6
    clear_below: float = 0.7
    clear_after: int = 12

    def __post_init__(self) -> None:
        if min(self.smooth, self.needed, self.of, self.clear_after) < 1:
            raise DataError("smooth, needed, of and clear_after of an alarm are whole numbers from 1 on")
        if self.needed > self.of:
            raise DataError(f"no alarm could start: needed is {self.needed} of the last {self.of} scores")
        if not 0 < self.clear_below <= 1:
            raise DataError(f"clear_below is a share of the threshold, above 0 and at most 1, got {self.clear_below:g}")

    def config(self) -> dict[str, float]:
        return dict(self.__dict__)


class AlarmState:
    """The rule applied score by score.

    Args:
        rule: how.
        threshold: a smoothed score above it is an exceedance.
    """

    def __init__(self, rule: AlarmRule, threshold: float) -> None:
        self.rule, self.threshold, self.on = rule, threshold, False
        self._scores: deque[float] = deque(maxlen=rule.smooth)
        self._above: deque[bool] = deque(maxlen=rule.of)
        self._calm = 0

    def memory(self) -> dict[str, Any]:
        """What the next score will be judged with, as plain JSON."""
        of_now = {"scores": list(self._scores), "above": list(self._above), "calm": self._calm, "on": self.on}
        return {**of_now, "threshold": self.threshold, "rule": self.rule.config()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Goes on from :meth:`memory`; what was counted under another threshold or rule does not count here."""
        self._scores = deque(memory["scores"], maxlen=self.rule.smooth)
        self.on = memory["on"]
        now = {"threshold": self.threshold, "rule": self.rule.config()}
        if all(memory.get(name, value) == value for name, value in now.items()):  # older memories do not say
            self._above, self._calm = deque(memory["above"], maxlen=self.rule.of), memory["calm"]
        else:
            self._above, self._calm = deque(maxlen=self.rule.of), 0

    def push(self, score: float) -> tuple[float, bool]:
        """Takes the next score that could be judged; returns the smoothed score and whether the alarm is on."""
        self._scores.append(score)
        smoothed = float(np.median(self._scores))
        self._above.append(smoothed > self.threshold)
        self._calm = self._calm + 1 if smoothed < self.rule.clear_below * self.threshold else 0
        if not self.on and sum(self._above) >= self.rule.needed:
            self.on = True
        elif self.on and self._calm >= self.rule.clear_after:
            self.on = False
            self._above.clear()
        return smoothed, self.on


def alarm_states(scores: ArrayLike, threshold: float, rule: AlarmRule) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Smoothed scores and alarm states of a whole sequence; nan (cannot judge) holds the state as it is."""
    state = AlarmState(rule, threshold)
    values = np.asarray(scores, dtype=float)
    smoothed, on = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    for i, value in enumerate(values):
        if np.isfinite(value):
            smoothed[i], on[i] = state.push(float(value))
        else:
            on[i] = state.on
    return smoothed, on


def level(smoothed: float | None, threshold: float, *, alarm: bool) -> str:
    """One of ``LEVELS``; ``smoothed`` is the last that could be judged."""
    if smoothed is not None and alarm and smoothed > DANGER_FROM * threshold:
        return "danger"
    if alarm:
        return "alarm"
    return "monitor" if smoothed is not None and smoothed > MONITOR_FROM * threshold else "acceptable"


class Episode(NamedTuple):
    """A stretch of rows ``start..stop-1``."""

    start: int
    stop: int


def episodes(flags: ArrayLike) -> list[Episode]:
    """Stretches of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, np.asarray(flags, dtype=bool), False].astype(np.int8)))
    return [Episode(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def latched(exceeds: ArrayLike) -> int | None:
    """The row from which on every row exceeds, known only in hindsight; ``None`` when the last one does not."""
    found = episodes(exceeds)
    return found[-1].start if found and found[-1].stop == len(np.asarray(exceeds)) else None


def sustained(exceeds: ArrayLike, *, rows: int) -> int | None:
    """The first row of the first ``rows`` exceedances in a row (an alarm is raised at the last of these)."""
    return next((e.start for e in episodes(exceeds) if e.stop - e.start >= rows), None)
