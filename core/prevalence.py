"""Probabilities where the share of positives is another than it was among the labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.evaluation import Estimate

Floats = NDArray[np.float64]
# Probabilities of exactly 0 or 1 would decide on the share alone.
EDGE = 1e-6
# Of fewer patients a share says next to nothing.
LEAST = 50
# Of each class, so many cases more are taken for seen (Firth, 1993: Jeffreys' prior), which keeps a share off 0 and 1;
# and how far the slope of the log odds may be from 1 (standard deviation of its logarithm), which keeps it finite.
CASES, SLOPE = 0.5, 1.0
# Log odds of a share beyond which no end of an interval is looked for.
FAR = 20.0


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
        share: by maximum likelihood, with its 95 % interval by the profile of that likelihood.
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
    held_groups: ArrayLike | None = None,
    samples: int = 200,
    seed: int = 0,
) -> Prevalence:
    """Estimates the prevalence among new cases, and tests whether only it has changed.

    The share and its interval are those of :class:`_Likelihood`, which knows that the probabilities were themselves
    learnt from so many held-out cases; a bootstrap over new cases knows neither that nor, where no draw holds a
    positive, how many there might have been.

    The test (a Kolmogorov-Smirnov distance to the mixture fitted by :func:`maximum_likelihood`) draws new and held-out
    cases anew from the held-out classes and fits each draw again, so that the size of both samples counts. It takes
    cases to be independent: with several pictures a patient it is somewhat too ready to object.

    Args:
        probability: (N,) of new cases.
        held_labels, held_probability: (M,) of held-out ones, of both classes.
        groups, held_groups: (N,) and (M,) who belongs together (patients), for the interval.

    Raises:
        ValueError: fewer than :data:`LEAST` new patients, or held-out cases of one class.
    """
    new, held = np.asarray(probability, dtype=float), np.asarray(held_probability, dtype=float)
    truth = np.asarray(held_labels).astype(bool)
    if truth.all() or not truth.any():
        raise ValueError("a prevalence can be estimated with held-out cases of both classes only")
    people = len(new) if groups is None else len(np.unique(np.asarray(groups)))
    if people < LEAST:
        raise ValueError(f"a prevalence can be estimated from {LEAST} patients or more, got {people}")
    before = float(truth.mean())
    positive, negative = held[truth], held[~truth]
    share = _Likelihood(
        new, positive, negative, said_by=(_independent(groups, len(new)), _independent(held_groups, len(held)))
    ).estimate()
    alone = maximum_likelihood(new, before=before)
    distance = _gap(new, positive, negative, alone)
    rng = np.random.default_rng(seed)
    worse = 0
    for _ in range(samples):
        sick = int(rng.binomial(len(new), alone))
        drawn = np.concatenate([rng.choice(positive, sick), rng.choice(negative, len(new) - sick)])
        again = rng.choice(positive, len(positive)), rng.choice(negative, len(negative))
        worse += _gap(drawn, *again, maximum_likelihood(drawn, before=before)) >= distance
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


def _independent(groups: ArrayLike | None, rows: int) -> float:
    """How many cases say as much as these rows if those of one group all say the same (Kish, 1965)."""
    if groups is None:
        return float(rows)
    counts = np.unique(np.asarray(groups), return_counts=True)[1].astype(float)
    return float(counts.sum() ** 2 / (counts**2).sum())


class _Likelihood:
    """Of a share of positives among new cases, beside held-out ones of either class.

    An exponential tilt: among positives a case of log odds z is ``exp(t)`` times as frequent as among negatives,
    ``t = a + b z``, and among new cases ``1 - share + share exp(t)`` times. How negatives are distributed is left
    open, which leaves the probability that a case at z belongs to the sample it is in (Anderson, "Multivariate
    logistic compounds", Biometrika 1979; Qin, "Empirical likelihood ratio based confidence intervals for mixture
    proportions", Annals of Statistics 1999). The interval is where twice the fall of the log likelihood, a and b fitted
    again at each share, is below the chi-squared quantile. Cases of one patient count together as what
    :func:`_independent` says; a and b start where the stated probabilities are right.
    """

    def __init__(self, new: Floats, positive: Floats, negative: Floats, *, said_by: tuple[float, float]) -> None:
        p = np.clip(np.concatenate([positive, negative, new]), EDGE, 1 - EDGE)
        self.z = np.log(p / (1 - p))
        self.ill, self.new = slice(0, len(positive)), slice(len(p) - len(new), len(p))
        each_new, each_held = said_by[0] / len(new), said_by[1] / (len(p) - len(new))
        self.weight = np.full(len(p), each_held)
        self.weight[self.new] = each_new
        self.counts = each_held * len(positive), each_held * len(negative), said_by[0]
        before = len(positive) / (len(positive) + len(negative))
        self.tilt = np.array([-np.log(before / (1 - before)), 0.0])
        share = np.clip(maximum_likelihood(new, before=before), 0.02, 0.98)
        self.odds = float(np.log(share / (1 - share)))

    def estimate(self, *, level: float = 0.95) -> Estimate:
        """The likeliest share and its interval."""
        from scipy.optimize import brentq, minimize
        from scipy.stats import chi2

        best = minimize(lambda at: self._loss(*at), np.array([self.odds, *self.tilt]), jac=True, method="BFGS")
        reach = best.fun + float(chi2.ppf(level, 1)) / 2

        def beyond(odds: float) -> float:
            def loss(tilt: Floats) -> tuple[float, Floats]:
                value, slope = self._loss(odds, *tilt)
                return value, slope[1:]

            return float(minimize(loss, best.x[1:], jac=True, method="BFGS").fun - reach)

        ends = []
        for way in (-1.0, 1.0):
            inside, step = float(best.x[0]), 0.5
            while beyond(inside + way * step) < 0 and abs(inside + way * step) < FAR:
                inside, step = inside + way * step, 2 * step
            outside = inside + way * step
            ends.append(float(brentq(beyond, inside, outside, xtol=1e-4)) if beyond(outside) > 0 else outside)
        return Estimate(*(float(1 / (1 + np.exp(-at))) for at in (best.x[0], *ends)))

    def _loss(self, odds: float, a: float, log_b: float) -> tuple[float, Floats]:
        """Negative log likelihood, and its slope, at log odds of the share and a tilt."""
        of_ill, of_well, of_new = self.counts
        yes, no = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
        share, moved = np.exp(yes), np.exp(log_b) * self.z
        t = a + moved
        mixed = np.logaddexp(no, yes + t)
        # All three samples together, as multiples of how frequent a case is among negatives.
        together = np.logaddexp(np.log(of_well + of_new * (1 - share)), np.log(of_ill + of_new * share) + t)
        fit = -(self.weight @ together) + self.weight[self.ill] @ t[self.ill] + self.weight[self.new] @ mixed[self.new]
        fit += CASES * (yes + no) - 0.5 * (log_b / SLOPE) ** 2
        positive = np.exp(yes + t - mixed)[self.new]
        by_t = -self.weight * (of_ill + of_new * share) * np.exp(t - together)
        by_t[self.ill] += self.weight[self.ill]
        by_t[self.new] += self.weight[self.new] * positive
        by_odds = self.weight[self.new] @ (positive - share) + CASES * (1 - 2 * share)
        by_odds -= of_new * share * (1 - share) * (self.weight @ (np.exp(t - together) - np.exp(-together)))
        return -float(fit), -np.array([by_odds, by_t.sum(), by_t @ moved - log_b / SLOPE**2])


def _gap(new: Floats, positive: Floats, negative: Floats, share: float) -> float:
    """Largest difference between the distribution functions of ``new`` and of the mixture."""
    at = np.concatenate([new, positive, negative])

    def below(values: Floats) -> Floats:
        return np.searchsorted(np.sort(values), at, side="right") / len(values)

    return float(np.abs(below(new) - share * below(positive) - (1 - share) * below(negative)).max())
