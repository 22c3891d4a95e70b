"""Time to a level: exact where growth is exact, bracketed where it is noisy, and declined where there is no trend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.sensors.alarms import AlarmRule, alarm_states
from unlabeled.sensors.remaining import SIGNIFICANCE, until

HOURS = np.arange(60) * 0.5


def noise(seed: int, memory: float, n: int = 60) -> np.ndarray:
    draw, values = np.random.default_rng(seed), np.zeros(n)
    for i in range(1, n):
        values[i] = memory * values[i - 1] + draw.normal(0, np.sqrt(1 - memory**2))
    return values


@given(doubling=st.floats(1, 200), factor=st.floats(1.5, 20), unit=st.floats(0.1, 100))
def test_exact_growth_is_told_exactly_whatever_the_unit(doubling: float, factor: float, unit: float) -> None:
    scores = unit * 2 ** (HOURS / doubling)
    found = until(HOURS, scores, factor * scores[-1])
    # From the last score on: log2(factor) doublings.
    assert found.hours == pytest.approx(doubling * np.log2(factor), rel=1e-6)
    assert found.low == pytest.approx(found.hours, rel=1e-6)
    assert found.high == pytest.approx(found.hours, rel=1e-6)


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(memory: float) -> None:
    said, held = 0, 0
    for seed in range(300):
        scores = np.exp(HOURS / 12 + 0.25 * noise(seed, memory))
        found = until(HOURS, scores, np.exp(HOURS[-1] / 12 + 2))
        if not found.declined:
            said += 1
            held += found.low <= 24 <= found.high
    assert said > 280
    # 90 %; 300 draws tell it within 0.035, and a memory that is estimated from 60 scores costs a little.
    assert held / said > 0.85


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_where_nothing_grows_nothing_is_said(memory: float) -> None:
    said = sum(not until(HOURS, np.exp(0.3 * noise(seed, memory)), 1e3).declined for seed in range(400))
    # One in a hundred by chance where scores are independent; what they depend on is estimated from 60 of them.
    assert said / 400 < (2 if memory == 0 else 5) * SIGNIFICANCE


def in_alarm(scores: np.ndarray) -> int | None:
    """The row at which an alarm of these scores begins (threshold 4, as a monitor's usually is about)."""
    _, on = alarm_states(scores, 4.0, AlarmRule())
    return int(np.argmax(on)) if on.any() else None


@pytest.mark.parametrize("memory", [0.5, 0.9])
def test_of_an_alarm_after_which_nothing_grows_hardly_anything_is_said(memory: float) -> None:
    alarms, said = 0, 0
    for seed in range(400):
        scores = np.exp(1.2 + 0.35 * noise(seed, memory, n=400))
        begin = in_alarm(scores)
        if begin is None or begin + 30 > 400:
            continue
        alarms += 1
        rows = slice(begin, begin + 30)
        said += not until(np.arange(30) * 0.5, scores[rows], 8.0).declined
    assert alarms > 100
    assert said / alarms < 0.04


@pytest.mark.parametrize("after", [15, 20, 30])
def test_a_step_is_no_growth(after: int) -> None:
    said = 0
    for seed in range(200):
        scores = np.exp(0.1 * noise(seed, 0.3, n=60) + np.where(np.arange(60) < 60 - after, 1.5, 2.0))
        said += not until(np.arange(60) * 0.5, scores, 20.0).declined
    assert said / 200 < 0.03


def test_what_stands_in_the_way_is_named() -> None:
    rising = np.exp(HOURS / 12)
    assert until(HOURS[:10], rising[:10], 100).declined.startswith("fewer than 15 scores")
    assert until(HOURS, rising, 100, now=101.0).declined == "it has been reached"
    assert until(HOURS, rising[::-1], 100).declined == "the score does not rise"
    assert until(HOURS, rising, rising[-1] / 2).declined == "it has been reached"
    assert until(HOURS, np.where(HOURS > 25, rising, -1.0), 100).declined.startswith("fewer than 15 scores")
    assert "is not said: the score does not rise" in until(HOURS, rising[::-1], 100).words("danger")


def test_scores_that_could_not_be_judged_are_passed_over() -> None:
    rising = np.exp(HOURS / 12)
    holes = rising.copy()
    holes[[5, 17, 18, 40]] = np.nan
    assert until(HOURS, holes, 100).hours == pytest.approx(until(HOURS, rising, 100).hours)


def test_it_is_said_with_its_interval_and_as_no_life_of_the_machine() -> None:
    found = until(HOURS, np.exp(HOURS / 12 + 0.1 * noise(1, 0.0)), np.exp(HOURS[-1] / 12 + 1))
    assert found.low < found.hours < found.high
    words = found.words("danger")
    assert (
        f"reaches the level danger in {found.hours:.3g} h (90 % interval: {found.low:.3g} to {found.high:.3g} h)"
        in words
    )
    assert words.endswith("That is no life of the machine.")
