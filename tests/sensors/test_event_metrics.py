"""Measures over stretches: by hand, as their authors' code gives them, and without a reward for luck."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.event_metrics import Events, events, volume


def made(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A few stretches, some touching, and a noisy score that rises in them."""
    draw, n = np.random.default_rng(seed), 400
    truth = np.zeros(n, dtype=np.int64)
    for start in draw.integers(0, n - 30, 3 + seed):
        truth[start : start + int(draw.integers(1, 25))] = 1
    if seed == 3:
        truth[:7], truth[-5:] = 1, 1
    score = draw.normal(size=n) + 1.2 * np.convolve(truth, np.ones(9) / 9, "same")
    return truth, np.round(score, 1) if seed == 4 else score


@pytest.mark.parametrize(
    ("seed", "pr", "roc"),
    [
        (0, 0.20153647961350224, 0.8414274047556005),
        (2, 0.44872142347712685, 0.8349422819162217),
        (3, 0.43663703709063867, 0.7981832891160663),  # stretches at both ends
        (4, 0.39803211114040127, 0.8251841230533098),  # ties
        (5, 0.5804830653625903, 0.8548100069643587),
    ],
)
def test_volumes_are_those_of_the_authors_code(seed: int, pr: float, roc: float) -> None:
    """RangeAUC_volume_opt of github.com/TheDatumOrg/TSB-AD (commit 16e14dd) with a window of 20."""
    found = volume(*made(seed), buffer=20)
    assert (found.pr, found.roc) == pytest.approx((pr, roc), rel=1e-9)


def test_without_a_buffer_they_are_areas_by_hand() -> None:
    # Thresholds flag one row after another: the second, the first (the wrong one), the third, the last.
    found = volume([1, 0, 0, 0], [3.0, 4.0, 2.0, 1.0], buffer=0)
    # Recall rises from 0 to 1 where the second row is flagged, at a precision of 1/2.
    assert found.pr == pytest.approx(1 / 2)
    # Recall over false positives: (0, 0), (1/3, 0), (1/3, 1), (2/3, 1), (1, 1).
    assert found.roc == pytest.approx(2 / 3)


def test_a_soft_edge_by_hand() -> None:
    # With a width of 2 the rows next to the stretch count sqrt(1 - 1/2); with 0 and 1 nothing beside it counts.
    r = np.sqrt(0.5)
    truth, score = [0, 0, 1, 0, 0], [1.0, 5.0, 4.0, 3.0, 2.0]
    # The row before the stretch is flagged first: r of 1 + r / 2 that were to be found, with a precision of r.
    first = r / (1 + r / 2)
    widest = first * r + (1 - first) * (1 + r) / 2
    assert volume(truth, score, buffer=2).pr == pytest.approx((1 / 2 + 1 / 2 + widest) / 3)


def test_one_lucky_row_does_not_count_as_a_long_stretch() -> None:
    """Point-adjusted measures give such scores nearly 1."""
    truth = np.zeros(2000, dtype=bool)
    truth[900:1300] = True
    lucky = np.random.default_rng(0).normal(size=2000)
    assert volume(truth, lucky, buffer=20).pr < 0.3
    assert volume(truth, lucky + 5 * truth, buffer=20).pr > 0.9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10), scale=st.floats(0.1, 10), buffer=st.integers(0, 12))
def test_only_the_order_of_the_scores_counts(seed: int, scale: float, buffer: int) -> None:
    truth, score = made(seed)
    one, other = volume(truth, score, buffer=buffer), volume(truth, np.exp(score / scale), buffer=buffer)
    assert one == pytest.approx(other)
    assert 0 <= one.pr <= 1
    assert 0 <= one.roc <= 1


def test_stretches_are_counted_by_hand() -> None:
    truth = [0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 1]
    alarm = [0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0]
    # The first two alarms meet the first stretch, the third meets none, the fourth the second; the last is missed.
    found = events(truth, alarm)
    assert found == Events(caught=2, missed=1, false=1, delays=(0, 1))
    assert (found.recall, found.precision) == pytest.approx((2 / 3, 2 / 3))


def test_where_there_is_nothing_to_catch_there_is_no_recall() -> None:
    found = events([0, 0, 0], [0, 1, 0])
    assert np.isnan(found.recall)
    assert found.precision == 0
    assert np.isnan(events([1], [0]).precision)


@pytest.mark.parametrize(
    ("truth", "score", "said"),
    [
        ([0, 1], [1.0], "of one length"),
        ([0, 0], [1.0, 2.0], "in which something was wrong"),
        ([1, 1], [1.0, 2.0], "in which nothing was"),
        ([0, 1], [1.0, float("nan")], "ranks nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said(truth: list[int], score: list[float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        volume(truth, score, buffer=2)
    with pytest.raises(DataError, match="0 or more, got -1"):
        volume([0, 1], [1.0, 2.0], buffer=-1)
