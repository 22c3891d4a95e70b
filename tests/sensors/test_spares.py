"""A broken sensor does not blind a machine that has others, and says neither that it is well nor that it is ill."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.features import indicator_names
from unlabeled.sensors.recording import make
from unlabeled.sensors.spares import without
from unlabeled.sensors.stream import fused


def broken(recording: Recording, axis: int, since: int, to: float = 0.0) -> Recording:
    """From one row on an axis stands still."""
    values = recording.values.copy()
    values[since:, :, axis] = to
    return replace(recording, values=values)


@pytest.fixture
def monitor(fitted: Path) -> MachineMonitor:
    return MachineMonitor.load(fitted / "pump7")


def first_alarm(table: pd.DataFrame) -> float:
    return float(table["hours"][table["alarm"]].min())


@pytest.mark.parametrize("axis", [0, 1])
def test_a_dead_axis_is_neither_alarm_nor_all_clear(plant: list[Recording], fresh: MachineMonitor, axis: int) -> None:
    for machine in plant[:3]:
        monitor = copy.deepcopy(fresh).fit(machine, normal_share=0.5)
        since = monitor.period_.stop
        found = monitor.score(broken(machine, axis, since)).iloc[since:]
        assert set(found["state"]) == {"cannot judge"}
        assert not found["alarm"].any()
        name = machine.names[axis]
        assert set(found["reason"]) == {f"without {name}: flat-lined (axis {axis + 1} is constant)"}


@pytest.mark.parametrize("axis", [0, 1])
def test_a_fault_is_found_by_the_other_axis(plant: list[Recording], monitor: MachineMonitor, axis: int) -> None:
    failing = plant[3]
    whole = first_alarm(monitor.score(failing))
    found = monitor.score(broken(failing, axis, monitor.period_.stop))
    loud = found[found["alarm"]].iloc[0]
    assert loud["state"] == "alarm"
    assert loud["smoothed"] > loud["threshold"]
    assert loud["reason"].startswith(f"without {failing.names[axis]}: flat-lined")
    # The fault takes six days from nothing to the failure.
    assert first_alarm(found) <= whole + 24
    assert not found["alarm"][: monitor.period_.stop].any()


def test_what_a_broken_axis_says_changes_nothing(plant: list[Recording], monitor: MachineMonitor) -> None:
    since = monitor.period_.stop
    numbers = ["score", "smoothed", *monitor.part_names]
    assert monitor.score(broken(plant[3], 1, since))[numbers].iloc[-10:].notna().all(axis=None)
    flat = monitor.score(broken(plant[3], 1, since))
    for to in (0.3, float("nan"), float("inf")):
        other = monitor.score(broken(plant[3], 1, since, to))
        pd.testing.assert_frame_equal(other[numbers], flat[numbers])
        assert (other["alarm"] == flat["alarm"]).all()
    noisy = plant[3].values.copy()
    noisy[since:, 10:500, 1] = np.float32(np.nan)
    pd.testing.assert_frame_equal(monitor.score(replace(plant[3], values=noisy))[numbers], flat[numbers])


def test_an_alarm_is_not_ended_while_an_axis_is_broken(plant: list[Recording], monitor: MachineMonitor) -> None:
    """A fault, a repair and a dead axis at once: whether the repair did any good is known when the axis is back."""
    failing, stop = plant[3], monitor.period_.stop
    well = failing.rows(slice(0, stop))
    ill = failing.rows(slice(len(failing) - 12, len(failing)))
    stream = monitor.stream()
    for row in range(12):
        said = stream.push_row(ill, row)
    assert said["alarm"]
    dead = broken(well, 0, 0)
    for row in range(60):
        said = stream.push_row(dead, row)
        assert said["alarm"]
        assert said["state"] == "cannot judge"
        assert said["reason"].startswith("without horizontal: flat-lined")
    for row in range(60):
        said = stream.push_row(well, row)
    assert not said["alarm"]


def test_a_score_without_an_axis_means_what_one_of_all_axes_means(monitor: MachineMonitor) -> None:
    """Both thresholds are mean + 5 standard deviations of the held-out part of the normal period."""
    assert set(monitor.spares_) == {0, 1}
    for spare in monitor.spares_.values():
        held_out = zip(spare.embedding[spare.cut :], spare.error[spare.cut :], spare.outside[spare.cut :], strict=True)
        scores = np.array([fused(monitor.parts(*one, spare=spare), None) for one in held_out])
        assert scores.mean() + 5 * scores.std(ddof=1) == pytest.approx(monitor.threshold_)
        assert spare.gain != 1


def test_a_loud_snapshot_without_an_axis_ends_no_alarm(plant: list[Recording], monitor: MachineMonitor) -> None:
    """One calm snapshot more would end it."""
    failing, stop = plant[3], monitor.period_.stop
    well, ill = failing.rows(slice(0, stop)), failing.rows(slice(len(failing) - 12, len(failing)))
    stream = monitor.stream()
    for row in range(12):
        stream.push_row(ill, row)
    row = 0
    while stream.memory()["alarm"]["calm"] < monitor.rule.clear_after - 1:
        assert stream.push_row(well, row)["alarm"]
        row += 1
    assert stream.push_row(broken(ill, 0, 0), 11)["alarm"]
    assert not stream.push_row(well, row)["alarm"]


def test_snapshots_without_an_axis_hide_no_fault_of_that_axis(plant: list[Recording], fresh: MachineMonitor) -> None:
    """A fault that is heard on one axis alone, and drives it into clipping every other time."""
    machine = plant[0].rows(slice(0, 140))
    values = machine.values.copy()
    ringing = np.zeros(values.shape[1])
    ringing[::60] = 2
    ringing = np.convolve(ringing, np.exp(-np.arange(60) / 8) * np.sin(np.arange(60) * 1.7))[: len(ringing)]
    values[100:, :, 0] += ringing.astype(np.float32)
    loud = np.abs(values[101::2, :, 0]) > 1  # the converter holds its end for a few samples
    for shift in (1, 2, 3):
        loud[:, shift:] |= loud[:, :-shift]
    values[101::2, :, 0][loud] = 1
    values[101::2, :, 0] = np.minimum(values[101::2, :, 0], 1)
    monitor = fresh.fit(machine, normal_until=float(machine.hours[89]))
    found = monitor.score(replace(machine, values=values))
    assert set(found["reason"][101::2].str.split(" (", regex=False).str[0]) == {"without horizontal: clipped"}
    only_whole = monitor.score(replace(machine, values=values).rows(np.r_[0:100, 100:140:2]))
    assert only_whole["alarm"].any()
    assert found["alarm"].sum() > 0
    assert first_alarm(found) == first_alarm(only_whole)


def test_what_drifts_is_not_judged_without_an_axis(plant: list[Recording], fresh: MachineMonitor) -> None:
    """The drift would stand still meanwhile, and what moves on would be an alarm."""
    monitor = fresh.set_params(drift=3.0).fit(plant[0], normal_share=0.5)
    assert monitor.spares_ == {}


def test_with_both_axes_broken_nothing_is_said_of_the_machine(plant: list[Recording], monitor: MachineMonitor) -> None:
    both = broken(broken(plant[3], 0, 5), 1, 5)
    found = monitor.score(both.rows(slice(0, 10))).iloc[5:]
    assert set(found["state"]) == {"cannot judge"}
    assert set(found["reason"]) == {"flat-lined (axis 1 is constant); flat-lined (axis 2 is constant)"}


def test_a_stored_monitor_judges_without_an_axis_as_before(
    plant: list[Recording], monitor: MachineMonitor, tmp_path: Path
) -> None:
    some = broken(plant[3], 1, 20).rows(slice(0, 40))
    again = MachineMonitor.load(monitor.save(tmp_path / "again"))
    pd.testing.assert_frame_equal(again.score(some), monitor.score(some))
    monitor.spares_ = {}  # a model of before there were any
    old = MachineMonitor.load(monitor.save(tmp_path / "old"))
    assert set(old.score(some)["state"][20:]) == {"cannot judge"}


def test_one_by_one_is_as_all_at_once(plant: list[Recording], monitor: MachineMonitor) -> None:
    some = broken(plant[3], 1, 20)
    whole, stream = monitor.score(some), monitor.stream()
    assert whole["alarm"].any()
    for row in range(len(some)):
        if row in (30, 150, 180):
            stream = monitor.stream().recall(stream.memory())
        said = stream.push_row(some, row)
        np.testing.assert_equal((said["score"], said["smoothed"]), tuple(whole[["score", "smoothed"]].iloc[row]))


def test_an_explanation_leaves_the_broken_axis_out(plant: list[Recording], monitor: MachineMonitor) -> None:
    told = monitor.explain(broken(plant[3], 1, len(plant[3]) - 4, float("nan")))
    assert told.words[0].startswith("Judged without vertical: ")
    assert set(told.changes["indicator"]) == set(indicator_names(("horizontal",), 12_800))
    assert np.isfinite(told.changes["now"]).all()
    assert told.spectrum is not None
    assert np.isfinite(told.spectrum).all()
    assert all("vertical" not in word for word in told.words[1:])
    whole = monitor.explain(plant[3])
    assert len(whole.changes) == 2 * len(told.changes)


def test_the_means_of_the_normal_period_stand_in_for_an_axis() -> None:
    picture = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2) + 1
    indicators = np.array([[1.0, 2.0, 3.0, 4.0]])
    seen, left = without(picture, indicators, {1: "flat"}, kind="waveform")
    np.testing.assert_array_equal(seen[0, 0], picture[0, 0])
    assert not seen[0, 1].any()
    np.testing.assert_array_equal(left, [[1, 2, 0, 0]])
    assert picture.all()


def test_found_regimes_need_every_axis(plant: list[Recording]) -> None:
    """An axis may be what tells them apart."""
    machine = plant[0]
    values = machine.values.copy()
    values[::2] *= np.float32(8)
    values[::2] += np.float32(5) * np.diff(values[::2], axis=1, prepend=0)
    two = replace(machine, values=values)
    monitor = MachineMonitor(steps=20, dim=32, depth=2, find_regimes=True).fit(two, normal_share=0.6)
    assert monitor.finds_regimes
    found = monitor.score(broken(two, 1, 150).rows(slice(0, 160)))
    assert set(found["state"][150:]) == {"cannot judge"}


NAMES = ("rms", "temperature", "current", "pressure")
ROWS = 600


def trend(*, fault: bool = False) -> Recording:
    """Four indicators that wander about their means; a fault moves rms and current from row 450 on, ever farther."""
    rng = np.random.default_rng(5)
    wander = np.zeros((ROWS, 4))
    for i in range(1, ROWS):
        wander[i] = 0.7 * wander[i - 1] + rng.normal(size=4)
    worse = np.clip(np.arange(ROWS) - 450, 0, None)[:, None] * np.array([0.3, 0, 0.3, 0]) * fault
    return make("fan", np.array([2.0, 60, 10, 3]) + 0.05 * (wander + worse), np.arange(ROWS) / 6, names=NAMES)


@pytest.fixture(scope="module")
def fan() -> MachineMonitor:
    return MachineMonitor(steps=60, dim=32, depth=2).fit(trend(), normal_share=0.5)


def lost(recording: Recording, which: int, since: int, until: int = ROWS) -> Recording:
    values = recording.values.copy()
    values[since:until, which] = np.nan
    return replace(recording, values=values)


def test_a_cell_that_is_missing_costs_its_row_and_no_other(fan: MachineMonitor) -> None:
    found = fan.score(lost(trend(), 1, 400, 402))
    assert set(found["state"][400:402]) == {"cannot judge"}
    assert set(found["state"][402:]) == {"normal"}
    assert set(found["reason"][402:]) == {""}


def test_an_indicator_that_stays_away_is_done_without_until_the_window_is_whole_again(fan: MachineMonitor) -> None:
    found = fan.score(lost(trend(), 1, 400, 440))
    assert set(found["state"][400:455]) == {"cannot judge"}
    assert set(found["state"][455:]) == {"normal"}
    assert not found["alarm"].any()
    assert set(found["reason"][402:440]) == {"without temperature: not a number"}
    assert set(found["reason"][440:455]) == {"without temperature: broken within the last 16 rows"}
    assert set(found["reason"][455:]) == {""}
    # The window holds the rows that it would hold had nothing been lost, but for the two that were not judged.
    whole = fan.score(trend())
    np.testing.assert_array_equal(found["score"][460:], whole["score"][460:])


def test_one_that_stands_still_is_done_without(fan: MachineMonitor) -> None:
    recording = trend()
    values = recording.values.copy()
    values[400:, 3] = values[400, 3]
    found = fan.score(replace(recording, values=values))
    assert not found["alarm"].any()
    assert set(found["reason"][423:]) == {"without pressure: flat-lined"}
    assert set(found["state"][423:]) == {"cannot judge"}


@pytest.mark.parametrize("which", [0, 1])
def test_a_fault_is_found_without_an_indicator(fan: MachineMonitor, which: int) -> None:
    """Without one that tells of it and without one that does not."""
    whole = first_alarm(fan.score(trend(fault=True)))
    without_it = first_alarm(fan.score(lost(trend(fault=True), which, 400)))
    assert whole > 450 / 6
    assert 450 / 6 < without_it <= whole + 5
    told = fan.explain(lost(trend(fault=True), which, 400))
    assert told.words[0] == f"Judged without {NAMES[which]}: not a number."
    assert set(told.changes["indicator"]) == set(NAMES) - {NAMES[which]}
    assert told.changes["indicator"].iloc[0] in ("rms", "current")


def test_two_that_are_away_are_too_many(fan: MachineMonitor) -> None:
    found = fan.score(lost(lost(trend(), 1, 400), 3, 420))
    assert set(found["reason"][402:420]) == {"without temperature: not a number"}
    assert set(found["state"][420:]) == {"cannot judge"}
    assert found["reason"].iloc[-1] == "not a number: temperature, pressure"


def test_a_trend_goes_on_from_its_memory_without_an_indicator(fan: MachineMonitor) -> None:
    some = lost(trend(fault=True), 1, 440, 580)
    whole, stream = fan.score(some), fan.stream()
    assert whole["alarm"].any()
    for row in range(ROWS):
        if row in (441, 450, 500, 585):
            stream = fan.stream().recall(json.loads(json.dumps(stream.memory())))
        said = stream.push_row(some, row)
        assert (said["state"], said["alarm"], said["reason"]) == tuple(whole[["state", "alarm", "reason"]].iloc[row])
        np.testing.assert_equal(said["smoothed"], whole["smoothed"][row])
