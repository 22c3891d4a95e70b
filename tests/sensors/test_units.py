"""What numbers are in is read where a file says it, kept with the model, and never mixed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_explain import Moment, explain
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.sensors import MachineMonitor, read, units
from unlabeled.sensors.severity import severities

FS = 2048.0


def snapshots(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1024)).astype(np.float32)


def npz(path: Path, **more: object) -> Path:
    np.savez(path, acc=snapshots(), t_s=np.arange(60) * 600.0, fs=FS, allow_pickle=False, **more)
    return path


def table(path: Path, unit: object) -> Path:
    n = 60
    rng = np.random.default_rng(1)
    time = pd.date_range("2024-01-01", periods=n, freq="h")
    pd.DataFrame({"time": time, "rms": rng.normal(1, 0.1, n), "peak": rng.normal(3, 0.2, n), "unit": unit}).to_csv(
        path, index=False
    )
    return path


@pytest.mark.parametrize(
    ("said", "name"), [("g", "g"), (" m/s^2", "m/s2"), ("m/s²", "m/s2"), ("MM/S", "mm/s"), ("furlong", "furlong")]
)
def test_spellings_of_one_unit_are_one_unit(said: str, name: str) -> None:
    assert units.named(said) == name


def test_a_column_of_units_is_no_column_of_machines(tmp_path: Path) -> None:
    (recording,) = read(table(tmp_path / "pump.csv", "mm/s"))
    assert (recording.asset, recording.unit, recording.names) == ("pump", "mm/s", ("rms", "peak"))


def test_a_machine_that_is_called_by_a_letter_is_a_machine(tmp_path: Path) -> None:
    assert [r.asset for r in read(table(tmp_path / "fleet.csv", ["A", "C"] * 30))] == ["A", "C"]


def test_a_column_called_unit_that_counts_machines_is_one_of_machines(tmp_path: Path) -> None:
    found = read(table(tmp_path / "fleet.csv", ["1", "2"] * 30))
    assert [(r.asset, r.unit, len(r)) for r in found] == [("1", "", 30), ("2", "", 30)]


def test_values_of_one_machine_in_two_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="values are in g and in mm/s: convert them"):
        read(table(tmp_path / "pump.csv", ["g", "mm/s"] * 30))


def test_arrays_hdf5_and_tdms_say_it(tmp_path: Path) -> None:
    h5py, nptdms = pytest.importorskip("h5py"), pytest.importorskip("nptdms")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["acc"], file["t_s"], file["fs"] = snapshots(), np.arange(60) * 600.0, FS
        file["acc"].attrs["units"] = "m/s^2"
    with nptdms.TdmsWriter(tmp_path / "c.tdms") as writer:
        writer.write_segment(
            [nptdms.ChannelObject("g", "x", snapshots(1)[0], {"wf_increment": 1 / FS, "unit_string": "gn"})]
        )
    inputs = [npz(tmp_path / "a.npz", unit=np.array("G")), tmp_path / "b.h5", tmp_path / "c.tdms"]
    assert [recording.unit for recording in read(*inputs)] == ["g", "m/s2", "g"]
    assert read(npz(tmp_path / "d.npz"))[0].unit == ""


def test_a_message_says_it() -> None:
    payload = b'{"asset": "p", "time": "2024-03-01T06:00:00Z", "indicators": {"rms": 1.0}, "unit": "m/s^2"}'
    assert recording_of(payload).unit == "m/s2"
    with pytest.raises(DataError, match="'unit' is no text"):
        recording_of(payload.replace(b'"m/s^2"', b"3"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units")
    (recording,) = read(npz(folder / "pump.npz", unit=np.array("g")))
    return MachineMonitor(steps=2).fit(recording, normal_share=0.8).save(folder / "model")


def test_a_model_keeps_its_unit_and_refuses_another(fitted: Path, tmp_path: Path) -> None:
    monitor = MachineMonitor.load(fitted)
    (other,) = read(npz(tmp_path / "pump.npz", unit=np.array("m/s2")))
    with pytest.raises(DataError, match="fitted on values in g, those of pump are in m/s2"):
        monitor.score(other)
    (silent,) = read(npz(tmp_path / "pump.npz"))
    assert len(monitor.score(silent)) == 60  # a file that says nothing is taken at its word


def test_a_severity_takes_the_files_unit_and_no_other(fitted: Path, tmp_path: Path) -> None:
    path = npz(tmp_path / "pump.npz", unit=np.array("g"))
    done = explain([path], model=fitted, out=tmp_path / "why", moment=Moment(machine_class="2-rigid"))
    (told,) = done.details["machines"]["pump"]["severity"]
    (in_g,) = read(path)
    expected = severities(in_g.values[-9:], axes=in_g.names, fs=FS, unit="g", machine_class="2-rigid", shaft_hz=None)[0]
    assert told["velocity"] == pytest.approx(expected.velocity)
    moment = Moment(machine_class="2-rigid", unit="mm/s")
    with pytest.raises(DataError, match="it is in g, --unit says mm/s"):
        explain([path], model=fitted, out=tmp_path / "other", moment=moment)
