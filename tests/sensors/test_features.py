"""Indicators against hand-computed values; pictures against tones of known frequency."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.sensors import features


def test_rms_peak_crest_and_kurtosis_of_numbers_worked_by_hand() -> None:
    x = np.array([[3.0], [-4.0], [0.0], [5.0]])
    assert features.rms(x)[0] == pytest.approx(np.sqrt(50 / 4))
    assert features.peak(x)[0] == 5
    assert features.crest(x)[0] == pytest.approx(5 / np.sqrt(12.5))
    # Mean 1; fourth powers 16 + 625 + 1 + 256 = 898, squares 4 + 25 + 1 + 16 = 46: 4 * 898 / 46^2 - 3.
    assert features.excess_kurtosis(x)[0] == pytest.approx(4 * 898 / 46**2 - 3)


def test_a_sine_has_its_textbook_indicators() -> None:
    x = np.sin(2 * np.pi * 10 * np.arange(1000) / 1000)[:, None]
    assert features.rms(x)[0] == pytest.approx(1 / np.sqrt(2))
    assert features.crest(x)[0] == pytest.approx(np.sqrt(2))
    assert features.excess_kurtosis(x)[0] == pytest.approx(-1.5)


@pytest.mark.parametrize("fs", [12_800.0, 48_000.0])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_a_tone_stands_at_its_share_of_half_the_sampling_rate(fs: float, share: float) -> None:
    t = np.arange(round(fs * 0.2)) / fs
    x = np.sin(2 * np.pi * share * fs / 2 * t)[:, None]
    row = int(features.picture(x)[0].mean(axis=1).argmax())
    assert abs(row - (share * features.BANDS - 1)) <= 1


@pytest.mark.parametrize("samples", [512, 2560, 2601, 20_480])
def test_pictures_have_one_shape_and_white_noise_one_level(samples: int) -> None:
    x = np.random.default_rng(0).normal(size=(samples, 3))
    picture = features.picture(x)
    assert picture.shape == (3, features.BANDS, features.COLUMNS)
    power = (10 ** (picture / 10)).mean()
    assert power == pytest.approx(1.0, rel=0.15)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.01, 100))
def test_a_gain_moves_the_level_and_leaves_the_shape(gain: float) -> None:
    x = np.random.default_rng(1).normal(size=(2560, 2))
    shape, level = features.shape_and_level(features.picture(x))
    louder, higher = features.shape_and_level(features.picture(gain * x))
    np.testing.assert_allclose(louder, shape, atol=1e-3)
    np.testing.assert_allclose(higher - level, 20 * np.log10(gain), atol=1e-3)
    moved = features.indicators(gain * x, louder) - features.indicators(x, shape)
    expected = np.zeros((2, 4 + features.COARSE))
    expected[:, :2] = 20 * np.log10(gain)
    np.testing.assert_allclose(moved.reshape(2, -1), expected, atol=1e-3)


def test_every_indicator_has_a_name_and_bands_are_in_hertz() -> None:
    x = np.random.default_rng(2).normal(size=(2560, 2))
    shape, _ = features.shape_and_level(features.picture(x))
    names = features.indicator_names(("horizontal", "vertical"), 25_600.0)
    assert len(names) == len(features.indicators(x, shape))
    assert names[4] == "horizontal 0.0-1.6 kHz band (dB over mean)"
    assert names[12] == "vertical RMS (dB)"
