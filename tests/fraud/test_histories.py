import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.fraud.histories import Groups, gather, last_before, running_mean, windows_for, with_previous

cards = st.lists(st.integers(0, 3), min_size=1, max_size=80)


@given(cards)
def test_a_row_is_read_after_some_and_at_most_all_of_its_latest_events(card: list[int]) -> None:
    groups = Groups.of(card)
    rows = np.arange(len(card))
    plan = windows_for(groups, rows, length=8)
    for row in rows:
        own = [j for j in range(row + 1) if card[j] == card[row]]
        start = plan.start[plan.window[row]]
        read = groups.order[start : start + plan.offset[row] + 1].tolist()
        assert read == own[-len(read) :]  # its latest events, in order, the row itself last
        assert len(read) <= 8
        assert len(read) == len(own) or len(read) > 4


@given(cards, st.integers(0, 79))
def test_windows_of_one_row_are_those_of_all(card: list[int], which: int) -> None:
    groups, row = Groups.of(card), min(which, len(card) - 1)
    every, one = windows_for(groups, np.arange(len(card)), length=8), windows_for(groups, np.array([row]), length=8)
    assert one.start[0] == every.start[every.window[row]]
    assert one.offset[0] == every.offset[row]


def test_batches_are_padded_on_the_right() -> None:
    groups = Groups.of([0, 1, 0, 0])
    codes = np.array([[1], [2], [3], [4]])
    batch = gather(codes, groups, start=np.array([0, 3]), size=np.array([3, 1]))
    assert batch[..., 0].tolist() == [[1, 3, 4], [2, 0, 0]]


@given(cards, st.sets(st.integers(0, 79), min_size=1))
def test_previous_rows_of_the_same_card(card: list[int], wanted: set[int]) -> None:
    rows = np.array(sorted({min(row, len(card) - 1) for row in wanted}))
    expected = set()
    for row in rows:
        expected |= set([j for j in range(row + 1) if card[j] == card[row]][-3:])
    assert with_previous(Groups.of(card), rows, count=2).tolist() == sorted(expected)


@given(cards)
def test_running_means(card: list[int]) -> None:
    rows = np.arange(len(card))
    values = np.round(np.sin(rows) * 5, 3)
    means = running_mean(Groups.of(card), rows, values, count=3)
    for row in rows:
        own = [values[j] for j in range(row + 1) if card[j] == card[row]][-3:]
        np.testing.assert_allclose(means[row], np.mean(own), atol=1e-4)


def test_the_last_event_before_a_day_ago() -> None:
    time = np.array([0.0, 10.0, 90_000.0, 90_001.0])
    assert last_before(Groups.of([0, 0, 0, 1]), time, lag=86_400.0).tolist() == [-1, -1, 1, -1]
