"""A group's metrics on the group itself and on every bootstrap draw of it at once.

Shape suffixes: n row, s bootstrap draw, k block of equal scores, c calibration bin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import CALIBRATION_BINS, Estimate
from unlabeled.core.intervals import above_zero, newcombe_area, wilson

RATES = ("sensitivity", "specificity", "underdiagnosis rate", "false positive rate")
METRICS = ("AUROC", *RATES, "calibration in the large", "calibration error", "share ill")
# A calibration error is biased upwards by noise, more so in a small group: groups are not compared by it. Sensitivity
# and specificity are the other side of the two rates. The share of the ill is nothing that a model does.
COMPARED = ("AUROC", "underdiagnosis rate", "false positive rate", "calibration in the large")
Floats = NDArray[np.float64]


class Rows(NamedTuple):
    """A share of rows: ``hit`` (N,) among those that are ``among`` (N,)."""

    hit: NDArray[np.bool_]
    among: NDArray[np.bool_]


@dataclass(frozen=True)
class Draws:
    """Metrics by name: of the group as it is, and of each draw (S,) (nan where a draw has one class only).

    Attributes:
        units: how many ill and how many well units (patients) there are.
        of: over how many units each share goes.
    """

    value: dict[str, float]
    drawn: dict[str, Floats]
    units: tuple[int, int]
    of: dict[str, int]

    def interval(self, metric: str, level: float) -> Estimate:
        values = self.drawn[metric][np.isfinite(self.drawn[metric])]
        value = self.value[metric]
        if metric == "calibration error":
            return Estimate(value, *above_zero(value, values, self.of["share ill"], level))
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (np.nan, np.nan)
        if not high > low and np.isfinite(value):
            if metric in self.of:
                low, high = wilson(value, self.of[metric], level)
            elif metric == "AUROC":
                low, high = newcombe_area(value, *self.units, level)
        return Estimate(value, float(low), float(high))

    def least_error(self, metric: str) -> float:
        """A standard error that is never 0, for groups in which nothing (or everything) went wrong."""
        if metric in self.of:
            n = self.of[metric]
            p = (self.value[metric] * n + 2) / (n + 4)  # Agresti and Coull, 1998
            return float(np.sqrt(p * (1 - p) / (n + 4)))
        return _hanley_mcneil(self.value[metric], *self.units) if metric == "AUROC" else 0.0


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
    units_n: NDArray[np.int64],
    rates: Mapping[str, Rows],
) -> Draws:
    """All of :data:`METRICS` and further ``rates``, for the rows as they are and for each row of weights (S, N)."""
    w_sn = np.concatenate([np.ones((1, len(y)), dtype=np.float32), weights_sn])
    shares = {
        "sensitivity": Rows(called, y),
        "specificity": Rows(~called, ~y),
        "underdiagnosis rate": Rows(~called, y),
        "false positive rate": Rows(called, ~y),
        "share ill": Rows(y, np.ones_like(y)),
        **rates,
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        all_ = w_sn.sum(axis=1)
        found = {name: w_sn @ (hit & among) / (w_sn @ among) for name, (hit, among) in shares.items()}
        found["AUROC"] = _auroc(y, probability, w_sn)
        found["calibration in the large"] = w_sn @ (probability - y).astype(np.float32) / all_
        found["calibration error"] = _calibration_error(y, probability, w_sn) / all_
    return Draws(
        {name: float(values[0]) for name, values in found.items()},
        {name: np.asarray(values[1:], dtype=float) for name, values in found.items()},
        (len(np.unique(units_n[y])), len(np.unique(units_n[~y]))),
        {name: len(np.unique(units_n[among])) for name, (_, among) in shares.items()},
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
    bin_n = np.clip((probability * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    gap_nc = np.zeros((len(y), CALIBRATION_BINS), dtype=np.float32)
    gap_nc[np.arange(len(y)), bin_n] = probability - y
    return np.asarray(np.abs(w_sn @ gap_nc).sum(axis=1), dtype=float)


def _hanley_mcneil(area: float, ill: int, well: int) -> float:
    """Standard error of an area under the ROC curve (Hanley and McNeil, 1982), kept off the ends where it is 0."""
    margin = 0.5 / min(ill, well)
    a = min(max(area, margin), 1 - margin)
    one, two = a / (2 - a), 2 * a**2 / (1 + a)
    return float(np.sqrt((a * (1 - a) + (ill - 1) * (one - a**2) + (well - 1) * (two - a**2)) / (ill * well)))
