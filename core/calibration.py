"""Thresholds that keep a stated promise, and probabilities that mean what they say."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def threshold_at_false_alarm_rate(normal_scores: ArrayLike, rate: float) -> float:
    """The smallest score above which at most ``rate`` of new normal cases fall on average.

    Split-conformal quantile: the ``ceil((n + 1)(1 - rate))``-th smallest of n held-out normal scores
    (Vovk et al., 2005). Infinite when n is too small for the rate, which then cannot be promised.
    """
    scores = np.sort(np.asarray(normal_scores, dtype=float))
    rank = int(np.ceil((len(scores) + 1) * (1 - rate)))
    return float(scores[rank - 1]) if rank <= len(scores) else float("inf")


def p_values(normal_scores: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Conformal p-values: ``(1 + number of normal scores at least as high) / (n + 1)``."""
    normal = np.sort(np.asarray(normal_scores, dtype=float))
    at_least = len(normal) - np.searchsorted(normal, np.asarray(scores, dtype=float), side="left")
    return (1 + at_least) / (len(normal) + 1)


def threshold_at_sensitivity(y: ArrayLike, score: ArrayLike, sensitivity: float) -> float:
    """The highest threshold (called positive at or above) that still finds ``sensitivity`` of the positives."""
    positive = np.sort(np.asarray(score, dtype=float)[np.asarray(y).astype(bool)])[::-1]
    if not len(positive):
        raise ValueError("a threshold at a stated sensitivity needs at least one positive")
    return float(positive[int(np.ceil(sensitivity * len(positive))) - 1])


def threshold_for_balanced_accuracy(y: ArrayLike, score: ArrayLike) -> float:
    """The threshold (called positive at or above) with the highest mean of sensitivity and specificity.

    Halfway between the neighbouring scores, so that a new case close to either falls on the right side.
    """
    truth, s = np.asarray(y).astype(bool), np.asarray(score, dtype=float)
    if truth.all() or not truth.any():
        raise ValueError("a threshold chosen for accuracy needs both classes")
    values = np.unique(s)
    middle = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    positive, negative = np.sort(s[truth]), np.sort(s[~truth])
    found = 1 - np.searchsorted(positive, middle, side="left") / len(positive)
    spared = np.searchsorted(negative, middle, side="left") / len(negative)
    return float(middle[np.argmax(found + spared)])


def temperature(y: ArrayLike, logit: ArrayLike) -> float:
    """The divisor of the logits that minimises log loss on held-out cases (Guo et al., 2017)."""
    from scipy.optimize import minimize_scalar

    truth, z = np.asarray(y, dtype=float), np.asarray(logit, dtype=float)

    def log_loss(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - truth * scaled))

    return float(np.exp(minimize_scalar(log_loss, bounds=(-3, 3), method="bounded").x))
