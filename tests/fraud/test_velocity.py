"""Velocity features against values worked out by hand, and by a slow loop."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.fraud.histories import Groups
from unlabeled.fraud.readers import DAY, Transactions, transactions
from unlabeled.fraud.velocity import card_features, risk_features, velocity

HOUR = 3600.0


def _table() -> Transactions:
    return transactions(
        pd.DataFrame(
            {
                "tx_id": [1, 2, 3, 4, 5],
                "time": [0.0, 1800.0, 1800.0, 2 * DAY, 20 * DAY],
                "customer": ["a", "a", "b", "a", "a"],
                "terminal": ["x", "x", "x", "y", "x"],
                "amount": [10.0, 30.0, 5.0, 20.0, 100.0],
                "fraud": [1, 0, 1, 0, 0],
            }
        )
    )


def test_counts_sums_and_gaps_by_hand() -> None:
    made = velocity(_table())
    assert made["card count 1h"].tolist() == [1, 2, 1, 1, 1]
    assert made["card count 7d"].tolist() == [1, 2, 1, 3, 1]
    assert made["card count 30d"].tolist() == [1, 2, 1, 3, 4]
    assert made["card sum 30d"].tolist() == [10, 40, 5, 60, 160]
    assert made["card mean 1h"].tolist() == [10, 20, 5, 20, 100]
    np.testing.assert_array_equal(made["card gap"], [np.nan, 1800, np.nan, 2 * DAY - 1800, 18 * DAY])
    assert made["merchant count 1d"].tolist() == [1, 2, 3, 1, 1]
    assert made["card visits before"].tolist() == [0, 1, 0, 0, 2]


def test_a_window_leaves_out_what_lies_exactly_its_width_back() -> None:
    time, amount = np.array([0.0, HOUR, HOUR + 1]), np.array([1.0, 1.0, 1.0])
    counts = card_features(time, amount, Groups.of([0, 0, 0]))["card count 1h"]
    assert counts.tolist() == [1, 1, 2]


def test_the_z_score_waits_for_two_payments_and_shrinks_after() -> None:
    amount = np.expm1([1.0, 3.0, 4.0])
    z = card_features(np.array([0.0, 1.0, 2.0]), amount, Groups.of([0, 0, 0]))["card amount z"]
    # Past logs 1 and 3: mean 2, variance 1; with one pseudo-observation of variance 0.5 and 0.1 on top.
    spread = np.sqrt((1.0 * 2 + 0.5) / 3) + 0.1
    np.testing.assert_allclose(z, [0, 0, (4 - 2) / spread], rtol=1e-4)


def test_known_frauds_count_only_once_their_delay_has_passed() -> None:
    table = _table()
    groups = Groups.of(table.codes("counterparty"))
    made = risk_features(table.time, table.label, groups, delay=7 * DAY)
    # The last row, on day 20, sees labels up to day 13 in a window of 30 days: three payments, two of them frauds.
    assert made["merchant known payments 30d"].tolist() == [0, 0, 0, 0, 3]
    np.testing.assert_allclose(made["merchant fraud share 30d"], [0, 0, 0, 0, 2 / 3])
    assert made["merchant known payments 7d"].tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(("age", "seen"), [(7 * DAY, 1.0), (7 * DAY - 1, 0.0)])
def test_a_label_counts_from_exactly_its_delay_on(age: float, seen: float) -> None:
    made = risk_features(np.array([0.0, age]), np.array([1, -1], dtype=np.int8), Groups.of([0, 0]), delay=7 * DAY)
    assert made["merchant known payments 1d"][1] == seen
    assert made["merchant fraud share 1d"][1] == seen


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 500)), min_size=1, max_size=40).map(
        lambda rows: sorted(rows, key=lambda row: row[1])
    )
)
def test_windows_equal_a_slow_loop(rows: list[tuple[int, int, int]]) -> None:
    card, hours, cents = (np.array(column) for column in zip(*rows, strict=True))
    time, amount = hours * HOUR, cents / 100
    made = card_features(time, amount, Groups.of(card))
    for i in range(len(rows)):
        inside = [j for j in range(i + 1) if card[j] == card[i] and time[j] > time[i] - DAY]
        assert made["card count 1d"][i] == len(inside)
        assert made["card sum 1d"][i] == pytest.approx(sum(amount[j] for j in inside))


def test_later_rows_change_nothing_before_them(rng: np.random.Generator) -> None:
    n = 300
    frame = pd.DataFrame(
        {
            "time": np.sort(rng.integers(0, 60 * 86_400, n)),
            "customer": rng.integers(0, 9, n),
            "merchant": rng.integers(0, 7, n),
            "amount": rng.gamma(2, 30, n).round(2),
            "fraud": rng.integers(0, 2, n),
        }
    )
    altered = frame.copy()
    altered.loc[200:, "amount"] = 9e6
    altered.loc[200:, "customer"] = 3
    altered.loc[200:, "fraud"] = 1
    first = velocity(transactions(frame), label_delay=7 * DAY)
    second = velocity(transactions(altered), label_delay=7 * DAY)
    for name in first:
        np.testing.assert_array_equal(first[name][:200], second[name][:200], err_msg=name)
