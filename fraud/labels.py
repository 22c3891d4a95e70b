"""Which labels may be used, and when."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.fraud.readers import Transactions, read_table

GENUINE_PER_FRAUD = 20


def known_by(table: Transactions, moment: float, *, delay: float) -> NDArray[np.int8]:
    """The labels that have arrived at ``moment``: those with ``time + delay <= moment``; -1 elsewhere."""
    return np.where(table.time + delay <= moment, table.label, -1).astype(np.int8)


def few(label: NDArray[np.int8], *, frauds: int, seed: int) -> NDArray[np.int8]:
    """Keeps ``frauds`` random labelled frauds and twenty times as many genuine payments; -1 elsewhere.

    Raises:
        DataError: there are fewer labelled frauds.
    """
    rng = np.random.default_rng([seed, frauds, 17])
    fraud, genuine = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    if len(fraud) < frauds:
        raise DataError(
            f"{frauds} labelled frauds were asked for, but only {len(fraud)} are known in time: a label counts "
            "once its delay has passed (--label-delay), or ask for fewer"
        )
    kept = np.full(len(label), -1, dtype=np.int8)
    kept[rng.choice(fraud, frauds, replace=False)] = 1
    kept[rng.choice(genuine, min(len(genuine), GENUINE_PER_FRAUD * frauds), replace=False)] = 0
    return kept


def from_csv(path: str | Path, table: Transactions) -> tuple[NDArray[np.int8], pd.DataFrame]:
    """Labels by row id from a two-column file, and the lines that fit no payment (``row_id, reason``).

    Raises:
        DataError: no row ids, no label column, or no line fits.
    """
    if table.roles.row_id is None:
        raise DataError("a label file names payments by row id, but the table has no such column: name it in the roles")
    lines = read_table(path)
    names = [str(name) for name in lines.columns]
    key = table.roles.row_id if table.roles.row_id in names else names[0]
    rest = [name for name in names if name != key]
    if not rest:
        raise DataError(f"{path} has one column ({names[0]}): expected a row id and a label")
    value = table.roles.label if table.roles.label in rest else rest[0]
    known = pd.Series(np.arange(len(table)), index=table.frame["row_id"].astype(str))
    position = known.reindex(lines[key].astype(str)).to_numpy(dtype=float, na_value=np.nan)
    numeric = pd.to_numeric(lines[value], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    lost, wrong = np.isnan(position), ~np.isin(numeric, (0, 1, -1))
    reason = np.where(lost, "no such payment in the table", np.where(wrong, "label is neither 0, 1 nor -1", ""))
    left = pd.DataFrame({"row_id": lines[key][reason != ""], "reason": reason[reason != ""]})
    if len(left) == len(lines):
        raise DataError(f"no line of {path} fits: {left['reason'].iloc[0]} ('{key}' = {left['row_id'].iloc[0]})")
    label = np.full(len(table), -1, dtype=np.int8)
    usable = reason == ""
    label[position[usable].astype(int)] = numeric[usable].astype(np.int8)
    return label, left
