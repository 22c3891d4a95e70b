"""What somebody vouches for is learnt beside what is known, or in its place, and a fault is not."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import DataError
from unlabeled.sensors import MachineMonitor, Recording, simulate
from unlabeled.sensors.recording import joined, make
from unlabeled.sensors.regimes import Addition, Conditional, Regimes
from unlabeled.sensors.vouched import Vouched, learn

SMALL: dict[str, Any] = {"steps": 10, "dim": 16, "depth": 1, "heads": 2, "window": 8, "sigmas": 8.0}
WORD = Vouched(
    since="", until="", snapshots=0, learnt=0, replaced=False, beyond=0, files=("new.csv",), data="d", model="m", at="t"
)
NORMAL, STRETCH, KNOWN, AGAIN, FAULT, ROWS = 150, slice(160, 220), slice(220, 250), slice(250, 340), 280, 340


def two_speeds(*, fault: bool = False, louder: float = 1.0, seed: int = 0) -> Recording:
    """A machine at 900, at 2000 in two stretches, of which the second may hold a fault; at 2000 its first indicator
    is ``louder``."""
    rng = np.random.default_rng(seed)
    fast = np.zeros(ROWS, dtype=bool)
    fast[STRETCH] = fast[AGAIN] = True
    speed = np.where(fast, 2000.0, 900.0) + rng.uniform(-10, 10, ROWS)
    values = np.stack([(speed / 900) ** 2, 3 + speed / 900, 40 + speed / 75], axis=1)
    values *= 1 + np.where(fast, 0.06, 0.03)[:, None] * rng.normal(size=values.shape)
    if fault:
        values[:, 0] *= 1 + 0.8 * np.clip((np.arange(ROWS) - FAULT) / 40, 0, 1)
    values[fast, 0] *= louder
    return make("pump7", values, np.arange(ROWS) / 6, names=("rms", "crest", "temperature"), conditions=speed,
                condition_names=("speed",))  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> MachineMonitor:
    return MachineMonitor(**SMALL).fit(two_speeds(), normal_share=NORMAL / ROWS)


@pytest.fixture(scope="module")
def learnt(fitted: MachineMonitor) -> MachineMonitor:
    return learn(fitted, two_speeds().rows(STRETCH), word=WORD)


def test_a_learnt_regime_is_put_on_the_normal_period_s_scale_by_hand() -> None:
    normal = Conditional(Regimes.of(np.arange(10.0, 20)[:, None], ["v"]), indicators=np.full((10, 1), 7.0))
    fast = Conditional(Regimes.of(np.arange(50.0, 55)[:, None].repeat(2, axis=0), ["v"]), np.full((10, 1), 100.0))
    both = replace(normal, additions=(Addition(fast, np.array([0.25]), None, 1.0, 0.5),))
    # Twelve above what is usual at 50, in a regime whose spread is four times the normal one: three above 7.
    np.testing.assert_allclose(both.row(np.array([112.0]), np.array([52.0])), [10.0])
    np.testing.assert_allclose(both.row(np.array([9.0]), np.array([12.0])), [9.0])
    assert (both.gain(np.array([52.0])), both.gain(np.array([12.0]))) == (0.5, 1.0)
    assert both.strange(np.array([52.0])) is None
    assert str(normal.strange(np.array([52.0]))).startswith("new regime: v 52")
    assert str(both.strange(np.array([80.0]))).startswith("new regime: v 80")


def test_a_waveform_of_a_learnt_regime_too_by_hand() -> None:
    regimes = Regimes.of(np.arange(10.0, 20)[:, None], ["v"])
    from unlabeled.sensors.views import Seen

    normal = Conditional(regimes, np.full((10, 1), 7.0), np.full((10, 1, 2), -3.0), np.full(10, 2.0))
    fast = Conditional(Regimes.of(np.arange(50.0, 60)[:, None], ["v"]), np.full((10, 1), 100.0),
                       np.full((10, 1, 2), 5.0), np.full(10, 4.0))  # fmt: skip
    both = replace(normal, additions=(Addition(fast, np.ones(1), np.array([[0.5, 2.0]]), 0.1, 1.0),))
    seen = both.snapshot(Seen(np.full((1, 2, 3), 9.0), np.array([100.0]), 6.0), np.array([55.0]))
    # Four decibels above what is usual: two of them and eight of them above the normal period's -3.
    np.testing.assert_allclose(seen.picture[0], [[-1.0] * 3, [5.0] * 3])
    np.testing.assert_allclose(seen.indicators, [7.0])
    assert seen.overall == pytest.approx(2 * (1 + 0.1 * 0.5))  # half as loud again as is usual there


def test_what_was_a_new_regime_is_judged_once_learnt_and_a_fault_in_it_is_heard(
    fitted: MachineMonitor, learnt: MachineMonitor
) -> None:
    before, after = fitted.score(two_speeds()), learnt.score(two_speeds())
    assert set(before["state"][STRETCH]) == set(before["state"][AGAIN]) == {"new regime"}
    assert set(after["state"][SMALL["window"] :]) == {"normal"}
    alarms = np.flatnonzero(learnt.score(two_speeds(fault=True))["alarm"])
    assert FAULT < alarms[0] < FAULT + 40


def test_under_known_conditions_not_a_bit_of_any_score_changes(fitted: MachineMonitor, learnt: MachineMonitor) -> None:
    before, after = fitted.score(two_speeds()), learnt.score(two_speeds())
    first, later = slice(0, STRETCH.start), slice(KNOWN.start + SMALL["window"], KNOWN.stop)
    for rows in (first, later):  # up to then a trend's window holds rows that were not judged before
        np.testing.assert_array_equal(before["score"][rows], after["score"][rows])
    assert learnt.threshold_ == fitted.threshold_
    assert fitted.vouched_ == ()  # and the monitor that was given is as it was
    assert fitted.conditional_ is not None
    assert fitted.conditional_.additions == ()


@pytest.mark.parametrize("louder", [0.2, 7.0])
def test_how_loud_a_machine_is_in_a_regime_does_not_matter(fitted: MachineMonitor, louder: float) -> None:
    """What is usual there and how far it spreads is taken out: a sensor's factor changes nothing."""
    told = [
        learn(fitted, one.rows(STRETCH), word=WORD).score(one)["score"]
        for one in (two_speeds(fault=True), two_speeds(fault=True, louder=louder))
    ]
    np.testing.assert_allclose(told[0][AGAIN], told[1][AGAIN], rtol=1e-3, atol=1e-3)


