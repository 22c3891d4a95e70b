"""Calls that are wrong at most as often as stated, and probabilities with an interval, from held-out cases alone.

Both promises hold where new cases are exchangeable with the held-out ones: same source, same mix within a class.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.calibration import p_values

Floats = NDArray[np.float64]


def needed(rate: float) -> int:
    """Held-out cases (groups, where cases are grouped) below which an error rate cannot be promised: 1 / rate - 1."""
    return int(np.ceil(1 / rate - 1 - 1e-9))


class Calls(NamedTuple):
    """What :meth:`Abstention.decide` says of N cases.

    Attributes:
        called: (N,) 1 positive, 0 negative, -1 nothing: a person has to look.
        positive, negative: (N,) conformal p-values of either answer.
    """

    called: NDArray[np.int64]
    positive: Floats
    negative: Floats


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """Class-conditional split-conformal calls (Vovk, 2012): of either class, at most ``rate`` of new cases are called
    wrongly on average; cases for which neither answer can be excluded are called nothing.

    Where both answers are excluded the more usual one is called: the true one was excluded already, so this cannot
    raise the rate.

    Attributes:
        labels: (M,) 1 positive, 0 negative, of held-out cases.
        scores: (M,) of the same, higher is more positive.
        groups: (M,) who belongs together, or ``None``.
        rate: of wrong calls among the cases of a class.
    """

    labels: NDArray[np.int64]
    scores: Floats
    groups: NDArray[np.int64] | None = None
    rate: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"an error rate must be between 0 and 1, got {self.rate:g}")
        if len(self.labels) != len(self.scores) or not np.isin(self.labels, (0, 1)).all():
            raise ValueError("held-out labels must be 0 or 1, one a score")

    def available(self) -> tuple[int, int]:
        """Held-out groups (cases, without groups) that are negative and positive."""
        of = np.arange(len(self.labels)) if self.groups is None else self.groups
        return len(np.unique(of[self.labels == 0])), len(np.unique(of[self.labels == 1]))

    def decide(self, scores: ArrayLike) -> Calls:
        """Calls of new cases (N,)."""
        asked = np.asarray(scores, dtype=float)
        positive = self._p(1, -self.scores, -asked)
        negative = self._p(0, self.scores, asked)
        open_ = (positive > self.rate) & (negative > self.rate)
        called = np.where(positive > negative, 1, 0)
        return Calls(np.where(open_ | (positive == negative), -1, called), positive, negative)

    def _p(self, label: int, held_out: Floats, asked: Floats) -> Floats:
        of = self.labels == label
        return p_values(held_out[of], asked, groups=None if self.groups is None else self.groups[of])


class Probabilities(NamedTuple):
    """Of N cases, (N,) each.

    Attributes:
        value: ``high / (1 - low + high)``, the one number that loses least by log loss whichever bound is right.
        low, high: the Venn-Abers pair.
    """

    value: Floats
    low: Floats
    high: Floats


def venn_abers(labels: ArrayLike, scores: ArrayLike, asked: ArrayLike) -> Probabilities:
    """Inductive Venn-Abers probabilities (Vovk and Petej, 2014; Vovk, Petej and Fedorova, 2015).

    ``low`` and ``high`` are the isotonic regressions of the held-out labels on their scores, with the new case added
    as a negative and as a positive, read off at the new case. One of the two is calibrated, whatever the scores are.
    The pair is no confidence interval: it is as wide as one more held-out case would move the answer.

    Args:
        labels, scores: (M,) of held-out cases; labels 1 positive, 0 negative.
        asked: (N,) scores of new cases.
    """
    y, s, new = (np.asarray(values, dtype=float) for values in (labels, scores, asked))
    if not len(s):
        raise ValueError("probabilities need held-out cases")
    values, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    positives = np.bincount(inverse, weights=y, minlength=len(values)).astype(float)
    at, known = np.searchsorted(values, new, side="left"), np.isin(new, values)
    # Which of the held-out scores a new one lies between, or equals, is all that matters.
    places, of = np.unique(2 * at + known, return_inverse=True)
    low, high = (
        np.array([_isotonic_at(positives, counts, int(place) // 2, bool(place % 2), label) for place in places])[of]
        for label in (0.0, 1.0)
    )
    return Probabilities(high / (1 - low + high), low, high)


def _isotonic_at(positives: Floats, counts: NDArray[np.int64], at: int, known: bool, label: float) -> float:
    """The isotonic fit at place ``at`` once a case with this label stands there."""
    from scipy.optimize import isotonic_regression

    if known:
        total, weight = positives.copy(), counts.astype(float)
        total[at] += label
        weight[at] += 1
    else:
        total, weight = np.insert(positives, at, label), np.insert(counts.astype(float), at, 1.0)
    return float(isotonic_regression(total / weight, weights=weight).x[at])
