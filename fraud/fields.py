"""What an event looks like to the encoder: one small whole number a field. 0 is padding, 1 is missing or unknown.

Bins and vocabularies are fitted on training rows only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.fraud.histories import Groups
from unlabeled.fraud.readers import DAY, Transactions
from unlabeled.fraud.velocity import since_last_visit

Part = Literal["entity", "counterparty"]

WHEN = ("gap", "last visit")  # fields that tell when it was used last, not what was done

_BINS = {"amount": 32, "gap": 24}
_NUMBER_BINS = 20
_TAILS = (0.001, 0.005, 0.01, 0.99, 0.995, 0.999)
_LAST_VISIT = (3600.0, DAY, 7 * DAY, 30 * DAY)  # stays comparable as histories grow, unlike a number of visits
_MOST_WORDS, _BUCKETS = 1_000, 256
_RARE = 3  # values seen less often in training share the code of the unknown, which is so learnt too
_CONSTANT = 0.98


@dataclass(frozen=True)
class Field:
    """How one field becomes codes.

    Attributes:
        name: as shown to people.
        kind: ``number`` (bins between ``edges``), ``word`` (a vocabulary) or ``hash`` (stable hash buckets).
        edges: rising, (E,); bin i holds ``edges[i-1] <= x < edges[i]``.
        words: known values, (V,).
        buckets: number of hash buckets.
    """

    name: str
    kind: Literal["number", "word", "hash"]
    edges: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    buckets: int = 0

    @property
    def size(self) -> int:
        """Number of codes, padding and unknown included."""
        return 2 + {"number": len(self.edges) + 1, "word": len(self.words), "hash": self.buckets}[self.kind]

    def codes(self, values: Any) -> NDArray[np.int16]:
        """Values (N,) -> codes (N,), 1 or more."""
        if self.kind == "number":
            x = np.asarray(values, dtype=float)
            binned = np.searchsorted(self.edges, x, side="right") + 2
            return np.where(np.isnan(x), 1, binned).astype(np.int16)
        number, different = pd.factorize(values)
        texts = [str(value) for value in different]
        if self.kind == "word":
            known = {word: i + 2 for i, word in enumerate(self.words)}
            code = [known.get(text, 1) for text in texts]
        else:
            hashed = pd.util.hash_array(np.array(texts, dtype=object), categorize=False)
            code = [int(value) % self.buckets + 2 for value in hashed]
        return np.array([*code, 1], dtype=np.int16)[number]

    def word(self, code: int) -> str:
        """A code in words."""
        if code < 2:
            return "unknown"
        if self.kind == "word":
            return self.words[code - 2]
        if self.kind == "hash":
            return f"group {code - 2}"
        low = self.edges[code - 3] if code > 2 else -np.inf
        high = self.edges[code - 2] if code - 2 < len(self.edges) else np.inf
        return f"under {high:g}" if low == -np.inf else f"{low:g} or more" if high == np.inf else f"{low:g} to {high:g}"


def quantile_field(name: str, values: NDArray[np.float64], *, bins: int) -> Field:
    """Bins with about equally many training values each, and finer ones in both tails."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Field(name, "number")
    at = np.unique([*np.linspace(0, 1, bins + 1)[1:-1], *_TAILS])
    edges = np.unique(np.quantile(known, at, method="higher"))
    return Field(name, "number", edges=tuple(float(edge) for edge in edges))


def word_field(name: str, values: Any) -> Field:
    """A vocabulary of what training holds often enough; stable hash buckets when that would be too many."""
    counts = pd.Series(values).value_counts()
    if len(counts) > _MOST_WORDS:
        return Field(name, "hash", buckets=_BUCKETS)
    words = [str(value) for value in counts[counts >= _RARE].index]
    return Field(name, "word", words=tuple(words))


class FieldCodes:
    """The fields of one kind of history: a card's, a merchant's, or none.

    Args:
        part: whose history; ``None`` for payments that stand alone.
    """

    def __init__(self, part: Part | None) -> None:
        self.part = part

    @property
    def sizes(self) -> list[int]:
        return [one.size for one in self.fields_]

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.fields_]

    def fit(self, table: Transactions, training: NDArray[np.bool_], groups: Groups | None) -> "FieldCodes":
        """Learns bins and vocabularies from the training rows."""
        values = raw_fields(table, self.part, groups)
        self.fields_: list[Field] = []
        for name, column in values.items():
            seen = column[training]
            if groups is not None and _constant(seen, groups.code[training]):
                continue  # says who it is, not what they did: nothing to predict
            self.fields_.append(_fitted(name, seen))
        return self

    def codes(self, table: Transactions, groups: Groups | None) -> NDArray[np.int16]:
        """(N, F), in the order of ``names``."""
        values = raw_fields(table, self.part, groups)
        return np.stack([one.codes(values[one.name]) for one in self.fields_], axis=1)

    def to_json(self) -> dict[str, Any]:
        return {"part": self.part, "fields": [asdict(one) for one in self.fields_]}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "FieldCodes":
        made = FieldCodes(content["part"])
        made.fields_ = [
            Field(**{**entry, "edges": tuple(entry["edges"]), "words": tuple(entry["words"])})
            for entry in content["fields"]
        ]
        return made


def raw_fields(table: Transactions, part: Part | None, groups: Groups | None) -> dict[str, Any]:
    """The values behind the codes, by field name, (N,) each."""
    time = table.time
    made: dict[str, Any] = {"amount": table.amount}
    if groups is not None:
        made["gap"] = time - groups.before(time)
    # No weekday: gap and hour nearly give it, and the encoder would spend its strength on that arithmetic.
    made["hour"] = np.floor(time % DAY / 3600)
    if groups is not None:
        other: Sequence[Part] = ("counterparty",) if part == "entity" else ("entity",)
        if other[0] in table.frame:
            made["last visit"] = since_last_visit(table, groups, other=other[0])
    for name in table.roles.categories:
        made[name] = table.frame[f"c:{name}"]
    for column in table.frame.columns:
        if column.startswith("n:"):
            made[column.removeprefix("n:")] = table.frame[column].to_numpy()
    return made


def _fitted(name: str, seen: Any) -> Field:
    if name == "last visit":
        return Field(name, "number", edges=_LAST_VISIT)
    if name == "hour":
        return Field(name, "number", edges=tuple(float(hour) for hour in range(1, 24)))
    if pd.api.types.is_numeric_dtype(seen):
        return quantile_field(name, np.asarray(seen, dtype=float), bins=_BINS.get(name, _NUMBER_BINS))
    return word_field(name, seen)


def _constant(values: Any, code: NDArray[np.int64]) -> bool:
    """Whether nearly every row has its group's first value."""
    number = pd.factorize(values)[0]
    return bool(pd.Series(number).groupby(code).transform("first").eq(number).mean() > _CONSTANT)
