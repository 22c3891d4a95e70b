"""What the monitor promises: the past alone decides, batch and stream agree to the last bit, nothing is silent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.sensors import MachineMonitor, Recording, make
from unlabeled.sensors.baselines import three_sigma
from unlabeled.sensors.monitor import PARTS

NUMBERS = ["score", "smoothed", *PARTS]


def trend(n: int = 160, *, seed: int = 0, names: tuple[str, ...] = ("rms", "temperature")) -> Recording:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, len(names)))
    values[int(n * 0.8) :, 0] += np.linspace(0, 12, n - int(n * 0.8))
    return make("m", values, np.arange(n) / 6, names=names)


def changed(recording: Recording, start: int) -> Recording:
    """The same recording with everything from ``start`` on replaced."""
    values = recording.values.copy()
    values[start:] = 7 * np.random.default_rng(9).normal(size=values[start:].shape) + 3
    return make(recording.asset, values, recording.hours, names=recording.names, fs=recording.fs)


def small() -> MachineMonitor:
    return MachineMonitor(steps=20, dim=32, depth=1)


@pytest.fixture(scope="module")
def fitted_trend() -> tuple[MachineMonitor, Recording, pd.DataFrame]:
    recording = trend()
    monitor = small().fit(recording, normal_share=0.5)
    return monitor, recording, monitor.score(recording)


def test_a_failing_machine_raises_an_alarm_that_holds_and_a_well_one_none(
    fresh: MachineMonitor, plant: list[Recording]
) -> None:
    well, failing = plant[2], plant[3]
    assert not fresh.fit(well).score(well)["alarm"].any()
    table = fresh.fit(failing).score(failing)
    on = np.flatnonzero(table["alarm"])
    fault_starts = failing.hours[-1] - 6 * 24
    assert failing.hours[on[0]] >= fault_starts
    assert failing.hours[-1] - failing.hours[on[0]] >= 24
    assert table["alarm"].iloc[on[0] :].all()


def test_what_comes_after_the_normal_period_changes_nothing_about_the_fit_nor_about_scores_before_it(
    fresh: MachineMonitor, plant: list[Recording]
) -> None:
    recording = plant[3]
    start = recording.normal_rows() + 40
    before = fresh.fit(recording).score(recording)
    threshold = fresh.threshold_
    after = fresh.fit(changed(recording, start)).score(changed(recording, start))
    assert fresh.threshold_ == threshold
    pd.testing.assert_frame_equal(before.iloc[:start], after.iloc[:start], check_exact=True)
    assert not np.array_equal(before["score"].iloc[start:], after["score"].iloc[start:])


def test_the_same_holds_for_a_trend(fitted_trend: tuple[MachineMonitor, Recording, pd.DataFrame]) -> None:
    _, recording, before = fitted_trend
    altered = changed(recording, 120)
    after = small().fit(altered, normal_share=0.5).score(altered)
    pd.testing.assert_frame_equal(before.iloc[:120], after.iloc[:120], check_exact=True)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_stream_and_any_length_of_batch_give_the_same_bits(
    fresh: MachineMonitor, plant: list[Recording], size: int
) -> None:
    recording = plant[3].rows(slice(0, 90))
    fresh.fit(plant[3])
    whole = fresh.score(recording)
    stream = fresh.stream()
    one_by_one = pd.DataFrame([stream.push(x) for x in recording.values])
    np.testing.assert_array_equal(whole[NUMBERS].to_numpy(), one_by_one[NUMBERS].to_numpy())
    start = fresh.score(recording.rows(slice(0, size)))
    np.testing.assert_array_equal(whole[NUMBERS].to_numpy()[:size], start[NUMBERS].to_numpy())


def test_a_streamed_trend_gives_the_same_bits(fitted_trend: tuple[MachineMonitor, Recording, pd.DataFrame]) -> None:
    monitor, recording, whole = fitted_trend
    stream = monitor.stream()
    pushed = pd.DataFrame([stream.push(row) for row in recording.values])
    np.testing.assert_array_equal(whole[NUMBERS].to_numpy(), pushed[NUMBERS].to_numpy())


def test_saved_and_loaded_it_scores_to_the_bit(
    tmp_path: Path, fitted_trend: tuple[MachineMonitor, Recording, pd.DataFrame]
) -> None:
    monitor, recording, whole = fitted_trend
    monitor.save(tmp_path / "m", pretraining_run="abc")
    loaded = MachineMonitor.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.score(recording), whole, check_exact=True)
    assert loaded.pretraining_run_ == "abc"
    assert loaded.get_params() == monitor.get_params()
    assert {p.suffix for p in (tmp_path / "m").iterdir()} == {".json", ".safetensors"}


def test_an_encoder_is_saved_before_any_machine_is_fitted(
    tmp_path: Path, fresh: MachineMonitor, plant: list[Recording]
) -> None:
    fresh.save(tmp_path / "encoder")
    loaded = MachineMonitor.load(tmp_path / "encoder")
    with pytest.raises(DataError, match="not fitted yet"):
        loaded.score(plant[2])
    a, b = loaded.fit(plant[2]).score(plant[2]), fresh.fit(plant[2]).score(plant[2])
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    with pytest.raises(CheckpointError, match="nothing to save"):
        MachineMonitor().save(tmp_path / "none")


def test_bad_snapshots_are_neither_alarm_nor_all_clear_and_leave_the_others_alone(
    fresh: MachineMonitor, plant: list[Recording]
) -> None:
    recording = plant[2]
    fresh.fit(recording)
    values = recording.values.copy()
    values[60, 5] = np.nan
    values[61] = 0.0
    broken = make(recording.asset, values, recording.hours, names=recording.names, fs=recording.fs)
    table, whole = fresh.score(broken), fresh.score(recording)
    assert list(table.index[table["state"] == "cannot judge"]) == [60, 61]
    bad = (f"1 sample(s) of axis {axis} are not numbers" for axis in (1, 2))
    assert table["reason"].iloc[60] == "; ".join(bad)
    assert table["reason"].iloc[61].startswith("flat-lined")
    assert table["score"].iloc[[60, 61]].isna().all()
    others = np.setdiff1d(np.arange(len(values)), [60, 61])
    np.testing.assert_array_equal(table["score"].to_numpy()[others], whole["score"].to_numpy()[others])


def test_the_explanation_names_what_was_changed(fresh: MachineMonitor, plant: list[Recording]) -> None:
    recording = plant[2]
    fresh.fit(recording)
    values = recording.values.copy()
    t = np.arange(values.shape[1]) / float(recording.fs or 1)
    values[-12:, :, 1] += 0.3 * np.sin(2 * np.pi * 4300 * t)
    told = fresh.explain(make("m", values, recording.hours, names=recording.names, fs=recording.fs))
    assert told.changes["indicator"].iloc[0] == "vertical 4.0-4.8 kHz band (dB over mean)"
    assert "4.30-4.40 kHz on the vertical axis" in told.words[-1] or "4.20-4.30 kHz" in told.words[-1]
    assert told.changes["share"].sum() == pytest.approx(1)
    quiet = fresh.explain(recording)
    assert max(quiet.parts.values()) < max(told.parts.values())


def test_a_gain_between_sensors_does_not_change_what_is_learnt(plant: list[Recording]) -> None:
    """Standardisation comes from the machine itself: a sensor with another unit gives the same scores."""
    recording = plant[2].rows(slice(0, 80))
    scaled = make("m", recording.values * 16, recording.hours, names=recording.names, fs=recording.fs)
    first = small().fit(recording, normal_share=0.8).score(recording)["score"]
    second = small().fit(scaled, normal_share=0.8).score(scaled)["score"]
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


def test_what_does_not_belong_together_is_refused(fresh: MachineMonitor, plant: list[Recording]) -> None:
    one = plant[2]
    fresh.fit(one)
    faster = make("m", one.values, one.hours, names=one.names, fs=25_600)
    with pytest.raises(DataError, match="fitted at 12800 Hz, m is sampled at 25600 Hz"):
        fresh.score(faster)
    with pytest.raises(DataError, match="snapshots of 2560 samples, m has 1280"):
        fresh.score(make("m", one.values[:, ::2], one.hours, names=one.names, fs=12_800))
    with pytest.raises(DataError, match="is trend data"):
        fresh.score(trend())
    with pytest.raises(DataError, match="not of one kind"):
        MachineMonitor().pretrain([one, trend()])
    single = make("s", one.values[:, :, :1], one.hours, names=["h"], fs=12_800)
    with pytest.raises(DataError, match="pretrain on machines measured alike"):
        fresh.fit(single)


def test_too_short_a_normal_period_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"m: 0 snapshots .* enlarge --normal-share"):
        small().fit(trend(40))


def test_fitting_another_machine_does_not_lean_on_the_one_before() -> None:
    monitor, other = small(), trend(seed=5)
    monitor.fit(trend(), normal_share=0.5)
    again = monitor.fit(other, normal_share=0.5).score(other)
    alone = small().fit(other, normal_share=0.5).score(other)
    pd.testing.assert_frame_equal(again, alone, check_exact=True)


def test_three_sigma_by_hand() -> None:
    values = np.array([1.0, 2, 3, 2, 5.0, -2.0])
    rule = three_sigma(values, name="x", normal_rows=4)
    assert (rule.rule.mean, rule.rule.scale) == (2, pytest.approx(np.sqrt(2 / 3)))
    np.testing.assert_array_equal(rule.exceeds(), [0, 0, 0, 0, 1, 0])
    both = three_sigma(values, name="x", normal_rows=4, two_sided=True)
    np.testing.assert_array_equal(both.exceeds(), [0, 0, 0, 0, 1, 1])
    filtered = three_sigma(values, name="x", normal_rows=4, median_of=3)
    np.testing.assert_array_equal(filtered.values, [1, 1.5, 2, 2, 3, 2])
