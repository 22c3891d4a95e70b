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
    assert waveform_flaw(broken) == "1 sample(s) of axis 1 are not numbers; 1 sample(s) of axis 2 are not numbers"
    flat = noise.copy()
    flat[:, 1] = 0.3
    assert waveform_flaw(flat) == "flat-lined (axis 2 is constant)"
    flat[5, 1] = np.nan  # which does not hide it
    assert waveform_flaw(flat) == "flat-lined (axis 2 is constant), 1 sample(s) of axis 2 are not numbers"
    t = np.arange(2560) / 12_800
    clipped = np.clip(3 * np.sin(2 * np.pi * 50 * t), -1, 1)[:, None]
    assert waveform_flaw(clipped).startswith("clipped (axis 1:")
    stopped = noise.copy()
    stopped[:, 0] = (noise[:, 0] > 0) * 0.001
    assert waveform_flaw(stopped) == "no signal (axis 1 takes 2 different values)"


def test_a_value_that_is_held_is_a_dropout_and_a_slow_or_coarse_signal_is_none(noise: np.ndarray) -> None:
    for value in (0.0, float(noise[1000, 1])):  # to nought, or to the last value
        broken = noise.copy()
        broken[1000:1100, 1] = value
        assert waveform_flaw(broken) == "dropout (axis 2 does not move for 100 samples)"
    short = noise.copy()
    short[1000:1020, 1] = 0.0  # less than a percent
    assert waveform_flaw(short) == ""
    slow = np.floor(np.arange(2560.0) / 40)[:, None]  # every level for 40 samples
    slow[[5, 6]] = [[-50.0], [200.0]]  # nothing rests at an end of the range
    assert waveform_flaw(slow) == ""


@pytest.mark.parametrize("bit", [1, 3, 6])
@pytest.mark.parametrize("to", [0, 1])
@pytest.mark.parametrize("offset", [0, 5])
def test_a_bit_that_never_changes_is_found_wherever_the_codes_begin(bit: int, to: int, offset: int) -> None:
    codes = (np.random.default_rng(bit).normal(size=20_000) * 400).round().astype(np.int64) + 2048
    stuck = (codes | (1 << bit)) if to else (codes & ~(1 << bit))
    for given, flaw in ((codes, ""), (stuck, f"stuck bit (axis 1: bit {bit} of the converter never changes)")):
        signal = ((given + offset) * np.float32(9.81e-3) - 20).astype(np.float32)[:, None]
        assert waveform_flaw(signal) == flaw


def test_signals_that_miss_codes_by_nature_have_no_stuck_bit(noise: np.ndarray) -> None:
    t = np.arange(2560) / 12_800
    square = np.sign(np.sin(2 * np.pi * 50 * t)) * 400 + noise[:, 0] * 3
    assert waveform_flaw(square.round()[:, None]) == ""
    assert waveform_flaw((noise * 400).astype(np.float16).astype(np.float32)) == ""  # no one step
    assert waveform_flaw((noise * 4000).round()) == ""  # more codes than samples


def test_a_trend_that_stops_moving_is_flat_from_its_24th_row_and_judged_again_when_it_moves() -> None:
    health = TrendHealth(("rms", "temperature"))
    reasons = [health.flaw(np.array([i, 20.0])) for i in range(FLAT_ROWS + 1)]
    assert reasons[: FLAT_ROWS - 1] == [""] * (FLAT_ROWS - 1)
    assert reasons[-1] == f"flat-lined (temperature has not moved for {FLAT_ROWS} rows)"
    assert health.flaw(np.array([0.0, 20.1])) == ""
    assert health.flaw(np.array([np.nan, 20.2])) == "not a number: rms"


def test_missing_cells_do_not_hide_that_an_indicator_is_flat() -> None:
    health = TrendHealth(("rms", "temperature"))
    rows = [[np.nan if i % 2 else i, 20.0 if i % 3 else np.nan] for i in range(2 * FLAT_ROWS)]
    reasons = [health.flaw(np.array(row)) for row in rows]
    told = [i for i, reason in enumerate(reasons) if "flat-lined (temperature" in reason]
    first = [i for i in range(len(rows)) if i % 3][FLAT_ROWS - 1]  # the 24th time that it was seen
    assert told == list(range(first, len(rows)))
    assert reasons[first + 1].startswith("not a number: ")
