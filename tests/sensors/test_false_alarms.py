"""A budget of false alarms: levels by hand, a tail that is known, and what well machines then do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.pipelines import sensors as jobs
from unlabeled.sensors import MachineMonitor, read, simulate
from unlabeled.sensors.alarms import HOURS_PER_MONTH, AlarmRule, alarm_states, episodes
from unlabeled.sensors.false_alarms import Tail, _pareto, levels, tail

PLAIN = AlarmRule(smooth=1, needed=2, of=3, clear_below=0.7, clear_after=2)
EVERY_H = 1 / 6


def well(rows: int, seed: int, *, memory: float = 0.0) -> NDArray[np.float64]:
    """Scores of a machine on which nothing changes, each remembering some of the one before."""
    draw = np.random.default_rng(seed)
    fresh, scores = np.sqrt(1 - memory**2) * draw.normal(size=rows), np.empty(rows)
    state = draw.normal()
    for row in range(rows):
        state = memory * state + fresh[row]
        scores[row] = state
    return scores


def test_levels_by_hand() -> None:
    # The second largest of the last three; one row alone switches nothing on.
    assert levels([5.0, 1.0, 4.0, 2.0, 0.0], PLAIN).tolist() == [-np.inf, 1.0, 4.0, 2.0, 2.0]
    assert levels([5.0, np.nan, 1.0], PLAIN).tolist() == [-np.inf, 1.0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100), threshold=st.floats(-1, 2), needed=st.integers(1, 4), smooth=st.integers(1, 5))
def test_a_level_is_the_threshold_at_which_the_alarm_comes_on(
    seed: int, threshold: float, needed: int, smooth: int
) -> None:
    rule = AlarmRule(smooth=smooth, needed=needed, of=5)
    scores = well(60, seed)
    _, on = alarm_states(scores, threshold, rule)
    above = levels(scores, rule) > threshold
    assert bool(on.any()) == bool(above.any())
    if on.any():
        assert int(on.argmax()) == int(above.argmax())


def test_a_tail_by_hand() -> None:
    straight = Tail(start=2.0, per_month=8.0, scale=0.5, shape=0.0, peaks=20, highest=4.0, hours=100.0)
    # An exponential tail loses a factor of e with every scale: ln(8) of them leave one alarm a month.
    assert straight.threshold(1.0) == pytest.approx(2 + 0.5 * np.log(8))
    heavy = Tail(start=2.0, per_month=8.0, scale=0.5, shape=0.5, peaks=20, highest=4.0, hours=100.0)
    assert heavy.threshold(2.0) == pytest.approx(2 + (4**0.5 - 1) / 0.5 * 0.5)
    for found in (straight, heavy):
        assert found.expected(found.threshold(0.3)) == pytest.approx(0.3)
        assert found.threshold(100.0) == 2.0  # more often than the tail begins
    with pytest.raises(DataError, match="above 0, got 0"):
        straight.threshold(0.0)


def test_few_peaks_ask_for_more_care_than_many() -> None:
    few, many = (
        Tail(start=2.0, per_month=20.0, scale=0.5, shape=0.0, peaks=peaks, highest=4.0, hours=700.0)
        for peaks in (10, 1000)
    )
    assert few.threshold(1.0) == many.threshold(1.0) < many.careful_threshold(1.0) < few.careful_threshold(1.0)
    assert many.careful_threshold(1.0) == pytest.approx(many.threshold(1.0), abs=0.15)


def test_on_average_over_calibrations_the_careful_threshold_keeps_the_budget() -> None:
    """Peaks of a known tail, fitted anew again and again: the true rate above each threshold."""
    true = Tail(start=0.0, per_month=20.0, scale=1.0, shape=0.0, peaks=12, highest=3.0, hours=438.0)
    draws = np.random.default_rng(1)
    plain, careful = [], []
    for _ in range(150):
        fitted = replace(true, **dict(zip(("scale", "shape"), _pareto(draws.exponential(size=12)), strict=True)))
        plain.append(true.expected(fitted.threshold(1.0)))
        careful.append(true.expected(fitted.careful_threshold(1.0)))
    (worse, better), errors = np.mean([plain, careful], axis=1), np.std([plain, careful], axis=1) / np.sqrt(150)
    assert worse - 2 * errors[0] > 1  # what care is for
    assert better - 2 * errors[1] < 1
    assert better < worse / 1.3


def test_the_tail_of_independent_scores_is_the_one_that_they_have() -> None:
    """Of an exponential distribution: every excess over any start has scale 1 and shape 0."""
    every_row = AlarmRule(smooth=1, needed=1, of=1)
    scores = np.random.default_rng(0).exponential(size=20_000)
    found = tail(scores, np.arange(20_000) * EVERY_H, every_row, what="a pump")
    assert found.scale == pytest.approx(1.0, abs=0.1)
    assert found.shape == pytest.approx(0.0, abs=0.1)
    # One in e^7 rows is above 7, and a month has 4,383 rows.
    assert found.expected(7.0) == pytest.approx(HOURS_PER_MONTH / EVERY_H * np.exp(-7), rel=0.3)


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_well_machines_keep_the_budget_on_average(memory: float) -> None:
    """A threshold from two weeks, then two months of the same; by chance single machines have more or fewer."""
    rule, budget, rows = AlarmRule(), 3.0, 14 * 144
    alarms, months = 0, 0.0
    for seed in range(10):
        scores = well(rows + 60 * 144, seed, memory=memory)
        limit = tail(scores[:rows], np.arange(rows) * EVERY_H, rule, what="a pump").threshold(budget)
        _, on = alarm_states(scores[rows:], limit, rule)
        alarms, months = alarms + len(episodes(on)), months + 60 * 24 / HOURS_PER_MONTH
    assert budget / 3 < alarms / months < 2 * budget


def test_a_smaller_budget_is_a_higher_threshold_and_rows_that_could_not_be_judged_do_not_count() -> None:
    scores, hours = well(2000, 0), np.arange(2000) * EVERY_H
    found = tail(scores, hours, AlarmRule(), what="a pump")
    limits = [found.threshold(budget) for budget in (10, 3, 1, 0.1)]
    assert limits == sorted(limits)
    holes = np.insert(scores, [500, 900], np.nan)
    moments = np.insert(hours, [500, 900], [hours[500] - 0.01, hours[900] - 0.01])
    assert tail(holes, moments, AlarmRule(), what="a pump") == found


def test_too_short_a_period_foretells_nothing_and_says_so() -> None:
    with pytest.raises(DataError, match=r"pump 3: the last third of the normal period \(6.5 h\) holds fewer than 10"):
        tail(well(40, 0), np.arange(40) * EVERY_H, AlarmRule(), what="pump 3")
    with pytest.raises(DataError, match="fewer than 10 independent peaks"):
        tail([np.nan] * 50, np.arange(50.0), AlarmRule(), what="a pump")


def test_a_monitor_meets_a_budget_keeps_it_and_says_so(in_tmp: Path) -> None:
    plan = simulate.Plan(fs=3200, seconds=0.2, every_h=0.5, days=30, fault_days=None)
    machine = simulate.write(simulate.bearing("fan", seed=3, plan=plan), in_tmp)
    jobs.fit([machine], out=in_tmp / "out", normal_share=0.9, template=MachineMonitor(steps=5, false_alarms=2.0))
    kept = MachineMonitor.load(in_tmp / "out" / "fan")
    assert kept.tail_ is not None
    assert kept.threshold_ == kept.tail_.careful_threshold(2.0)
    assert kept.level_ is None  # what a plain rule raises would be in nobody's budget
    # 1,296 of the 1,440 rows are normal, and the last third of them calibrates.
    assert kept.tail_.hours == pytest.approx(431 * 0.5)
    page = (in_tmp / "out" / "report.html").read_text()
    assert (
        f"a budget of 2 false alarms a machine-month, by the tail of the {kept.tail_.peaks} independent peaks" in page
    )
    again = MachineMonitor(steps=5, false_alarms=20.0).fit(read(machine)[0], normal_share=0.9)
    assert again.threshold_ < kept.threshold_
