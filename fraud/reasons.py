"""Why a payment stands out, in words."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlabeled.fraud.history_model import HistoryModel, Reading
from unlabeled.fraud.readers import Transactions

_SHOWN = 3
_WORTH = 0.7  # nats above what is usual for the field: twice as rare
_LEAST_WEIGHT = 0.1  # log odds


def in_words(
    models: Sequence[HistoryModel],
    readings: Sequence[Reading],
    columns: Mapping[str, NDArray],
    table: Transactions,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    weights: NDArray[np.float64] | None = None,
) -> list[str]:
    """One sentence a payment: the amount against the card's own, the fields that surprise most, and what the
    fitted model leans on.

    Args:
        models, readings: the encoders and what they said about ``rows`` of ``table``.
        columns: features of those rows.
        positions: which of the rows to explain, (K,).
        weights: how much each feature speaks for fraud in the fitted model, (K, P), in log odds.
    """
    surprising = [_surprising(*pair, table, rows, positions) for pair in zip(models, readings, strict=True)]
    sentences = []
    for i, position in enumerate(positions):
        amount = _amount(columns, table, rows, int(position))
        told = {"amount"} if amount else set()
        words = [amount] if amount else []
        for _, name, text in sorted((entry for found in surprising for entry in found[i]), reverse=True):
            if name not in told and len(words) < _SHOWN:
                words.append(text)
                told.add(name)
        if weights is not None:
            words += _leaning(columns, int(position), weights[i])
        sentences.append("; ".join(words) or "a mixture of small deviations")
    return sentences


def _surprising(
    model: HistoryModel, reading: Reading, table: Transactions, rows: NDArray[np.int64], positions: NDArray[np.int64]
) -> list[list[tuple[float, str, str]]]:
    """For each position, (nats above usual, field, in words) of the fields that are twice as rare as usual."""
    surprise = reading.lagged if model.part else reading.rest
    usual = np.median(surprise, axis=0) if len(surprise) > 100 else np.log(np.array(model.fields.sizes)) * 0.8
    whose = {"entity": "this card", "counterparty": "this merchant", None: "such a payment"}[model.part]
    found: list[list[tuple[float, str, str]]] = []
    for position in positions:
        excess = surprise[position] - usual
        told = []
        for k in np.flatnonzero(excess >= _WORTH):
            field = model.fields.fields_[k]
            shown = _value(field.name, table, int(rows[position]), field.word(int(reading.codes[position, k])))
            one_in = f"1 in {np.exp(min(float(surprise[position, k]), 9.9)):,.0f}"
            told.append((float(excess[k]), field.name, f"{field.name} {shown}: {one_in} for {whose}"))
        found.append(told)
    return found


def _leaning(columns: Mapping[str, NDArray], position: int, weight: NDArray[np.float64]) -> list[str]:
    """The plain features that speak most for fraud, with their values."""
    names = list(columns)
    plain = [k for k in np.argsort(-weight) if weight[k] > _LEAST_WEIGHT and not _of_encoder(names[k])][:2]
    told = [f"{names[k]} {_number(float(columns[names[k]][position]), names[k])}" for k in plain]
    return [f"the model leans on {' and '.join(told)}"] if told else []


def _of_encoder(name: str) -> bool:
    return any(word in name.split() for word in ("ahead", "rest", "lagged", "state", "content"))


def _number(value: float, name: str) -> str:
    if " is " in name:
        return "(yes)" if value else "(no)"
    if name.endswith("gap"):
        return "none" if value != value else _duration(value)
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


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