def test_a_waveform_machine_at_two_speeds() -> None:
    days = {"days": 24, "every_h": 3}
    plans = [simulate.Plan(**days, fault_days=None), simulate.Plan(**days, fault_days=None, rpm=2900),
             simulate.Plan(**days, fault_days=4, rpm=2900)]  # fmt: skip
    slow, fast, failing = (simulate.bearing("m", seed=0, plan=plan) for plan in plans)
    n = len(slow)
    rows = np.zeros(n, dtype=bool)
    rows[80:120] = rows[150:] = True
    speed = np.where(rows, 2900.0, 1790.0) + np.random.default_rng(0).normal(0, 5, n)

    def mixed(other: Recording) -> Recording:
        values = np.where(rows[:, None, None], 1.6 * other.values, slow.values)
        return make("m", values, slow.hours, names=slow.names, fs=slow.fs, conditions=speed, condition_names=("rpm",))

    well = mixed(fast)
    fitted = MachineMonitor(steps=20, dim=16, depth=1, heads=2).fit(well, normal_share=70 / n)
    learnt = learn(fitted, well.rows(slice(80, 120)), word=WORD)
    before, after = fitted.score(well), learnt.score(well)
    assert set(before["state"][rows]) == {"new regime"}
    np.testing.assert_array_equal(before["score"][~rows], after["score"][~rows])
    assert set(after["state"]) == {"normal"}
    alarms = np.flatnonzero(learnt.score(mixed(failing))["alarm"])
    assert n - 32 < alarms[0] < n


def test_saved_it_judges_the_same_and_tells_what_it_learnt(learnt: MachineMonitor, tmp_path: Path) -> None:
    again = MachineMonitor.load(learnt.save(tmp_path / "m"))
    pd.testing.assert_frame_equal(again.score(two_speeds()), learnt.score(two_speeds()))
    assert again.vouched_ == learnt.vouched_
    (word,) = again.vouched_
    assert (word.snapshots, word.learnt, word.beyond, word.replaced) == (60, 60, 0, False)
    assert (word.since, word.until, word.files) == ("26.667 h", "36.500 h", ("new.csv",))


@given(cuts=st.lists(st.integers(1, ROWS - 1), max_size=8, unique=True), taken_up=st.integers(0, STRETCH.start))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_anywhere_and_taken_up_by_the_learnt_model_at_any_time_the_scores_are_the_same(
    fitted: MachineMonitor, learnt: MachineMonitor, cuts: list[int], taken_up: int
) -> None:
    """The model that learns goes on from what the model before it remembers."""
    recording = two_speeds()
    stream, told = fitted.stream(), []
    for start, stop in pairwise(sorted({0, taken_up, *cuts, ROWS})):
        memory = json.loads(json.dumps(stream.memory()))
        stream = (learnt if start >= taken_up else fitted).stream().recall(memory)
        told += [stream.push_row(recording, row) for row in range(start, stop)]
    whole = learnt.score(recording)
    assert [one["state"] for one in told] == whole["state"].tolist()
    np.testing.assert_array_equal([one["score"] for one in told], whole["score"])


def test_regimes_are_learnt_one_after_another(fitted: MachineMonitor, learnt: MachineMonitor, tmp_path: Path) -> None:
    recording = two_speeds()
    assert recording.conditions is not None
    third = replace(recording, conditions=recording.conditions + np.where(recording.conditions > 1500, 1000, 0))
    twice = MachineMonitor.load(learn(learnt, third.rows(STRETCH), word=WORD).save(tmp_path / "m"))
    assert len(twice.vouched_) == 2
    for one in (recording, third):
        assert set(twice.score(one)["state"][SMALL["window"] :]) == {"normal"}
    assert set(learnt.score(third)["state"][AGAIN]) == {"new regime"}
    with pytest.raises(DataError, match="all conditions of the stretch are known already"):
        learn(twice, recording.rows(STRETCH), word=WORD)


