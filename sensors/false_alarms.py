"""A threshold for a stated number of false alarms a machine-month, from what the scores of a well machine did.

An alarm needs several scores in a row, so what is counted is not rows but stretches: each row has a level, the highest
threshold under which the alarm rule would have been on, and stretches of high levels, apart by more than the rule looks
back, are taken for independent. How often they come and how high they reach beyond a high quantile is extrapolated by a
generalised Pareto tail (peaks over threshold with runs declustering: Davison and Smith, 1990; Coles, "An Introduction
to Statistical Modeling of Extreme Values", 2001, chapters 4 and 5), fitted by probability-weighted moments (Hosking and
Wallis, 1987), which holds where peaks are few.

Stated assumptions: the scores of the well machine go on as in the calibration period (same mixture of conditions, no
drift), and peaks further apart than the rule looks back are independent.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.alarms import HOURS_PER_MONTH, AlarmRule, alarm_states, episodes

# Independent stretches below which a tail cannot be told.
LEAST_PEAKS = 10
# Tails that are drawn to see what chance does to one, and the smallest share of a budget that a threshold is set for.
REDRAWN, LEAST_SHARE = 200, 0.02
# The tail begins at the highest of these quantiles beyond which there are enough stretches.
QUANTILES = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
# Of a Pareto tail: a heavier one has no mean, and a lighter one than -0.5 ends where the data end.
SHAPES = (-0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Tail:
    """How often, and by how much, the levels of a well machine exceed ``start``.

    Attributes:
        start: the level from which on the tail is fitted.
        per_month: stretches above it, a machine-month.
        scale, shape: of the generalised Pareto distribution of their peaks.
        peaks: how many stretches it was fitted on.
        highest: of them.
        hours: that the calibration lasted.
    """

    start: float
    per_month: float
    scale: float
    shape: float
    peaks: int
    highest: float
    hours: float

    def threshold(self, per_month: float) -> float:
        """Above which so many alarms a machine-month are expected; never below ``start``."""
        if per_month <= 0:
            raise DataError(f"a budget of false alarms a month is above 0, got {per_month:g}")
        ratio = max(self.per_month / per_month, 1.0)
        beyond = np.log(ratio) if abs(self.shape) < 1e-9 else (ratio**self.shape - 1) / self.shape
        return float(self.start + self.scale * beyond)

    def careful_threshold(self, per_month: float) -> float:
        """Above which, on average over what else chance could have made of the calibration, so many alarms a
        machine-month are expected: the threshold of a smaller budget, higher the fewer peaks there are.

        A threshold that is right for the fitted tail is too low on average, because a tail that chance makes too short
        costs more alarms than one it makes too long saves. Tails are drawn from this one and fitted anew, and the
        budget that their thresholds are set for is lowered until this one's rate above them keeps to ``per_month`` on
        average (bootstrap calibration: Beran, "Calibrating prediction regions", JASA 1990).
        """
        draws = self._redrawn()

        def realised(share: float) -> float:
            return float(np.mean([self.expected(one.threshold(share * per_month)) for one in draws]))

        shares = np.geomspace(1, LEAST_SHARE, 40)
        kept = [share for share in shares if realised(share) <= per_month]
        return self.threshold(per_month * (kept[0] if kept else LEAST_SHARE))

    def _redrawn(self) -> list["Tail"]:
        """As chance could have made it: the number of peaks is Poisson's, each is drawn from the fitted tail."""
        draw = np.random.default_rng(0)
        found = []
        for _ in range(REDRAWN):
            count = max(LEAST_PEAKS, int(draw.poisson(self.peaks)))
            p = draw.uniform(size=count)
            x = -np.log(p) if abs(self.shape) < 1e-9 else (p**-self.shape - 1) / self.shape
            scale, shape = _pareto(self.scale * x)
            found.append(replace(self, per_month=self.per_month * count / self.peaks, scale=scale, shape=shape))
        return found

    def expected(self, threshold: float) -> float:
        """Alarms a machine-month above ``threshold``; what :meth:`threshold` inverts."""
        x = max(threshold - self.start, 0.0) / self.scale
        share = np.exp(-x) if abs(self.shape) < 1e-9 else max(1 + self.shape * x, 0.0) ** (-1 / self.shape)
        return float(self.per_month * share)


def levels(scores: ArrayLike, rule: AlarmRule) -> NDArray[np.float64]:
    """The highest threshold at which each row would switch the alarm on, (N,): the ``needed``-th largest of the last
    ``of`` smoothed scores; -inf where there are not so many yet. Rows that could not be judged (nan) are left out."""
    values = np.asarray(scores, dtype=float)
    smoothed, _ = alarm_states(values[np.isfinite(values)], np.inf, rule)
    found = np.full(len(smoothed), -np.inf)
    for row in range(rule.needed - 1, len(smoothed)):
        last = np.sort(smoothed[max(0, row + 1 - rule.of) : row + 1])
        found[row] = last[-rule.needed]
    return found


def tail(scores: ArrayLike, hours: ArrayLike, rule: AlarmRule, *, what: str) -> Tail:
    """The tail of a well machine's levels.

    Args:
        scores: (N,) of the calibration period, in order; nan where a row could not be judged.
        hours: (N,) when.
        rule: smoothing and persistence, which the peaks go through as scores will.
        what: the machine, for the error.

    Raises:
        DataError: fewer than ten independent stretches, so that a rare alarm cannot be foretold.
    """
    values, when = np.asarray(scores, dtype=float), np.asarray(hours, dtype=float)
    judged = np.isfinite(values)
    level = levels(values, rule)
    span = float(when[judged][-1] - when[judged][0]) if judged.any() else 0.0
    apart = rule.smooth + rule.of  # rows on which two levels share a score
    settled = level[np.isfinite(level)]
    for quantile in QUANTILES if len(settled) > apart and span > 0 else ():
        start = float(np.quantile(settled, quantile))
        peaks = _peaks(level, start, apart)
        if len(peaks) >= LEAST_PEAKS:
            scale, shape = _pareto(peaks - start)
            return Tail(
                start=start, per_month=len(peaks) / span * HOURS_PER_MONTH, scale=scale, shape=shape,
                peaks=len(peaks), highest=float(peaks.max()), hours=span,
            )  # fmt: skip
    raise DataError(
        f"{what}: the last third of the normal period ({span:.3g} h) holds fewer than {LEAST_PEAKS} independent peaks "
        "of the score, from which no rate of false alarms can be foretold: declare a longer normal period, or leave "
        "the budget of false alarms out, for a threshold of so many standard deviations"
    )


def _peaks(level: NDArray[np.float64], start: float, apart: int) -> NDArray[np.float64]:
    """The highest level of each stretch above ``start``; those less than ``apart`` rows from one another are one."""
    found: list[float] = []
    stop = -apart
    for begin, end in episodes(level > start):
        highest = float(level[begin:end].max())
        if begin - stop < apart and found:
            found[-1] = max(found[-1], highest)
        else:
            found.append(highest)
        stop = end
    return np.array(found)


def _pareto(excess: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shape by probability-weighted moments, the shape held within :data:`SHAPES`."""
    x, n = np.sort(excess), len(excess)
    mean = float(x.mean())
    weighted = float(np.mean(x * (1 - (np.arange(1, n + 1) - 0.35) / n)))
    shape = float(np.clip(2 - mean / max(mean - 2 * weighted, 1e-12), *SHAPES))
    # The mean of the excesses is scale / (1 - shape): kept when the shape is held.
    return max(mean * (1 - shape), 1e-12), shape
