"""What the fraud jobs read: payments, up to a time."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.fraud.labels import from_csv
from unlabeled.fraud.readers import DAY, Transactions, parse_time, read_table, transactions
from unlabeled.fraud.roles import Roles

_TRAIN_SHARE = 0.7


def read_payments(table: Path, *, roles: Path | None = None, until: str | None = None) -> Transactions:
    """Payments with their roles, inferred where no file says them; those before ``until`` only."""
    payments = transactions(read_table(table), None if roles is None else Roles.load(roles))
    return payments if until is None else before(payments, until)


def read_as(table: Path, roles: Roles) -> Transactions:
    """With the model's roles; a label column may be absent."""
    frame = read_table(table)
    return transactions(frame, roles if roles.label in frame else roles.without_label())


def labels_from(path: Path, known: Transactions) -> tuple[NDArray[np.int8], pd.DataFrame]:
    """The labels of a CSV, and its lines that fit no payment, which are said to be left out."""
    label, left = from_csv(path, known)
    if len(left):
        say(f"{len(left)} lines of {path} were left out; the first: {left.iloc[0]['reason']}")
    return label, left


def before(payments: Transactions, until: str) -> Transactions:
    """Raises a DataError where nothing is left."""
    known = payments.take(payments.time < parse_time(until, payments))
    if not len(known):
        raise DataError(f"no payment before {until}: the first is at {payments.when(payments.time[0])}")
    return known


def cut_of(payments: Transactions, until: str | None) -> float:
    """The end of the training period: given, or the start of the day at 70 % of the time."""
    if until is not None:
        return parse_time(until, payments)
    first, last = payments.time[0], payments.time[-1]
    cut = first + _TRAIN_SHARE * (last - first)
    midnight = float(np.floor(cut / DAY) * DAY)
    return midnight if midnight > first else float(cut)
