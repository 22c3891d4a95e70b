"""A record in many files is the record, however it is cut, and is never in memory as a whole."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitoring import put

from unlabeled.core import fingerprint
from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_explain as explaining
from unlabeled.pipelines import sensors as jobs
from unlabeled.sensors import MachineMonitor, Recording, read
from unlabeled.sensors._parted import Parted

ROWS = 192  # of the plant's machines
PARTS = st.lists(st.integers(1, ROWS - 1), max_size=6, unique=True).map(sorted)


def in_parts(recording: Recording, folder: Path, cuts: list[int]) -> Path:
    """One file a part; names say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = [0, *cuts, len(recording)]
    for number, (low, high) in enumerate(itertools.pairwise(ends)):
        put(recording, slice(low, high), folder, f"logger-{(7 * number) % 11}-{number}")
    return folder


@pytest.fixture(scope="module")
def whole(plant: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The failing machine from one file."""
    return read(put(plant[3], slice(None), tmp_path_factory.mktemp("whole"), "pump7"))[0]


@settings(max_examples=6, deadline=None)
@given(cuts=PARTS)
def test_scores_do_not_depend_on_how_a_record_is_cut(
    cuts: list[int], plant: list[Recording], fitted: Path, expected: pd.DataFrame, whole: Recording,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    folder = in_parts(plant[3], tmp_path_factory.mktemp("cut") / "parts", cuts)
    (found,) = read(folder, all_of="pump7")
    assert isinstance(found.values, Parted) or not cuts
    assert fingerprint.of_array(found.values) == fingerprint.of_array(whole.values)
    pd.testing.assert_frame_equal(MachineMonitor.load(fitted / "pump7").score(found), expected)


def test_it_behaves_as_the_array_that_it_stands_for(plant: list[Recording], whole: Recording, tmp_path: Path) -> None:
    (found,) = read(in_parts(plant[3], tmp_path / "parts", [50, 60, 61, 150]), all_of="pump7")
    values, array = found.values, whole.values
    assert (values.shape, values.dtype, values.ndim, len(values)) == (array.shape, array.dtype, 3, len(array))
    np.testing.assert_array_equal(np.asarray(values), array)
    np.testing.assert_array_equal(values[np.int64(59)], array[59])
    np.testing.assert_array_equal(values[-1], array[-1])
    np.testing.assert_array_equal(np.asarray(values[55:70:3]), array[55:70:3])
    np.testing.assert_array_equal(values[np.array([150, 3, 61])], array[[150, 3, 61]])
    np.testing.assert_array_equal(values[..., [1, 0]][20:30][4], array[24][:, [1, 0]])
    np.testing.assert_array_equal(np.asarray(values[..., [1, 0]][..., [1]]), array[..., [0]])
    np.testing.assert_array_equal(values[40:52, :100, 1], array[40:52, :100, 1])
    assert sum(1 for _ in values) == len(array)
    some = found.rows(found.hours > 300)
    assert isinstance(some.values, Parted)
    np.testing.assert_array_equal(np.asarray(some.values), array[whole.hours > 300])


def test_two_files_are_in_memory_and_not_all_of_them(plant: list[Recording], fitted: Path, tmp_path: Path) -> None:
    folder = in_parts(plant[3], tmp_path / "parts", list(range(12, ROWS, 12)))
    monitor = MachineMonitor.load(fitted / "pump7")
    one_file = 12 * plant[3].values[0].nbytes
    monitor.score(read(folder, all_of="pump7")[0].rows(slice(0, 30)))  # whatever is loaded but once
    tracemalloc.start()
    try:
        monitor.score(read(folder, all_of="pump7")[0])
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plant[3].values.nbytes == 16 * one_file
    # Two files, what a reader has beside the one it reads, and tables.
    assert highest < 6.5 * one_file


def test_what_two_files_have_counts_once_and_is_said(plant: list[Recording], whole: Recording, tmp_path: Path) -> None:
    put(plant[3], slice(0, 110), tmp_path / "in", "a")
    put(plant[3], slice(100, ROWS), tmp_path / "in", "b")
    (found,) = read(tmp_path / "in", all_of="pump7")
    np.testing.assert_array_equal(np.asarray(found.values), whole.values)
    assert "10 row(s) left out: of a moment that another file has" in found.notes


def test_files_that_cannot_be_one_record_are_refused(plant: list[Recording], tmp_path: Path) -> None:
    put(plant[3], slice(0, 50), tmp_path / "in", "a")
    undated = tmp_path / "in" / "b.npz"
    np.savez(undated, acc=plant[3].values[:9], fs=12_800.0, t_s=np.arange(9.0))
    with pytest.raises(DataError, match=r"b\.npz has no dates, without which files cannot be put in order"):
        read(tmp_path / "in", all_of="pump7")
    undated.unlink()
    rate = tmp_path / "in" / "c.npz"
    np.savez(rate, acc=plant[3].values[:9], fs=6_400.0, timestamps=np.arange(9) * np.timedelta64(1, "h")
             + np.datetime64("2025-01-01"))  # fmt: skip
    with pytest.raises(DataError, match="are not alike"):
        read(tmp_path / "in", all_of="pump7")


def test_one_odd_file_is_left_out_and_listed(plant: list[Recording], whole: Recording, tmp_path: Path) -> None:
    folder = in_parts(plant[3], tmp_path / "in", [100])
    np.savez(folder / "odd.npz", acc=plant[3].values[:3, :2000], fs=12_800.0,
             timestamps=np.arange(3) * np.timedelta64(1, "h") + np.datetime64("2030-01-01"))  # fmt: skip
    np.savez(folder / "undated.npz", acc=plant[3].values[:3], fs=12_800.0, t_s=np.arange(3.0))
    left_out: list[tuple[str, str]] = []
    (found,) = read(folder, all_of="pump7", left_out=left_out)
    np.testing.assert_array_equal(np.asarray(found.values), whole.values)
    assert {name: why.partition(": ")[2] or why for name, why in left_out}["odd.npz"].startswith("samples (2560, 2)")
    assert "has no dates" in dict(left_out)["undated.npz"]


def test_a_file_that_changes_meanwhile_is_an_error(plant: list[Recording], fitted: Path, tmp_path: Path) -> None:
    folder = in_parts(plant[3], tmp_path / "in", [100])
    (found,) = read(folder, all_of="pump7")
    later = max(folder.glob("*-1.npz"))
    put(plant[3], slice(95, ROWS), folder, later.stem)
    with pytest.raises(DataError, match=rf"{later.name} has changed, or is gone, since it was first read"):
        MachineMonitor.load(fitted / "pump7").score(found)
    (found,) = read(folder, all_of="pump7")
    later.unlink()
    with pytest.raises(DataError, match="has changed, or is gone"):
        MachineMonitor.load(fitted / "pump7").score(found)


def test_a_failure_is_where_it_was_in_one_file(plant: list[Recording], tmp_path: Path) -> None:
    time = np.datetime64("2024-05-01") + np.arange(ROWS) * np.timedelta64(3, "h")
    seconds = (time - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
    for name, rows, failure in (("a", slice(0, 90), 160), ("b", slice(90, ROWS), 160), ("c", slice(150, 160), 165)):
        np.savez(tmp_path / f"{name}.npz", acc=plant[3].values[rows], fs=12_800.0, t_s=seconds[rows],
                 failure_t_s=seconds[failure])  # fmt: skip
    (found,) = read(tmp_path / "a.npz", tmp_path / "b.npz", all_of="pump7")
    assert found.failure_h == pytest.approx(160 * 3)
    assert found.end_row() == 161
    with pytest.raises(DataError, match="tell of failures at different times"):
        read(tmp_path, all_of="pump7")


def test_a_file_that_is_named_twice_is_one(plant: list[Recording], whole: Recording, tmp_path: Path) -> None:
    folder = in_parts(plant[3], tmp_path / "in", [100])
    (found,) = read(folder, min(folder.iterdir()), all_of="pump7")
    np.testing.assert_array_equal(np.asarray(found.values), whole.values)


def test_a_trend_in_parts_is_the_trend(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    time = pd.date_range("2024-05-01", periods=90, freq="10min")
    table = pd.DataFrame({"time": time, "rms": rng.normal(size=90), "temperature": rng.normal(size=90)})
    table.to_csv(tmp_path / "whole.csv", index=False)
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, rows in {"z": slice(0, 20), "a": slice(20, 75), "m": slice(75, 90)}.items():
        table.iloc[rows].to_csv(folder / f"{name}.csv", index=False)
    (one,), (other,) = read(tmp_path / "whole.csv"), read(folder, all_of="whole")
    np.testing.assert_array_equal(other.values, one.values)
    np.testing.assert_array_equal(other.clock, one.clock)
    assert other.asset == "whole"


def test_the_commands_take_a_record_in_parts(plant: list[Recording], fitted: Path, in_tmp: Path) -> None:
    folder = in_parts(plant[3], in_tmp / "parts", [40, 90, 140])
    one = put(plant[3], slice(None), in_tmp / "one", "pump7")
    jobs.fit([folder], out=in_tmp / "models", all_of="pump7", normal_share=0.5, encoder=fitted / "pump7")
    told = []
    for inputs, asset in (([one], None), ([folder], "pump7")):
        out = in_tmp / f"scores-{asset}"
        jobs.score(inputs, model=in_tmp / "models", out=out, all_of=asset)
        told.append(pd.read_csv(out / "scores.csv"))
        said = explaining.explain(inputs, model=in_tmp / "models", out=in_tmp / f"why-{asset}", all_of=asset)
        told.append(said.details["machines"]["pump7"])
    pd.testing.assert_frame_equal(told[0], told[2])
    assert told[1] == told[3]
