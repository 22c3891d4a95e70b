"""Regimes found from the data: a machine that is plainly run in a few ways, of which no column tells.

A snapshot is described by what a way of running moves (a waveform by its mean level in a few bands of each axis and its
overall level, in decibels; a row of a trend by its indicators). In the first principal components of what the normal
period's first part holds, mixtures of one to four Gaussians of one common shape are compared by BIC (Schwarz, Annals of
Statistics 6, 1978), and of those only the ones all of whose regimes

- hold enough snapshots for what is normal in them to be learnt,
- lie apart by Ashman's D (Ashman, Bird and Zepf, Astronomical Journal 108, 1994), here of medians and quantiles, not of
  means and standard deviations: a steady drift cut in two has about 3, a sine about 4, and two is the least that their
  paper calls clean,
- and came back: in both halves of that part, and not in one stretch. Otherwise ageing, running-in or one bad episode
  would be made normal.

A snapshot belongs to the regime that it is nearest to, by itself alone. It is never excused as one of a new regime:
where nothing is measured nobody can tell a new way of running from a fault, so it is compared with the nearest regime
and alarms. The price of all this: a fault that makes one regime look like another one is hidden for as long as it does.

Shape suffixes: m known snapshot, f feature, q direction, r regime, c axis, h row of a picture, i indicator.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlabeled.sensors.features import COARSE

Floats = NDArray[np.float64]

MOST = 4
ENOUGH = 20  # snapshots of a regime
APART = 6.0  # Ashman's D, at which neighbours' outermost snapshots hardly touch
_ONE_STRETCH, _EACH_HALF = 0.8, 0.2  # shares of a regime's snapshots: at most in one stretch, at least in each half
_COMPONENTS = 3  # which tell four regimes apart
_FAR = 30.0  # in spreads: beyond it no feature counts for more
# Widths in standard deviations of a Gaussian: the shortest interval that holds a tenth of it, its middle four fifths.
_TENTH, _FOUR_FIFTHS = 0.2513, 2.5631
_STARTS = 10  # of each mixture


@dataclass(frozen=True, eq=False)
class FoundRegimes:
    """The regimes that were found in a normal period, numbered from 1 in the order in which they first came.

    Attributes:
        known: (m, 1) the number of each known snapshot's.
        middle, scale: (f,) by which features are compared.
        directions: (f, q) in which regimes differ; along each of them a regime spreads by 1.
        centres: (r, q) of the regimes.
    """

    known: Floats
    middle: Floats
    scale: Floats
    directions: Floats
    centres: Floats

    names: ClassVar[tuple[str, ...]] = ()  # of conditions: none is measured

    def regime(self, features_f: Floats) -> int:
        """Number of the nearest one."""
        place = _standard(features_f, self.middle, self.scale) @ self.directions
        return int(np.argmin(np.square(self.centres - place).sum(axis=1))) + 1

    def members(self, regime: int, *, without: int | None = None) -> NDArray[np.int64]:
        """Numbers of its known snapshots, one of them (``without``) left out."""
        found = np.flatnonzero(self.known[:, 0] == regime)
        return found if without is None else found[found != without]


def described(pictures_mch: Floats | None, indicators_mi: Floats, overall_m: Floats | None) -> Floats:
    """(m, f) what a way of running moves: of pictures (mean over their time, level taken out) a few bands an axis and
    the level, in decibels; without pictures the indicators."""
    if pictures_mch is None or overall_m is None:
        return indicators_mi
    snapshots, axes, rows = pictures_mch.shape
    bands = pictures_mch.reshape(snapshots, axes * COARSE, rows // COARSE).mean(axis=2)
    return np.concatenate([bands, 20 * np.log10(np.maximum(overall_m, 1e-12))[:, None]], axis=1)


def find(features_mf: Floats) -> FoundRegimes | None:
    """The regimes of snapshots in order of time; ``None`` where there is one, or too few snapshots to tell.

    Args:
        features_mf: of :func:`described`.
    """
    from sklearn.decomposition import PCA

    if len(features_mf) < 2 * ENOUGH:
        return None
    middle, scale = np.median(features_mf, axis=0), _spread(features_mf)
    z_mf = _standard(features_mf, middle, scale)
    axes = PCA(min(_COMPONENTS, z_mf.shape[1]), svd_solver="full").fit(z_mf).components_.T
    x = z_mf @ axes
    best, found = _mixture(x, 1).bic(x), None
    for count in range(2, MOST + 1):
        mixture = _mixture(x, count)
        white = np.linalg.cholesky(np.linalg.inv(mixture.covariances_))
        regimes = FoundRegimes(np.empty((0, 1)), middle, scale, axes @ white, mixture.means_ @ white)
        number = np.array([regimes.regime(one) for one in features_mf])
        if mixture.bic(x) < best and _sound(x @ white, number, count):
            best, found = mixture.bic(x), _in_order(regimes, number)
    return found


def _in_order(regimes: FoundRegimes, number_m: NDArray[np.int64]) -> FoundRegimes:
    order = sorted(set(number_m.tolist()), key=number_m.tolist().index)
    known = np.array([[order.index(one) + 1.0] for one in number_m.tolist()])
    return FoundRegimes(known, regimes.middle, regimes.scale, regimes.directions, regimes.centres[np.array(order) - 1])


def _sound(places_mq: Floats, number_m: NDArray[np.int64], count: int) -> bool:
    """Whether each of so many regimes holds enough, came back, and lies apart from every other one."""
    groups = [number_m == one for one in range(1, count + 1)]
    if not all(group.sum() >= ENOUGH and came_back(group) for group in groups):
        return False
    return all(ashman(places_mq[groups[a]], places_mq[groups[b]]) >= APART for a in range(count) for b in range(a))


def ashman(one_mq: Floats, other_mq: Floats) -> float:
    """How far apart two groups are along the line between their middles: the distance of their medians, over the root
    mean square of their spreads, as the middle four fifths of each tell them."""
    line = np.median(one_mq, axis=0) - np.median(other_mq, axis=0)
    a, b = one_mq @ line, other_mq @ line
    widths = np.array([float(np.subtract(*np.quantile(side, [0.9, 0.1]))) for side in (a, b)]) / _FOUR_FIFTHS
    return float(abs(np.median(a) - np.median(b)) / max(np.sqrt(np.mean(np.square(widths))), 1e-12))


def came_back(there_m: NDArray[np.bool_]) -> bool:
    """Whether what was there at these moments, in order of time, was there again and again: not in one stretch, and in
    both halves."""
    total, half = int(there_m.sum()), int(there_m[: len(there_m) // 2].sum())
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there_m.astype(np.int8), [0]])))
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    return longest <= _ONE_STRETCH * total and min(half, total - half) >= _EACH_HALF * total


def _mixture(x_mq: Floats, count: int) -> Any:  # scikit-learn's GaussianMixture, which is imported where it is used
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        # One that has not settled is judged like all others.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(count, covariance_type="tied", n_init=_STARTS, reg_covar=1e-3, random_state=0).fit(x_mq)


def _standard(features: Floats, middle_f: Floats, scale_f: Floats) -> Floats:
    return np.clip((features - middle_f) / scale_f, -_FAR, _FAR)


def _spread(features_mf: Floats) -> Floats:
    """(f,) of each feature within its densest tenth, so that one with several modes is wide in its own spreads and
    leads the principal components; never less than a tenth of the spread of its middle four fifths, for those that
    stand still for most of the time."""
    tenth = max(len(features_mf) // 10, 2)
    ordered = np.sort(features_mf, axis=0)
    densest = (ordered[tenth:] - ordered[:-tenth]).min(axis=0) / _TENTH
    low, high = np.quantile(features_mf, [0.1, 0.9], axis=0)
    still = 1e-6 * np.maximum(1.0, np.abs(np.median(features_mf, axis=0)))
    return np.maximum(np.maximum(densest, (high - low) / _FOUR_FIFTHS / 10), still)
