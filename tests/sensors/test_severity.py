"""Velocity of known motions, zones at their boundaries, and units that are asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.core.errors import DataError
from unlabeled.sensors.severity import BOUNDARIES, severities, velocity_rms, zone

FS = 12_800.0


def sine(hertz: float, *, seconds: float = 1.0, fs: float = FS) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(fs * seconds)) / fs)[:, None]


def test_one_g_at_one_hundred_hertz_is_eleven_millimetres_a_second() -> None:
    # a / (2 pi f sqrt 2) = 9806.65 / 888.58 = 11.036 mm/s.
    assert velocity_rms(sine(100), fs=FS, unit="g")[0] == pytest.approx(11.036, rel=1e-3)
    assert velocity_rms(9.80665 * sine(100), fs=FS, unit="m/s2")[0] == pytest.approx(11.036, rel=1e-3)


def test_a_velocity_is_not_integrated() -> None:
    assert velocity_rms(3 * sine(100), fs=FS, unit="mm/s")[0] == pytest.approx(3 / np.sqrt(2), rel=1e-3)


def test_axes_stand_apart_and_motions_add_by_their_squares() -> None:
    two = np.hstack([3 * sine(100) + 4 * sine(250), sine(60)])
    found = velocity_rms(two, fs=FS, unit="mm/s")
    np.testing.assert_allclose(found, [5 / np.sqrt(2), 1 / np.sqrt(2)], rtol=1e-3)


@pytest.mark.parametrize("hertz", [4.0, 1500.0])
def test_what_lies_outside_the_band_does_not_count(hertz: float) -> None:
    assert velocity_rms(100 * sine(hertz), fs=FS, unit="mm/s")[0] < 0.5


def test_neither_an_offset_nor_a_drift_of_the_sensor_counts_as_motion() -> None:
    clean = sine(100)
    drifting = clean + 5 + np.linspace(-0.2, 0.2, len(clean))[:, None]
    ours = velocity_rms(drifting, fs=FS, unit="g")[0]
    assert ours == pytest.approx(velocity_rms(clean, fs=FS, unit="g")[0], rel=0.02)


@given(
    hertz=st.floats(20, 900), seconds=st.floats(0.5, 3), amplitude=st.floats(0.01, 50),
    fs=st.sampled_from([2_560.0, 12_800.0, 25_600.0]),
)  # fmt: skip
def test_no_length_frequency_or_rate_changes_what_a_sine_is_worth(
    hertz: float, seconds: float, amplitude: float, fs: float
) -> None:
    found = velocity_rms(amplitude * sine(hertz, seconds=seconds, fs=fs), fs=fs, unit="mm/s")[0]
    assert found == pytest.approx(amplitude / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize(
    ("velocity", "machine_class", "expected"),
    [(1.4, "2-rigid", "A"), (1.41, "2-rigid", "B"), (4.5, "2-rigid", "C"), (4.51, "2-rigid", "D"),
     (7.1, "1-flexible", "B"), (11.5, "1-flexible", "D"), (0.0, "1-rigid", "A")],
)  # fmt: skip
def test_zones_change_at_the_standards_boundaries(velocity: float, machine_class: str, expected: str) -> None:
    assert zone(velocity, machine_class) == expected


def test_flexible_supports_and_larger_machines_may_move_more() -> None:
    for group in "12":
        assert all(a < b for a, b in zip(BOUNDARIES[f"{group}-rigid"], BOUNDARIES[f"{group}-flexible"], strict=True))
    for support in ("rigid", "flexible"):
        assert all(a < b for a, b in zip(BOUNDARIES[f"2-{support}"], BOUNDARIES[f"1-{support}"], strict=True))


def test_snapshots_are_averaged_by_their_squares_and_said_in_words() -> None:
    (found,) = severities(
        np.stack([3 * sine(100), 4 * sine(100)]), axes=("horizontal",), fs=FS, unit="mm/s", machine_class="2-rigid"
    )
    assert found.velocity == pytest.approx(2.5, rel=1e-3)  # sqrt((9 + 16) / 2 / 2)
    assert found.zone == "B"
    assert found.words().startswith("Severity on the horizontal axis: 2.50 mm/s from 10 Hz to 1 kHz, zone B of ISO")
    assert "if it runs at 600 revolutions a minute or more" in found.words()


def test_of_a_slow_machine_lower_frequencies_count_and_snapshots_have_to_be_longer() -> None:
    # 300 revolutions a minute: 6 mm/s at 5 Hz.
    slow = 6 * np.sqrt(2) * sine(5, seconds=4.0)
    (found,) = severities(slow[None], axes=("x",), fs=FS, unit="mm/s", machine_class="2-rigid", shaft_hz=5.0)
    assert found.velocity == pytest.approx(6, rel=1e-2)
    assert found.zone == "D"
    assert "from 2 Hz to 1 kHz" in found.words()
    assert "if it runs" not in found.words()
    with pytest.raises(DataError, match=r"snapshots of 2\.5 s or more, these have 1 s"):
        severities(sine(5)[None], axes=("x",), fs=FS, unit="mm/s", machine_class="2-rigid", shaft_hz=5.0)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"unit": None}, "say --unit g, m/s2 or mm/s"),
        ({"unit": "inch"}, "one of g, m/s2, mm/s; got 'inch'"),
        ({"fs": None}, "these are indicators"),
        ({"fs": 100_000.0}, "snapshots of 0.5 s or more, these have 0.128 s"),
        ({"fs": 1_000.0}, "2000 Hz or more"),
        ({"machine_class": "pump"}, "1-rigid, 1-flexible, 2-rigid, 2-flexible"),
    ],
)
def test_what_is_missing_is_asked_for_by_name(changed: dict[str, object], why: str) -> None:
    given = {"axes": ("x",), "fs": FS, "unit": "g", "machine_class": "2-rigid", **changed}
    with pytest.raises(DataError, match=why):
        severities(sine(100)[None], **given)  # type: ignore[arg-type]
