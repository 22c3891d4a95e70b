"""How long until a score reaches a level, where its trend is significant; otherwise nothing is said.

Growth is taken to be exponential, as of spreading faults (Gebraeel et al., "Residual-life distributions from component
degradation signals: a Bayesian approach", IIE Transactions 37, 2005): the logarithm of the score is a line with noise
that remembers the noise before, fitted by Prais and Winsten's transformation (1954), its memory corrected for the bias
of short records (Marriott and Pope, Biometrika 41, 1954). The interval is Fieller's (1954), which counts both where the
line stands and how steep it is: it is of the line, around which scores go on to vary. What is asked about are scores
since an alarm began, which the alarm has not picked for having risen; a single step explains them no worse than a line
where there is no growth. It is the time to a level of the score, not the life of a machine: what that level means to
this machine nobody has told.

Shapes: n scores.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Scores that a trend is told from, and the fewest.
ROWS, LEAST = 60, 15
# A rise that chance alone gives more often than this is none.
SIGNIFICANCE = 0.01
CONFIDENCE = 0.90
_LARGEST_MEMORY = 0.95

Floats = NDArray[np.float64]


class Remaining(NamedTuple):
    """Hours until the level, or why nothing is said.

    Attributes:
        hours, low, high: with a 90 % interval; all nan where nothing is said.
        declined: the reason, or nothing.
    """

    hours: float
    low: float
    high: float
    declined: str = ""

    def words(self, level: str) -> str:
        if self.declined:
            return f"How long until the level {level} is not said: {self.declined}."
        return (
            f"Going on as it does, the score reaches the level {level} in {self.hours:.3g} h (90 % interval: "
            f"{self.low:.3g} to {self.high:.3g} h). That is no life of the machine."
        )


def until(hours_n: ArrayLike, scores_n: ArrayLike, level: float, *, now: float | None = None) -> Remaining:
    """From the last ``ROWS`` scores that are finite and above nought.

    Args:
        hours_n: times, increasing.
        scores_n: scores before smoothing, which would make neighbours alike; since an alarm began.
        level: above nought.
        now: the smoothed score.
    """
    from scipy.stats import t as student

    hours, scores = np.asarray(hours_n, dtype=float), np.asarray(scores_n, dtype=float)
    # Of scores around nought a logarithm says nothing: the trend begins after the last of them.
    usual = np.flatnonzero(np.isfinite(scores) & (scores <= 0))
    begin = usual[-1] + 1 if len(usual) else 0
    kept = np.flatnonzero(np.isfinite(scores[begin:]))[-ROWS:] + begin
    if now is not None and now >= level:
        return _declined("it has been reached")
    if len(kept) < LEAST:
        return _declined(f"fewer than {LEAST} scores above nought have come since the alarm began")
    line, cover = _line(hours[kept] - hours[kept[-1]], np.log(scores[kept]) - np.log(level))
    gap, slope = float(line[0]), float(line[1])
    free = len(kept) - 3  # a line and a memory were fitted
    if slope <= 0:
        return _declined("the score does not rise")
    if slope <= student.isf(SIGNIFICANCE, free) * np.sqrt(cover[1, 1]):
        return _declined("the rise could be chance")
    if gap >= 0:
        return _declined("it has been reached")
    if _step(np.log(scores[kept])) <= _left(hours[kept], np.log(scores[kept])):
        return _declined("a single step explains the rise as well as growth does")
    # Times t at which gap + slope t is not told from nought: the slope is, so that they are an interval.
    q = float(student.isf((1 - CONFIDENCE) / 2, free)) ** 2
    square, linear, constant = (
        slope**2 - q * cover[1, 1], gap * slope - q * cover[0, 1], gap**2 - q * cover[0, 0],
    )  # fmt: skip
    root = np.sqrt(max(linear**2 - square * constant, 0.0))
    low, high = (float(max((-linear + side * root) / square, 0.0)) for side in (-1, 1))
    return Remaining(-gap / slope, low, high)


def _line(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Height at ``x = 0`` and slope, (2,), and their covariance, (2, 2), under noise of first-order memory."""
    design, memory = np.stack([np.ones_like(x), x], axis=1), 0.0
    for _ in range(4):  # settles after two or three
        first, rest = np.sqrt(1 - memory**2), slice(1, None)
        a = np.concatenate([first * design[:1], design[rest] - memory * design[:-1]])
        b = np.concatenate([first * y[:1], y[rest] - memory * y[:-1]])
        inverse = np.linalg.inv(a.T @ a)
        line = inverse @ (a.T @ b)
        left = y - design @ line
        found = float(left[1:] @ left[:-1]) / max(float(left @ left), 1e-300)
        # Around a fitted line the memory of a short record looks too short.
        memory = float(np.clip(found + (2 + 4 * found) / len(x), 0.0, _LARGEST_MEMORY))
    noise = b - a @ line
    return line, inverse * float(noise @ noise) / (len(x) - 3)


def _left(x: Floats, y: Floats) -> float:
    """Squares that the best line leaves."""
    return float(np.square(y - np.polyval(np.polyfit(x - x[-1], y, 1), x - x[-1])).sum())


def _step(y: Floats) -> float:
    """Squares that two means leave, parted where that is best."""
    n, total, power = np.arange(1, len(y)), np.cumsum(y), float(np.square(y).sum())
    first, rest = total[:-1], total[-1] - total[:-1]
    return float((power - first**2 / n - rest**2 / (len(y) - n)).min())


def _declined(why: str) -> Remaining:
    return Remaining(float("nan"), float("nan"), float("nan"), why)
