"""Why a payment stands out, in words."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlabeled.fraud.history_model import HistoryModel, Reading
from unlabeled.fraud.readers import Transactions

_SHOWN = 3
_WORTH = 0.7  # nats above what is usual for the field: twice as rare


def in_words(
    models: Sequence[HistoryModel],
    readings: Sequence[Reading],
    columns: Mapping[str, NDArray],
    table: Transactions,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> list[str]:
    """One sentence a payment: the amount against the card's own, and the fields that surprise most.

    Args:
        models, readings: the encoders and what they said about ``rows`` of ``table``.
        columns: features of those rows.
        positions: which of the rows to explain.
    """
    parts: list[list[tuple[float, str]]] = [[] for _ in positions]
    for model, reading in zip(models, readings, strict=True):
        surprise = reading.lagged if model.part else reading.rest
        usual = np.median(surprise, axis=0) if len(surprise) > 100 else np.log(np.array(model.fields.sizes)) * 0.8
        codes = reading.codes[positions]
        whose = {"entity": "this card", "counterparty": "this merchant", None: "payments"}[model.part]
        for i, position in enumerate(positions):
            excess = surprise[position] - usual
            for k in np.argsort(-excess)[:_SHOWN]:
                if excess[k] >= _WORTH:
                    field = model.fields.fields_[k]
                    one_in = f"1 in {np.exp(min(surprise[position, k], 9.9)):,.0f}"
                    shown = _value(field.name, table, int(rows[position]), field.word(int(codes[i, k])))
                    parts[i].append((float(excess[k]), f"{field.name} {shown}: {one_in} for {whose}"))
    return [_sentence(found, _amount(columns, table, rows, p)) for found, p in zip(parts, positions, strict=True)]


def _sentence(found: list[tuple[float, str]], amount: str) -> str:
    words = [text for _, text in sorted(found, key=lambda entry: -entry[0])[:_SHOWN]]
    return "; ".join([*([amount] if amount else []), *words]) or "a mixture of small deviations"


def _amount(columns: Mapping[str, NDArray], table: Transactions, rows: NDArray[np.int64], position: int) -> str:
    """The amount against the card's past month, where it stands out."""
    z = columns.get("card amount z 30d")
    if z is None or abs(z[position]) < 1.5:
        return ""
    paid = table.amount[rows[position]]
    count = columns["card count 30d"][position] - 1
    usual = (columns["card sum 30d"][position] - paid) / max(count, 1)
    direction = "above" if z[position] > 0 else "below"
    return f"amount {paid:,.2f}, card's mean {usual:,.2f} ({abs(z[position]):.1f} spreads {direction} its own month)"


def _value(name: str, table: Transactions, row: int, word: str) -> str:
    if name == "amount":
        return f"{table.amount[row]:,.2f}"
    if name == "hour":
        return f"{int(table.time[row] % 86_400 // 3600):02d}h"
    if name in ("gap", "last visit"):
        return _duration_bin(word)
    return word


def _duration_bin(word: str) -> str:
    """Bins of seconds in minutes, hours or days."""
    if word == "unknown":
        return "first time"
    out = []
    for piece in word.split():
        try:
            out.append(_duration(float(piece)))
        except ValueError:
            out.append(piece)
    return " ".join(out)


def _duration(seconds: float) -> str:
    for unit, width in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= width:
            return f"{seconds / width:.3g} {unit}"
    return f"{seconds:.0f} s"
