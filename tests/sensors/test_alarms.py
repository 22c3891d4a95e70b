"""Persistence, hysteresis, latch and episodes on sequences worked out by hand."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.errors import DataError
from unlabeled.sensors.alarms import AlarmRule, AlarmState, Episode, alarm_states, episodes, latched, level, sustained
from unlabeled.sensors.backtest import judge
from unlabeled.sensors.recording import make

PLAIN = AlarmRule(smooth=1, needed=2, of=3, clear_below=0.5, clear_after=2)


def states(scores: list[float], rule: AlarmRule = PLAIN) -> str:
    return "".join("#" if on else "." for on in alarm_states(scores, 1.0, rule)[1])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([2, 0, 0, 2, 0, 0], "......"),  # never two of three
        ([0, 2, 0, 2, 0.8, 0.8], "...###"),  # two of three; 0.8 is below the threshold but not calm
        ([2, 2, 0.4, 0.4, 0.4], ".##.."),  # two calm ones clear it
        ([2, 2, 0.4, 0.8, 0.4, 0.8], ".#####"),  # calm ones must be in a row
        ([2, 2, 0, 0, 2, 0, 2], ".##...#"),  # after clearing, persistence starts anew
        ([1, 1, 1, 1], "...."),  # at the threshold is not above it
    ],
)
def test_persistence_and_hysteresis(scores: list[float], expected: str) -> None:
    assert states(scores) == expected


def test_what_cannot_be_judged_neither_raises_nor_clears() -> None:
    nan = float("nan")
    assert states([2, nan, 2, nan, 0, nan, nan]) == "..#####"
    assert states([2, nan, nan, nan]) == "...."


def test_smoothing_is_the_median_of_the_past() -> None:
    smoothed, _ = alarm_states([5, 1, 3, 9, 2], 100, AlarmRule(smooth=3))
    np.testing.assert_array_equal(smoothed, [5, 3, 3, 3, 3])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60), st.integers(1, 59))
def test_the_future_never_changes_the_past(scores: list[float], cut: int) -> None:
    cut = min(cut, len(scores) - 1)
    whole, start = alarm_states(scores, 1.0, AlarmRule()), alarm_states(scores[:cut], 1.0, AlarmRule())
    np.testing.assert_array_equal(whole[0][:cut], start[0])
    np.testing.assert_array_equal(whole[1][:cut], start[1])


def test_episodes_latch_and_five_in_a_row() -> None:
    flags = [0, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1]
    assert episodes(flags) == [Episode(1, 2), Episode(3, 8), Episode(9, 11)]
    assert latched(flags) == 9
    assert latched([1, 1, 0]) is None
    assert latched([]) is None
    assert sustained(flags, rows=5) == 3
    assert sustained(flags, rows=6) is None


def test_lead_and_false_alarms_of_a_run_worked_by_hand() -> None:
    run = make("m", np.zeros((12, 1)), np.arange(12) * 2.0, names=["rms"])
    alarm = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1], dtype=bool)
    exceeds = np.array([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1], dtype=bool)
    result = judge("x", run, alarm=alarm, exceeds=exceeds, normal_rows=4, failed=True)
    # The alarm that holds starts at row 9 (18 h) of a run that ends at 22 h; rows 4-5 cleared again.
    assert (result.lead_h, result.false_alarms, result.early) == (4, 1, False)
    assert (result.latched_h, result.exceedances, result.monitored_h) == (2, 1, 14)
    assert result.alarm_share == pytest.approx(4 / 10)
    assert result.false_per_month == pytest.approx(730.5 / 14)
    assert np.isnan(result.sustained_h)


def test_on_a_machine_that_stayed_well_every_alarm_is_false() -> None:
    run = make("m", np.zeros((6, 1)), np.arange(6.0), names=["rms"])
    alarm = np.array([0, 0, 0, 1, 1, 1], dtype=bool)
    result = judge("x", run, alarm=alarm, exceeds=alarm, normal_rows=2, failed=False)
    assert (result.lead_h, result.false_alarms) == (0, 1)


@pytest.mark.parametrize("other", [{"threshold": 10.0}, {"rule": AlarmRule(smooth=1, needed=2, of=4)}])
def test_what_was_counted_under_other_settings_does_not_count_under_these(other: dict[str, Any]) -> None:
    rule = AlarmRule(smooth=1, needed=5, of=6)
    before = AlarmState(rule, 5.0)
    for score in (6, 6, 6, 6):
        before.push(score)
    after = AlarmState(**{"rule": rule, "threshold": 5.0, **other})
    after.recall(json.loads(json.dumps(before.memory())))
    assert after.push(11.0) == (11.0, False)
    # Under the same settings it is the fifth.
    same = AlarmState(rule, 5.0)
    same.recall(json.loads(json.dumps(before.memory())))
    assert same.push(11.0) == (11.0, True)


def test_a_memory_of_before_settings_were_kept_in_it_is_taken_up() -> None:
    state = AlarmState(PLAIN, 1.0)
    state.recall({"scores": [2.0], "above": [True], "calm": 0, "on": False})
    assert state.push(2.0)[1]


@pytest.mark.parametrize(
    ("smoothed", "alarm", "found"),
    [
        (None, False, "acceptable"),
        (-3.0, False, "acceptable"),
        (2.8, False, "acceptable"),
        (2.9, False, "monitor"),
        (9.0, False, "monitor"),  # high, but not for long enough yet
        (None, True, "alarm"),
        (1.0, True, "alarm"),  # calm, but not for long enough yet
        (8.0, True, "alarm"),
        (8.1, True, "danger"),
    ],
)
def test_levels_are_shares_of_a_threshold_of_four(smoothed: float | None, alarm: bool, found: str) -> None:
    assert level(smoothed, 4.0, alarm=alarm) == found


@pytest.mark.parametrize(
    "wrong",
    [{"needed": 7}, {"smooth": 0}, {"clear_after": 0}, {"clear_below": 0.0}, {"clear_below": 1.5}, {"needed": 0}],
)
def test_a_rule_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        AlarmRule(**wrong)
