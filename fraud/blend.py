"""From labels to a probability: LightGBM, leaning on the unsupervised score while there are few frauds to learn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.budget import Budget, Spent
from unlabeled.fraud.boosting import (
    contributions,
    from_text,
    raw_score,
    timed,
    to_text,
    training_curve,
)

# With so many labelled frauds both weigh the same. Ten frauds alone lead trees astray where amounts decide
# (handbook), yet are worth far more than no label where habits do (sparkov); measured on training periods.
EVEN = 10
COST = "trees on the labels"


class Blend:
    """``log odds = (1 - w) LightGBM + w (a + b rarity)`` with ``w = 10 / (10 + labelled frauds)``.

    ``a`` and ``b >= 0`` come from a logistic regression of the labels on the unsupervised score alone.

    Args:
        seed: fixes LightGBM.

    Attributes:
        cost_: of LightGBM's trees, foretold from the first ones, and spent; ``None`` for a loaded model.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, x: NDArray[np.float32], rarity: NDArray[np.float64], y: NDArray) -> "Blend":
        """From labelled rows: features (N, P), unsupervised score (N,), labels 0 or 1 (N,)."""
        from sklearn.linear_model import LogisticRegression

        booster, predicted, spent = timed(x, y, seed=self.seed, label=COST)
        self.booster_: Any = booster
        self.cost_: tuple[Budget, Spent] | None = (predicted, spent)
        self.curve_ = training_curve(self.booster_, x, y)
        line = LogisticRegression().fit(rarity[:, None], y)
        self.slope_, self.intercept_ = max(float(line.coef_[0, 0]), 0.0), float(line.intercept_[0])
        self.share_ = EVEN / (EVEN + int((y == 1).sum()))
        return self

    def score(self, x: NDArray[np.float32], rarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of fraud, (N,)."""
        prior = self.intercept_ + self.slope_ * rarity
        return 1 / (1 + np.exp(-((1 - self.share_) * raw_score(self.booster_, x) + self.share_ * prior)))

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature adds to LightGBM's log odds, (N, P)."""
        return contributions(self.booster_, x)

    def gain(self) -> NDArray[np.float64]:
        """How much each feature gave to the trees, (P,)."""
        return np.asarray(self.booster_.feature_importance("gain"), dtype=float)

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope_, "intercept": self.intercept_, "share": self.share_, "curve": self.curve_}

    def to_text(self) -> str:
        """LightGBM's own text."""
        return to_text(self.booster_)

    @staticmethod
    def from_saved(content: Mapping[str, Any], text: str) -> "Blend":
        made = Blend()
        made.curve_ = [(int(trees), float(loss)) for trees, loss in content["curve"]]
        made.booster_ = from_text(text)
        made.cost_ = None
        made.slope_, made.intercept_, made.share_ = (content[name] for name in ("slope", "intercept", "share"))
        return made
