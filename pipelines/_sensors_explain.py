"""``unlabeled sensors explain``: what is away from normal at one moment, whether there was an alarm or not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import pandas as pd

from unlabeled.core import tracking
from unlabeled.core.errors import DataError
from unlabeled.core.report import Report, Verdict
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines import _sensors_pretraining as pre
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import MachineMonitor, read, remaining
from unlabeled.sensors import report as pages
from unlabeled.sensors.alarms import DANGER_FROM
from unlabeled.sensors.bearings import Bearing
from unlabeled.sensors.harmonics import Harmonic
from unlabeled.sensors.readers import Dates
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.severity import Severity, Unit, severities
from unlabeled.sensors.spares import WITHOUT
from unlabeled.sensors.stream import UNJUDGED


class Moment(NamedTuple):
    """What is explained.

    Attributes:
        at: a date, or hours after the first snapshot; ``None`` for the last snapshot.
        last: the median over so many snapshots up to it.
        bearing, shaft_hz: where the model does not know them, or they have changed.
        machine_class: for a severity by ISO 20816-3, which needs the
        unit: of the signal, where the file does not say it.
    """

    at: str | None = None
    last: int = 9
    bearing: Bearing | None = None
    shaft_hz: float | None = None
    machine_class: str | None = None
    unit: Unit | None = None


def explain(
    inputs: Sequence[Path],
    *,
    model: Path,
    out: Path,
    moment: Moment = Moment(),  # noqa: B008 - immutable
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    assets: Sequence[str] = (),
    all_of: str | None = None,
    dates: Dates | None = None,
) -> Outcome:
    """Explains one moment of each machine.

    Raises:
        DataError: nothing can be judged up to then, a bearing without the shaft's speed, or a severity without a unit.
    """
    if moment.unit is not None and moment.machine_class is None:
        raise DataError("a unit is for a severity: say --class too")
    recordings = pre.told(
        read(
            *inputs,
            fs=fs,
            every=every,
            signal=signal,
            operating=files.operating_of(model),
            assets=assets,
            all_of=all_of,
            dates=dates,
        )
    )
    machines, left_out, parent = [], [], None
    used: dict[str, Path] = {}
    for recording in recordings:
        folder = files.model_of(recording.asset, model)
        monitor = MachineMonitor.load(folder)
        monitor.set_params(bearing=moment.bearing or monitor.bearing, shaft_hz=moment.shaft_hz or monitor.shaft_hz)
        try:
            machines.append(_explained(recording, monitor, moment))
        except DataError as error:
            if len(recordings) == 1:
                raise
            left_out.append(f"{recording.asset} is left out: {error}")
            continue
        used[recording.asset] = folder
        parent = parent or monitor.pretraining_run_
    if not machines:
        raise DataError("; ".join(left_out))
    settings = {"model": model.name, "at": moment.at or "end", "last": moment.last}
    with tracking.run(pre.EXPERIMENT, f"explain {out.name}", params=settings, parent=parent) as run:
        lines = [f"{m.recording.asset}: {sentence}" for m in machines for sentence in _told(m).words] + left_out
        headline = "; ".join(_state(m) for m in machines) + "."
        page = Report(
            title="Why the score is what it is",
            subtitle=", ".join(m.recording.asset for m in machines),
            verdict=Verdict(headline, "bad" if any(_in_alarm(m) for m in machines) else "flat"),
            facts={},
            run_id=run.run_id,
        )
        written: dict[str, Path] = {}
        for m in machines:
            pages.explanation(page.section(m.recording.asset), m)
            name = files.folder_name(m.recording.asset)
            path = out / f"changes-{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            _told(m).changes.to_csv(path, index=False)
            written[f"changes {m.recording.asset}"] = path
            shaft = _told(m).shaft
            if shaft is not None and shaft.harmonics:
                lines_of = out / f"harmonics-{name}.csv"
                pd.DataFrame([_line(one) for one in shaft.harmonics]).to_csv(lines_of, index=False)
                written[f"harmonics {m.recording.asset}"] = lines_of
                run.artifact(lines_of)
            run.metrics(
                {f"part.{part}.{files.metric_name(m.recording.asset)}": v for part, v in _told(m).parts.items()}
            )
            run.artifact(path)
            run.model(used[m.recording.asset], f"model/{name}")
        limits = page.section("What this cannot tell you")
        for limit in pages.LIMITS:
            limits.text(limit)
        written["report"] = page.write(out / "report.html")
        run.artifact(written["report"])
    details = {"machines": {m.recording.asset: _json(m) for m in machines}, "left_out": left_out}
    return Outcome(headline=headline, lines=lines, files=written, run_id=run.run_id, details=details)


def _explained(recording: Recording, monitor: MachineMonitor, moment: Moment) -> pages.Machine:
    row = len(recording) - 1
    if moment.at is not None:
        hours = recording.hours_at(moment.at)
        row = int(np.searchsorted(recording.hours, hours, side="right")) - 1
        if row < 0:
            raise DataError(f"{recording.asset} begins after {moment.at} (at {recording.when(0)})")
    upto = recording.rows(slice(0, row + 1))
    table = monitor.score(upto)
    told = monitor.explain(upto, last=moment.last)
    if moment.machine_class is not None:
        found = _severity(upto, table, moment, monitor.shaft_hz)
        told = replace(told, words=(*(one.words() for one in found), *told.words), severity=found)
    if table["alarm"].iloc[-1]:
        # Since the alarm began: what came before made it begin.
        rows = table.iloc[pages.alarm_episodes(table)[-1].start :]
        smoothed = float(rows["smoothed"].dropna().iloc[-1])
        left = remaining.until(rows["hours"], rows["score"], DANGER_FROM * monitor.threshold_, now=smoothed)
        told = replace(told, words=(*told.words, left.words("danger")), remaining=left)
    base = pages.Machine(upto, monitor, table, explanation=told)
    return replace(base, explained=f"the median of up to {moment.last} snapshots until {recording.when(row)}")


def _severity(
    recording: Recording, table: pd.DataFrame, moment: Moment, shaft_hz: float | None
) -> tuple[Severity, ...]:
    """Over the last snapshots that can be judged, as everything else that is explained."""
    assert moment.machine_class is not None
    unit = moment.unit
    if recording.unit and unit not in (None, recording.unit):
        raise DataError(f"{recording.asset} says that it is in {recording.unit}, --unit says {unit}: leave --unit out")
    if unit is None and recording.unit in get_args(Unit):
        unit = cast(Unit, recording.unit)
    whole = ~table["state"].isin(UNJUDGED) & ~table["reason"].str.startswith(WITHOUT)
    sound = np.flatnonzero(whole.to_numpy())[-moment.last :]
    if not len(sound):
        raise DataError(f"{recording.asset}: no snapshot with all of its sensors, of which a severity could be said")
    return severities(
        recording.values[sound], axes=recording.names, fs=recording.fs, unit=unit,
        machine_class=moment.machine_class, shaft_hz=shaft_hz,
    )  # fmt: skip


def _json(machine: pages.Machine) -> dict[str, Any]:
    told = _told(machine)
    faults = {one.axis: [evidence._asdict() for evidence in one.evidence] for one in told.repeats}
    shaft = [] if told.shaft is None else [_line(one) for one in told.shaft.harmonics]
    severity = [one._asdict() for one in told.severity]
    said = {"explained": machine.explained, "parts": told.parts, "words": list(told.words)}
    left = None if told.remaining is None or told.remaining.declined else told.remaining._asdict()
    return {**said, "bearing": faults, "harmonics": shaft, "severity": severity, "hours_until_danger": left}


def _line(one: Harmonic) -> dict[str, Any]:
    return {**one._asdict(), "rose": one.rose}


def _told(machine: pages.Machine) -> "pages.Explanation":
    assert machine.explanation is not None
    return machine.explanation


def _in_alarm(machine: pages.Machine) -> bool:
    return bool(machine.table["alarm"].iloc[-1])


def _state(machine: pages.Machine) -> str:
    last = machine.table.iloc[-1]
    score = f"smoothed score {last['smoothed']:.2f} at a threshold of {machine.monitor.threshold_:.2f}"
    if not np.isfinite(last["smoothed"]):
        score = f"cannot judge: {last['reason']}"
    alarm = "in alarm" if _in_alarm(machine) else "no alarm"
    return f"{machine.recording.asset} at {machine.recording.when(-1)}: {alarm}, {score}"
