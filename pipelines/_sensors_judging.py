"""What a monitoring job makes of readings, wherever they come from: each judged once, kept, and told of."""

import sqlite3
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError, UnlabeledError
from unlabeled.core.progress import say
from unlabeled.pipelines._sensors_job_file import Job
from unlabeled.pipelines._sensors_models import Models
from unlabeled.sensors import MachineMonitor, _checks
from unlabeled.sensors._clock import UNREADABLE
from unlabeled.sensors.alarms import level
from unlabeled.sensors.logbook import Logbook
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.regimes import NEW_REGIME
from unlabeled.sensors.stream import UNJUDGED, Stream

USED_UP = 0.9  # share of the drift that is followed, from which on it is told
MAINTENANCE = "maintenance"  # why its readings cannot be judged


class Judging:
    """Writes into a logbook, within the transaction of whoever calls it, what the models make of readings."""

    def __init__(self, book: Logbook) -> None:
        self.book, self._models = book, Models()
        self.judged = 0

    def kept(self, recording: Recording, name: str, job: Job) -> list[str]:
        """Judges and keeps the readings of one machine under the job's settings; why some of them were refused."""
        try:
            with self.book.apart():
                return self._judge(recording, name, job)
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # whatever a reading makes of a model must not end the job
            return [why_of(error)]

    def _judge(self, recording: Recording, name: str, job: Job) -> list[str]:
        """All readings of one machine in one file, in order of time."""
        asset = recording.asset
        if recording.clock is None:
            raise DataError("it has no dates, so that its readings cannot be put in order with other files'")
        clock = recording.clock.astype("datetime64[ns]")
        judge = self._models.of(asset, job)
        recording = in_order(recording, judge.model)
        _checks.fits(judge.model, recording)
        last, memory = self.book.memory(asset, judge.print, *judge.same_before)
        stream = judge.stream(job, asset)
        if memory is not None:
            stream.recall(memory)
        elif self.book.case_of(asset) is not None:  # fitted anew, which heals no machine
            stream.begin_in_alarm()
        latest = now() + np.timedelta64(round(job.ahead_minutes * 60), "s")
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
                worked_on = any(one.covers(asset, at) for one in job.maintenance)
                self._one(stream, recording, row, at, name, flaw=MAINTENANCE if worked_on else "")
                last = at
        if last is not None:
            self.book.remember(asset, judge.print, last, threshold=stream.threshold, memory=stream.memory())
        if late:
            self.book.tell(asset, now(), "late", {"file": name, "readings": late})
        unread = sum(skip.reason == UNREADABLE for skip in recording.skipped)
        whys = ["readings are dated ahead of now"] if ahead else []
        return [*whys, f"{unread} reading(s) have a {UNREADABLE}"] if unread else whys

    def _one(self, stream: Stream, recording: Recording, row: int, at: np.datetime64, name: str, *, flaw: str) -> None:
        asset = recording.asset
        judged = stream.push_row(recording, row, flaw=flaw)
        self.judged += 1
        if judged["reason"].startswith(NEW_REGIME) and not self.book.last_reason(asset).startswith(NEW_REGIME):
            self.book.tell(asset, at, NEW_REGIME, {"reason": judged["reason"]})
            say(f"{asset}: {judged['reason']}, at {recording.when(row)}")
        self._drifted(asset, stream, at, judged)
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

    def _drifted(self, asset: str, stream: Stream, at: np.datetime64, judged: dict[str, Any]) -> None:
        """Tells once a model that its machine has slowly moved nearly as far as is followed: what comes on top counts
        as a fault, and whether it is one somebody should look at."""
        if judged.get("drift", 0.0) < USED_UP:
            return
        model, before = stream.monitor.data_fingerprint_, self.book.last_event(asset, "drift")
        if before is None or before.told["model"] != model:
            self.book.tell(asset, at, "drift", {"used": judged["drift"], "model": model})
            say(f"{asset}: {judged['drift']:.0%} of the drift that is followed is used: look after it, or fit it anew")

    def _danger(self, asset: str, case: int, stream: Stream, at: np.datetime64, judged: dict[str, Any]) -> None:
        """Tells once a case that it has become dangerous."""
        if level(judged["smoothed"], stream.threshold, alarm=judged["alarm"]) != "danger":
            return
        before = self.book.last_event(asset, "danger")
        if before is None or before.told["case"] != case:
            self.book.tell(asset, at, "danger", {"case": case, "smoothed": judged["smoothed"]})
            say(f"{asset}: case {case} has reached the level danger")


def _evidence(stream: Stream, recording: Recording, row: int, judged: dict[str, Any]) -> dict[str, Any]:
    """Why a case was opened, as far as one reading tells."""
    parts = {name: judged[name] for name in stream.monitor.part_names}
    evidence = {"smoothed": judged["smoothed"], "threshold": stream.threshold, "parts": parts}
    if judged["reason"].startswith(NEW_REGIME):
        evidence["words"] = [judged["reason"]]
    elif recording.kind == "waveform":
        told = stream.monitor.explain(recording.rows(slice(row, row + 1)), last=1)
        evidence["words"] = list(told.words)
    return evidence


def in_order(recording: Recording, model: MachineMonitor) -> Recording:
    """Axes, indicators and conditions in the order that the model knows: objects of JSON have none. Conditions
    that it knows nothing of are left out; those that are not told are not known."""
    wanted = () if model.conditional_ is None else model.conditional_.regimes.names
    if recording.condition_names != wanted:
        told = dict(zip(recording.condition_names, _columns(recording.conditions), strict=True))
        nothing = np.full(len(recording), np.nan)
        conditions = np.stack([told.get(name, nothing) for name in wanted], axis=1) if wanted else None
        recording = replace(recording, conditions=conditions, condition_names=wanted)
    return _checks.ordered(model, recording)


def _columns(conditions: NDArray[np.float64] | None) -> list[NDArray[np.float64]]:
    return [] if conditions is None else list(conditions.T)


def why_of(error: Exception) -> str:
    return str(error) if isinstance(error, UnlabeledError) else f"it cannot be used ({type(error).__name__})"


def now() -> np.datetime64:
    return np.datetime64(time.time_ns(), "ns")
