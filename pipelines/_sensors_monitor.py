"""``unlabeled sensors monitor``: the job that runs for months, file by file, and survives whatever stops it."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from unlabeled.core.checkpoints import MANIFEST
from unlabeled.core.errors import DataError
from unlabeled.core.interrupts import interruptible
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import SOURCES, Folder, Job, read
from unlabeled.pipelines._sensors_judging import Judging, now, why_of
from unlabeled.pipelines._sensors_kafka import Cluster
from unlabeled.pipelines._sensors_models import folder_of
from unlabeled.pipelines._sensors_mqtt import Broker
from unlabeled.pipelines._sensors_opcua import Server
from unlabeled.pipelines._sensors_source import MOMENT, Message, Source
from unlabeled.pipelines._sensors_status import served
from unlabeled.pipelines._sensors_webhook import Hook, forget
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import read as read_recordings
from unlabeled.sensors.logbook import CLEARED, Logbook
from unlabeled.sensors.readers import SUFFIXES, Dates
from unlabeled.sensors.recording import Recording

_UNFINISHED = (".part", ".tmp", ".crdownload")
_TICK = 0.02  # seconds by which a file system's clock may be behind
_TOLD = 1000  # refusals that are remembered
_TOLD_EVENTS = 10_000  # among so many of the last events those are that were told before the job began
FIXED = ("logbook", *SOURCES, "status")  # what a job that runs does not change


def monitor(
    job_file: Path, *, once: bool = False, until: Callable[[], AbstractContextManager[threading.Event]] = interruptible
) -> Outcome:
    """Judges what is put into the watched folders and what comes from elsewhere, until it is told to stop.

    Args:
        job_file: see :mod:`unlabeled.pipelines._sensors_job_file`.
        once: deal with what is there now, and end.
        until: gives an event that ends the job when it is set; as it stands, Ctrl-C or a termination signal does.

    Raises:
        DataError: the job file is wrong, the logbook is of something else, or several machines have one model.
    """
    looked = _looks(job_file) if job_file.exists() else None
    job = read(job_file)
    _check_models(job)
    endless = [f"[{name}]" for name in SOURCES if getattr(job, name) is not None]
    if once and endless:
        raise DataError(f"--once deals with what lies in folders; what comes by {', '.join(endless)} has no end: "
                        "leave one of them out")  # fmt: skip
    with Logbook(job.logbook) as book, until() as asked, served(job), ExitStack() as stack:
        came = threading.Event()
        sources = tuple(stack.enter_context(closing(source)) for source in _sources(job, book, came))
        work = _Work(job_file, job, book, sources, came, asked, looked=looked, once=once)
        while True:
            work.look()
            if once or work.pause():
                return work.outcome()


def _check_models(job: Job) -> None:
    """Raises a DataError where the only model would judge several of the machines that the job names."""
    machines = job.machines()
    if len(machines) < 2 or not (job.models / MANIFEST).is_file():
        return
    shared = [asset for asset in machines if folder_of(asset, job) == job.models]
    if shared:
        raise DataError(
            f"{len(machines)} machines are configured and there is one model in {job.models}: give each its own folder "
            f"{job.models.name}/<asset> ({', '.join(shared)}: none)"
        )


def _sources(job: Job, book: Logbook, came: threading.Event) -> Iterator[Source]:
    """Opened one after another, those that the job names."""
    if job.mqtt is not None:
        yield Broker(job.mqtt, came)
    if job.kafka is not None:
        yield Cluster(job.kafka, came)
    if job.opcua is not None:
        ahead = np.timedelta64(round(job.ahead_minutes * 60), "s")
        yield Server(job.opcua, came, last=book.last_times(), ahead=ahead)


class _Work:
    """One job at work: its logbook, its sources, and who judges; ``came`` is set when a source has something."""

    def __init__(
        self,
        file: Path,
        job: Job,
        book: Logbook,
        sources: tuple[Source, ...],
        came: threading.Event,
        asked: threading.Event,
        *,
        looked: tuple[int, int] | None,
        once: bool,
    ) -> None:
        self.file, self.job, self.book, self.asked = file, job, book, asked
        self.sources, self._came = sources, came
        # How the job file looked when it was taken up, when it was looked at last, and what was said of it.
        self._looked, self._seen, self._said = looked, looked, ""
        self._judging = Judging(book)
        self._hook = self._hook_of(job)
        # Since when a machine is expected of which nothing was ever kept; refusals that were told, and that are being.
        self._expected: dict[str, np.datetime64] = {}
        self._told, self._telling = _told_before(book), list[_Refusal]()
        self.once, self.read = once, 0

    def _hook_of(self, job: Job) -> Hook | None:
        if job.webhook is not None:
            return Hook(job.webhook).begin(self.book)
        forget(self.book)
        return None

    def look(self) -> None:
        """Deals with every file that is whole and new or has changed, and with what the sources have given."""
        self._trying(str(self.file), self._take_settings)
        self._take_messages()
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
            _check_models(new)
            hook = self._hook if new.webhook == self.job.webhook else self._hook_of(new)
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # whatever somebody writes into it must not end the job
            why = f"{why_of(error)} {looks}"
            if why != self._said:
                say(f"the job file has changed and is not taken up: {why_of(error)}")
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
            self.book.tell("", now(), "settings", {"changed": changed, "alarms": asdict(new.alarms)})

    def _trying(self, what: str, do: Callable[[], None]) -> bool:
        """A full disk, a share that is away: nothing is half done, and it is tried again. Whether it was done."""
        try:
            do()
        except (OSError, sqlite3.Error) as error:
            if self.once:
                raise
            say(f"{what} could not be read or kept ({error}); trying again in {self.job.every_seconds:g} s")
            return False
        return True

    def pause(self) -> bool:
        """Until the next look, dealing with what the sources give; whether the job has been told to end."""
        ends = time.monotonic() + self.job.every_seconds
        while (left := ends - time.monotonic()) > 0 and not self.asked.is_set():
            if not self.sources:
                self.asked.wait(left)
            elif self._came.wait(min(left, MOMENT)) and not self._take_messages():
                self.asked.wait(left)  # what could not be kept is tried again at the next look
        return self.asked.is_set()

    def _look_into(self, folder: Folder) -> None:
        waiting = _waiting(folder, self.book, retry=60 * self.job.retry_minutes, once=self.once)
        for path, looked in waiting:
            if self.asked.is_set():
                return
            self._take_file(folder, path, looked)
            self._tell()
            self._take_messages()  # which a folder full of files must not keep waiting

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
                whys.append((folder.asset or path.stem, why_of(error)))
            for recording in recordings:
                whys += [(recording.asset, why) for why in self._judging.kept(recording, name, self.job)]
            told = "; ".join(why for _, why in whys)
            for asset, why in whys if before is None or before[1] != told else ():
                say(f"{name}: {asset}: {why}")
                self.book.tell(asset, now(), "refused", {"file": name, "why": why})
            self.book.dealt_with(key, looked, at=time.time(), why=told)

    def _take_messages(self) -> bool:
        """Some of what each source has given, so that none waits for another; whether all of it could be kept."""
        self._came.clear()
        kept = [self._trying(f"what came by {one.name}", partial(self._take_from, one)) for one in self.sources]
        return all(kept)

    def _take_from(self, source: Source) -> None:
        """Keeps what a source has given, then acknowledges it."""
        messages = source.waiting()
        if not messages:
            return
        self._telling = []
        with self.book.together():
            for message in messages:
                self._take_message(message)
        if self._telling:
            self._told = dict.fromkeys([*self._told, *self._telling][-_TOLD:])
        source.acknowledge()
        self._tell()

    def _take_message(self, message: Message) -> None:
        name = f"{message.source} {message.topic}"
        try:
            recording = message.reading()
        except DataError as error:
            self._refuse(name, message.asset() or message.topic, str(error))
            return
        for why in self._judging.kept(recording, name, self.job):
            self._refuse(name, recording.asset, why)

    def _refuse(self, name: str, about: str, why: str) -> None:
        """Told once, however often a sender repeats it and whatever comes in between: about the machine, or, where
        none is named, the topic."""
        refusal = _Refusal(name, about, why)
        if refusal in self._told or refusal in self._telling:
            return
        self._telling.append(refusal)
        say(f"{name}: a reading is refused: {why}")
        self.book.tell(about, now(), "refused", {"file": name, "why": why})

    def _silence(self) -> None:
        """Tells of machines of which nothing has come for too long, once a silence."""
        named = self.job.machines()
        for asset in named:
            self._expected.setdefault(asset, now())
        if self.job.silent_hours is None:
            return
        allowed = np.timedelta64(round(self.job.silent_hours * 3600), "s")
        judged = self.book.last_times()
        never = {asset: None for asset in named if asset not in judged}
        for asset, last in {**judged, **never}.items():
            if any(one.covers(asset, now()) for one in self.job.maintenance):
                continue
            told, said = self.book.last_event(asset, "silent"), None if last is None else str(last)
            since = self._expected[asset] if last is None else last
            if now() - since > allowed and (told is None or told.told["last"] != said):
                with self.book.together():
                    self.book.tell(asset, now(), "silent", {"last": said})
                say(f"{asset}: nothing since {last}" if last is not None else f"{asset}: nothing has ever come")

    def _tell(self) -> None:
        self.write_lines()
        for source in self.sources:
            if isinstance(source, Broker):
                source.tell(self.book)
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
        headline = f"{self._judging.judged} reading(s) of {self.read} file(s) judged; {len(cases)} open case(s)"
        return Outcome(
            headline=headline + (f": {', '.join(case.asset for case in cases)}." if cases else "."),
            files={"logbook": self.job.logbook, "events": self.job.lines},
            details={"judged": self._judging.judged, "files_read": self.read, "open": [case.asset for case in cases]},
        )


class _Refusal(NamedTuple):
    """Of which file or topic, about which machine, and why."""

    name: str
    about: str
    why: str


def _told_before(book: Logbook) -> dict[_Refusal, None]:
    """Refusals that a logbook tells of, the oldest first, as far as they are remembered."""
    events = book.events(after=max(book.told_elsewhere() - _TOLD_EVENTS, 0))
    told = [_Refusal(one.told["file"], one.asset, one.told["why"]) for one in events if one.kind == "refused"]
    return dict.fromkeys(told[-_TOLD:])


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
    dates = cast(Dates | None, folder.dates)  # looked at when the job file was read
    recordings = read_recordings(path, fs=folder.fs, signal=folder.signal, operating=folder.operating, dates=dates)
    if folder.asset is None:
        return recordings
    if len(recordings) > 1:
        raise DataError(f"it holds {len(recordings)} machines, and its folder is said to be of {folder.asset} alone")
    return [replace(recordings[0], asset=folder.asset)]


def _looks(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns
