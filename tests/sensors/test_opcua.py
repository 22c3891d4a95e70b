"""Readings from a real OPC UA server, which the test starts: judged as files are, whoever is away in between."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monitoring import at_work, events, readings, same, stamps, wait_for

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines import _sensors_opcua
from unlabeled.sensors import Recording

pytest.importorskip("asyncua", reason="needs asyncua (extra 'opcua')")
from asyncua import ua
from opcua_server import Plc

START = np.datetime64("2024-03-01T00:00:00", "ns")


@pytest.fixture
def plc(plant: list[Recording]) -> Iterator[Plc]:
    """Holds the first snapshot."""
    found = Plc(dict.fromkeys(plant[3].names, np.zeros(0)))
    write(found, plant[3], 0)
    yield found
    found.stop()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the source has said."""
    lines: list[str] = []
    monkeypatch.setattr(_sensors_opcua, "say", lines.append)
    return lines


def job_of(folder: Path, models: Path, plc: Plc, axes: tuple[str, ...], fs: float | None, *more: str) -> Path:
    nodes = [f'[[opcua.nodes]]\nnode = "ns=2;s={axis}"\nasset = "pump7"\naxis = "{axis}"\nfs = {fs}' for axis in axes]
    path = folder / "job.toml"
    head = [f'models = "{models}"', "every_seconds = 0.2", "[opcua]", f'endpoint = "{plc.endpoint}"',
            "publishing_seconds = 0.04"]  # fmt: skip
    path.write_text("\n".join([*head, *more, *nodes]))
    return path


def write(plc: Plc, recording: Recording, row: int) -> None:
    """A snapshot, axis by axis."""
    axes = {name: recording.values[row, :, axis].astype(float) for axis, name in enumerate(recording.names)}
    plc.write(stamps(recording)[row], **axes)


def dates(job_file: Path) -> list[np.datetime64]:
    return list(pd.to_datetime(readings(job_file)["time"]).to_numpy())


def write_all(plc: Plc, recording: Recording, rows: range, job_file: Path) -> None:
    """One after another, as nobody acknowledges them."""
    for row in rows:
        write(plc, recording, row)
        wait_for(lambda row=row: len(readings(job_file)) == row + 1)


@pytest.mark.integration
def test_waveforms_of_a_server_are_judged_as_a_whole_record(
    plant: list[Recording], fitted: Path, expected: pd.DataFrame, plc: Plc, tmp_path: Path
) -> None:
    job_file = job_of(tmp_path, fitted, plc, plant[3].names, plant[3].fs)
    with at_work(job_file):
        write_all(plc, plant[3], range(192), job_file)
        wait_for(lambda: len(events(job_file)) == 2)
    found = readings(job_file)
    same(found, expected)
    assert dates(job_file) == list(stamps(plant[3]))
    assert [event["kind"] for event in events(job_file)] == ["alarm", "danger"]


@pytest.mark.integration
def test_a_server_that_was_away_is_found_again_and_a_job_that_was_begins_with_what_stands(
    plant: list[Recording], fitted: Path, plc: Plc, tmp_path: Path, said: list[str]
) -> None:
    job_file = job_of(tmp_path, fitted, plc, plant[3].names, plant[3].fs)
    with at_work(job_file):
        write_all(plc, plant[3], range(10), job_file)
        plc.stop()
        wait_for(lambda: any("is away" in line for line in said))
        plc.start()
        wait_for(lambda: sum("connected" in line for line in said) == 2)
        write_all(plc, plant[3], range(10, 20), job_file)
    write(plc, plant[3], 20)  # nobody is there: it is written over before somebody is, and lost
    write(plc, plant[3], 21)
    with at_work(job_file):
        wait_for(lambda: len(readings(job_file)) == 21)
        write(plc, plant[3], 22)
        wait_for(lambda: len(readings(job_file)) == 22)
    assert dates(job_file) == list(stamps(plant[3])[[*range(20), 21, 22]])
    assert [line.split("(")[0].strip() for line in said[:2]] == [
        f"connected to the OPC UA server at {plc.endpoint}", f"the OPC UA server at {plc.endpoint} is away",
    ]  # fmt: skip


