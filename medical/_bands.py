"""Bands around curves: where each point of a curve falls when other patients are drawn.

Shape suffixes: n picture, s bootstrap draw, k point of a curve.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import Estimate, bootstrap, draws, share
from unlabeled.core.intervals import wilson
from unlabeled.medical.evaluation import SAMPLES

LEVEL = 0.95
GRID = np.linspace(0, 1, 101)
Floats = NDArray[np.float64]


class Band(NamedTuple):
    """Lowest and highest of a curve at each place, (K,) each: 95 % of draws of whole patients, point by point."""

    at: Floats
    low: Floats
    high: Floats


def roc(y: NDArray[np.int64], p: Floats, patients: NDArray[np.str_], *, samples: int = SAMPLES) -> Band:
    """Of the sensitivity, by the share of false alarms."""
    ranked = _Ranked(y, p)

    def curve(w_n: Floats) -> Floats:
        found, alarms = ranked.counts(w_n)
        return np.interp(GRID, alarms / alarms[-1], found / found[-1])

    band = _band(GRID, curve, patients, samples, units=len(np.unique(patients[y == 1])))
    # More false alarms never find fewer; with all of them, all are found.
    low = np.maximum.accumulate(band.low)
    low[-1] = 1.0
    return band._replace(low=low)


def precision_recall(y: NDArray[np.int64], p: Floats, patients: NDArray[np.str_], *, samples: int = SAMPLES) -> Band:
    """Of the precision, by the share of the ill that are found."""
    ranked, at = _Ranked(y, p), GRID[1:]

    def curve(w_n: Floats) -> Floats:
        found, alarms = ranked.counts(w_n)
        first = np.searchsorted(found, at * found[-1] - 1e-9)
        return np.asarray(found[first] / (found[first] + alarms[first]))

    return _band(at, curve, patients, samples, units=len(np.unique(patients[y == 1])))


def net_benefit(
    y: NDArray[np.int64], p: Floats, patients: NDArray[np.str_], thresholds: Floats, *, samples: int = SAMPLES
) -> Band:
    """Of :func:`~unlabeled.core.evaluation.net_benefit`, by threshold probability."""
    order = np.argsort(-p, kind="stable")
    sick, treated = y[order] == 1, np.searchsorted(-p[order], -thresholds, side="right")

    def curve(w_n: Floats) -> Floats:
        w = w_n[order]
        right, wrong = (np.concatenate([[0.0], np.cumsum(w * which)])[treated] for which in (sick, ~sick))
        return np.asarray((right - wrong * thresholds / (1 - thresholds)) / w.sum())

    return _band(thresholds, curve, patients, samples)


def fifths(y: NDArray[np.int64], p: Floats, patients: NDArray[np.str_]) -> list[tuple[float, Estimate]]:
    """Stated probability, and frequency with its interval over patients, of five groups by probability, as equal as
    pictures of one probability allow: those stay together, and where they are many there are fewer groups."""
    order = np.argsort(p, kind="stable")
    free = np.concatenate([[0], np.flatnonzero(np.diff(p[order])) + 1, [len(p)]])
    wanted = np.cumsum([len(part) for part in np.array_split(order, 5)])[:-1]
    nearest = free[np.abs(free[None, :] - wanted[:, None]).argmin(axis=1)]
    parts = [rows for rows in np.split(order, np.unique(nearest)) if len(rows)]
    return [
        (float(p[rows].mean()), bootstrap(share, y[rows], groups=patients[rows], samples=SAMPLES)) for rows in parts
    ]


class _Ranked:
    """Pictures from the highest score down; pictures of one score come together."""

    def __init__(self, y: NDArray[np.int64], p: Floats) -> None:
        self.order = np.argsort(-p, kind="stable")
        self.sick = y[self.order] == 1
        self.ends = np.append(np.flatnonzero(np.diff(p[self.order])), len(p) - 1)

    def counts(self, w_n: Floats) -> tuple[Floats, Floats]:
        """How many ill are found and how many others raise an alarm, from none to all."""
        w = w_n[self.order]
        found, alarms = (np.cumsum(w * which)[self.ends] for which in (self.sick, ~self.sick))
        return np.concatenate([[0.0], found]), np.concatenate([[0.0], alarms])


def _band(
    at: Floats,
    curve: Callable[[Floats], Floats],
    patients: NDArray[np.str_],
    samples: int,
    *,
    units: int | None = None,
) -> Band:
    """``units``: of a curve of shares, where no draw moves a point, Wilson's interval of so many stands there."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value_k = curve(np.ones(len(patients)))
        drawn_sk = np.stack([curve(w_n.astype(float)) for w_n in draws(patients, samples=samples)])
    drawn_sk = drawn_sk[np.isfinite(drawn_sk).all(axis=1)]
    if not len(drawn_sk):
        return Band(at, np.full(len(at), np.nan), np.full(len(at), np.nan))
    low, high = np.quantile(drawn_sk, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    for k in np.flatnonzero(low >= high) if units is not None else ():
        low[k], high[k] = wilson(float(value_k[k]), units or 0, LEVEL)
    return Band(at, low, high)
