"""Each bad snapshot gets its own reason, and good ones none."""

import numpy as np
import pytest

from unlabeled.sensors.health import FLAT_ROWS, TrendHealth, waveform_flaw


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2560, 2)).astype(np.float32)


def test_noise_sines_and_coarse_steps_are_fine(noise: np.ndarray) -> None:
    t = np.arange(2560) / 12_800
    sine = np.sin(2 * np.pi * 100 * t)[:, None]
    assert waveform_flaw(noise) == ""
    assert waveform_flaw(sine) == ""
    assert waveform_flaw(noise.round(1)) == ""


def test_each_flaw_is_named(noise: np.ndarray) -> None:
    broken = noise.copy()
    broken[7, 1] = np.nan
    broken[8, 0] = np.inf
    assert waveform_flaw(broken) == "2 sample(s) are not numbers"
    flat = noise.copy()
    flat[:, 1] = 0.3
    assert waveform_flaw(flat) == "flat-lined (axis 2 is constant)"
    t = np.arange(2560) / 12_800
    clipped = np.clip(3 * np.sin(2 * np.pi * 50 * t), -1, 1)[:, None]
    assert waveform_flaw(clipped).startswith("clipped (axis 1:")
    stopped = noise.copy()
    stopped[:, 0] = (noise[:, 0] > 0) * 0.001
    assert waveform_flaw(stopped) == "no signal (axis 1 takes 2 different values)"


def test_a_trend_that_stops_moving_is_flat_from_its_24th_row_and_judged_again_when_it_moves() -> None:
    health = TrendHealth(("rms", "temperature"))
    reasons = [health.flaw(np.array([i, 20.0])) for i in range(FLAT_ROWS + 1)]
    assert reasons[: FLAT_ROWS - 1] == [""] * (FLAT_ROWS - 1)
    assert reasons[-1] == f"flat-lined (temperature has not moved for {FLAT_ROWS} rows)"
    assert health.flaw(np.array([0.0, 20.1])) == ""
    assert health.flaw(np.array([np.nan, 20.2])) == "not a number: rms"
