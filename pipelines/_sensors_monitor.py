"""``unlabeled sensors monitor``: the job that runs for months, file by file, and survives whatever stops it."""

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.checkpoints import MANIFEST
from unlabeled.core.errors import DataError, UnlabeledError
from unlabeled.core.interrupts import interruptible
from unlabeled.core.progress import say
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines._sensors_job_file import Folder, Job, read
from unlabeled.pipelines._sensors_mqtt import Broker, recording_of
from unlabeled.pipelines._sensors_status import served
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import MachineMonitor, _checks
from unlabeled.sensors import read as read_recordings
from unlabeled.sensors.logbook import CLEARED, Case, Logbook
from unlabeled.sensors.readers import SUFFIXES
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.stream import Stream

MOMENT = 0.25  # seconds after which a job that waits for a broker looks whether it should end
_UNFINISHED = (".part", ".tmp", ".crdownload")


def monitor(
    job_file: Path, *, once: bool = False, until: Callable[[], AbstractContextManager[threading.Event]] = interruptible
) -> Outcome:
    """Judges what is put into the watched folders, until it is told to stop.

    Args:
        job_file: see :mod:`unlabeled.pipelines._sensors_job_file`.
        once: deal with what is there now, and end.
        until: gives an event that ends the job when it is set; as it stands, Ctrl-C or a termination signal does.

    Raises:
        DataError: the job file is wrong, or the logbook is of something else.
    """
    job = read(job_file)
    with Logbook(job.logbook) as book, until() as asked, served(job):
        broker = None if job.mqtt is None else Broker(job.mqtt)
        work = _Work(job, book, broker, once=once)
        try:
            while True:
                work.look()
                if once or work.pause(asked):
                    return work.outcome()
        finally:
            if broker is not None:
                broker.close()


def cases(job_file: Path, *, acknowledge: int | None = None) -> Outcome:
    """What alarms there were and what became of them; with ``acknowledge``, somebody looks after that one now.

    Raises:
        DataError: there is no such open case, or the job has no logbook yet.
    """
    job = read(job_file)
    if not job.logbook.exists():
        raise DataError(f"{job.logbook} does not exist: the job has not run yet")
    with Logbook(job.logbook) as book:
        if acknowledge is not None:
            book.acknowledge(acknowledge, _now())
        found = book.cases()
    still = [case for case in found if case.state != CLEARED]
    return Outcome(
        headline=f"{len(found)} case(s), {len(still)} of them not cleared.",
        lines=[_line(case) for case in found],
        details={"cases": [asdict(case) for case in found]},
    )


def _line(case: Case) -> str:
    ends = [f"{what} {when[:19]}" for what, when in (("acknowledged", case.acknowledged), ("cleared", case.cleared))
            if when is not None]  # fmt: skip
    since = ", ".join([f"since {case.opened[:19]}", *ends])
    return f"case {case.id}, {case.asset}: {case.state}, {since}, highest score {case.highest:.2f}"


