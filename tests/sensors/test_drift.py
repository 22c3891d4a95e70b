"""Slow changes are followed as far as was stated, and no fault is learnt away."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.errors import DataError
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.drift import Drift, InSpreads
from unlabeled.sensors.recording import make

NORMAL, ROWS = 300, 700


def snapshot(value: float) -> InSpreads:
    return InSpreads(np.full((1, 2, 3), value, dtype=np.float32), np.full(2, value), value)


def machine(moved: np.ndarray, *, seed: int = 0) -> Recording:
    """Two indicators whose mean moves by so many of their spreads, beside two that stay."""
    z = np.random.default_rng(seed).normal(size=(len(moved), 4))
    z[:, :2] += moved[:, None]
    return make("m", 1 + 0.05 * z, np.arange(len(moved), dtype=float), names=("rms", "band", "peak", "temperature"))


def after(shape: np.ndarray) -> np.ndarray:
    return np.r_[np.zeros(NORMAL), shape]


@pytest.fixture(scope="module")
def fitted() -> MachineMonitor:
    return MachineMonitor(drift_over=50).fit(machine(np.zeros(NORMAL)), normal_share=1.0)


def judged(monitor: MachineMonitor, recording: Recording, *, drift: float) -> np.ndarray:
    return monitor.set_params(drift=drift).score(recording)["alarm"].to_numpy()


def test_the_exponential_mean_as_worked_out_by_hand() -> None:
    drift = Drift(limit=3.0, over=4)
    assert drift.without(snapshot(2.0)).level == 2.0
    drift.follow(snapshot(2.0))  # a quarter of 2
    drift.follow(snapshot(2.0))  # and of what is left, 1.5
    seen = drift.without(snapshot(2.0))
    assert seen.level == pytest.approx(2 - 0.875)
    np.testing.assert_allclose(seen.indicators, 2 - 0.875)
    np.testing.assert_allclose(seen.picture, np.float32(2 - 0.875))
    assert drift.used == pytest.approx(0.875 / 3)


@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.floats(0.1, 10), st.integers(1, 40), st.floats(-100, 100))
def test_no_more_than_the_limit_is_ever_taken_out(seen: list[float], limit: float, over: int, value: float) -> None:
    drift = Drift(limit=limit, over=over)
    for one in seen:
        drift.follow(snapshot(one))
    assert abs(drift.without(snapshot(value)).level - value) <= limit * (1 + 1e-9)
    assert np.abs(drift.without(snapshot(value)).indicators - value).max() <= limit * (1 + 1e-9)
    assert drift.used <= 1 + 1e-9


def test_a_season_within_the_limit_is_no_alarm_and_is_one_without(fitted: MachineMonitor) -> None:
    season = machine(after(3 * np.sin(np.linspace(0, np.pi, ROWS)) ** 2))
    assert judged(fitted, season, drift=0.0).any()
    assert not judged(fitted, season, drift=4.0).any()


@pytest.mark.parametrize("rows", [200, ROWS])
def test_a_fault_that_creeps_is_found_however_slowly(fitted: MachineMonitor, rows: int) -> None:
    creeping = machine(after(np.linspace(0, 12, rows)))
    on = judged(fitted, creeping, drift=3.0)
    assert on[-1]
    assert not on[:NORMAL].any()
    # Taking three spreads out delays it by no more than the time in which it creeps six.
    first = {drift: int(np.argmax(judged(fitted, creeping, drift=drift))) for drift in (0.0, 3.0)}
    assert first[0.0] <= first[3.0] <= first[0.0] + rows // 2


def test_a_sudden_fault_after_a_drift_is_found_at_once(fitted: MachineMonitor) -> None:
    begins = NORMAL + 400
    moved = after(np.r_[np.linspace(0, 2, 400), np.full(40, 12.0)])
    on = judged(fitted, machine(moved), drift=3.0)
    assert not on[:begins].any()
    assert begins <= int(np.argmax(on)) <= begins + fitted.rule.smooth + fitted.rule.of


def test_a_stream_that_was_stopped_goes_on_with_its_drift(fitted: MachineMonitor) -> None:
    recording = machine(after(np.linspace(0, 2, 250)))
    monitor = fitted.set_params(drift=3.0)
    whole = monitor.score(recording)
    stream = monitor.stream()
    told = []
    for row in range(len(recording)):
        if row % 90 == 89:
            stream = monitor.stream().recall(json.loads(json.dumps(stream.memory())))
        told.append(stream.push_row(recording, row)["score"])
    np.testing.assert_array_equal(told, whole["score"].to_numpy())
    assert 0.2 < whole["drift"].iloc[-1] <= 1.0


def test_a_monitor_that_follows_no_drift_says_nothing_of_it(fitted: MachineMonitor) -> None:
    table = fitted.set_params(drift=0.0).score(machine(np.zeros(NORMAL + 20)))
    assert "drift" not in table
    assert "drift" not in fitted.stream().memory()


def test_it_is_saved_with_the_model(fitted: MachineMonitor, tmp_path: object) -> None:
    folder = fitted.set_params(drift=2.0).save(f"{tmp_path}/m")
    assert MachineMonitor.load(folder).drift == 2.0


@pytest.mark.parametrize("wrong", [{"drift": -1.0}, {"drift": 1.0, "drift_over": 0}])
def test_a_drift_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="drift"):
        MachineMonitor(steps=1, **wrong).fit(machine(np.zeros(NORMAL)))  # type: ignore[arg-type]
