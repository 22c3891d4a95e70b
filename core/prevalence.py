"""Probabilities where the share of positives is another than it was among the labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.evaluation import Estimate, bootstrap

Floats = NDArray[np.float64]
# Probabilities of exactly 0 or 1 would decide on the share alone.
EDGE = 1e-6


def recalibrate(probability: ArrayLike, *, before: float, now: float) -> Floats:
    """Bayes' rule with another prior: odds times the ratio of the prior odds.

    Exact where only the prevalence changed (the cases of each class look as they did), and the probabilities were
    right at prevalence ``before``.

    Raises:
        ValueError: a prevalence that is not between 0 and 1.
    """
    for share in (before, now):
        if not 0 < share < 1:
            raise ValueError(f"a prevalence must be between 0 and 1, got {share:g}")
    p = np.asarray(probability, dtype=float)
    positive, negative = p * now / before, (1 - p) * (1 - now) / (1 - before)
    found: Floats = positive / (positive + negative)
    return found


def maximum_likelihood(probability: ArrayLike, *, before: float) -> float:
    """The prevalence under which these cases without labels are most likely.

    It is what the expectation-maximisation of Saerens et al. (2002) ends at. The likelihood is concave in the
    prevalence, so it is found by bisection of its slope, which takes no longer where that algorithm crawls.

    Args:
        probability: (N,) right at prevalence ``before``.
    """
    p = np.clip(np.asarray(probability, dtype=float), EDGE, 1 - EDGE)
    if not len(p):
        raise ValueError("a prevalence cannot be estimated from no cases")
    # d log L / d share = mean (a - b) / (share a + (1 - share) b)
    a, b = p / before, (1 - p) / (1 - before)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        rising = np.mean((a - b) / (middle * a + (1 - middle) * b)) > 0
        low, high = (middle, high) if rising else (low, middle)
    return float(np.clip((low + high) / 2, EDGE, 1 - EDGE))


def by_confusion(called: ArrayLike, *, sensitivity: float, specificity: float) -> float:
    """Prevalence from the share of positive calls (Rogan and Gladen, 1978; BBSE of Lipton et al., 2018).

    nan where the calls are no better than chance, so that they say nothing.
    """
    slope = sensitivity + specificity - 1
    if slope <= 0:
        return float("nan")
    return float(np.clip((np.mean(np.asarray(called, dtype=float)) - (1 - specificity)) / slope, 0, 1))


@dataclass(frozen=True, kw_only=True)
class Prevalence:
    """An estimate of the share of positives among cases without labels, and whether to believe it.

    Attributes:
        share: by maximum likelihood, 95 % bootstrap interval over the new patients.
        by_calls: by the confusion of calls, for comparison.
        distance: largest gap between the distribution of the new scores and the mixture of the held-out classes that
            should have made it.
        p_value: how often a mixture that keeps the assumption is as far away.
    """

    share: Estimate
    by_calls: float
    distance: float
    p_value: float

    @property
    def believable(self) -> bool:
        """Whether the scores look as if nothing but the prevalence had changed."""
        return self.p_value > 0.05

    def says(self) -> str:
        """What was found, and whether the assumption behind it looks broken."""
        text = f"Prevalence estimated from the scores: {self.share} (by counting calls: {self.by_calls:.3f})."
        if self.believable:
            return text + " The scores look as they would if nothing but the prevalence had changed."
        return text + (
            f" Do not rely on it: no mixture of the held-out classes explains these scores (gap {self.distance:.2f}, "
            f"p = {self.p_value:.3f}), so more than the prevalence has changed."
        )


def estimate(
    probability: ArrayLike,
    *,
    held_labels: ArrayLike,
    held_probability: ArrayLike,
    groups: ArrayLike | None = None,
    samples: int = 200,
    seed: int = 0,
) -> Prevalence:
    """Estimates the prevalence among new cases, and tests whether only it has changed.

    The test (a Kolmogorov-Smirnov distance to the fitted mixture) draws new and held-out cases anew from the held-out
    classes and fits each draw again, so that the size of both samples counts. It takes cases to be independent: with
    several pictures a patient it is somewhat too ready to object.

    Args:
        probability: (N,) of new cases.
        held_labels, held_probability: (M,) of held-out ones, of both classes.
        groups: (N,) who belongs together, for the interval.
    """
    new, held = np.asarray(probability, dtype=float), np.asarray(held_probability, dtype=float)
    truth = np.asarray(held_labels).astype(bool)
    if truth.all() or not truth.any():
        raise ValueError("a prevalence can be estimated with held-out cases of both classes only")
    before = float(truth.mean())
    positive, negative = held[truth], held[~truth]

    def fitted(p: Floats) -> float:
        return maximum_likelihood(p, before=before)

    share = bootstrap(fitted, new, groups=groups, samples=samples, seed=seed)
    distance = _gap(new, positive, negative, share.value)
    rng = np.random.default_rng(seed)
    worse = 0
    for _ in range(samples):
        sick = int(rng.binomial(len(new), share.value))
        drawn = np.concatenate([rng.choice(positive, sick), rng.choice(negative, len(new) - sick)])
        again = rng.choice(positive, len(positive)), rng.choice(negative, len(negative))
        worse += _gap(drawn, *again, fitted(drawn)) >= distance
    return Prevalence(
        share=share,
        by_calls=by_confusion(
            new >= before,
            sensitivity=float((positive >= before).mean()),
            specificity=float((negative < before).mean()),
        ),
        distance=distance,
        p_value=(1 + worse) / (samples + 1),
    )


def _gap(new: Floats, positive: Floats, negative: Floats, share: float) -> float:
    """Largest difference between the distribution functions of ``new`` and of the mixture."""
    at = np.concatenate([new, positive, negative])

    def below(values: Floats) -> Floats:
        return np.searchsorted(np.sort(values), at, side="right") / len(values)

    return float(np.abs(below(new) - share * below(positive) - (1 - share) * below(negative)).max())
