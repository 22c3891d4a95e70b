"""How fast, how much, how unusual for this card: counts and sums over windows that end at the row itself.

The windows of Le Borgne et al., "Reproducible Machine Learning for Credit Card Fraud Detection" (2022), chapter 3,
with shorter and longer ones beside them. A window of length W holds the times ``(t - W, t]``; among rows of one
time, those before the row in the table's order. Sums run over whole numbers (thousandths of a unit), so that they are
exact: a payment that comes later cannot change the last digit of an earlier row.
"""

import numpy as np
from numpy.typing import NDArray

from unlabeled.fraud.histories import Groups
from unlabeled.fraud.readers import DAY, Transactions

HOUR = 3_600.0
WINDOWS = {"1h": HOUR, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
_SCALE, _FINE = 1_000.0, 1_000_000.0  # of money, of logarithms
_LEAST_SPREAD = 0.1  # of log amounts: a card that always pays the same is not infinitely surprised by a cent

Floats = NDArray[np.floating]


def velocity(table: Transactions, *, label_delay: float | None = None) -> dict[str, Floats]:
    """Features by name, one value a row.

    Args:
        table: payments in time order.
        label_delay: seconds after which a payment's label is known; ``None`` leaves out the features made from
            labels. A label counts for a row at time t only if ``its time + label_delay <= t``.
    """
    made: dict[str, Floats] = {}
    groups = {part: Groups.of(code) for part in ("entity", "counterparty") if (code := table.codes(part)) is not None}
    if "entity" in groups:
        made |= card_features(table.time, table.amount, groups["entity"])
        made |= _familiar(table, groups["entity"])
    if "counterparty" in groups:
        made |= counterparty_features(table.time, table.amount, groups["counterparty"])
        if label_delay is not None:
            made |= risk_features(table.time, table.label, groups["counterparty"], delay=label_delay)
    return made


def card_features(time: Floats, amount: Floats, groups: Groups) -> dict[str, Floats]:
    """Counts, sums and means over the windows (row included), the gap, and the amount against the own past."""
    made: dict[str, Floats] = {}
    total = _running(amount, groups)
    for name, width in WINDOWS.items():
        first = groups.first_since(time, time - width)
        count = groups.place - first + 1.0
        summed = (total[groups.place + 1] - total[first]) / _SCALE
        made |= {f"card count {name}": count, f"card sum {name}": summed, f"card mean {name}": summed / count}
    made["card gap"] = time - groups.before(time)
    month = groups.first_since(time, time - WINDOWS["30d"])
    ever = groups.start[groups.code]
    made["card amount z 30d"] = _z_score(amount, groups, month)
    made["card amount z"] = _z_score(amount, groups, ever)
    made["card payments before"] = groups.rank.astype(float)
    return made


def counterparty_features(time: Floats, amount: Floats, groups: Groups) -> dict[str, Floats]:
    """Counts over the windows (row included) and the amount against the merchant's past month."""
    made: dict[str, Floats] = {}
    for name, width in WINDOWS.items():
        made[f"merchant count {name}"] = (groups.place + 1 - groups.first_since(time, time - width)).astype(float)
    made["merchant amount z 30d"] = _z_score(amount, groups, groups.first_since(time, time - WINDOWS["30d"]))
    return made


def risk_features(time: Floats, label: NDArray[np.int8], groups: Groups, *, delay: float) -> dict[str, Floats]:
    """Number and share of known frauds among the merchant's labelled payments of 1, 7 and 30 days, over windows
    ``(t - delay - W, t - delay]``; a share of nothing is 0."""
    made: dict[str, Floats] = {}
    known = _running((label >= 0).astype(float), groups, scale=1.0)
    fraud = _running((label == 1).astype(float), groups, scale=1.0)
    # Clipped at the row itself: with no delay, rows of one time that come later in the table stay unread.
    last = np.minimum(groups.first_since(time, time - delay), groups.place)
    for name in ("1d", "7d", "30d"):
        first = np.minimum(groups.first_since(time, time - delay - WINDOWS[name]), last)
        frauds = (fraud[last] - fraud[first]).astype(float)
        labelled = (known[last] - known[first]).astype(float)
        made[f"merchant known payments {name}"] = labelled
        made[f"merchant fraud share {name}"] = frauds / np.maximum(labelled, 1.0)
    return made


def since_last_visit(table: Transactions, groups: Groups, *, other: str) -> Floats:
    """Seconds since the row's group last met the row's other party; NaN when it never did."""
    met = _pairs(table, groups, other=other)
    return table.time - met.before(table.time)


def _pairs(table: Transactions, groups: Groups, *, other: str) -> Groups:
    code = table.codes(other)
    assert code is not None
    return Groups.of(_paired(groups.code, code))


def _familiar(table: Transactions, groups: Groups) -> dict[str, Floats]:
    """Earlier payments of the card at this merchant, and the share of its payments in this category."""
    made: dict[str, Floats] = {}
    if "counterparty" in table.frame:
        made["card visits before"] = _pairs(table, groups, other="counterparty").rank.astype(float)
    for name in table.roles.categories:
        pair = _paired(groups.code, table.frame[f"c:{name}"].factorize(use_na_sentinel=False)[0])
        made[f"card share of {name}"] = (Groups.of(pair).rank + 0.5) / (groups.rank + 1.0)
    return made


def _z_score(amount: Floats, groups: Groups, first: NDArray[np.int64]) -> Floats:
    """The log amount against mean and spread of the group's rows from ``first`` up to the one before; 0 while
    there are fewer than two."""
    x = np.log1p(amount)
    total, squares = _running(x, groups, scale=_FINE), _running(x**2, groups, scale=_FINE)
    count = groups.place - first
    safe = np.maximum(count, 1)
    mean = (total[groups.place] - total[first]) / _FINE / safe
    variance = (squares[groups.place] - squares[first]) / _FINE / safe - mean**2
    # One pseudo-observation of a typical spread keeps short pasts from shouting.
    spread = np.sqrt((np.maximum(variance, 0) * count + 0.5) / (count + 1)) + _LEAST_SPREAD
    return np.where(count < 2, 0.0, (x - mean) / spread)


def _running(values: Floats, groups: Groups, *, scale: float = _SCALE) -> NDArray[np.int64]:
    """Exact running sums in sorted order, (N + 1,): places i..j-1 sum to ``result[j] - result[i]``."""
    whole = np.round(values[groups.order] * scale).astype(np.int64)
    return np.concatenate([[0], np.cumsum(whole)])


def _paired(a: NDArray, b: NDArray) -> NDArray[np.int64]:
    """One group number for each pair."""
    b = np.asarray(b, dtype=np.int64)
    return np.unique(a * (b.max(initial=0) + 1) + b, return_inverse=True)[1].astype(np.int64)
