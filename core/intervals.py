"""Intervals in closed form, for numbers that no bootstrap draw changes: nothing (or everything) went wrong."""

import numpy as np


def wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Of a share of ``n`` (Wilson, 1927); nan where there are none."""
    if not n:
        return float("nan"), float("nan")
    z = _normal(level)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return float(low if share > 0 else 0.0), float(high if share < 1 else 1.0)  # but for rounding they are


def newcombe_area(area: float, ill: int, well: int, level: float) -> tuple[float, float]:
    """Of an area under the ROC curve over ``ill`` and ``well`` cases, which at 1 still has a lower end below 1.

    Method 5 of Newcombe ("Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part
    2", Statistics in Medicine 2006): the areas that lie within z standard errors of the one found, the error being
    Hanley and McNeil's at the area in question, both classes taken for as large as their mean.
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


def _lower(area: float, ill: int, well: int, level: float) -> float:
    from scipy.optimize import brentq

    if area <= 0:
        return 0.0
    z, more = _normal(level), (ill + well) / 2 - 1

    def beyond(a: float) -> float:
        spread = a * (1 - a) * (1 + more * ((1 - a) / (2 - a) + a / (1 + a)))
        return float((area - a) ** 2 * ill * well - z**2 * spread)

    # At the area itself it is never above 0; at an area of 1 it is 0 there, which is not the end looked for.
    return float(brentq(beyond, 0.0, area * (1 - 1e-9)))


def _normal(level: float) -> float:
    from scipy import stats

    return float(stats.norm.ppf((1 + level) / 2))