def test_what_is_too_little_or_says_nothing_new_is_refused(fitted: MachineMonitor) -> None:
    recording = two_speeds()
    with pytest.raises(
        DataError, match="pump7: 20 of the 20 snapshots of the stretch are of a new regime, at least 30"
    ):
        learn(fitted, recording.rows(slice(160, 180)), word=WORD)
    with pytest.raises(DataError, match="pump7: 13 of the 20 snapshots of the stretch can be judged"):
        learn(fitted, recording.rows(slice(160, 180)), word=WORD, anew=True)
    with pytest.raises(DataError, match=r"all conditions of the stretch are known already.*--replace"):
        learn(fitted, recording.rows(KNOWN), word=WORD)
    assert recording.conditions is not None
    changing = recording.conditions.copy()
    changing[200:220] += 1500  # the last third is a regime of its own
    with pytest.raises(DataError, match=r"only 0 snapshots of the last third.*one regime after another"):
        learn(fitted, replace(recording, conditions=changing).rows(STRETCH), word=WORD)
    blind = replace(recording, conditions=None, condition_names=())
    unknowing = MachineMonitor(**SMALL).fit(blind, normal_share=NORMAL / ROWS)
    with pytest.raises(DataError, match=r"knows no operating conditions.*--replace"):
        learn(unknowing, blind.rows(slice(100, 150)), word=WORD)


def test_a_fault_is_learnt_only_if_somebody_insists(fitted: MachineMonitor) -> None:
    recording = two_speeds()
    broken = recording.values.copy()
    broken[140:, 0] *= 2  # already before the machine is run faster
    faulty = replace(recording, values=broken)
    with pytest.raises(DataError, match="beyond the threshold under conditions that the model knows, the first at 2"):
        learn(fitted, faulty.rows(slice(130, 220)), word=WORD)
    told = learn(fitted, faulty.rows(slice(130, 220)), word=WORD, beyond_too=True).vouched_[-1]
    assert told.beyond > 0
    assert (told.snapshots, told.learnt) == (90, 60)
    # And one that begins in the new regime, which the old model cannot see.
    growing = recording.values.copy()
    growing[200:220, 0] *= np.linspace(1.2, 3, 20)
    with pytest.raises(DataError, match=r"times as far from its first two thirds.*something changes within it"):
        learn(fitted, replace(recording, values=growing).rows(STRETCH), word=WORD)


def test_after_a_repair_only_the_stretch_is_normal_and_the_encoder_stays(fitted: MachineMonitor) -> None:
    recording = two_speeds()
    assert recording.conditions is not None
    values = recording.values.copy()
    values[KNOWN.start :, 2] -= 15  # the new bearing runs cooler
    slow = replace(recording, values=values, conditions=np.full((ROWS, 1), 900.0)).rows(slice(0, 160))
    cool = replace(slow, values=slow.values - np.array([0, 0, 15], dtype=np.float32))
    with pytest.raises(DataError, match="beyond the threshold under conditions that the model knows"):
        learn(fitted, cool, word=WORD, anew=True)
    repaired = learn(fitted, cool, word=WORD, anew=True, beyond_too=True)
    assert set(repaired.score(cool)["state"][SMALL["window"] :]) == {"normal"}
    assert repaired.score(slow)["alarm"].any()  # what was normal before is not now
    for name, weights in fitted.backbone_.state_dict().items():
        torch.testing.assert_close(repaired.backbone_.state_dict()[name], weights, rtol=0, atol=0)
    (word,) = repaired.vouched_
    assert word.replaced
    assert word.beyond > 100
    assert not fitted.score(slow)["alarm"].any()


def dated(recording: Recording, rows: slice, source: str) -> Recording:
    start = np.datetime64("2024-03-01T00:00:00", "ns")
    clock = start + (recording.hours * 3600e9).astype("timedelta64[ns]")
    return replace(replace(recording, clock=clock, source=source).rows(rows), source=source)


def test_files_are_joined_in_order_of_time_and_only_those_that_belong_together() -> None:
    recording = two_speeds()
    parts = [dated(recording, slice(a, b), f"{a}.csv") for a, b in ((40, 60), (0, 20), (15, 40))]
    whole = joined(parts)
    np.testing.assert_array_equal(whole.values, recording.values[:60])
    np.testing.assert_array_equal(whole.conditions, recording.conditions[:60])  # type: ignore[index]
    np.testing.assert_allclose(whole.hours, recording.hours[:60], atol=1e-9)
    assert whole.when(59) == "2024-03-01 09:50:00"
    with pytest.raises(DataError, match=r"40.csv and x.csv are not alike: names .*'crest'.* and .*'kurtosis'"):
        joined([parts[0], replace(parts[1], names=("rms", "kurtosis", "temperature"), source="x.csv")])
    with pytest.raises(DataError, match=r"x\.csv has no dates"):
        joined([parts[0], replace(parts[1], clock=None, source="x.csv")])
