"""The overall level: worked out by hand, and never heard later than by the plain rule of it."""

import copy

import numpy as np
import pytest

from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.alarms import alarm_states
from unlabeled.sensors.level import Level, level_column, overall_rms
from unlabeled.sensors.recording import make


def test_the_level_of_a_waveform_is_the_rms_over_all_axes_together() -> None:
    # Mean squares 25 / 2 and 1: their sum is 13.5.
    signal = np.array([[3.0, 1.0], [-4.0, -1.0]])
    assert overall_rms(signal) == pytest.approx(np.sqrt(13.5))


@pytest.mark.parametrize(
    ("names", "column"),
    [
        (("temperature", "rms", "velocity"), 1),
        (("Overall velocity", "crest"), 0),
        (("crest", "vibration velocity"), 1),
        (("alarms_per_hour", "flow velocity"), None),
        (("x_rms", "temperature"), 0),
        (("value",), 0),
        (("temperature", "current"), None),
    ],
)
def test_the_level_of_a_trend_is_what_is_named_as_such_or_the_only_one(names: tuple[str, ...], column: int) -> None:
    assert level_column(names) == column


def test_three_spreads_of_it_are_as_far_as_the_threshold_of_the_rest() -> None:
    normal = np.array([1.0, 2.0, 3.0])  # mean 2, spread (n - 1) 1
    level = Level.of(normal, names=("x", "y"), waveform=True, threshold=6.0)
    assert (level.mean, level.scale, level.two_sided, level.weight) == (2.0, 1.0, False, 2.0)
    assert level.beyond(3.5) == 7.0
    assert level.beyond(3.0) == -np.inf  # what is usual is for the other parts to say
    assert level.spreads(1.0) == -1.0
    falls_too = Level.of(normal, names=("temperature",), waveform=False, threshold=6.0)
    assert falls_too.two_sided
    assert falls_too.spreads(-1.0) == 3.0
    assert not Level.of(normal, names=("rms",), waveform=False, threshold=6.0).two_sided


def test_a_level_that_never_changed_does_not_turn_rounding_into_an_alarm() -> None:
    level = Level.of(np.full(30, 0.5), names=("x",), waveform=True, threshold=5.0)
    assert abs(level.spreads(0.5 + 1e-9)) < 0.01
    # In whatever unit: metres, or micrometres.
    small = Level.of(np.array([1e-6, 2e-6, 3e-6]), names=("x",), waveform=True, threshold=6.0)
    assert small.spreads(5e-6) == pytest.approx(3.0)


def plain_rule(recording: Recording, rows: int) -> np.ndarray:
    """Mean + 3 sigma of the vector RMS, under the usual smoothing and persistence."""
    rms = np.array([np.sqrt(np.square(x.astype(np.float64)).mean(axis=0).sum()) for x in recording.values])
    z = (rms - rms[:rows].mean()) / rms[:rows].std(ddof=1)
    return alarm_states(z, 3.0, MachineMonitor().rule)[1]


def test_an_alarm_is_never_later_than_by_the_plain_rule_of_the_level(
    plant: list[Recording], encoder: MachineMonitor
) -> None:
    heard = 0
    for recording in plant:
        # Louder and louder in the end, which the shape of the spectrum does not show.
        louder = recording.values.copy()
        louder[120:] *= np.linspace(1, 3, len(recording) - 120)[:, None, None].astype(np.float32)
        record = make(recording.asset, louder, recording.hours, names=recording.names, fs=recording.fs or 0)
        monitor = copy.deepcopy(encoder).fit(record, normal_share=0.5)
        own = monitor.score(record)["alarm"].to_numpy()
        plain = plain_rule(record, monitor.period_.stop)
        later = slice(monitor.period_.stop, None)
        assert own[later].any()
        assert plain[later].any()
        assert np.argmax(own[later]) <= np.argmax(plain[later])
        heard += int(np.argmax(own[later]) == np.argmax(plain[later]))
    # Where it was the level that was heard first, it was heard as soon as by the rule.
    assert heard >= 1


def test_a_trend_of_one_quantity_is_heard_when_it_falls() -> None:
    draw = np.random.default_rng(0)
    values = 90 + draw.normal(0, 1, (300, 1))
    values[200:, 0] -= np.linspace(0, 12, 100)
    record = make("m", values, np.arange(300) / 12, names=("value",))
    monitor = MachineMonitor(steps=20, dim=16, depth=1, heads=2).fit(record, normal_share=0.5)
    table = monitor.score(record)
    z = np.abs(values[:, 0] - values[15:150, 0].mean()) / values[15:150, 0].std(ddof=1)
    plain = alarm_states(np.where(np.arange(300) < 15, np.nan, z), 3.0, monitor.rule)[1]
    assert 200 < np.argmax(table["alarm"]) <= np.argmax(plain)
    # What is said of it names the level, and that it fell.
    words = monitor.explain(record, row=int(np.argmax(table["alarm"]))).words
    assert any("overall level" in sentence for sentence in words)
    assert any("fell from" in sentence for sentence in words)


def test_a_trend_of_several_quantities_of_which_none_is_the_level_has_no_such_part() -> None:
    draw = np.random.default_rng(0)
    record = make("m", draw.normal(size=(120, 2)), np.arange(120) / 6, names=("temperature", "current"))
    monitor = MachineMonitor(steps=6, dim=16, depth=1, heads=2, window=8).fit(record, normal_share=0.5)
    assert monitor.level_ is None
    assert "level" not in monitor.part_names
    judged = monitor.score(record).iloc[8:]
    np.testing.assert_allclose(judged["score"], judged[list(monitor.part_names)].mean(axis=1), rtol=1e-9)