class _Work:
    """One job at work: its logbook, and the models that it has loaded."""

    def __init__(self, job: Job, book: Logbook, broker: Broker | None, *, once: bool) -> None:
        self.job, self.book, self.broker = job, book, broker
        self._models: dict[str, tuple[str, MachineMonitor]] = {}
        self.once, self.read, self.judged = once, 0, 0

    def look(self) -> None:
        """Deals with every file that is whole and new or has changed, and with what the broker has given."""
        try:
            self._take_messages(0.0)
            for folder in self.job.folders:
                for path, looked in _waiting(folder, self.book):
                    self._take(folder, path, looked)
                    self._tell()
            self._silence()
            self._tell()
        except (OSError, sqlite3.OperationalError) as error:  # a full disk, a share that is away: nothing is half done
            if self.once:
                raise
            say(f"nothing could be read or kept ({error}); trying again in {self.job.every_seconds:g} s")

    def pause(self, asked: threading.Event) -> bool:
        """Until the next look, dealing with what the broker gives; whether the job has been told to end."""
        ends = time.monotonic() + self.job.every_seconds
        while (left := ends - time.monotonic()) > 0 and not asked.is_set():
            if self.broker is None:
                asked.wait(left)
                continue
            try:
                self._take_messages(min(left, MOMENT))
            except (OSError, sqlite3.OperationalError) as error:
                say(f"a reading could not be kept ({error}); it is not acknowledged")
                asked.wait(left)
        return asked.is_set()

    def _take_messages(self, seconds: float) -> None:
        """Keeps what the broker has given, then acknowledges it."""
        if self.broker is None:
            return
        messages = self.broker.waiting(seconds)
        if not messages:
            return
        with self.book.together():
            for message in messages:
                name = f"mqtt {message.topic}"
                try:
                    self._judge(recording_of(message.payload), name)
                except UnlabeledError as error:
                    self._refuse(message.topic, name, str(error))
        self.broker.acknowledge()
        self._tell()

    def _refuse(self, topic: str, name: str, why: str) -> None:
        """Told once, however often a sender repeats it."""
        before = self.book.last_event(topic, "refused")
        if before is None or before.told["why"] != why:
            say(f"{name}: a reading is refused: {why}")
            self.book.tell(topic, _now(), "refused", {"file": name, "why": why})

    def _tell(self) -> None:
        self.write_lines()
        if self.broker is not None:
            self.broker.tell(self.book)

    def _take(self, folder: Folder, path: Path, looked: str) -> None:
        name = str(path.relative_to(folder.path.parent))
        try:
            recordings = _read(folder, path)
        except UnlabeledError as error:
            say(f"{name} is refused: {error}")
            with self.book.together():
                self.book.tell(folder.asset or path.stem, _now(), "refused", {"file": name, "why": str(error)})
                self.book.dealt_with(name, looked, str(error))
            return
        self.read += 1
        with self.book.together():
            for recording in recordings:
                try:
                    self._judge(recording, name)
                except UnlabeledError as error:
                    say(f"{name}: {recording.asset} is refused: {error}")
                    self.book.tell(recording.asset, _now(), "refused", {"file": name, "why": str(error)})
            self.book.dealt_with(name, looked)

    def _judge(self, recording: Recording, name: str) -> None:
        """All readings of one machine in one file, in order of time."""
        asset, clock = recording.asset, recording.clock
        if clock is None:
            raise DataError("it has no dates, so that its readings cannot be put in order with other files'")
        print_, model = self._model(asset)
        _checks.fits(model, recording)
        last, memory = self.book.memory(asset, print_)
        stream = model.stream() if memory is None else model.stream().recall(memory)
        latest = _now() + np.timedelta64(round(self.job.ahead_minutes * 60), "s")
        late, ahead = 0, 0
        for row in range(len(recording)):
            at = np.datetime64(clock[row], "ns")
            if self.book.knows(asset, at):
                continue
            if at > latest:
                ahead += 1
            elif last is not None and at <= last:
                late += 1
                nothing = {"state": "late", "alarm": stream.on, "reason": "later readings were judged before"}
                self.book.reading(asset, at, nothing, file=name)
            else:
                self._one(stream, recording, row, at, name)
                last = at
        if last is not None:
            self.book.remember(asset, print_, last, threshold=model.threshold_, memory=stream.memory())
        if late:
            self.book.tell(asset, _now(), "late", {"file": name, "readings": late})
        if ahead:
            self.book.tell(asset, _now(), "refused", {"file": name, "why": f"{ahead} reading(s) dated ahead of now"})

    def _one(self, stream: Stream, recording: Recording, row: int, at: np.datetime64, name: str) -> None:
        asset = recording.asset
        judged = stream.push(
            recording.values[row], flaw=str(recording.flaws[row]), running=bool(recording.running[row])
        )
        self.judged += 1
        self.book.reading(asset, at, judged, file=name)
        case = self.book.case_of(asset)
        if judged["alarm"] and case is None:
            evidence = _evidence(stream, recording, row, judged)
            number = self.book.open_case(asset, at, judged["smoothed"], evidence)
            self.book.tell(asset, at, "alarm", {"case": number, **evidence})
            say(f"{asset}: alarm at {recording.when(row)}, case {number}")
        elif case is not None and judged["state"] != "cannot judge":
            self.book.rise(case.id, judged["smoothed"])
            if not judged["alarm"]:
                self.book.clear(case.id, at)
                self.book.tell(asset, at, "cleared", {"case": case.id})
                say(f"{asset}: case {case.id} has cleared at {recording.when(row)}")

    def _model(self, asset: str) -> tuple[str, MachineMonitor]:
        """A machine's model and what it is told from others by; read again when its folder has changed."""
        folder = files.model_of(asset, self.job.models)
        print_ = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        if self._models.get(asset, ("", None))[0] != print_:
            self._models[asset] = (print_, MachineMonitor.load(folder))
        return self._models[asset]

    def _silence(self) -> None:
        """Tells of machines of which nothing has come for too long, once a silence."""
        if self.job.silent_hours is None:
            return
        allowed = np.timedelta64(round(self.job.silent_hours * 3600), "s")
        for asset, last in self.book.last_times().items():
            told = self.book.last_event(asset, "silent")
            if _now() - last > allowed and (told is None or np.datetime64(told.time, "ns") < last):
                with self.book.together():
                    self.book.tell(asset, _now(), "silent", {"last": str(last)})
                say(f"{asset}: nothing since {last}")

    def write_lines(self) -> None:
        """Appends what was not told yet; the file itself says what was, so that a crash repeats and loses nothing."""
        path = self.job.lines
        events = self.book.events(after=_last_line(path))
        if not events:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(event.line() + "\n" for event in events)
            stream.flush()
            os.fsync(stream.fileno())

    def outcome(self) -> Outcome:
        cases = [case for case in self.book.cases() if case.state != CLEARED]
        headline = f"{self.judged} reading(s) of {self.read} file(s) judged; {len(cases)} open case(s)"
        return Outcome(
            headline=headline + (f": {', '.join(case.asset for case in cases)}." if cases else "."),
            files={"logbook": self.job.logbook, "events": self.job.lines},
            details={"judged": self.judged, "files_read": self.read, "open": [case.asset for case in cases]},
        )


