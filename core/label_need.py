"""How many labels are enough? A learning curve over label counts and seeds, carried on beyond its end, with its doubt.

The curve is ``error(k) = a + b k^-c`` (Cortes et al., NIPS 1993; Figueroa et al., "Predicting sample size required for
classification performance", BMC Medical Informatics and Decision Making 2012): ``a`` is what no number of labels
removes. Its doubt comes from resampling whole seeds and is widened for their small number.

Shape suffixes: k label count, s seed, r bootstrap draw, c exponent of a grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate, over_runs

Learner = Callable[[int, int], float]
Floats = NDArray[np.float64]
# Exponents that are tried; learning curves of classifiers lie well inside.
EXPONENTS = np.geomspace(0.05, 3.0, 160)
LEAST_COUNTS, LEAST_SEEDS = 3, 3


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Errors (K, S) at ``counts`` labels (K,), one column a seed (its own draw of labels and its own training)."""

    counts: NDArray[np.int64]
    errors: Floats

    def __post_init__(self) -> None:
        if self.errors.shape[0] != len(self.counts) or self.errors.ndim != 2 or not np.isfinite(self.errors).all():
            raise DataError(f"a curve needs finite errors (K, S) of {len(self.counts)} counts, got {self.errors.shape}")
        if (np.diff(self.counts) <= 0).any() or self.counts[0] < 1:
            raise DataError(f"label counts must rise from at least 1, got {self.counts.tolist()}")

    def means(self) -> list[Estimate]:
        """Mean over seeds at each count, with Student's t interval."""
        return [over_runs(row) for row in self.errors]


class PowerLaw(NamedTuple):
    """``a + b k^-c``, none of them negative."""

    a: float
    b: float
    c: float

    def __call__(self, count: ArrayLike) -> Floats:
        return np.asarray(self.a + self.b * np.asarray(count, dtype=float) ** -self.c)


class Hidden(NamedTuple):
    """One point of the upper half, foretold from the lower half alone."""

    labels: int
    seen: float
    foretold: Estimate

    @property
    def inside(self) -> bool:
        return self.foretold.low <= self.seen <= self.foretold.high


class Advice(NamedTuple):
    """What ``more`` labels beyond ``now`` would bring, in points (hundredths) of error, and what a point would cost.

    ``price_a_point`` is for the expected gain; ``dearest`` for the low end of the interval (infinite where that is 0).
    """

    now: int
    more: int
    gain: Estimate
    price: float
    price_a_point: float
    dearest: float

    def __str__(self) -> str:
        gain = f"about {self.gain.value:.1f} [{self.gain.low:.1f}, {self.gain.high:.1f}] points of balanced error"
        text = f"Another {self.more:,} labels (beyond {self.now:,}) gain {gain}"
        if self.price:
            a_point = f"EUR {self.price_a_point:,.0f} per point" if np.isfinite(self.price_a_point) else "for no gain"
            text += f"; at EUR {self.price:g} a label that is {a_point}"
        if self.gain.low > 0.05:
            return f"{text}."
        return f"{text}; they may gain nothing. Stop here, unless {self.gain.high:.1f} points would be worth it."


def measure(
    learners: Mapping[str, Learner],
    counts: Sequence[int],
    seeds: Sequence[int],
    *,
    known: Mapping[tuple[str, int, int], float] | None = None,
    log: Callable[[str, int, int, float], None] | None = None,
) -> dict[str, Curve]:
    """The curve of each learner.

    Args:
        learners: by name; ``learner(count, seed)`` gives its error on data that never change.
        counts: rising.
        seeds: each with its own draw of labels.
        known: points (name, count, seed) that were measured before.
        log: told every new point.
    """
    found: dict[str, Curve] = {}
    for name, learner in learners.items():
        errors = np.empty((len(counts), len(seeds)))
        for i, count in enumerate(counts):
            for j, seed in enumerate(seeds):
                before = (known or {}).get((name, count, seed))
                errors[i, j] = learner(count, seed) if before is None else before
                if before is None and log is not None:
                    log(name, count, seed, float(errors[i, j]))
        found[name] = Curve(counts=np.asarray(counts, dtype=np.int64), errors=errors)
    return found


def fit(curve: Curve) -> PowerLaw:
    """The power law through the means, weighted by how sure they are.

    Raises:
        DataError: fewer than three counts.
    """
    a, b, c = _fit(curve.counts, curve.errors.mean(axis=1)[None], _weights(curve.errors))
    return PowerLaw(float(a[0]), float(b[0]), float(c[0]))


