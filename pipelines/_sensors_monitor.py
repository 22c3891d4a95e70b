"""``unlabeled sensors monitor``: the job that runs for months, file by file, and survives whatever stops it."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError, UnlabeledError
from unlabeled.core.interrupts import interruptible
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import Folder, Job, read
from unlabeled.pipelines._sensors_models import Models
from unlabeled.pipelines._sensors_mqtt import Broker, recording_of
from unlabeled.pipelines._sensors_status import served
from unlabeled.pipelines._sensors_webhook import Hook, forget
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import MachineMonitor, _checks
from unlabeled.sensors import read as read_recordings
from unlabeled.sensors.alarms import HOURS_PER_MONTH, level
from unlabeled.sensors.logbook import CLEARED, Case, Logbook
from unlabeled.sensors.readers import SUFFIXES
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.regimes import NEW_REGIME
from unlabeled.sensors.stream import UNJUDGED, Stream

MOMENT = 0.25  # seconds after which a job that waits for a broker looks whether it should end
_UNFINISHED = (".part", ".tmp", ".crdownload")
_TICK = 0.02  # seconds by which a file system's clock may be behind
MAINTENANCE = "maintenance"  # why its readings cannot be judged
FIXED = ("logbook", "mqtt", "status")  # what a job that runs does not change


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
    looked = _looks(job_file) if job_file.exists() else None
    job = read(job_file)
    if once and job.mqtt is not None:
        raise DataError("--once deals with what lies in folders; what a broker gives has no end: leave one of them out")
    with Logbook(job.logbook) as book, until() as asked, served(job):
        broker = None if job.mqtt is None else Broker(job.mqtt)
        work = _Work(job_file, job, book, broker, asked, looked=looked, once=once)
        try:
            while True:
                work.look()
                if once or work.pause():
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
        found, months = book.cases(), sum(book.monitored_h().values()) / HOURS_PER_MONTH
    cleared = sum(case.state == CLEARED for case in found)
    rate = f" ({cleared / months:.2g} a month)" if months >= 1 else ""
    return Outcome(
        headline=f"{len(found)} case(s), {len(found) - cleared} of them not cleared. In {months:.2g} machine-months "
        f"{cleared} alarm(s) cleared again{rate}.",
        lines=[_line(case) for case in found],
        details={"cases": [asdict(case) for case in found], "machine_months": months, "cleared": cleared},
    )


def _line(case: Case) -> str:
    ends = [f"{what} {when[:19]}" for what, when in (("acknowledged", case.acknowledged), ("cleared", case.cleared))
            if when is not None]  # fmt: skip
    since = ", ".join([f"since {case.opened[:19]}", *ends])
    return f"case {case.id}, {case.asset}: {case.state}, {since}, highest score {case.highest:.2f}"


class _Work:
    """One job at work: its logbook, and the models that it has loaded."""

    def __init__(
        self,
        file: Path,
        job: Job,
        book: Logbook,
        broker: Broker | None,
        asked: threading.Event,
        *,
        looked: tuple[int, int] | None,
        once: bool,
    ) -> None:
        self.file, self.job, self.book, self.broker, self.asked = file, job, book, broker, asked
        # How the job file looked when it was taken up, when it was looked at last, and what was said of it.
        self._looked, self._seen, self._said = looked, looked, ""
        self._models = Models()
        self._hook = self._hook_of(job)
        self.once, self.read, self.judged = once, 0, 0

    def _hook_of(self, job: Job) -> Hook | None:
        if job.webhook is not None:
            return Hook(job.webhook).begin(self.book)
        forget(self.book)
        return None

    def look(self) -> None:
        """Deals with every file that is whole and new or has changed, and with what the broker has given."""
        self._trying(str(self.file), self._take_settings)
        self._trying("what the broker gave", partial(self._take_messages, 0.0))
        for folder in self.job.folders:
            self._trying(str(folder.path), partial(self._look_into, folder))
        self._trying("the logbook", self._silence)
        self._trying(str(self.job.lines), self._tell)

    def _take_settings(self) -> None:
        """Takes a job file up that has changed and stayed so for a look; one that is wrong changes nothing."""
        looks = _looks(self.file)
        settled, self._seen = looks == self._seen, looks
        if looks == self._looked or not settled:
            return
        try:
            new = read(self.file)
            hook = self._hook if new.webhook == self.job.webhook else self._hook_of(new)
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # whatever somebody writes into it must not end the job
            why = f"{_why(error)} {looks}"
            if why != self._said:
                say(f"the job file has changed and is not taken up: {_why(error)}")
            self._said = why
            return
        self._looked, self._said = looks, ""
        fixed = [name for name in FIXED if getattr(new, name) != getattr(self.job, name)]
        new = replace(new, **{name: getattr(self.job, name) for name in FIXED})
        changed = [one.name for one in fields(Job) if getattr(new, one.name) != getattr(self.job, one.name)]
        self.job, self._hook = new, hook
        if fixed:
            say(f"the job file has changed: {', '.join(fixed)} will count when the job is started again")
        if changed:
            say(f"the job file has changed: {', '.join(changed)} are taken up")
            self.book.tell("", _now(), "settings", {"changed": changed, "alarms": asdict(new.alarms)})

    def _trying(self, what: str, do: Callable[[], None]) -> None:
        """A full disk, a share that is away: nothing is half done, and it is tried again."""
        try:
            do()
        except (OSError, sqlite3.Error) as error:
            if self.once:
                raise
            say(f"{what} could not be read or kept ({error}); trying again in {self.job.every_seconds:g} s")

    def pause(self) -> bool:
        """Until the next look, dealing with what the broker gives; whether the job has been told to end."""
        ends = time.monotonic() + self.job.every_seconds
        while (left := ends - time.monotonic()) > 0 and not self.asked.is_set():
            if self.broker is None:
                self.asked.wait(left)
            else:
                self._trying("what the broker gave", partial(self._take_messages, min(left, MOMENT)))
        return self.asked.is_set()

    def _look_into(self, folder: Folder) -> None:
        waiting = _waiting(folder, self.book, retry=60 * self.job.retry_minutes, once=self.once)
        for path, looked in waiting:
            if self.asked.is_set():
                return
            self._take_file(folder, path, looked)
            self._tell()

    def _take_file(self, folder: Folder, path: Path, looked: str) -> None:
        name, key = f"{folder.path.name}/{path.name}", str(path)
        before = self.book.tried(key)
        whys = []
        with self.book.together():
            try:
                recordings = _read(folder, path)
                self.read += 1
            except (OSError, sqlite3.Error):
                raise
            except Exception as error:  # whatever a file makes of a reader must not end the job
                recordings = []
                whys.append((folder.asset or path.stem, _why(error)))
            for recording in recordings:
                whys += [(recording.asset, why) for why in self._kept(recording, name)]
            told = "; ".join(why for _, why in whys)
            for asset, why in whys if before is None or before[1] != told else ():
                say(f"{name}: {asset}: {why}")
                self.book.tell(asset, _now(), "refused", {"file": name, "why": why})
            self.book.dealt_with(key, looked, at=time.time(), why=told)

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
                    whys = self._kept(recording_of(message.payload), name)
                except DataError as error:
                    whys = [str(error)]
                for why in whys:
                    self._refuse(message.topic, name, why)
        self.broker.acknowledge()
        self._tell()

    def _refuse(self, topic: str, name: str, why: str) -> None:
        """Told once, however often a sender repeats it."""
        before = self.book.last_event(topic, "refused")
        if before is None or before.told["why"] != why:
            say(f"{name}: a reading is refused: {why}")
            self.book.tell(topic, _now(), "refused", {"file": name, "why": why})

    def _kept(self, recording: Recording, name: str) -> list[str]:
        """Judges and keeps the readings of one machine; why some of them were refused."""
        try:
            with self.book.apart():
                return self._judge(recording, name)
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # whatever a reading makes of a model must not end the job
            return [_why(error)]

    def _judge(self, recording: Recording, name: str) -> list[str]:
        """All readings of one machine in one file, in order of time."""
        asset = recording.asset
        if recording.clock is None:
            raise DataError("it has no dates, so that its readings cannot be put in order with other files'")
        clock = recording.clock.astype("datetime64[ns]")
        judge = self._models.of(asset, self.job)
        recording = _in_order(recording, judge.model)
        _checks.fits(judge.model, recording)
        last, memory = self.book.memory(asset, judge.print)
        stream = judge.stream(self.job)
        if memory is not None:
            stream.recall(memory)
        elif self.book.case_of(asset) is not None:  # fitted anew, which heals no machine
            stream.begin_in_alarm()
        latest = _now() + np.timedelta64(round(self.job.ahead_minutes * 60), "s")
        known = self.book.known(asset, clock[0], clock[-1])
        late, ahead = 0, 0
        for row in range(len(recording)):
            at = clock[row]
            if at in known:
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
            self.book.remember(asset, judge.print, last, threshold=stream.threshold, memory=stream.memory())
        if late:
            self.book.tell(asset, _now(), "late", {"file": name, "readings": late})
        return ["readings are dated ahead of now"] if ahead else []

    def _one(self, stream: Stream, recording: Recording, row: int, at: np.datetime64, name: str) -> None:
        asset = recording.asset
        worked_on = any(one.covers(asset, at) for one in self.job.maintenance)
        judged = stream.push_row(recording, row, flaw=MAINTENANCE if worked_on else "")
        self.judged += 1
        if judged["reason"].startswith(NEW_REGIME) and not self.book.last_reason(asset).startswith(NEW_REGIME):
            self.book.tell(asset, at, NEW_REGIME, {"reason": judged["reason"]})
            say(f"{asset}: {judged['reason']}, at {recording.when(row)}")
        self.book.reading(asset, at, judged, file=name)
        case = self.book.case_of(asset)
        if judged["alarm"] and case is None:
            evidence = _evidence(stream, recording, row, judged)
            number = self.book.open_case(asset, at, judged["smoothed"], evidence)
            self.book.tell(asset, at, "alarm", {"case": number, **evidence})
            say(f"{asset}: alarm at {recording.when(row)}, case {number}")
            self._danger(asset, number, stream, at, judged)
        elif case is not None and judged["state"] not in UNJUDGED:
            self.book.rise(case.id, judged["smoothed"])
            self._danger(asset, case.id, stream, at, judged)
            if not judged["alarm"]:
                self.book.clear(case.id, at)
                self.book.tell(asset, at, "cleared", {"case": case.id})
                say(f"{asset}: case {case.id} has cleared at {recording.when(row)}")

    def _danger(self, asset: str, case: int, stream: Stream, at: np.datetime64, judged: dict[str, Any]) -> None:
        """Tells once a case that it has become dangerous."""
        if level(judged["smoothed"], stream.threshold, alarm=judged["alarm"]) != "danger":
            return
        before = self.book.last_event(asset, "danger")
        if before is None or before.told["case"] != case:
            self.book.tell(asset, at, "danger", {"case": case, "smoothed": judged["smoothed"]})
            say(f"{asset}: case {case} has reached the level danger")

    def _silence(self) -> None:
        """Tells of machines of which nothing has come for too long, once a silence."""
        if self.job.silent_hours is None:
            return
        allowed = np.timedelta64(round(self.job.silent_hours * 3600), "s")
        for asset, last in self.book.last_times().items():
            if any(one.covers(asset, _now()) for one in self.job.maintenance):
                continue
            told = self.book.last_event(asset, "silent")
            if _now() - last > allowed and (told is None or told.told["last"] != str(last)):
                with self.book.together():
                    self.book.tell(asset, _now(), "silent", {"last": str(last)})
                say(f"{asset}: nothing since {last}")

    def _tell(self) -> None:
        self.write_lines()
        if self.broker is not None:
            self.broker.tell(self.book)
        if self._hook is not None:
            self._hook.tell(self.book, self.asked)

    def write_lines(self) -> None:
        """Appends what was not told yet. What a crash left behind the place that the logbook knows is written again; a
        file that is shorter was put away by somebody else, and is begun anew."""
        path, name = self.job.lines, f"lines {self.job.lines}"
        path.parent.mkdir(parents=True, exist_ok=True)
        last, place = self.book.lines_told(), self.book.place(name)[1]
        size = path.stat().st_size if path.exists() else 0
        if place is None:  # another file than before, or a new logbook: it tells after what stands there
            self.book.move_cursor(name, last, size)
            place = size
        events = self.book.events(after=last)
        if not events:
            return
        with path.open("ab") as stream:
            if size > place:
                stream.truncate(place)
            stream.write("".join(event.line() + "\n" for event in events).encode())
            stream.flush()
            os.fsync(stream.fileno())
            end = stream.tell()
        self.book.move_cursor(name, events[-1].id, end)

    def outcome(self) -> Outcome:
        cases = [case for case in self.book.cases() if case.state != CLEARED]
        headline = f"{self.judged} reading(s) of {self.read} file(s) judged; {len(cases)} open case(s)"
        return Outcome(
            headline=headline + (f": {', '.join(case.asset for case in cases)}." if cases else "."),
            files={"logbook": self.job.logbook, "events": self.job.lines},
            details={"judged": self.judged, "files_read": self.read, "open": [case.asset for case in cases]},
        )


def _waiting(folder: Folder, book: Logbook, *, retry: float, once: bool) -> list[tuple[Path, str]]:
    """Files that are whole and were not dealt with as they look now, the oldest first; those of which something was
    refused again after ``retry`` seconds. What comes while the folder is listed is left for the next look, because one
    that came before it may have been passed over. ``once``: there is no next look."""
    found, now = [], time.time()
    with os.scandir(folder.path) as listed:
        names = [one.name for one in listed if _may_be_read(one.name)]
    listed_at = time.time()
    for path in (folder.path / name for name in names):
        try:
            about = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(about.st_mode) or 0 <= now - about.st_mtime < folder.settled_seconds:
            continue
        if not once and now - _TICK <= about.st_ctime <= listed_at:
            continue
        looked = f"{about.st_size}-{about.st_mtime_ns}"
        before = book.tried(str(path))
        if before is None or before[0] != looked or (before[1] and (once or now - before[2] >= retry)):
            found.append((about.st_mtime_ns, path.name, path, looked))
    return [(path, looked) for _, _, path, looked in sorted(found)]


def _may_be_read(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return not name.startswith(".") and suffix in SUFFIXES and not name.endswith(_UNFINISHED)


def _read(folder: Folder, path: Path) -> list[Recording]:
    recordings = read_recordings(path, fs=folder.fs, signal=folder.signal, operating=folder.operating)
    if folder.asset is None:
        return recordings
    if len(recordings) > 1:
        raise DataError(f"it holds {len(recordings)} machines, and its folder is said to be of {folder.asset} alone")
    return [replace(recordings[0], asset=folder.asset)]


def _evidence(stream: Stream, recording: Recording, row: int, judged: dict[str, Any]) -> dict[str, Any]:
    """Why a case was opened, as far as one reading tells."""
    parts = {name: judged[name] for name in stream.monitor.part_names}
    evidence = {"smoothed": judged["smoothed"], "threshold": stream.threshold, "parts": parts}
    if judged["reason"]:
        evidence["words"] = [judged["reason"]]
    elif recording.kind == "waveform":
        told = stream.monitor.explain(recording.rows(slice(row, row + 1)), last=1)
        evidence["words"] = list(told.words)
    return evidence


def _in_order(recording: Recording, model: MachineMonitor) -> Recording:
    """Indicators and operating conditions in the order that the model knows: objects of JSON have none. Conditions
    that it knows nothing of are left out; those that are not told are not known."""
    wanted = () if model.conditional_ is None else model.conditional_.regimes.names
    if recording.condition_names != wanted:
        told = dict(zip(recording.condition_names, _columns(recording.conditions), strict=True))
        nothing = np.full(len(recording), np.nan)
        conditions = np.stack([told.get(name, nothing) for name in wanted], axis=1) if wanted else None
        recording = replace(recording, conditions=conditions, condition_names=wanted)
    if recording.kind != "trend" or set(recording.names) != set(model.names_) or recording.names == model.names_:
        return recording
    columns = [recording.names.index(name) for name in model.names_]
    return replace(recording, values=recording.values[:, columns], names=model.names_)


def _columns(conditions: NDArray[np.float64] | None) -> list[NDArray[np.float64]]:
    return [] if conditions is None else list(conditions.T)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, UnlabeledError) else f"it cannot be used ({type(error).__name__})"


def _looks(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _now() -> np.datetime64:
    return np.datetime64(time.time_ns(), "ns")
