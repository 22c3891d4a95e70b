"""Metrics with intervals, computed the same way for ours and for every baseline."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.intervals import above_zero, newcombe_area, square_and_add, wilson

Metric = Callable[..., float]
# Of a calibration error, wherever one is given.
CALIBRATION_BINS = 15


class Estimate(NamedTuple):
    """A number and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    metric: Metric,
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """``metric(*arrays)`` with a percentile interval (Efron, 1979), resampling whole groups where given.

    Give both models' scores and a metric that returns a difference for a paired interval. Draws in which
    the metric is undefined (one class only, say) are left out.

    Where all draws give one value (nobody was missed, say), they say nothing about how sure it is. An interval by the
    number of groups then takes their place: Wilson's for :func:`share`, :func:`accuracy`, :func:`sensitivity`,
    :func:`specificity` and, over the groups with a positive as Boyd, Eng and Page (2013) do, for
    :func:`average_precision`; Newcombe's for :func:`roc_auc`; Zou and Donner's for :func:`balanced_accuracy`
    (:mod:`unlabeled.core.intervals`). Other metrics keep an interval without width. Of
    :func:`expected_calibration_error` the interval is always :func:`~unlabeled.core.intervals.above_zero`: its draws
    are further from 0 than itself.

    Args:
        metric: ``metric(*arrays) -> float``.
        arrays: same length N.
        groups: (N,) who belongs together (patients); rows are resampled one by one without it.
    """
    columns = [np.asarray(array) for array in arrays]
    n = len(columns[0])
    if groups is None:
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(0, n, n) for _ in range(samples))
    else:
        drawn = (np.repeat(np.arange(n), counts) for counts in draws(groups, samples=samples, seed=seed))
    values = []
    for rows in drawn:
        try:
            value = float(metric(*(column[rows] for column in columns)))
        except ValueError:
            continue
        if np.isfinite(value):
            values.append(value)
    value = float(metric(*columns))
    who = np.arange(n) if groups is None else np.asarray(groups)
    if metric is expected_calibration_error:
        return Estimate(value, *above_zero(value, values, len(np.unique(who)), level))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if values else (np.nan, np.nan)
    if not high > low and np.isfinite(value):
        low, high = _unmoved(metric, columns, who, level) or (low, high)
    return Estimate(value, float(low), float(high))


def draws(groups: ArrayLike, *, samples: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each row (N,) is in each bootstrap draw, whole groups drawn with replacement; the same draws wherever
    groups and seed are the same, so that a number has one interval wherever it stands."""
    who = np.unique(np.asarray(groups), return_inverse=True)[1]
    count, rng = int(who.max()) + 1, np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(rng.integers(0, count, count), minlength=count)[who]


def over_runs(values: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean over seeds or label draws with Student's t interval (nan bounds for a single run)."""
    from scipy import stats

    runs = np.asarray(values, dtype=float)
    mean = float(runs.mean())
    if len(runs) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf((1 + level) / 2, len(runs) - 1) * runs.std(ddof=1) / np.sqrt(len(runs)))
    return Estimate(mean, mean - half, mean + half)


