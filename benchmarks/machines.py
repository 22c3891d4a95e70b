"""The real runs to failure that benchmarks of vibration and trends read (not part of this repository)."""

import dataclasses
from pathlib import Path

import numpy as np

from unlabeled.sensors import Recording, read
from unlabeled.sensors.backtest import with_failure

FEMTO = ("Bearing1_1", "Bearing1_2", "Bearing2_1", "Bearing2_2", "Bearing3_1", "Bearing3_2")
NAB_FAILURE, NAB_PRECURSOR = "2014-02-08 14:30", ("2014-01-27 14:20", "2014-01-29 13:30")
# As NAB labels it, around the failure.
NAB_WINDOW = ("2014-02-07 14:55", "2014-02-09 14:05")


def kinds(folder: Path) -> dict[str, list[Recording]]:
    """By collection, from the folder ``vibration`` of the shared data."""
    return {
        "FEMTO": [one for name in FEMTO for one in read(folder / "femto" / f"{name}.npz")],
        "IMS 2": read(folder / "ims" / "ims_test2_features.parquet"),
        "NAB": [nab(folder)],
    }


def nab(folder: Path) -> Recording:
    (recording,) = read(folder / "nab" / "machine_temperature_system_failure.parquet")
    assert recording.clock is not None
    hours = (np.datetime64(NAB_FAILURE) - recording.clock[0]) / np.timedelta64(1, "s") / 3600
    return dataclasses.replace(with_failure(recording, float(hours)), asset="NAB")


def failed(recording: Recording) -> bool:
    """Bearings 2 to 4 of IMS did not."""
    return recording.asset not in {"B2", "B3", "B4"}
