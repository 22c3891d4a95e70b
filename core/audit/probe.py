"""What a linear model can read out of features about a property, beside chance: cross-validated, whole units apart.

For two questions that are asked before a model is trusted: can the label be told from something that is no sign of
it (borders, picture size)? And do the features know who is on the picture, though nobody taught them to (Glocker et
al., "Algorithmic encoding of protected characteristics in chest X-ray disease detection models", eBioMedicine 2023)?

Shape suffixes: n row, d feature, v value of the property.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate, bootstrap, roc_auc
from unlabeled.core.intervals import newcombe_area

FOLDS = 5
# Directions that are kept of features wider than this: a probe has to be quick, it is fitted hundreds of times.
DIRECTIONS = 64
PENALTY = 10.0
# Of the fits; ranks stand long before the last digits do.
STEPS, TOLERANCE = 100, 1e-3
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe found.

    Attributes:
        auroc: mean over the values of the property, each against the others; interval over units, by their number
            (Newcombe) where no bootstrap draw moves it.
        chance: 95th percentile of the same number when the property is shuffled among units.
        p: share of the shuffles that reach the number (one-sided, never 0).
        values: what was told apart, and how many rows of each there were.
        left_out: values with too few units.
        scores: out-of-fold scores (N, V), nan for rows whose value was left out.
    """

    auroc: Estimate
    chance: float
    p: float
    values: dict[str, int]
    left_out: dict[str, int]
    scores: Floats