def roc_auc(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve; raises ValueError with one class only.

    The share of (positive, negative) pairs in the right order, ties counting half (Mann and Whitney, 1947): the same
    number as scikit-learn's, some eighty times faster at the sizes that a bootstrap asks for a thousand times.
    """
    truth, s = np.asarray(y).astype(bool), np.asarray(score, dtype=float)
    positive, negative = s[truth], np.sort(s[~truth])
    if not len(positive) or not len(negative):
        raise ValueError("the area under the ROC curve needs both classes")
    if not np.isfinite(s).all():
        raise ValueError("the area under the ROC curve needs finite scores")
    below = np.searchsorted(negative, positive, side="left").sum()
    not_above = np.searchsorted(negative, positive, side="right").sum()
    return float((below + not_above) / 2 / (len(positive) * len(negative)))


def average_precision(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall steps; raises ValueError without positives."""
    from sklearn.metrics import average_precision_score

    if not np.any(np.asarray(y)):
        raise ValueError("average precision needs at least one positive")
    return float(average_precision_score(y, score))


def share(hit: ArrayLike) -> float:
    """Of rows that are hits (1 or true); nan without rows."""
    hits = np.asarray(hit, dtype=float)
    return float(hits.mean()) if len(hits) else float("nan")


def accuracy(y: ArrayLike, predicted: ArrayLike) -> float:
    return float(np.mean(np.asarray(y) == np.asarray(predicted)))


def balanced_accuracy(y: ArrayLike, predicted: ArrayLike) -> float:
    """Mean of sensitivity and specificity."""
    return float(np.mean(sensitivity_specificity(y, predicted)))


def sensitivity_specificity(y: ArrayLike, predicted: ArrayLike) -> tuple[float, float]:
    """Share of positives called positive, share of negatives called negative."""
    truth, called = np.asarray(y).astype(bool), np.asarray(predicted).astype(bool)
    if truth.all() or not truth.any():
        raise ValueError("sensitivity and specificity need both classes")
    return float(called[truth].mean()), float((~called[~truth]).mean())


def sensitivity(y: ArrayLike, predicted: ArrayLike) -> float:
    """Share of positives called positive."""
    truth, called = np.asarray(y).astype(bool), np.asarray(predicted).astype(bool)
    if not truth.any():
        raise ValueError("sensitivity needs at least one positive")
    return float(called[truth].mean())


def specificity(y: ArrayLike, predicted: ArrayLike) -> float:
    """Share of negatives called negative."""
    truth, called = np.asarray(y).astype(bool), np.asarray(predicted).astype(bool)
    if truth.all():
        raise ValueError("specificity needs at least one negative")
    return float((~called[~truth]).mean())


def expected_calibration_error(y: ArrayLike, probability: ArrayLike, *, bins: int = CALIBRATION_BINS) -> float:
    """Mean gap between stated probability and frequency over equal-width bins (Naeini et al., 2015)."""
    truth, p = np.asarray(y, dtype=float), np.asarray(probability, dtype=float)
    bin_of = np.clip((p * bins).astype(int), 0, bins - 1)
    gaps = [abs(truth[bin_of == b].mean() - p[bin_of == b].mean()) * np.mean(bin_of == b) for b in np.unique(bin_of)]
    return float(np.sum(gaps))


def precision_at(y: ArrayLike, score: ArrayLike, *, top: int) -> float:
    """Share of positives among the ``top`` highest scores."""
    return float(np.asarray(y)[np.argsort(-np.asarray(score), kind="stable")[:top]].mean())


def false_alarms_at_recall(y: ArrayLike, score: ArrayLike, *, recall: float) -> int:
    """Negatives scored at or above the threshold at which ``recall`` of the positives is first found."""
    truth, s = np.asarray(y).astype(bool), np.asarray(score, dtype=float)
    positive = np.sort(s[truth])[::-1]
    if not len(positive):
        raise ValueError("recall needs at least one positive")
    threshold = positive[int(np.ceil(recall * len(positive))) - 1]
    return int((s[~truth] >= threshold).sum())


def recall_at_false_positive_rate(y: ArrayLike, score: ArrayLike, *, rate: float) -> float:
    """Share of positives found while at most ``rate`` of the negatives raise an alarm."""
    truth, s = np.asarray(y).astype(bool), np.asarray(score, dtype=float)
    negative = np.sort(s[~truth])[::-1]
    allowed = int(np.floor(rate * len(negative)))
    return float((s[truth] > negative[allowed]).mean()) if allowed < len(negative) else 1.0


def net_benefit(y: ArrayLike, probability: ArrayLike, *, threshold: float) -> float:
    """Of treating everybody at or above a threshold probability, in true positives a case (Vickers and Elkin, 2006).

    ``TP / n - FP / n x threshold / (1 - threshold)``: the threshold says how many needless treatments one rightful
    treatment is worth. Treating nobody is worth 0.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"a threshold probability must be between 0 and 1, got {threshold:g}")
    truth, treated = np.asarray(y).astype(bool), np.asarray(probability, dtype=float) >= threshold
    return float(np.mean(treated & truth) - np.mean(treated & ~truth) * threshold / (1 - threshold))


def _unmoved(metric: Metric, columns: list[NDArray], who: NDArray, level: float) -> tuple[float, float] | None:
    """Ends of an interval by the number of groups, for metrics of which one is known."""
    if metric is share or metric is accuracy:
        return wilson(float(metric(*columns)), len(np.unique(who)), level)
    if metric not in (sensitivity, specificity, average_precision, roc_auc, balanced_accuracy):
        return None
    truth = columns[0].astype(bool)
    ill, well = len(np.unique(who[truth])), len(np.unique(who[~truth]))
    if metric is roc_auc:
        return newcombe_area(roc_auc(*columns), ill, well, level)
    if metric is balanced_accuracy:
        found, spared = sensitivity_specificity(*columns)
        parts = (found, wilson(found, ill, level)), (spared, wilson(spared, well, level))
        low, high = square_and_add(found + spared, *parts)
        return low / 2, high / 2
    return wilson(float(metric(*columns)), well if metric is specificity else ill, level)
