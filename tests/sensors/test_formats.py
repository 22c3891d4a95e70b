"""What laboratories and instruments write is read as an npz with the same arrays would be, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import soundfile
from nptdms import ChannelObject, TdmsWriter

from unlabeled.core.errors import DataError
from unlabeled.pipelines.cli import main
from unlabeled.sensors import _formats as formats
from unlabeled.sensors import read, simulate

RNG = np.random.default_rng(0)
FS = 10_000
RECORD = RNG.normal(size=(3 * FS // 10, 2)).astype(np.float32)  # three tenths of a second, two axes


def hdf5(path: Path, arrays: dict[str, Any], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def mat73(path: Path, arrays: dict[str, Any]) -> Path:
    """As MATLAB 7.3 writes it: HDF5 behind a header of 512 bytes, axes the other way round."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = np.atleast_2d(values).T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def mat5(path: Path, arrays: dict[str, Any]) -> Path:
    scipy.io.savemat(path, arrays)
    return path


def tdms(path: Path, channels: dict[str, np.ndarray], *, fs: float | None = FS, **properties: Any) -> Path:
    told = properties | ({"wf_increment": 1 / fs} if fs else {})
    with TdmsWriter(path) as writer:
        writer.write_segment([ChannelObject("bearing", n, v, properties=told) for n, v in channels.items()])
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [(mat5, "pump.mat"), (mat73, "pump.mat"), (hdf5, "pump.h5"), (hdf5, "pump.hdf5")],
)
def test_the_same_arrays_are_the_same_machine(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    arrays = {"acc": RNG.normal(size=(4, 600, 2)), "fs": 1000.0, "t_s": np.arange(4) * 600.0, "failure_t_s": 1500.0}
    np.savez(tmp_path / "pump.npz", **arrays)
    (expected,) = read(tmp_path / "pump.npz")
    # MATLAB's own order of three axes is kept too.
    if write is mat73:
        with h5py.File(tmp_path / name, "w", userblock_size=512) as file:
            for key, values in arrays.items():
                file[key] = np.asarray(values).T
        with (tmp_path / name).open("r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    else:
        write(tmp_path / name, arrays)
    (found,) = read(tmp_path / name)
    assert (found.asset, found.fs, found.names, found.failure_h) == ("pump", 1000.0, expected.names, expected.failure_h)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.hours, expected.hours)


@pytest.mark.parametrize("write", [mat5, mat73])
def test_bearing_data_as_case_western_names_them(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(
        tmp_path / "97.mat",
        {"X097_DE_time": RECORD[:, :1], "X097_FE_time": RECORD[:, 1:], "X097RPM": 1796.0},
    )
    with pytest.raises(DataError, match=r"97\.mat does not say its sampling rate: give it with --fs"):
        read(path)
    (one,) = read(path, fs=FS)
    assert one.names == ("de", "fe")
    np.testing.assert_array_equal(one.values.reshape(-1, 2), RECORD)
    assert "cut into 3 snapshots" in one.notes[0]


def test_channels_measured_alike_are_the_axes_of_one_record(tmp_path: Path) -> None:
    start = np.datetime64("2024-05-01T06:00:00.25")
    path = tdms(tmp_path / "fan.tdms", {"x": RECORD[:, 0], "y": RECORD[:, 1]}, wf_start_time=start, unit_string="g")
    (one,) = read(path)
    assert (one.asset, one.names) == ("fan", ("x", "y"))
    assert one.fs == pytest.approx(FS)
    np.testing.assert_array_equal(one.values.reshape(-1, 2), RECORD)
    assert one.clock is not None
    assert one.clock[2] == start + np.timedelta64(200, "ms")
    (alone,) = read(path, signal=["y"])
    assert alone.names == ("y",)
    np.testing.assert_array_equal(alone.values.reshape(-1), RECORD[:, 1])


def test_channels_measured_otherwise_are_asked_for_by_name(tmp_path: Path) -> None:
    with TdmsWriter(tmp_path / "rig.tdms") as writer:
        writer.write_segment(
            [
                ChannelObject("g", "acc 1", RECORD[:, 0], properties={"wf_increment": 1 / FS}),
                ChannelObject("g", "acc 2", RECORD[:, 1], properties={"wf_increment": 1 / FS}),
                ChannelObject("g", "oil", np.arange(3.0), properties={"wf_increment": 0.1}),
            ]
        )
    with pytest.raises(DataError, match=r"say with --signal which one it is \(has acc 1, acc 2, oil"):
        read(tmp_path / "rig.tdms")
    with pytest.raises(DataError, match="no array acc 3"):
        read(tmp_path / "rig.tdms", signal=["acc 3"], fs=FS)
    with pytest.raises(DataError, match="of different shapes"):
        read(tmp_path / "rig.tdms", signal=["acc 1", "oil"], fs=FS)
    (one,) = read(tmp_path / "rig.tdms", signal=["acc 2", "acc 1"])
    assert (one.fs, one.names) == (pytest.approx(FS), ("acc 2", "acc 1"))
    np.testing.assert_array_equal(one.values.reshape(-1, 2), RECORD[:, ::-1])


def test_a_channel_that_does_not_tell_its_rate_is_asked_for(tmp_path: Path) -> None:
    path = tdms(tmp_path / "a.tdms", {"x": RECORD[:, 0]}, fs=None)
    with pytest.raises(DataError, match="does not say its sampling rate"):
        read(path)
    assert read(path, fs=FS)[0].fs == FS


@pytest.mark.parametrize(("suffix", "step"), [(".wav", 2.0**-24), (".flac", 2.0**-23)])
def test_sounds_keep_all_their_bits_and_channels(tmp_path: Path, suffix: str, step: float) -> None:
    level = RECORD / np.abs(RECORD).max() * 0.9
    soundfile.write(tmp_path / f"a{suffix}", level, FS, subtype="PCM_24")
    (one,) = read(tmp_path / f"a{suffix}")
    assert (one.fs, one.names) == (FS, ("channel 1", "channel 2"))
    np.testing.assert_allclose(one.values.reshape(-1, 2), level, atol=2 * step)


def test_groups_and_other_names_of_a_rate(tmp_path: Path) -> None:
    deep = hdf5(tmp_path / "a.h5", {"run 1/motor/acc": RECORD, "run 1/motor/torque": np.arange(9.0)}, sampling_rate=FS)
    (one,) = read(deep)
    assert one.fs == FS
    np.testing.assert_array_equal(one.values.reshape(-1, 2), RECORD)
    two = hdf5(tmp_path / "b.h5", {"p/acc": RECORD, "q/acc": RECORD[:, ::-1]}, Fs=FS)
    with pytest.raises(DataError, match=r"--signal which one it is \(has fs, p/acc, q/acc\)"):
        read(two)
    np.testing.assert_array_equal(read(two, signal=["q/acc"])[0].values.reshape(-1, 2), RECORD[:, ::-1])


def test_dates_in_hdf5_are_texts(tmp_path: Path) -> None:
    dates = [f"2024-03-01T0{hour}:00:00" for hour in range(4)]
    path = hdf5(tmp_path / "a.h5", {"acc": RNG.normal(size=(4, 600)), "timestamps": dates}, fs=[1000.0, 1000.0][:1])
    (one,) = read(path)
    assert (one.fs, one.when(3)) == (1000.0, "2024-03-01 03:00:00")
    (start,) = read(hdf5(tmp_path / "b.h5", {"acc": RECORD, "start": "2024-03-01T06:00:00"}, fs=FS))
    assert start.when(0) == "2024-03-01 06:00:00"
    for wrong in (0.0, "soon", [0.0, 1.0]):
        with pytest.raises(DataError, match="'start' is no date"):
            read(hdf5(tmp_path / "c.h5", {"acc": RECORD, "start": wrong}, fs=FS))
    with pytest.raises(DataError, match="sampling rate is no number"):
        read(hdf5(tmp_path / "d.h5", {"acc": RECORD, "fs": "1000 Hz"}))


def test_rates_that_differ_from_array_to_array_are_not_mixed_up(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["fs"] = 1.0  # of the whole: each array's own comes first
        for name, rate in (("fast", FS), ("slow", FS // 2)):
            file[name] = RECORD
            file[name].attrs["Sampling_Rate"] = rate
    with pytest.raises(DataError, match="no signal array"):
        read(tmp_path / "a.h5")
    assert read(tmp_path / "a.h5", signal=["slow"])[0].fs == FS // 2
    assert read(tmp_path / "a.h5", signal=["fast"])[0].fs == FS
    with pytest.raises(DataError, match="does not say its sampling rate"):
        read(tmp_path / "a.h5", signal=["fast", "slow"])


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_damaged_files_are_left_out_by_name(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    whole = {
        ".npz": lambda p: np.savez(p, acc=RECORD, fs=FS),
        ".mat": lambda p: mat5(p, {"acc": RECORD, "fs": FS}),
        ".h5": lambda p: hdf5(p, {"acc": RECORD}, fs=FS),
        ".hdf5": lambda p: hdf5(p, {"acc": RECORD}, fs=FS),
        ".tdms": lambda p: tdms(p, {"x": RECORD[:, 0]}),
        ".wav": lambda p: soundfile.write(p, RECORD * 0.1, FS),
        ".flac": lambda p: soundfile.write(p, RECORD * 0.1, FS),
    }[suffix]
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    whole(good)
    # None: cut off in its head, as a copy that broke off.
    bad.write_bytes(good.read_bytes()[:40] if content is None else content)
    with pytest.raises(DataError, match=rf"bad\{suffix}"):
        read(bad)
    left_out: list[tuple[str, str]] = []
    assert [r.asset for r in read(tmp_path, left_out=left_out)] == ["good"]
    assert [name for name, _ in left_out] == [bad.name]


def test_nothing_is_read_from_elsewhere(tmp_path: Path) -> None:
    """HDF5 can point at other files: at raw bytes, at datasets, and by links."""
    (tmp_path / "secret.bin").write_bytes(RECORD.tobytes())
    hdf5(tmp_path / "other.h5", {"acc": RECORD})
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset(
            "acc", shape=RECORD.shape, dtype="f4", external=[(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
        )
    layout = h5py.VirtualLayout(shape=RECORD.shape, dtype="f4")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "acc", shape=RECORD.shape)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("acc", layout)
    for name in ("raw.h5", "virtual.h5"):
        with pytest.raises(DataError, match=r"acc keeps its numbers in other files"):
            read(tmp_path / name, fs=FS)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["acc"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "acc")
    with pytest.raises(DataError, match=r"no signal array.*has none"):
        read(tmp_path / "link.h5", fs=FS)


def test_a_size_that_a_header_claims_does_not_fill_the_memory(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("acc", shape=(2**40,), dtype="f4", chunks=(2**16,))
    with pytest.raises(DataError, match="acc claims 4096 GiB"):
        read(tmp_path / "a.h5", fs=FS)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.h5 needs the package h5py: pip install 'unlabeled\[formats\]'"):
        read(tmp_path / "a.h5")


def test_waveforms_of_a_table_are_chosen_too_and_indicators_are_not(tmp_path: Path) -> None:
    rows = {"t_s": np.arange(3.0), "fs": 1000.0, **{n: list(RNG.normal(size=(3, 600))) for n in ("x", "y")}}
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", signal=["y"])[0].names == ("y",)
    with pytest.raises(DataError, match=r"no waveforms in z \(has x, y\)"):
        read(tmp_path / "a.parquet", signal=["z"])
    pd.DataFrame({"t_s": np.arange(3.0), "rms": [1.0, 2, 3]}).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(DataError, match=r"b\.csv is a table of indicators.*leave --signal out"):
        read(tmp_path / "b.csv", signal=["rms"])


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_command_fits_and_scores_a_recorder_s_file(in_tmp: Path) -> None:
    machine = simulate.bearing("m1", seed=0, plan=simulate.Plan(days=30))
    hdf5(
        Path("m1.h5"),
        {"rig/left": machine.values[..., 0], "rig/right": machine.values[..., 1], "t_s": machine.hours * 3600},
        fs=machine.fs,
    )
    chosen = ["--signal", "left", "--signal", "right"]
    for command in (
        ["fit", "m1.h5", *chosen, "--out", "model", "--steps", "20"],
        ["score", "m1.h5", *chosen, "--model", "model", "--out", "scored"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["sensors", *command])
        assert ended.value.code == 0
    scores = pd.read_parquet("scored/scores.parquet")
    assert len(scores) == len(machine)