def probe(
    features: ArrayLike,
    values: ArrayLike,
    *,
    units: ArrayLike | None = None,
    least: int = 20,
    shuffles: int = 200,
    samples: int = 300,
    seed: int = 0,
) -> Probed:
    """Penalised logistic regression on standardised features (their first principal components where they are many;
    no component looks at ``values``), judged on units that it did not see.

    Args:
        features: (N, D) numbers.
        values: (N,) of the property; ``None`` and empty text mean not known, and are left out.
        units: (N,) who belongs together; shuffling keeps a unit's rows together, too.
        least: units that a value needs.
        shuffles: refits that the chance level comes from.
        samples: bootstrap draws.

    Raises:
        DataError: features that are not finite, or fewer than two values with enough units.
    """
    x_nd, text = np.asarray(features, dtype=float), np.array(["" if v is None else str(v) for v in np.asarray(values)])
    who = np.arange(len(x_nd)) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    if x_nd.ndim != 2 or not len(x_nd) == len(text) == len(who) or not np.isfinite(x_nd).all():
        raise DataError(f"a probe needs finite features (N, D) and as many values and units, got {x_nd.shape}")
    units_of = {v: len(np.unique(who[text == v])) for v in sorted(set(text.tolist()) - {""})}
    kept = [v for v, count in units_of.items() if count >= least]
    if len(kept) < 2:
        counted = ", ".join(f"{v}: {count}" for v, count in units_of.items()) or "nothing is known"
        raise DataError(f"a probe needs two values of at least {least} each, got {counted}")
    rows = np.isin(text, kept)
    y_nv = np.stack([text[rows] == v for v in (kept if len(kept) > 2 else kept[1:])], axis=1)
    z_nd, group = reduced(x_nd[rows]), np.unique(who[rows], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    fold = _folds(group, y_nv, rng)
    scores_nv = _out_of_fold(z_nd, y_nv, fold)
    auroc = _with_width(
        bootstrap(_mean_auroc, y_nv, scores_nv, groups=group, samples=samples, seed=seed), y_nv, scores_nv, group
    )
    null = _null(z_nd, y_nv, fold, [_shuffled(group, rng) for _ in range(shuffles)])
    scores = np.full((len(text), y_nv.shape[1]), np.nan)
    scores[rows] = scores_nv
    return Probed(
        auroc=auroc,
        chance=float(np.quantile(null, 0.95)) if null else float("nan"),
        p=float((1 + np.sum(np.array(null) >= auroc.value)) / (1 + shuffles)),
        values={v: int((text == v).sum()) for v in kept},
        left_out={v: count for v, count in units_of.items() if v not in kept},
        scores=scores,
    )


def reduced(x_nd: Floats, *, directions: int = DIRECTIONS) -> Floats:
    """Standardised columns, constant ones left out; at most ``directions`` principal components of them, each divided
    by the largest one's deviation."""
    spread = x_nd.std(axis=0)
    z_nd = (x_nd - x_nd.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    if not z_nd.shape[1]:
        return np.zeros((len(x_nd), 1))
    if z_nd.shape[1] <= directions:
        return z_nd
    _, axes = np.linalg.eigh(z_nd.T @ z_nd)
    components = z_nd @ axes[:, ::-1][:, :directions]
    return np.asarray(components / max(float(components[:, 0].std()), 1e-9))


def _folds(group: NDArray[np.int64], y_nv: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold of each row: units dealt out in a random order, those of one value one after the other."""
    count = int(group.max()) + 1
    kind = np.zeros(count, dtype=np.int64)
    np.maximum.at(kind, group, (y_nv * np.arange(1, y_nv.shape[1] + 1)).max(axis=1))
    order = np.lexsort((rng.random(count), kind))
    fold = np.empty(count, dtype=np.int64)
    fold[order] = np.arange(count) % FOLDS
    return fold[group]


def _out_of_fold(x_nd: Floats, y_nv: NDArray[np.bool_], fold: NDArray[np.int64]) -> Floats:
    """Log odds of each row by a regression that saw none of its fold."""
    scores = np.zeros(y_nv.shape)
    for f in range(FOLDS):
        if (fold == f).any():
            weights_dv, bias_v = logistic(x_nd[fold != f], y_nv[fold != f])
            scores[fold == f] = x_nd[fold == f] @ weights_dv + bias_v
    return scores


def logistic(x_nd: Floats, y_nv: NDArray[np.bool_], *, penalty: float = PENALTY) -> tuple[Floats, Floats]:
    """Logistic regressions of many targets on the same rows at once: weights (D, V) and biases (V,).

    Newton's method with the fixed bound ``x'x / 4`` of the Hessian (Boehning and Lindsay, 1988), which is factored
    once for all targets: hundreds of shuffled targets cost what a few cost otherwise. The penalty is
    ``penalty * |w|^2 / 2`` on the sum of the losses, none on the bias.
    """
    from scipy.linalg import cho_factor, cho_solve

    z_nd = np.concatenate([x_nd, np.ones((len(x_nd), 1))], axis=1)
    ridge = np.full(z_nd.shape[1], penalty)
    ridge[-1] = 1e-6
    factor = cho_factor(z_nd.T @ z_nd / 4 + np.diag(ridge))
    w_dv = np.zeros((z_nd.shape[1], y_nv.shape[1]))
    for _ in range(STEPS):
        stated = 1 / (1 + np.exp(-np.clip(z_nd @ w_dv, -50, 50)))
        step = cho_solve(factor, z_nd.T @ (stated - y_nv) + ridge[:, None] * w_dv)
        w_dv -= step
        if np.abs(step).max() < TOLERANCE:
            break
    return w_dv[:-1], w_dv[-1]


def _null(
    z_nd: Floats, y_nv: NDArray[np.bool_], fold: NDArray[np.int64], orders: list[NDArray[np.int64]]
) -> list[float]:
    """The number that is judged, of each shuffled property."""
    if not orders:
        return []
    shuffled = np.concatenate([y_nv[order] for order in orders], axis=1)
    scores, v = _out_of_fold(z_nd, shuffled, fold), y_nv.shape[1]
    return [_mean_auroc(shuffled[:, k : k + v], scores[:, k : k + v]) for k in range(0, shuffled.shape[1], v)]


def _mean_auroc(y_nv: NDArray[np.bool_], scores_nv: Floats) -> float:
    return float(np.mean([roc_auc(y_nv[:, v], scores_nv[:, v]) for v in range(y_nv.shape[1])]))


def _with_width(found: Estimate, y_nv: NDArray[np.bool_], scores_nv: Floats, group: NDArray[np.int64]) -> Estimate:
    """The same; where all draws gave one value, the mean of the areas' intervals by the number of units, as wide as if
    the areas of a property's values went up and down together."""
    if found.high > found.low:
        return found
    ends = [
        newcombe_area(roc_auc(y, s), len(np.unique(group[y])), len(np.unique(group[~y])), 0.95)
        for y, s in zip(y_nv.T, scores_nv.T, strict=True)
    ]
    low, high = np.mean(ends, axis=0)
    return Estimate(found.value, float(low), float(high))


def _shuffled(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Row numbers: units in a random order, laid over the rows of all units in theirs, so that runs stay runs."""
    place = np.argsort(group, kind="stable")
    count = int(group.max()) + 1
    drawn = np.argsort(rng.permutation(count)[group], kind="stable")
    result = np.empty(len(group), dtype=np.int64)
    result[place] = drawn
    return result
