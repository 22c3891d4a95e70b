"""A score without any label: rare by its amount, by the day's spending, and by what it is for the merchant.

Surprise given the card's whole history fails here: within a burst the frauds foretell each other. So what is
combined are (1) the amount against the card's own past, (2) the last day's spending against the card's usual day,
and (3) how much the payment surprises the encoder of the merchant's history up to a day before, leaving out the
fields that only say *when* it was used last. Each is turned into how rarely training payments exceed it, and the
logarithms are added (Fisher, 1932). Payments that stand alone have their surprise only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GRID = np.concatenate([np.linspace(0, 0.9, 91), np.linspace(0.9, 0.99, 46)[1:], np.linspace(0.99, 0.999, 46)[1:]])


class Unsupervised:
    """``sum of -log P(a training payment exceeds this one)`` over the parts that a table has."""

    def fit(self, columns: Mapping[str, NDArray]) -> "Unsupervised":
        self.quantiles_ = {name: np.quantile(values, _GRID) for name, values in parts(columns).items()}
        return self

    def score(self, columns: Mapping[str, NDArray]) -> NDArray[np.float64]:
        """(N,)."""
        found = parts(columns)
        return np.sum([rarity(found[name], quantiles) for name, quantiles in self.quantiles_.items()], axis=0)

    def to_json(self) -> dict[str, Any]:
        return {name: quantiles.tolist() for name, quantiles in self.quantiles_.items()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Unsupervised":
        made = Unsupervised()
        made.quantiles_ = {name: np.array(quantiles) for name, quantiles in content.items()}
        return made


def parts(columns: Mapping[str, NDArray]) -> dict[str, NDArray[np.float64]]:
    """What the score is made of, by name, (N,) each."""
    if "alone ahead total" in columns:
        return {"surprise": np.asarray(columns["alone ahead total"], dtype=float)}
    made: dict[str, NDArray[np.float64]] = {}
    if "card amount z" in columns:
        made["amount"] = np.asarray(columns["card amount z"], dtype=float)
        today, month = (np.asarray(columns[f"card sum {width}"], dtype=float) for width in ("1d", "30d"))
        made["day"] = np.log1p(today) - np.log1p(np.maximum(month - today, 0) / 29)
    if "merchant content" in columns:
        made["merchant"] = np.asarray(columns["merchant content"], dtype=float)
    return made


def rarity(values: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-log P(exceeded)`` by the training quantiles; beyond the highest, the exponential tail that the last two
    decades (99 %, 99.9 %) suggest."""
    share = np.interp(values, quantiles, _GRID)
    decade = max(float(quantiles[-1] - np.interp(0.99, _GRID, quantiles)), 1e-9)
    beyond = np.maximum(values - quantiles[-1], 0) / decade
    return -np.log(1 - share) + beyond * np.log(10)
