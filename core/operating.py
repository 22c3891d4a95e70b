"""A threshold for a stated sensitivity, and how sure one can be of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import evaluation as core
from unlabeled.core.evaluation import Estimate


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Estimate:
    """A share and its exact binomial interval (Clopper and Pearson, 1934); nan where there were no trials."""
    from scipy.stats import beta

    if not trials:
        return Estimate(float("nan"), float("nan"), float("nan"))
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1 - tail, successes + 1, trials - successes))
    return Estimate(successes / trials, low, high)


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Where a threshold came from and what it gave there.

    Attributes:
        target: the stated sensitivity.
        threshold: score at or above which a case is called positive.
        sensitivity, specificity: on the cases it was chosen on, with exact binomial 95 % intervals as of so many
            patients, not pictures. Where each has one, the lower bound of the sensitivity allows for the threshold
            having been chosen on the same positives: the share of new positives above the m-th lowest of n is
            Beta(n - m + 1, m), whose quantile that bound is.
        over_patients: the same two with bootstrap intervals over patients (threshold kept).
        positives, negatives: cases it was chosen on.
        patients: with a positive case among them.
        assured: whether the threshold was lowered until the one-sided 95 % bound reached the target, for patients:
            one counts as found where all of their positives are.
        reached: whether it did; without ``assured``, whether the held-out share is at the target.
    """

    target: float
    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    over_patients: tuple[Estimate, Estimate]
    positives: int
    negatives: int
    patients: int
    assured: bool
    reached: bool

    def says(self) -> str:
        """One plain sentence on what the threshold was chosen on."""
        found, spared = self.over_patients
        text = (
            f"A sensitivity of {self.target:.0%} was asked for. On {self.positives} held-out positives of "
            f"{self.patients} patients the threshold {self.threshold:.3f} finds {found} and spares {spared} of "
            f"{self.negatives} negatives (95 % intervals over patients)."
        )
        if not self.reached:
            text += (
                f" With positives of so few patients, no threshold is 95 % sure to find {self.target:.0%}: "
                f"{positives_needed(self.target)} would be needed. The lowest score of a positive is taken."
            )
        elif (low := min(found.low, self.sensitivity.low)) < self.target:
            text += f" New ones may be found less often than that: {low:.0%} is possible."
        return text


def positives_needed(sensitivity: float, *, confidence: float = 0.95) -> int:
    """Patients with a positive from which on the lowest of their scores is, so sure, below ``sensitivity`` of all
    (Wilks, 1941)."""
    return int(np.ceil(np.log(1 - confidence) / np.log(sensitivity) - 1e-9))


def operating_point(
    labels: ArrayLike,
    scores: ArrayLike,
    sensitivity: float,
    *,
    groups: ArrayLike | None = None,
    assured: bool = False,
    samples: int = 300,
) -> OperatingPoint:
    """The highest threshold that finds ``sensitivity`` of the held-out positives.

    It lies halfway to the next lower held-out score, where calls of held-out cases do not change.

    What is assured is assured of patients: pictures of one are no independent trials, so each ill patient is a trial,
    whose outcome is their lowest score. Whoever is found by it is found on all of their pictures, and a share of
    patients who are is no more than the mean share of their pictures.

    Args:
        labels: (M,) 1 positive, 0 negative, held out.
        scores: (M,) of the same.
        sensitivity: above 0, at most 1.
        groups: (M,) who belongs together (patients); each case by itself without it.
        assured: ask that the lower one-sided 95 % bound, not the share itself, is at the target; the threshold is
            the lowest positive score where no threshold reaches that.

    Raises:
        ValueError: a sensitivity out of range, or one class only.
    """
    from scipy.stats import beta

    truth, s = np.asarray(labels).astype(bool), np.asarray(scores, dtype=float)
    of = np.arange(len(s)) if groups is None else np.asarray(groups)
    if not 0 < sensitivity <= 1:
        raise ValueError(f"a sensitivity must be above 0 and at most 1, got {sensitivity:g}")
    if truth.all() or not truth.any():
        raise ValueError("an operating point needs held-out cases of both classes")
    # What has to be found: positives, or ill patients by the lowest of theirs.
    positive = np.sort(_lowest(s[truth], of[truth]) if assured else s[truth])
    n = len(positive)
    found = np.arange(n, 0, -1)  # at the lowest positive score, at the next...
    good = beta.ppf(0.05, found, n - found + 1) >= sensitivity if assured else found >= sensitivity * n - 1e-9
    reached = bool(good.any())
    score = positive[np.flatnonzero(good)[-1]] if reached else positive[0]
    threshold = _below(s, float(score))
    called = s >= threshold

    def measured(rate: core.Metric) -> Estimate:
        return core.bootstrap(rate, truth, called, groups=of, samples=samples)

    return OperatingPoint(
        target=sensitivity,
        threshold=threshold,
        sensitivity=_of_patients(called[truth], of[truth]),
        specificity=_of_patients(~called[~truth], of[~truth]),
        over_patients=(measured(core.sensitivity), measured(core.specificity)),
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        patients=len(np.unique(of[truth])),
        assured=assured,
        reached=reached,
    )


def _lowest(scores: NDArray[np.float64], groups: NDArray[np.generic]) -> NDArray[np.float64]:
    """Of each group."""
    number = np.unique(groups, return_inverse=True)[1]
    lowest = np.full(int(number.max()) + 1, np.inf)
    np.minimum.at(lowest, number, scores)
    return lowest


def _of_patients(hit: NDArray[np.bool_], groups: NDArray[np.generic]) -> Estimate:
    """Share of rows, with the exact interval of the same share of as many groups, rounded away from it."""
    share, n = float(hit.mean()), len(np.unique(groups))
    below, above = int(np.floor(share * n + 1e-9)), int(np.ceil(share * n - 1e-9))
    return Estimate(share, clopper_pearson(below, n).low, clopper_pearson(above, n).high)


def _below(scores: NDArray[np.float64], score: float) -> float:
    lower = scores[scores < score]
    return (score + float(lower.max())) / 2 if len(lower) else score - 1e-6 * max(1.0, abs(score))