def extrapolate(
    curve: Curve, at: Sequence[float], *, samples: int = 500, level: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """The expected error at other counts, with an interval for the curve (not for one training on one draw).

    Raises:
        DataError: fewer than three counts or seeds.
    """
    laws = _resampled(curve, samples, seed)
    centre = fit(curve)(at)
    drawn_rk = laws.a[:, None] + laws.b[:, None] * np.asarray(at, dtype=float) ** -laws.c[:, None]
    return [
        _widened(float(value), drawn, seeds=curve.errors.shape[1], level=level)
        for value, drawn in zip(centre, drawn_rk.T, strict=True)
    ]


def check_by_hiding(curve: Curve, *, samples: int = 500, level: float = 0.95, seed: int = 0) -> list[Hidden]:
    """Foretells the upper half of the curve from the lower; empty where the lower half has fewer than three counts.

    The interval of a hidden point holds the doubt of its own mean as well, which is over few seeds too.
    """
    from scipy import stats

    half = (len(curve.counts) + 1) // 2
    if half < LEAST_COUNTS:
        return []
    lower = Curve(counts=curve.counts[:half], errors=curve.errors[:half])
    foretold = extrapolate(lower, curve.counts[half:].tolist(), samples=samples, level=level, seed=seed)
    seeds = curve.errors.shape[1]
    t = float(stats.t.ppf((1 + level) / 2, seeds - 1))
    hidden = []
    for count, errors, estimate in zip(curve.counts[half:], curve.errors[half:], foretold, strict=True):
        own = t * float(errors.std(ddof=1)) / np.sqrt(seeds)
        low = estimate.value - np.hypot(estimate.value - estimate.low, own)
        high = estimate.value + np.hypot(estimate.high - estimate.value, own)
        hidden.append(
            Hidden(int(count), float(errors.mean()), Estimate(estimate.value, float(max(0.0, low)), float(high)))
        )
    return hidden


def advise(
    curve: Curve, more: int, *, price: float = 0.0, samples: int = 500, level: float = 0.95, seed: int = 0
) -> Advice:
    """What ``more`` labels beyond the largest count would bring, at ``price`` a label."""
    now = int(curve.counts[-1])
    laws, law = _resampled(curve, samples, seed), fit(curve)
    drawn_r = 100 * laws.b * (float(now) ** -laws.c - float(now + more) ** -laws.c)
    value = float(100 * (law(now) - law(now + more)))
    gain = _widened(value, drawn_r, seeds=curve.errors.shape[1], level=level)
    cost = price * more

    def a_point(points: float) -> float:
        return cost / points if points > 0 else float("inf")

    return Advice(now, more, gain, price, a_point(gain.value), a_point(gain.low))


class _Laws(NamedTuple):
    a: Floats
    b: Floats
    c: Floats


def _resampled(curve: Curve, samples: int, seed: int) -> _Laws:
    """Power laws through the means of seeds drawn with replacement: a seed keeps its whole curve."""
    seeds = curve.errors.shape[1]
    if seeds < LEAST_SEEDS:
        raise DataError(f"the doubt of a curve needs at least {LEAST_SEEDS} seeds, got {seeds}")
    drawn_rs = np.random.default_rng(seed).integers(0, seeds, (samples, seeds))
    means_rk = curve.errors[:, drawn_rs].mean(axis=2).T
    return _Laws(*_fit(curve.counts, means_rk, _weights(curve.errors)))


def _weights(errors_ks: Floats) -> Floats:
    """Inverse variances of the means; each variance is drawn halfway to their mean, for it comes from few seeds."""
    if errors_ks.shape[1] < 2:
        return np.ones(len(errors_ks))
    variance = errors_ks.var(axis=1, ddof=1)
    steadied = (variance + variance.mean()) / 2
    return np.asarray(1 / np.maximum(steadied, 1e-12 + 1e-6 * steadied.max()))


def _fit(counts_k: NDArray[np.int64], means_rk: Floats, weights_k: Floats) -> tuple[Floats, Floats, Floats]:
    """Weighted least squares over a grid of exponents; for each, ``a`` and ``b`` in closed form, kept at 0 or above."""
    if len(counts_k) < LEAST_COUNTS:
        raise DataError(f"a learning curve needs at least {LEAST_COUNTS} label counts, got {len(counts_k)}")
    w = weights_k / weights_k.sum()
    x_ck = (counts_k / counts_k[0])[None] ** -EXPONENTS[:, None]
    x_mean, y_mean = x_ck @ w, means_rk @ w
    xx, xy = (x_ck**2) @ w, (means_rk * w) @ x_ck.T
    slope_rc = (xy - y_mean[:, None] * x_mean) / np.maximum(xx - x_mean**2, 1e-15)
    floor_rc = y_mean[:, None] - slope_rc * x_mean
    through_zero = xy / xx
    slope_rc, floor_rc = np.where(floor_rc < 0, through_zero, slope_rc), np.maximum(floor_rc, 0)
    flat = slope_rc < 0
    slope_rc, floor_rc = np.where(flat, 0, slope_rc), np.where(flat, np.maximum(y_mean[:, None], 0), floor_rc)
    left = means_rk[:, None, :] - floor_rc[..., None] - slope_rc[..., None] * x_ck[None]
    best = ((left**2) @ w).argmin(axis=1)
    rows, c = np.arange(len(means_rk)), EXPONENTS[best]
    return floor_rc[rows, best], slope_rc[rows, best] * float(counts_k[0]) ** c, c


def _widened(value: float, drawn_r: Floats, *, seeds: int, level: float) -> Estimate:
    """A percentile interval whose arms are stretched for the few seeds that were resampled.

    The bootstrap of n values understates their spread by sqrt((n - 1) / n), and takes normal quantiles where Student's
    are due (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015). One more
    degree of freedom is taken off for the shape, which was chosen on the same seeds.
    """
    from scipy import stats

    upper = (1 + level) / 2
    stretch = float(stats.t.ppf(upper, seeds - 2) / stats.norm.ppf(upper) * np.sqrt(seeds / (seeds - 1)))
    low, high = np.quantile(drawn_r, [1 - upper, upper])
    return Estimate(
        value, max(0.0, value - stretch * max(0.0, value - float(low))), value + stretch * max(0.0, float(high) - value)
    )
