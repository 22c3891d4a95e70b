"""The job that runs for months: what it says is what scoring everything at once says, whatever happens in between."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monitoring import events, put, put_all, put_later, readings, stamps, wait_for

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_cases as told_of
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording, read, simulate
from unlabeled.sensors.logbook import Logbook

NORMAL = 96  # of the plant's 192 snapshots

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert found["state"].tolist() == expected["state"].tolist()
    for name in ("score", "smoothed"):
        np.testing.assert_array_equal(found[name].to_numpy(dtype=float), expected[name].to_numpy())


def test_file_by_file_it_says_what_the_whole_record_says(
    plant: list[Recording], job_file: Path, expected: pd.DataFrame
) -> None:
    failing, incoming = plant[3], job_file.parent / "incoming"
    for start in range(0, len(failing), 48):  # a new process each time, as far as memory goes
        put_all(failing.rows(slice(start, start + 48)), incoming / ".." / "incoming", each=48)
        (incoming / "r0000.npz").rename(incoming / f"s{start:04d}.npz")
        done = job.monitor(job_file, once=True)
        assert done.details["judged"] == 48
    same(readings(job_file), expected)
    told = events(job_file)
    (alarm,) = [event for event in told if event["kind"] == "alarm"]
    first = int(np.flatnonzero(expected["alarm"])[0])
    assert alarm["time"] == str(stamps(failing)[first])
    assert alarm["asset"] == "pump7"
    assert alarm["smoothed"] > alarm["threshold"]
    assert any("rose from" in words for words in alarm["words"])
    # Once more there is nothing to do and nothing is told again.
    assert job.monitor(job_file, once=True).details == {"judged": 0, "files_read": 0, "open": ["pump7"]}
    assert events(job_file) == told


def test_doubles_count_once_and_late_readings_change_nothing(
    plant: list[Recording], job_file: Path, expected: pd.DataFrame
) -> None:
    failing, incoming = plant[3], job_file.parent / "incoming"
    put(failing, slice(0, 40), incoming, "a")
    put(failing, slice(60, 192), incoming, "b")
    os.utime(incoming / "a.npz", (1, 1))
    job.monitor(job_file, once=True)
    before = readings(job_file)
    put(failing, slice(30, 60), incoming, "c")  # ten known, twenty that come too late
    put(failing, slice(50, 62), incoming, "d")  # all known by now
    os.utime(incoming / "c.npz", (2, 2))
    assert job.monitor(job_file, once=True).details["judged"] == 0
    after = readings(job_file)
    late = after[after["state"] == "late"]
    assert late["time"].tolist() == [str(at) for at in stamps(failing)[40:60]]
    pd.testing.assert_frame_equal(after[after["state"] != "late"].reset_index(drop=True), before)
    (told,) = [event for event in events(job_file) if event["kind"] == "late"]
    assert told["readings"] == 20
    # What was judged before the gap is what it would have been without it.
    same(before.head(40), expected.head(40))


def test_a_growing_log_is_taken_up_where_it_grew(job_file: Path, tmp_path: Path) -> None:
    n = 300
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=n, freq="h"), "rms": draw.normal(1, 0.1, n)})
    table["temperature"] = 40 + draw.normal(0, 1, n)
    table.to_csv(tmp_path / "whole.csv", index=False)
    whole = read(tmp_path / "whole.csv")[0]
    model = MachineMonitor(steps=20, dim=32, depth=1).fit(whole, normal_share=0.5)
    model.save(tmp_path / "trend")
    job_file.write_text(job_file.read_text().replace("models = ", 'models = "trend" #'))
    log = tmp_path / "incoming" / "log.csv"
    for end in (10, 100, 101, n):
        table.head(end).to_csv(tmp_path / "new.csv", index=False)
        os.replace(tmp_path / "new.csv", log)
        job.monitor(job_file, once=True)
    same(readings(job_file), model.score(whole))


def test_what_cannot_be_read_is_told_once_and_read_when_it_is_mended(plant: list[Recording], job_file: Path) -> None:
    incoming = job_file.parent / "incoming"
    (incoming / "bad.npz").write_bytes(b"garbage")
    simulate.write(plant[3].rows(slice(0, 8)), incoming)  # seconds, no dates
    put(plant[3], slice(0, 8), incoming, "half").rename(incoming / "half.npz.part")
    (incoming / ".hidden.npz").write_bytes(b"garbage")
    for _ in range(2):
        assert job.monitor(job_file, once=True).details["judged"] == 0
    told = {str(event["file"]): str(event["why"]) for event in events(job_file)}
    assert len(events(job_file)) == len(told) == 2
    assert "no npz archive" in told["incoming/bad.npz"]
    assert "has no dates" in told["incoming/failing-1.npz"]
    put(plant[3], slice(0, 8), incoming, "bad")
    assert job.monitor(job_file, once=True).details["judged"] == 8


def test_a_clock_that_runs_ahead_does_not_make_all_others_late(plant: list[Recording], job_file: Path) -> None:
    incoming = job_file.parent / "incoming"
    path = put(plant[3], slice(0, 4), incoming, "a")
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["timestamps"] = np.array([*arrays["timestamps"][:2], "2199-01-01T00:00:00", arrays["timestamps"][3]])
    np.savez(incoming / "a.npz", **arrays)
    assert job.monitor(job_file, once=True).details["judged"] == 3
    (told,) = events(job_file)
    assert told["why"] == "readings are dated ahead of now"
    put(plant[3], slice(4, 8), incoming, "b")
    assert job.monitor(job_file, once=True).details["judged"] == 4


def test_a_case_lives_from_open_to_acknowledged_to_cleared(
    plant: list[Recording], job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, incoming = plant[3], job_file.parent / "incoming"
    with pytest.raises(DataError, match="has not run yet"):
        told_of.cases(job_file)
    put(failing, slice(0, 192), incoming, "a")
    job.monitor(job_file, once=True)
    with pytest.raises(SystemExit) as ended:
        main(["sensors", "cases", str(job_file), "--acknowledge", "1"])
    assert ended.value.code == 0
    assert "case 1, pump7: acknowledged, since 2024-03-2" in capsys.readouterr().out
    with pytest.raises(DataError, match="there is no open case 1"):
        told_of.cases(job_file, acknowledge=1)
    # Mended: it runs as it ran in its first days.
    put_later(failing.rows(slice(0, 60)), incoming, "b")
    job.monitor(job_file, once=True)
    told = told_of.cases(job_file)
    (case,) = told.details["cases"]
    assert case["state"] == "cleared"
    # From the first reading to the last but for the pause between the files, of which a day counts.
    hours = failing.hours[191] - failing.hours[0] + 24 + failing.hours[59] - failing.hours[0]
    assert told.details["machine_months"] == pytest.approx(hours / 730.5)
    assert told.details["cleared"] == 1
    assert f"In {hours / 730.5:.2g} machine-months 1 alarm(s) cleared again" in told.headline
    assert case["cleared"] > case["opened"]
    assert [event["kind"] for event in events(job_file)] == ["alarm", "danger", "cleared"]


def test_a_silent_machine_is_told_of_once_a_silence(plant: list[Recording], job_file: Path) -> None:
    job_file.write_text("silent_hours = 6\n" + job_file.read_text())
    put(plant[3], slice(0, 8), job_file.parent / "incoming", "a")
    for _ in range(2):
        job.monitor(job_file, once=True)
    assert [event["kind"] for event in events(job_file)] == ["silent"]


def test_what_a_crash_left_half_told_is_told_again_and_nothing_twice(plant: list[Recording], job_file: Path) -> None:
    put(plant[3], slice(0, 192), job_file.parent / "incoming", "a")
    (job_file.parent / "incoming" / "bad.npz").write_bytes(b"garbage")
    path = job_file.parent / "events.jsonl"
    path.write_text("of another job\n")
    before = len(path.read_bytes())
    job.monitor(job_file, once=True)
    whole = path.read_bytes()
    assert whole.startswith(b"of another job\n")
    assert whole.count(b"\n") == 4
    first = whole.index(b"\n", before) + 1
    # Killed after writing so much, before the logbook knew of it.
    for last, place, kept in (
        (0, before, before), (0, before, before + 1), (0, before, first), (0, before, len(whole)),
        (1, first, first), (1, first, len(whole) - 1), (1, first, len(whole)), (3, len(whole), len(whole)),
    ):  # fmt: skip
        path.write_bytes(whole[:kept])
        with Logbook(job_file.parent / "monitor.sqlite") as book:
            book.move_cursor(f"lines {path}", last, place)
        job.monitor(job_file, once=True)
        assert path.read_bytes() == whole


def test_lines_that_were_put_away_are_not_told_again(plant: list[Recording], job_file: Path) -> None:
    put(plant[3], slice(0, 192), job_file.parent / "incoming", "a")
    job.monitor(job_file, once=True)
    path = job_file.parent / "events.jsonl"
    path.rename(path.with_suffix(".old"))
    job.monitor(job_file, once=True)
    assert not path.exists()
    (job_file.parent / "incoming" / "bad.npz").write_bytes(b"garbage")
    job.monitor(job_file, once=True)
    assert [event["kind"] for event in events(job_file)] == ["refused"]
    # A new logbook beside old lines tells all that it finds.
    for old in job_file.parent.glob("monitor.sqlite*"):
        old.unlink()
    job.monitor(job_file, once=True)
    assert sorted(str(event["kind"]) for event in events(job_file)) == ["alarm", "danger", "refused", "refused"]


def test_folders_with_files_of_one_name_are_not_mixed_up(
    plant: list[Recording], job_file: Path, tmp_path: Path
) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "incoming").mkdir(parents=True)
    text = job_file.read_text().partition("[[folders]]")[0]
    job_file.write_text(text + "".join(
        f'[[folders]]\npath = "{place}/incoming"\nasset = "pump7"\nsettled_seconds = 0\n' for place in ("a", "b")
    ))  # fmt: skip
    for place, rows in (("a", slice(0, 8)), ("b", slice(8, 16))):
        path = put(plant[3], rows, tmp_path / place / "incoming", "r")
        os.utime(path, (1, 1))
    assert job.monitor(job_file, once=True).details["judged"] == 16
    assert job.monitor(job_file, once=True).details["files_read"] == 0


def test_a_model_that_is_away_loses_no_reading(
    plant: list[Recording], job_file: Path, fitted: Path, tmp_path: Path
) -> None:
    shutil.copytree(fitted / "pump7", tmp_path / "models" / "fan2")
    job_file.write_text(job_file.read_text().replace(f'"{fitted}"', '"models"'))
    put(plant[3], slice(0, 8), tmp_path / "incoming", "a")
    for _ in range(2):  # another machine's model does not stand in
        assert job.monitor(job_file, once=True).details["judged"] == 0
    assert [event["why"] for event in events(job_file)] == ["there is no model of pump7 in models"]
    shutil.copytree(fitted / "pump7", tmp_path / "models" / "pump7")
    assert job.monitor(job_file, once=True).details["judged"] == 8


def test_a_model_that_is_fitted_anew_does_not_clear_a_case(
    plant: list[Recording], job_file: Path, fitted: Path, tmp_path: Path
) -> None:
    shutil.copytree(fitted / "pump7", tmp_path / "models" / "pump7")
    job_file.write_text(job_file.read_text().replace(f'"{fitted}"', '"models"'))
    put(plant[3], slice(0, 186), tmp_path / "incoming", "a")
    job.monitor(job_file, once=True)
    MachineMonitor.load(fitted / "pump7").set_params(sigmas=5.5).fit(plant[3], normal_share=0.5).save(
        tmp_path / "models" / "pump7"
    )
    put(plant[3], slice(186, 192), tmp_path / "incoming", "b")
    job.monitor(job_file, once=True)
    assert [event["kind"] for event in events(job_file)] == ["alarm", "danger"]
    (case,) = told_of.cases(job_file).details["cases"]
    assert case["state"] == "open"
    # Calm for long enough, it clears as any other.
    put_later(plant[3].rows(slice(0, 60)), tmp_path / "incoming", "c")
    job.monitor(job_file, once=True)
    assert [event["kind"] for event in events(job_file)] == ["alarm", "danger", "cleared"]


ODD: dict[str, dict[str, Any]] = {
    "start": {"acc": np.zeros(3000), "fs": 1000.0, "start": 0.0},
    "text-start": {"acc": np.zeros(3000), "fs": 1000.0, "start": "soon"},
    "text-fs": {"acc": np.zeros(3000), "fs": "1000 Hz", "start": "2024-01-01"},
    "fs-twice": {"acc": np.zeros(3000), "fs": [1.0, 2.0], "start": "2024-01-01"},
    "running": {"acc": np.zeros((2, 600)), "fs": 1000.0, "timestamps": ["2024-01-01", "2024-01-02"], "running": [True]},
    "nothing": {"acc": np.zeros((0, 600)), "fs": 1000.0, "timestamps": np.zeros(0, dtype="<U9")},
    "no-axes": {"acc": np.zeros((2, 600, 0)), "fs": 1000.0, "timestamps": ["2024-01-01", "2024-01-02"]},
    "inf": {"acc": np.zeros((2, 600)), "fs": np.inf, "timestamps": ["2024-01-01", "2024-01-02"]},
}  # fmt: skip


def test_whatever_a_file_holds_the_job_goes_on(plant: list[Recording], job_file: Path) -> None:
    incoming = job_file.parent / "incoming"
    for name, arrays in ODD.items():
        np.savez(incoming / f"{name}.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    (incoming / "loop.npz").symlink_to("loop.npz")
    (incoming / "folder.npz").mkdir()
    put(plant[3], slice(0, 8), incoming, "zz-good")
    os.utime(incoming / "zz-good.npz", (2**33, 2**33))  # a clock ahead
    assert job.monitor(job_file, once=True).details["judged"] == 8
    assert {str(event["file"]) for event in events(job_file)} == {f"incoming/{name}.npz" for name in ODD}


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from unlabeled.core.progress import quiet
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.sensors import MachineMonitor
quiet(True)
MachineMonitor.load(sys.argv[2])  # whatever is imported late
draw, killed = random.Random(0), 0
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if not child:
        job.monitor(Path(sys.argv[1]), once=True)
        os._exit(0)
    time.sleep(draw.uniform(0.0, float(sys.argv[4])))
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(killed)
"""


