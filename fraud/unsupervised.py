"""A score without any label: unusual for the card's longer past, and unusual several times in a row.

Surprise given the whole history fails here: within a burst the frauds foretell each other. So the history is read
only up to a day before; fields that say *when* the card was last used are left out, since a busy day is no crime;
and the mean over the card's last payments is taken in, because a stolen card is used more than once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.normality import robust_scale

_LIMIT = 8.0  # spreads: one wild part must not decide alone


class Unsupervised:
    """The mean of the parts that a table has, each centred and scaled on training payments."""

    def fit(self, columns: Mapping[str, NDArray]) -> "Unsupervised":
        self.scale_ = {name: robust_scale(columns[name]) for name in parts_of(columns)}
        return self

    def score(self, columns: Mapping[str, NDArray]) -> NDArray[np.float64]:
        """(N,)."""
        scaled = [
            np.clip((np.asarray(columns[name], dtype=float) - middle) / spread, -_LIMIT, _LIMIT)
            for name, (middle, spread) in self.scale_.items()
        ]
        return np.mean(scaled, axis=0)

    def to_json(self) -> dict[str, Any]:
        return {name: list(scale) for name, scale in self.scale_.items()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Unsupervised":
        made = Unsupervised()
        made.scale_ = {name: (scale[0], scale[1]) for name, scale in content.items()}
        return made


def parts_of(columns: Mapping[str, NDArray]) -> list[str]:
    """Which features make up the score."""
    with_cards = ("card amount z 30d", "card content", "card content mean of 5", "merchant content")
    found = [name for name in with_cards if name in columns]
    return found or ["alone rest total"]