@pytest.mark.integration
def test_a_status_that_is_not_good_cannot_be_judged_and_the_others_can(
    plant: list[Recording], fitted: Path, expected: pd.DataFrame, plc: Plc, tmp_path: Path
) -> None:
    job_file, recording = job_of(tmp_path, fitted, plc, plant[3].names, plant[3].fs), plant[3]
    with at_work(job_file):
        write_all(plc, recording, range(5), job_file)
        first, *others = recording.names
        plc.write(stamps(recording)[5], **{first: None}, status=ua.StatusCodes.BadSensorFailure)
        plc.write(stamps(recording)[5], **{name: recording.values[5, :, 1].astype(float) for name in others})
        wait_for(lambda: len(readings(job_file)) == 6)
        write_all(plc, recording, range(6, 10), job_file)
    found = readings(job_file)
    assert found["state"].tolist() == [*["normal"] * 5, "cannot judge", *["normal"] * 4]
    assert found["reason"][5] == f"{first} is BadSensorFailure"
    np.testing.assert_array_equal(found["score"][:5].to_numpy(dtype=float), expected["score"][:5].to_numpy())


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from unlabeled.pipelines import _sensors_monitor as job
job.monitor(Path(sys.argv[1]))
"""


@pytest.mark.integration
def test_killed_it_raises_no_alarm_twice_and_judges_no_reading_twice(
    plant: list[Recording], fitted: Path, plc: Plc, tmp_path: Path
) -> None:
    job_file, recording = job_of(tmp_path, fitted, plc, plant[3].names, plant[3].fs), plant[3]
    told = []
    for start in (0, 64, 128):
        command = [sys.executable, "-c", KILLED, str(job_file)]
        running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
        try:
            write_all(plc, recording, range(start, start + 64), job_file)
        finally:
            running.kill()
        assert running.wait() == -signal.SIGKILL
        told.append(len(events(job_file)))
    with at_work(job_file):  # what was kept and not told before the last end is told
        wait_for(lambda: len(events(job_file)) >= 2)
    assert told[:2] == [0, 0]
    assert [(event["id"], event["kind"]) for event in events(job_file)] == [(1, "alarm"), (2, "danger")]
    assert dates(job_file) == list(stamps(recording))


@pytest.mark.integration
def test_a_node_that_is_not_there_is_named_and_asked_for_again(
    plant: list[Recording], fitted: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sensors_opcua, "_MISSING_S", 0.2)
    names = plant[3].names
    plc = Plc(dict.fromkeys(names[1:], np.zeros(0)))
    first = plant[3].values[0].astype(float)
    plc.write(stamps(plant[3])[0], **{name: first[:, axis] for axis, name in enumerate(names) if axis})
    try:
        job_file = job_of(tmp_path, fitted, plc, names, plant[3].fs)
        with at_work(job_file):
            wait_for(lambda: len(said) == 2)
            assert said[0] == (
                f"opcua.nodes: the server gives nothing of ns=2;s={names[0]} (BadNodeIdUnknown); trying again"
            )
            plc.add(names[0], first[:, 0], stamps(plant[3])[0])
            wait_for(lambda: len(readings(job_file)) == 1)
        assert len(said) == 2
    finally:
        plc.stop()


@pytest.mark.integration
def test_a_machine_of_which_a_node_never_tells_anything_does_not_wait_in_silence(
    plant: list[Recording], fitted: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sensors_opcua, "_PATIENCE_S", 0.1)
    dead, *names = plant[3].names
    plc = Plc(dict.fromkeys(names, np.zeros(0)))
    first = plant[3].values[0].astype(float)
    plc.write(stamps(plant[3])[0], **{name: first[:, axis + 1] for axis, name in enumerate(names)})
    try:
        job_file = job_of(tmp_path, fitted, plc, plant[3].names, plant[3].fs)
        with at_work(job_file):
            wait_for(lambda: len(said) == 3)
            wait_for(lambda: len(readings(job_file)) == 1)
    finally:
        plc.stop()
    assert readings(job_file)["state"].tolist() == ["cannot judge"]
    assert readings(job_file)["reason"][0] == f"{dead} is silent (ns=2;s={dead}: nothing for 0.4 s)"
    assert said[2:] == [
        f"pump7: its readings cannot be judged: ns=2;s={dead} has told nothing of the same moment for 0.4 s"
    ]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_server_that_speaks_only_encrypted_to_one_user(
    plant: list[Recording], fitted: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plc", "job", "other"):
        uri = "urn:freeopcua:python:server" if name == "plc" else f"urn:plant.example:{name}"
        command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                   f"subjectAltName=URI:{uri},DNS:localhost", "-keyout", str(tmp_path / f"{name}-key.pem"), "-out",
                   str(tmp_path / f"{name}.pem")]  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    names = plant[3].names
    plc = Plc(dict.fromkeys(names, np.zeros(0)), certificate=tmp_path / "plc.pem", key=tmp_path / "plc-key.pem")
    told = ['security = "Basic256Sha256"', 'certificate = "job.pem"', 'private_key = "job-key.pem"',
            'username = "monitor"', 'password_file = "word"']  # fmt: skip
    try:
        write(plc, plant[3], 0)
        cases = (("plc", "wrong", "away"), ("other", "secret", "away"), ("plc", "secret", "connected"))
        for server, word, why in cases:
            (tmp_path / "word").write_text(f"{word}\n")
            said.clear()
            job_file = job_of(tmp_path, fitted, plc, names, plant[3].fs, *told, f'server_certificate = "{server}.pem"')
            with at_work(job_file):
                wait_for(lambda: len(said) > 0)
                assert why in said[0]
                if why == "connected":
                    write_all(plc, plant[3], range(2), job_file)
            assert len(readings(job_file)) == (2 if why == "connected" else 0)
    finally:
        plc.stop()
    assert b"secret" not in b"".join(p.read_bytes() for p in tmp_path.glob("*") if p.is_file() and p.name != "word")


def opcua(folder: Path, *lines: str) -> Path:
    node = '[[opcua.nodes]]\nnode = "ns=2;s=x"\nasset = "a"\nindicator = "rms"'
    (folder / "job.toml").write_text("\n".join(['models = "m"', "[opcua]", "every_seconds = 60", *lines, node]))
    return folder / "job.toml"


def test_what_is_of_no_use_is_told_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = 'endpoint = "opc.tcp://localhost:4"'
    with pytest.raises(DataError, match=r"the environment has no WORD, which \[opcua\] names"):
        job.monitor(opcua(tmp_path, where, 'username = "u"', 'password_env = "WORD"'))
    names = ("certificate", "private_key", "server_certificate")
    files = ['security = "Basic256Sha256"', *(f'{name} = "no"' for name in names)]
    with pytest.raises(DataError, match=r"opcua.certificate: .*no does not exist"):
        job.monitor(opcua(tmp_path, where, *files))
    (tmp_path / "no").write_text("none")
    with pytest.raises(DataError, match="no is no certificate"):
        job.monitor(opcua(tmp_path, where, *files))
    path = opcua(tmp_path, where)
    path.write_text(path.read_text().replace("ns=2;s=x", "Pump7"))
    with pytest.raises(DataError, match="'Pump7' is no id such as"):
        job.monitor(path)
    monkeypatch.setitem(sys.modules, "asyncua", None)
    with pytest.raises(DataError, match=r"pip install 'unlabeled\[opcua\]'"):
        job.monitor(opcua(tmp_path, where))
