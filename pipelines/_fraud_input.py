"""What the fraud jobs read: payments, up to a time."""

from pathlib import Path

import numpy as np

from unlabeled.core.errors import DataError
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
