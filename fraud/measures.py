"""How good a ranking of payments is."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import evaluation

# name -> (how it is written, whether higher is better)
MEASURES: Mapping[str, tuple[str, bool]] = {
    "ap": ("average precision", True),
    "auc": ("AUROC", True),
    "p100": ("precision among the first 100", True),
    "recall_fpr01": ("recall at 0.1 % false alarms", True),
    "fp50": ("false alarms until half of the frauds are found", False),
    "fp80": ("false alarms until 80 % of the frauds are found", False),
}


def measure(y: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """Every measure above."""
    truth, s = np.asarray(y), np.asarray(score, dtype=float)
    return {
        "ap": evaluation.average_precision(truth, s),
        "auc": evaluation.roc_auc(truth, s),
        "p100": evaluation.precision_at(truth, s, top=100),
        "recall_fpr01": evaluation.recall_at_false_positive_rate(truth, s, rate=0.001),
        "fp50": float(evaluation.false_alarms_at_recall(truth, s, recall=0.5)),
        "fp80": float(evaluation.false_alarms_at_recall(truth, s, recall=0.8)),
    }


def within_budget(score: ArrayLike, day: ArrayLike, *, per_day: int) -> NDArray[np.bool_]:
    """The ``per_day`` highest scores of each day; rows of one score in their order."""
    s, d = np.asarray(score, dtype=float), np.asarray(day)
    order = np.lexsort((np.arange(len(s)), -s, d))
    days, first = np.unique(d[order], return_index=True)
    number = np.empty(len(s), dtype=np.int64)
    number[order] = np.arange(len(s)) - first[np.searchsorted(days, d[order])]
    return number < per_day


def recall_within_budget(y: ArrayLike, score: ArrayLike, day: ArrayLike, *, per_day: int) -> float:
    """Share of all frauds that stand on the days' lists."""
    truth = np.asarray(y) == 1
    return float(within_budget(score, day, per_day=per_day)[truth].mean())
