"""Intervals for numbers that plain percentiles of bootstrap draws say too little of.

In closed form for those that no draw changes: nothing (or everything) went wrong. Turned round for an error that noise
alone keeps above 0.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Of a share of ``n`` (Wilson, 1927); nan where there are none."""
    if not n:
        return float("nan"), float("nan")
    z = _normal(level)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return float(low if share > 0 else 0.0), float(high if share < 1 else 1.0)  # but for rounding they are


def newcombe_area(
    area: float, ill: int | Sequence[int], well: int | Sequence[int], level: float
) -> tuple[float, float]:
    """Of an area under the ROC curve over ``ill`` and ``well`` cases, which at 1 still has a lower end below 1.

    Method 5 of Newcombe ("Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part
    2", Statistics in Medicine 2006): the areas that lie within z standard errors of the one found, the error being
    Hanley and McNeil's at the area in question, both classes taken for as large as their mean. Given several numbers
    of either, cases are compared within each stratum only, and the area is over all of those pairs.
    """
    return _lower(area, ill, well, level), 1 - _lower(1 - area, ill, well, level)


def square_and_add(value: float, *parts: tuple[float, tuple[float, float]]) -> tuple[float, float]:
    """Of a sum of numbers with intervals of their own, taken for independent (MOVER: Zou and Donner, 2008).

    Args:
        value: the sum.
        parts: each number of it, and its interval.
    """
    below = np.sqrt(sum((x - low) ** 2 for x, (low, _) in parts))
    above = np.sqrt(sum((high - x) ** 2 for x, (_, high) in parts))
    return float(value - below), float(value + above)


def above_zero(value: float, drawn: ArrayLike, n: int, level: float) -> tuple[float, float]:
    """Of an error from 0 to 1 that noise can only raise, as a calibration error; holds ``value``.

    Draws are further from 0 than the number they were drawn for, as that is further than the truth; percentiles of them
    can lie above both. So they are turned round the number (basic bootstrap: Davison and Hinkley, "Bootstrap Methods
    and their Application", 1997, section 5.2). Where the error is all noise, a sum of absolute normal deviates, the
    draws are raised by ``sqrt(2) - 1`` times what the number itself is raised by: the lower end is moved down by that.

    By simulation (15 bins, 120 and 600 cases) it holds a true error of 0.05 to 0.12 in 87 to 97 % of draws, and one of
    0 in 79 % and 91 %; percentiles in 0 to 96 %, and one of 0 never.

    Args:
        drawn: values of bootstrap draws; where all are the same, as many as ``n`` right ones could hide counts as
            error (Wilson).
        n: groups (patients).
    """
    draws = np.asarray(drawn, dtype=float)
    if not len(draws):
        return float("nan"), float("nan")
    first, last = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    if not last - first > 1e-9:  # sums of the same numbers in another order differ by less
        hidden = 1 - wilson(1.0, n, level)[0]
        return max(0.0, value - hidden), min(1.0, value + hidden)
    middle = float(draws.mean())
    raised = max(0.0, middle - value) / (np.sqrt(2) - 1)
    return max(0.0, float(value - raised - (last - middle))), min(1.0, max(value, float(2 * value - first)))


def _lower(area: float, ill: int | Sequence[int], well: int | Sequence[int], level: float) -> float:
    from scipy.optimize import brentq

    if area <= 0:
        return 0.0
    pairs_k = np.atleast_1d(ill) * np.atleast_1d(well)
    pairs, more_k = float(pairs_k.sum()), (np.atleast_1d(ill) + np.atleast_1d(well)) / 2 - 1
    z, more = _normal(level), float(pairs_k @ more_k) / pairs

    def beyond(a: float) -> float:
        spread = a * (1 - a) * (1 + more * ((1 - a) / (2 - a) + a / (1 + a)))
        return float((area - a) ** 2 * pairs - z**2 * spread)

    # At the area itself it is never above 0; at an area of 1 it is 0 there, which is not the end looked for.
    return float(brentq(beyond, 0.0, area * (1 - 1e-9)))


def _normal(level: float) -> float:
    from scipy import stats

    return float(stats.norm.ppf((1 + level) / 2))
