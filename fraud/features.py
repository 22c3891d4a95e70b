"""The features that need no encoder: the payment itself, and how fast and how much came before it.

Both LightGBM models (the baseline and ours) and the isolation forest read exactly these.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.fraud.fields import Field, word_field
from unlabeled.fraud.readers import DAY, Transactions
from unlabeled.fraud.velocity import velocity

_ONE_HOT = 40


class PlainFeatures:
    """Raw columns and velocity features, in one order.

    Args:
        label_delay: seconds until a label is known.
        risk: whether to make features from labels (known-fraud share of the merchant). They say something
            only where nearly all labels become known in time.
    """

    def __init__(self, *, label_delay: float, risk: bool) -> None:
        self.label_delay, self.risk = label_delay, risk

    def fit(self, table: Transactions, training: NDArray[np.bool_]) -> "PlainFeatures":
        """Learns the categories' vocabularies from the training rows."""
        self.words_: dict[str, Field] = {
            name: word_field(name, table.frame[f"c:{name}"][training]) for name in table.roles.categories
        }
        return self

    def columns(self, table: Transactions) -> dict[str, NDArray[np.floating]]:
        """Every feature by name, (N,), for all rows of the table."""
        made: dict[str, NDArray[np.floating]] = {
            "amount": table.amount,
            "hour": table.time % DAY / 3600,
            "weekday": (table.day % 7).astype(float),
        }
        for column in table.frame.columns:
            if column.startswith("n:"):
                made[column.removeprefix("n:")] = table.frame[column].to_numpy()
        for name, field in self.words_.items():
            code = field.codes(table.frame[f"c:{name}"])
            if field.size > _ONE_HOT + 2:
                made[f"{name} code"] = code.astype(float)
            else:
                made |= {f"{name} is {word}": (code == i + 2).astype(float) for i, word in enumerate(field.words)}
        return made | velocity(table, label_delay=self.label_delay if self.risk else None)

    def to_json(self) -> dict[str, Any]:
        words = {
            name: {"words": list(f.words), "kind": f.kind, "buckets": f.buckets} for name, f in self.words_.items()
        }
        return {"label_delay": self.label_delay, "risk": self.risk, "words": words}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "PlainFeatures":
        made = PlainFeatures(label_delay=content["label_delay"], risk=content["risk"])
        made.words_ = {
            name: Field(name, entry["kind"], words=tuple(entry["words"]), buckets=entry["buckets"])
            for name, entry in content["words"].items()
        }
        return made


def stacked(columns: Mapping[str, NDArray], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Columns side by side, (R, P)."""
    return np.stack([np.asarray(c if rows is None else c[rows], dtype=np.float32) for c in columns.values()], axis=1)
