"""What anybody would try first: a rule, an isolation forest, LightGBM and logistic regression."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.budget import Budget, Spent
from unlabeled.fraud.boosting import predict, timed
from unlabeled.fraud.features import stacked

Floats = NDArray[np.float64]
_MOST_ROWS = 100_000
COMPARISON = "LightGBM on plain features, for the comparison"


def amount_rule(columns: dict[str, NDArray]) -> Floats | None:
    """How far the amount lies above the card's own past, in its own spreads; ``None`` without cards."""
    z = columns.get("card amount z")
    return None if z is None else np.asarray(z, dtype=float)


class IsolationForest:
    """PyOD's isolation forest (Liu et al., 2008), 200 trees, on the plain features; no labels.

    Args:
        seed: fixes the trees.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, x: NDArray[np.float32]) -> "IsolationForest":
        from pyod.models.iforest import IForest

        clean = self._filled(x, first=True)
        if len(clean) > _MOST_ROWS:
            clean = clean[np.random.default_rng(self.seed).choice(len(clean), _MOST_ROWS, replace=False)]
        self.forest_ = IForest(n_estimators=200, random_state=self.seed).fit(clean)
        return self

    def score(self, x: NDArray[np.float32]) -> Floats:
        return np.asarray(self.forest_.decision_function(self._filled(x, first=False)), dtype=float)

    def _filled(self, x: NDArray[np.float32], *, first: bool) -> NDArray[np.float32]:
        if first:
            self.middle_ = _middle(x)
        return np.where(np.isnan(x), self.middle_, x)


class LightGBM:
    """LightGBM on the plain features, with the same labels and settings as ours."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, x: NDArray[np.float32], y: NDArray) -> "LightGBM":
        booster, predicted, spent = timed(x, y, seed=self.seed, label=COMPARISON)
        self.booster_: Any = booster
        self.cost_: tuple[Budget, Spent] | None = (predicted, spent)
        return self

    def score(self, x: NDArray[np.float32]) -> Floats:
        return predict(self.booster_, x)


class LogisticRegression:
    """Standardised plain features (heavy tails drawn in by a signed logarithm), ridge penalty."""

    def fit(self, x: NDArray[np.float32], y: NDArray) -> "LogisticRegression":
        from sklearn.linear_model import LogisticRegression as Logistic

        self.middle_ = _middle(x)
        tame = self._tame(x)
        self.mean_, self.spread_ = tame.mean(axis=0), tame.std(axis=0) + 1e-6
        self.model_ = Logistic(C=0.1, max_iter=2000).fit((tame - self.mean_) / self.spread_, y)
        return self

    def score(self, x: NDArray[np.float32]) -> Floats:
        return np.asarray(self.model_.decision_function((self._tame(x) - self.mean_) / self.spread_), dtype=float)

    def _tame(self, x: NDArray[np.float32]) -> Floats:
        filled = np.where(np.isnan(x), self.middle_, x).astype(float)
        return np.sign(filled) * np.log1p(np.abs(filled))


def _middle(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Medians, 0 for a column without any number."""
    empty = np.isnan(x).all(axis=0)
    safe = np.where(empty, 0.0, x)
    return np.nanmedian(safe, axis=0).astype(np.float32)


def baseline_scores(
    columns: dict[str, NDArray],
    label: NDArray[np.int8],
    *,
    training: NDArray[np.bool_],
    rows: NDArray[np.int64],
    seed: int,
    lightgbm: LightGBM | None = None,
) -> dict[str, Floats]:
    """Every baseline's score of ``rows``, by name, the strongest kind first.

    Args:
        columns: the plain features of all rows.
        label: labels that may be used for training, -1 elsewhere, (N,).
        training: rows that may be used for training.
        lightgbm: fitted already on these labels and columns; fitted here when ``None``.
    """
    x = stacked(columns)
    labelled = np.flatnonzero(training & (label >= 0))
    made: dict[str, Floats] = {}
    if len(np.unique(label[labelled])) == 2:
        fitted = lightgbm or LightGBM(seed=seed).fit(x[labelled], label[labelled])
        made["LightGBM, same labels"] = fitted.score(x[rows])
        made["logistic regression, same labels"] = LogisticRegression().fit(x[labelled], label[labelled]).score(x[rows])
    made["isolation forest"] = IsolationForest(seed=seed).fit(x[training]).score(x[rows])
    rule = amount_rule(columns)
    if rule is not None:
        made["amount rule"] = rule[rows]
    return made
