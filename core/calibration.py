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


def p_values(held_out: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None) -> NDArray[np.float64]:
    """How usual each score is among held-out ones of its kind: small where few of them are as high.

    Each group (patient) weighs the same however many cases it has: ``(1 + sum over groups of its share of scores at
    least as high) / (groups + 1)``, which keeps ``P(p <= rate) <= rate`` for a case of a new group (Lee, Barber and
    Willett, 2023). Without groups it is the usual conformal p-value (Vovk et al., 2005).

    Args:
        held_out: (M,) nonconformity, higher is stranger.
        scores: (N,) of new cases.
        groups: (M,) who belongs together.
    """
    values, asked = np.asarray(held_out, dtype=float), np.asarray(scores, dtype=float)
    _, member, sizes = np.unique(
        np.arange(len(values)) if groups is None else np.asarray(groups), return_inverse=True, return_counts=True
    )
    order = np.argsort(values, kind="stable")
    weight = 1 / sizes[member][order]
    from_here = np.concatenate([np.cumsum(weight[::-1])[::-1], [0.0]])
    found: NDArray[np.float64] = (1 + from_here[np.searchsorted(values[order], asked, side="left")]) / (len(sizes) + 1)
    return found


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