def _waiting(folder: Folder, book: Logbook) -> Iterator[tuple[Path, str]]:
    """Files that are whole and were not dealt with as they look now, the oldest first."""
    found = []
    for path in folder.path.iterdir():
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or path.name.endswith(_UNFINISHED):
            continue
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if not path.is_file() or path.is_symlink() or time.time() - about.st_mtime < folder.settled_seconds:
            continue
        looked = f"{about.st_size}-{about.st_mtime_ns}"
        if book.print_of(str(path.relative_to(folder.path.parent))) != looked:
            found.append((about.st_mtime_ns, path.name, path, looked))
    for _, _, path, looked in sorted(found):
        yield path, looked


def _read(folder: Folder, path: Path) -> list[Recording]:
    recordings = read_recordings(path, fs=folder.fs, signal=folder.signal)
    if folder.asset is None:
        return recordings
    if len(recordings) > 1:
        raise DataError(f"it holds {len(recordings)} machines, and its folder is said to be of {folder.asset} alone")
    return [replace(recordings[0], asset=folder.asset)]


def _evidence(stream: Stream, recording: Recording, row: int, judged: dict[str, Any]) -> dict[str, Any]:
    """Why a case was opened, as far as one reading tells."""
    parts = {name: judged[name] for name in stream.monitor.part_names}
    evidence = {"smoothed": judged["smoothed"], "threshold": stream.monitor.threshold_, "parts": parts}
    if recording.kind == "waveform":
        told = stream.monitor.explain(recording.rows(slice(row, row + 1)), last=1)
        evidence["words"] = list(told.words)
    return evidence


def _last_line(path: Path) -> int:
    """The id of the last event that was written whole; half a line behind it is taken away."""
    if not path.exists():
        return 0
    with path.open("r+b") as stream:
        content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            stream.truncate(len(whole))
    lines = whole.splitlines()
    return int(json.loads(lines[-1])["id"]) if lines else 0


def _now() -> np.datetime64:
    return np.datetime64(time.time_ns(), "ns")