def test_killed_hundreds_of_times_it_loses_nothing_and_tells_nothing_twice(
    plant: list[Recording], job_file: Path, fitted: Path, expected: pd.DataFrame
) -> None:
    put_all(plant[3], job_file.parent / "incoming", each=1)
    for at, path in enumerate(sorted((job_file.parent / "incoming").iterdir())):
        os.utime(path, (at + 1, at + 1))
    began = time.monotonic()
    job.monitor(job_file, once=True)
    whole = time.monotonic() - began
    undisturbed = events(job_file)
    for path in job_file.parent.glob("monitor.sqlite*"):
        path.unlink()
    (job_file.parent / "events.jsonl").unlink()
    kills = 300
    # Two or three readings a life, so that all of them die in the midst of work.
    reach = str(6 * whole / len(plant[3]))
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(job_file), str(fitted / "pump7"), str(kills), reach],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert int(done.stdout.split()[-1]) > kills / 2
    job.monitor(job_file, once=True)
    same(readings(job_file), expected)
    assert events(job_file) == undisturbed


def test_it_runs_until_it_is_told_to_stop_and_takes_a_new_model_up(
    plant: list[Recording], job_file: Path, fitted: Path, tmp_path: Path
) -> None:
    own = tmp_path / "models"
    MachineMonitor.load(fitted / "pump7").save(own / "pump7")
    job_file.write_text(job_file.read_text().replace(f'"{fitted}"', '"models"'))
    running = subprocess.Popen(
        [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()", "sensors", "monitor", str(job_file)]
    )
    try:
        put(plant[3], slice(0, 8), tmp_path / "incoming", "a")
        wait_for(lambda: (tmp_path / "monitor.sqlite").exists() and len(readings(job_file)) == 8)
        MachineMonitor.load(fitted / "pump7").set_params(sigmas=9.0).fit(plant[3], normal_share=0.5).save(own / "pump7")
        put(plant[3], slice(8, 16), tmp_path / "incoming", "b")
        wait_for(lambda: len(readings(job_file)) == 16)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0
    finally:
        running.kill()
        running.wait()
    found = readings(job_file)
    # Another model begins with nothing remembered: its smoothing holds its own scores alone.
    assert found["smoothed"][8] == found["score"][8]


def test_two_that_begin_at_once_make_one_logbook(tmp_path: Path) -> None:
    opened: list[Logbook] = []
    ready = threading.Barrier(8)

    def begin() -> None:
        ready.wait()
        with Logbook(tmp_path / "l.sqlite") as book:
            opened.append(book)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8


def test_another_file_is_no_logbook(job_file: Path) -> None:
    (job_file.parent / "monitor.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(DataError, match="is no logbook of a monitoring job"):
        job.monitor(job_file, once=True)


def test_no_file_is_passed_over_for_one_that_came_after_it(tmp_path: Path) -> None:
    """A folder that changes while it is listed may show a file and not the one that was there before it."""
    folder = job.Folder(path=tmp_path / "incoming", settled_seconds=0.0)
    folder.path.mkdir()
    count, looks = 3000, 0
    done = threading.Event()

    def come() -> None:
        for number in range(count):
            (folder.path / f".{number}").write_text("x")
            os.replace(folder.path / f".{number}", folder.path / f"{number:05d}.csv")
        done.set()

    coming = threading.Thread(target=come)
    with Logbook(tmp_path / "book.sqlite") as book:
        coming.start()
        while not done.is_set():
            found = {path.name for path, _ in job._waiting(folder, book, retry=600.0, once=False)}
            assert found == {f"{number:05d}.csv" for number in range(len(found))}
            looks += 1
        coming.join()
        wait_for(lambda: len(job._waiting(folder, book, retry=600.0, once=False)) == count)
    assert looks > 3
