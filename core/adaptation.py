"""Scores of another source, brought back to where those of the model's own source were, without labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# Fewer scores do not tell a shift from chance.
LEAST = 50
# How far the scale may go (standard deviation of its logarithm), and how strongly shares of 0 and 1 are avoided (as if
# so many cases of each class less one had been seen). Chosen on changed pictures (benchmarks/results/adaptation.md).
SCALE, CASES = 0.25, 2.0
# Shares of positives that the search starts from.
STARTS = (0.2, 0.5, 0.8)


@dataclass(frozen=True, kw_only=True)
class Moved:
    """By what map the scores of a source differ from held-out ones: ``new = scale x old + shift``.

    Attributes:
        scale, shift: of log odds.
        share: of positives among the new cases, as far as the scores tell.
        cases: their number.
    """

    scale: float
    shift: float
    share: float
    cases: int

    def back(self, logits: ArrayLike) -> Floats:
        """Log odds as the model's own source would have had them."""
        found: Floats = (np.asarray(logits, dtype=float) - self.shift) / self.scale
        return found

    def says(self) -> str:
        """What was done, and what it assumes, as a note."""
        return (
            f"the scores were adapted to these {self.cases} cases without labels: log odds less {self.shift:+.2f}, "
            f"divided by {self.scale:.2f}, taking {100 * self.share:.0f} % for positive; this holds where both classes "
            "are among them and moved alike, and rates that were stated are then no longer assured"
        )


def location_scale(logits: ArrayLike, *, held_labels: ArrayLike, held_logits: ArrayLike) -> Moved:
    """Finds the map by maximum likelihood: a mixture of the held-out classes, moved and stretched, for the new scores.

    A location-scale shift of both classes at once beside another prevalence (Zhang et al., "Domain Adaptation under
    Target and Conditional Shift", ICML 2013), on the log odds, with a normal distribution for each class.

    Args:
        logits: (N,) log odds of new cases, of both classes.
        held_labels, held_logits: (M,) of held-out cases, both classes.

    Raises:
        ValueError: fewer than :data:`LEAST` new cases, or held-out cases of one class.
    """
    from scipy.optimize import minimize

    new, old = np.asarray(logits, dtype=float), np.asarray(held_logits, dtype=float)
    truth = np.asarray(held_labels).astype(bool)
    if len(new) < LEAST:
        raise ValueError(f"scores can be adapted to {LEAST} cases or more, got {len(new)}")
    if truth.all() or not truth.any():
        raise ValueError("scores can be adapted with held-out cases of both classes only")
    means = np.array([old[truth].mean(), old[~truth].mean()])
    spreads = np.maximum([old[truth].std(), old[~truth].std()], 1e-3)

    def loss(at: Floats) -> float:
        """Negative log posterior at (shift, log odds of the share, log scale)."""
        shift, odds, stretch = at
        log_shares = -np.logaddexp(0, [-odds, odds])
        x = (new - shift) / np.exp(stretch)
        density = -0.5 * ((x[:, None] - means) / spreads) ** 2 - np.log(spreads) + log_shares
        fit = np.logaddexp(density[:, 0], density[:, 1]) - stretch
        return float(-fit.sum() + 0.5 * (stretch / SCALE) ** 2 - (CASES - 1) * log_shares.sum())

    found = min((minimize(loss, start, method="Nelder-Mead") for start in _starts(new, means, spreads)), key=_height)
    shift, odds, stretch = found.x
    return Moved(scale=float(np.exp(stretch)), shift=float(shift), share=float(1 / (1 + np.exp(-odds))), cases=len(new))


def _starts(new: Floats, means: Floats, spreads: Floats) -> list[Floats]:
    """Maps that give the new scores' mean and deviation to the mixture, share by share."""
    found = []
    for share in STARTS:
        parts = np.array([share, 1 - share])
        mean = float(parts @ means)
        deviation = float(np.sqrt(parts @ (spreads**2 + (means - mean) ** 2)))
        scale = max(new.std(), 1e-3) / deviation
        found.append(np.array([new.mean() - scale * mean, np.log(share / (1 - share)), np.log(scale)]))
    return found


def _height(result: object) -> float:
    return float(result.fun)  # type: ignore[attr-defined]
