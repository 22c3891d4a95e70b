"""A job meets a new regime: it tells of it or raises an alarm, an operator has it learnt, and the job goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monitoring import at_work, events, readings, wait_for
from test_vouched import AGAIN, KNOWN, NORMAL, ROWS, SMALL, STRETCH, two_speeds

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines._sensors_cases import cases
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.logbook import Logbook

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
EACH = 10  # readings a file
START = np.datetime64("2024-03-01T00:00:00", "ns")


def when(row: int) -> str:
    return str(START + np.timedelta64(row * 10, "m"))


def put(recording: Recording, rows: range, folder: Path) -> None:
    """As a recorder writes them: a few readings a file, each by a name of its own."""
    assert recording.conditions is not None
    folder.mkdir(exist_ok=True)
    for start in rows:
        part = recording.rows(slice(start, start + EACH))
        assert part.conditions is not None
        table = pd.DataFrame(part.values, columns=list(part.names))
        table = table.assign(time=[when(i) for i in part.index], speed=part.conditions[:, 0])
        table.to_csv(folder / f".{start:04d}.new", index=False)
        (folder / f".{start:04d}.new").rename(folder / f"r{start:04d}.csv")


def files(rows: slice) -> range:
    return range(rows.start, rows.stop, EACH)


@pytest.fixture(scope="module")
def fitted() -> MachineMonitor:
    return MachineMonitor(**SMALL).fit(two_speeds(), normal_share=NORMAL / ROWS)


@pytest.fixture
def job_file(fitted: MachineMonitor, in_tmp: Path) -> Path:
    fitted.save(in_tmp / "models" / "pump7")
    (in_tmp / "incoming").mkdir()
    path = in_tmp / "job.toml"
    path.write_text(
        'models = "models"\nevery_seconds = 0.05\n[[folders]]\npath = "incoming"\nasset = "pump7"\n'
        'operating = ["speed"]\nsettled_seconds = 0\n'
    )
    return path


def learn(*options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["sensors", "learn", "incoming", "--model", "models", "--all-of", "pump7", *options])
    return int(str(ended.value.code))


def test_a_running_job_takes_up_what_was_learnt_and_loses_nothing(
    job_file: Path, fitted: MachineMonitor, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, incoming = two_speeds(fault=True), job_file.parent / "incoming"
    with at_work(job_file):
        put(recording, files(slice(0, STRETCH.stop)), incoming)
        wait_for(lambda: len(readings(job_file)) == STRETCH.stop)
        assert [event["kind"] for event in events(job_file)] == ["new regime"]
        assert learn("--from", when(STRETCH.start), "--until", when(STRETCH.stop - 1), "--out", "models", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["learnt"]["snapshots"] == told["learnt"]["learnt"] == 60
        put(recording, files(slice(KNOWN.start, ROWS)), incoming)
        wait_for(lambda: len(readings(job_file)) == ROWS)
    model = MachineMonitor.load(job_file.parent / "models" / "pump7")
    found, whole = readings(job_file), model.score(recording)
    # As one model with the regime from the beginning would have judged, but for what was judged before it was learnt
    # and, at the return to known conditions, a trend's window that holds none of it.
    np.testing.assert_array_equal(found["score"][: STRETCH.start].astype(float), whole["score"][: STRETCH.start])
    assert set(found["state"][STRETCH]) == {"new regime"}
    settled = slice(KNOWN.start + SMALL["window"], ROWS)
    np.testing.assert_array_equal(found["score"][settled].astype(float), whole["score"][settled])
    assert "cannot judge" not in set(found["state"][KNOWN.start :])  # the window goes on, and is not begun anew
    assert found["state"][settled].tolist() == whole["state"][settled].tolist()
    kinds = [event["kind"] for event in events(job_file) if event["kind"] != "danger"]
    assert kinds == ["new regime", "alarm"]  # of the fault, in the regime that was learnt
    with Logbook(job_file.parent / "monitor.sqlite") as book:
        assert pd.Timestamp(book.cases()[0].opened) >= pd.Timestamp(when(AGAIN.start))


def test_a_model_that_learnt_says_so_on_disk_and_a_refusal_leaves_it_as_it_is(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, folder = two_speeds(), job_file.parent / "models" / "pump7"
    put(recording, files(slice(0, ROWS)), job_file.parent / "incoming")
    (job_file.parent / "incoming" / "broken.csv").write_text("no readings\n")
    before = (folder / "manifest.json").read_bytes()
    assert learn("--from", when(160), "--until", when(170), "--out", "models") == 1
    assert "11 of the 11 snapshots of the stretch are of a new regime, at least 30" in capsys.readouterr().err
    assert learn("--from", "12", "--out", "models") == 1
    assert "hours (12) count from the beginning of one file, and there are several" in capsys.readouterr().err
    assert learn("--from", "2025-01-01", "--out", "models") == 1
    assert "pump7: nothing was recorded from 2025-01-01 on" in capsys.readouterr().err
    assert (folder / "manifest.json").read_bytes() == before
    assert learn("--from", when(160), "--until", when(219), "--out", "other") == 0
    said = capsys.readouterr().out
    assert "60 of 60 snapshots from 2024-03-02 02:40:00 to 2024-03-02 12:30:00 are learnt as a new regime" in said
    assert "broken.csv is left out" in said
    (word,) = json.loads((job_file.parent / "other" / "pump7" / "manifest.json").read_text())["fitted"]["vouched_"]
    assert word["files"] == [f"r{start:04d}.csv" for start in files(STRETCH)]
    assert len(word["data"]) == 16
    assert (job_file.parent / "other" / "learnt-pump7.html").exists()


def test_without_a_name_the_files_of_several_machines_are_not_taken_for_one(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(two_speeds(), files(slice(0, 30)), job_file.parent / "incoming")
    with pytest.raises(SystemExit):
        main(["sensors", "learn", "incoming", "--model", "models", "--from", "2024-03-01"])
    assert "the readings are of 3 machines (r0000, r0010, r0020)" in capsys.readouterr().err


def test_after_a_repair_the_job_goes_on_with_the_machine_as_it_is_now(job_file: Path) -> None:
    recording, incoming = two_speeds(), job_file.parent / "incoming"
    recording.values[80:, 2] -= 15  # a bearing that runs cooler; the alarm is of nobody's making
    put(recording, files(slice(0, 160)), incoming)
    job.monitor(job_file, once=True)
    assert events(job_file)[0]["kind"] == "alarm"
    assert learn("--from", when(90), "--until", when(159), "--replace", "--out", "models") == 1
    assert learn("--from", when(90), "--until", when(159), "--replace", "--beyond-too", "--out", "models") == 0
    later = two_speeds(seed=1)
    later.values[:, 2] -= 15
    put(later, files(slice(220, 250)), incoming)
    job.monitor(job_file, once=True)
    kinds = [event["kind"] for event in events(job_file) if event["kind"] != "danger"]
    assert kinds == ["alarm", "cleared"]  # not opened twice, and cleared by calm readings alone


def test_a_new_regime_may_be_an_alarm_of_one_machine_and_one_case_an_episode(
    job_file: Path, fitted: MachineMonitor
) -> None:
    recording, home = two_speeds(), job_file.parent
    fitted.save(home / "models" / "fan2")
    text = job_file.read_text()
    job_file.write_text(
        f'{text}[[folders]]\npath = "fan"\nasset = "fan2"\noperating = ["speed"]\nsettled_seconds = 0\n'
        '[new_regime_of]\npump7 = "alarm"\n'
    )
    (home / "fan").mkdir()
    back = two_speeds(seed=2).rows(slice(0, 60))  # known conditions again after the second episode
    assert recording.conditions is not None
    assert back.conditions is not None
    recording.values[AGAIN.start + 30 : AGAIN.stop] = back.values
    recording.conditions[AGAIN.start + 30 : AGAIN.stop] = back.conditions
    for start in range(0, ROWS, EACH):  # a job that is ended and begun anew after each file
        for folder in ("incoming", "fan"):
            put(recording, range(start, start + EACH, EACH), home / folder)
        job.monitor(job_file, once=True)
    told = events(job_file)
    kinds: dict[str, list[Any]] = {name: [one["kind"] for one in told if one["asset"] == name] for name in
                                   ("pump7", "fan2")}  # fmt: skip
    assert kinds["pump7"] == ["new regime", "alarm", "cleared"] * 2
    assert kinds["fan2"] == ["new regime"] * 2
    said = cases(job_file)
    assert sum("new regime: speed" in line for line in said.lines) == 2
    assert len(said.details["cases"]) == 2
    job_file.write_text(job_file.read_text().replace('pump7 = "alarm"', 'pump7 = "ignore"'))
    with pytest.raises(DataError, match=r"new_regime_of.pump7 is report or alarm, got 'ignore'"):
        job.monitor(job_file, once=True)
