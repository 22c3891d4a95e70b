"""What belongs to the sensor and not to the machine: which axis is which, and where its zero lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monitoring import message

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_judging import in_order
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.health import SHIFT, Offset


@pytest.fixture
def monitor(fitted: Path) -> MachineMonitor:
    return MachineMonitor.load(fitted / "pump7")


def turned(recording: Recording) -> Recording:
    """The same axes in another order."""
    return replace(recording, values=recording.values[:, :, ::-1], names=recording.names[::-1])


def test_axes_are_told_by_their_names_and_not_by_their_order(monitor: MachineMonitor, plant: list[Recording]) -> None:
    some = plant[3].rows(slice(0, 60))
    assert len(some.names) == 2
    pd.testing.assert_frame_equal(monitor.score(turned(some)), monitor.score(some))
    one = recording_of(message(turned(some), 5).encode())
    np.testing.assert_array_equal(in_order(one, monitor).values[0], some.values[5].astype(np.float32))


def test_axes_of_other_names_of_their_own_are_others(monitor: MachineMonitor, plant: list[Recording]) -> None:
    monitor.names_ = ("drive end", "fan end")
    some = plant[3].rows(slice(0, 10))
    assert len(monitor.score(some)) == 10  # nobody has named these
    assert len(monitor.score(replace(some, names=("1", "2")))) == 10
    with pytest.raises(DataError, match=r"fitted on waveform data \(drive end, fan end\)"):
        monitor.score(replace(some, names=("temperature", "current")))


def test_an_offset_by_hand() -> None:
    """Two snapshots of means 1 and 3 and a spread of 1 about each: limit 8 spreads of the means, in RMS."""
    wave = np.array([1.0, -1.0] * 50)
    normal = np.stack([wave + 1, wave + 3])[:, :, None]
    offset = Offset.of(normal)
    assert (offset.mean, offset.alternating, offset.limit) == ((2.0,), (1.0,), (8.0,))
    steady = Offset.of(np.stack([wave, wave])[:, :, None])
    assert steady.limit == (SHIFT,)
    assert steady.flaw((wave + 0.24)[:, None]) == ""
    assert steady.flaw((wave - 0.5)[:, None]) == "offset (the mean of axis 1 has moved by 0.5 times its RMS)"
    # Of a vibration that is ten times as strong, a mean that is as far is no sign of anything.
    assert steady.flaw((10 * wave + 0.5)[:, None]) == ""


def test_a_sensor_whose_zero_has_moved_is_not_judged_and_raises_no_alarm(fitted: Path, plant: list[Recording]) -> None:
    monitor = MachineMonitor.load(fitted / "pump7")
    well = plant[3].rows(slice(0, 80))
    spread = well.values.std()
    values = well.values.copy()
    values[40:, :, 1] += 2 * spread
    found = monitor.score(replace(well, values=values))
    assert not found["alarm"].any()
    assert set(found["reason"][:40]) == {""}
    assert found["reason"].iloc[-1].startswith("without vertical: offset (the mean of axis 2 has moved by")
    assert set(found["state"][40:]) == {"cannot judge"}
    values[40:, :, 0] += 2 * spread
    both = monitor.score(replace(well, values=values))
    assert set(both["state"][40:]) == {"cannot judge"}
    assert not both["alarm"].any()


def test_a_model_of_before_offsets_were_looked_at_goes_on(monitor: MachineMonitor, plant: list[Recording]) -> None:
    monitor.offset_ = None
    some = plant[3].rows(slice(0, 5))
    assert set(monitor.score(replace(some, values=some.values + np.float32(9)))["reason"]) == {""}
