"""A group's metrics on the group itself and on every bootstrap draw of it at once.

Shape suffixes: n row, s bootstrap draw, k block of equal scores, c calibration bin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import Estimate

BINS = 10
RATES = ("sensitivity", "specificity", "underdiagnosis rate", "false positive rate")
METRICS = ("AUROC", *RATES, "calibration in the large", "calibration error")
# A calibration error is biased upwards by noise, more so in a small group: groups are not compared by it. Sensitivity
# and specificity are the other side of the two rates.
COMPARED = ("AUROC", "underdiagnosis rate", "false positive rate", "calibration in the large")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Metrics by name: of the group as it is, and of each draw (S,) (nan where a draw has one class only).

    Attributes:
        units: how many ill and how many well units (patients) there are.
    """

    value: dict[str, float]
    drawn: dict[str, Floats]
    units: tuple[int, int]

    def interval(self, metric: str, level: float) -> Estimate:
        values = self.drawn[metric][np.isfinite(self.drawn[metric])]
        value = self.value[metric]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (np.nan, np.nan)
        if metric in RATES and not high > low:
            low, high = _wilson(value, self._of(metric), level)
        return Estimate(value, float(low), float(high))

    def least_error(self, metric: str) -> float:
        """A standard error that is never 0, for groups in which nothing (or everything) went wrong."""
        if metric in RATES:
            n = self._of(metric)
            p = (self.value[metric] * n + 2) / (n + 4)  # Agresti and Coull, 1998
            return float(np.sqrt(p * (1 - p) / (n + 4)))
        return _hanley_mcneil(self.value[metric], *self.units) if metric == "AUROC" else 0.0

    def _of(self, metric: str) -> int:
        return self.units[0] if metric in ("sensitivity", "underdiagnosis rate") else self.units[1]


def error_of_difference(one: Draws, other: Draws, metric: str) -> float:
    """Standard error of the difference, over the same draws of both groups."""
    differences = one.drawn[metric] - other.drawn[metric]
    differences = differences[np.isfinite(differences)]
    drawn = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return max(drawn, float(np.hypot(one.least_error(metric), other.least_error(metric))))


def measure(
    y: NDArray[np.bool_],
    probability: Floats,
    called: NDArray[np.bool_],
    weights_sn: NDArray[np.float32],
    *,
    units: tuple[int, int],
) -> Draws:
    """All of :data:`METRICS`, for the rows as they are and for each row of weights (S, N)."""
    w_sn = np.concatenate([np.ones((1, len(y)), dtype=np.float32), weights_sn])
    with np.errstate(invalid="ignore", divide="ignore"):
        ill, well, all_ = w_sn @ y, w_sn @ ~y, w_sn.sum(axis=1)
        sensitivity, specificity = w_sn @ (y & called) / ill, w_sn @ (~y & ~called) / well
        found = {
            "AUROC": _auroc(y, probability, w_sn),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "underdiagnosis rate": 1 - sensitivity,
            "false positive rate": 1 - specificity,
            "calibration in the large": w_sn @ (probability - y).astype(np.float32) / all_,
            "calibration error": _calibration_error(y, probability, w_sn) / all_,
        }
    return Draws(
        {name: float(values[0]) for name, values in found.items()},
        {name: np.asarray(values[1:], dtype=float) for name, values in found.items()},
        units,
    )


def _auroc(y: NDArray[np.bool_], score: Floats, w_sn: NDArray[np.float32]) -> Floats:
    """Weighted area under the ROC curve (S,), ties counting half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))
    ordered = w_sn[:, order].astype(np.float64)
    positive_sk = np.add.reduceat(ordered * y[order], starts, axis=1)
    negative_sk = np.add.reduceat(ordered * ~y[order], starts, axis=1)
    below_sk = np.cumsum(negative_sk, axis=1) - negative_sk / 2
    pairs = positive_sk.sum(axis=1) * negative_sk.sum(axis=1)
    return np.asarray((positive_sk * below_sk).sum(axis=1) / pairs)


def _calibration_error(y: NDArray[np.bool_], probability: Floats, w_sn: NDArray[np.float32]) -> Floats:
    """Sum over bins of the absolute difference between stated and counted cases (S,)."""
    bin_n = np.clip((probability * BINS).astype(int), 0, BINS - 1)
    gap_nc = np.zeros((len(y), BINS), dtype=np.float32)
    gap_nc[np.arange(len(y)), bin_n] = probability - y
    return np.asarray(np.abs(w_sn @ gap_nc).sum(axis=1), dtype=float)


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Interval of a share of ``n`` (Wilson, 1927)."""
    from scipy import stats

    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def _hanley_mcneil(area: float, ill: int, well: int) -> float:
    """Standard error of an area under the ROC curve (Hanley and McNeil, 1982), kept off the ends where it is 0."""
    margin = 0.5 / min(ill, well)
    a = min(max(area, margin), 1 - margin)
    one, two = a / (2 - a), 2 * a**2 / (1 + a)
    return float(np.sqrt((a * (1 - a) + (ill - 1) * (one - a**2) + (well - 1) * (two - a**2)) / (ill * well)))
