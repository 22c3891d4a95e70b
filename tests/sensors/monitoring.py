"""A watched folder: snapshots as a recorder writes them, and what a monitoring job made of them."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.sensors import Recording
from unlabeled.sensors.logbook import Logbook

START = np.datetime64("2024-03-01T00:00:00", "ns")


def stamps(recording: Recording) -> np.ndarray:
    return START + (recording.hours * 3600e9).astype("timedelta64[ns]")


def put(recording: Recording, rows: slice, folder: Path, name: str) -> Path:
    """Some snapshots as a recorder writes them: beside the folder, then renamed into it."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.npz"
    with (folder / f".{name}.new").open("wb") as new:
        np.savez(
            new, acc=recording.values[rows], fs=recording.fs, timestamps=stamps(recording)[rows].astype(str),
            axes=np.array(recording.names),
        )  # fmt: skip
    os.replace(folder / f".{name}.new", path)
    return path


def put_all(recording: Recording, folder: Path, *, each: int = 8, upto: int | None = None) -> list[Path]:
    ends = range(0, len(recording) if upto is None else upto, each)
    return [put(recording, slice(start, start + each), folder, f"r{start:04d}") for start in ends]


def put_later(recording: Recording, folder: Path, name: str) -> Path:
    """The same snapshots, as of 600 hours later."""
    later = Recording(**{**vars(recording), "hours": recording.hours + 600})
    return put(later, slice(None), folder, name)


def readings(job_file: Path) -> pd.DataFrame:
    if not (job_file.parent / "monitor.sqlite").exists():
        return pd.DataFrame()
    with Logbook(job_file.parent / "monitor.sqlite") as book:
        return pd.DataFrame(book.readings("pump7"))


def events(job_file: Path) -> list[dict[str, object]]:
    path = job_file.parent / "events.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def message(recording: Recording, row: int, **changed: Any) -> str:
    at = stamps(recording)[row]
    values = [[float(v) for v in recording.values[row, :, axis]] for axis in range(recording.values.shape[2])]
    said = {"asset": "pump7", "time": f"{at}Z", "fs": recording.fs, "axes": list(recording.names), "values": values}
    return json.dumps({**said, **changed})


@contextmanager
def at_work(job_file: Path) -> Iterator[None]:
    """The job in a thread of its own, until it is told to stop."""
    stop, errors = threading.Event(), []

    @contextmanager
    def asked() -> Iterator[threading.Event]:
        yield stop

    def run() -> None:
        try:
            job.monitor(job_file, until=asked)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert not errors, errors


def same(found: pd.DataFrame, whole: pd.DataFrame) -> None:
    assert found["state"].tolist() == whole["state"].tolist()
    np.testing.assert_array_equal(found["score"].to_numpy(dtype=float), whole["score"].to_numpy())
