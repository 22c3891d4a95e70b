"""Several processes say what one says."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_parallel as scores
from unlabeled.sensors import MachineMonitor, Recording


@pytest.fixture
def work(plant: list[Recording], fitted: Path) -> list[tuple[Recording, Path]]:
    """Two machines, one that its model cannot score, and one more."""
    other = replace(plant[0], fs=6400.0)
    return [(one, fitted / "pump7") for one in (plant[3], other, plant[1].rows(slice(0, 40)))]


def test_tables_are_to_the_bit_those_of_one_process_and_in_order(work: list[tuple[Recording, Path]]) -> None:
    together, alone = scores.tables(work, worth=1), scores.tables(work)
    assert len(together) == len(alone) == 3
    for place in (0, 2):
        one, other = together[place], alone[place]
        assert isinstance(one, pd.DataFrame)
        assert isinstance(other, pd.DataFrame)
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        pd.testing.assert_frame_equal(one, MachineMonitor.load(work[place][1]).score(work[place][0]), check_exact=True)
    assert isinstance(together[1], DataError)
    assert str(together[1]) == str(alone[1])
    assert "sampled at 6400 Hz" in str(together[1])
