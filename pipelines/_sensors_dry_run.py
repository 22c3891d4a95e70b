"""``unlabeled sensors dry-run``: a monitoring job's last weeks under other alarm settings, before they are saved."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core import tracking
from unlabeled.core.errors import DataError, UnlabeledError
from unlabeled.core.report import ALARM, OTHERS, OURS, Report, Section, Verdict, new_figure
from unlabeled.pipelines._sensors_job_file import Alarms, Job, read
from unlabeled.pipelines._sensors_models import Models
from unlabeled.pipelines._sensors_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors.alarms import HOURS_PER_MONTH, alarm_states, episodes
from unlabeled.sensors.logbook import Logbook
from unlabeled.sensors.regimes import NEW_REGIME
from unlabeled.sensors.stream import AS_FAR

AS_IT_WAS, ANEW = "as it was", "under these settings"
BEFORE = 30.0  # days that are replayed first, so that an alarm that was on already is on
LIMIT = (
    "Scores are the job's own, from its logbook; smoothing, threshold and persistence are applied to them anew, from "
    "thirty days before on. Scores from before a model was fitted anew count as they were. What is counted are alarms, "
    "false or not: only somebody who knows the machines can say which."
)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One machine: time (n,), smoothed score (n,), and whether the alarm was on, by ``AS_IT_WAS`` and ``ANEW``;
    ``shown`` marks the readings of the weeks that are asked about."""

    asset: str
    time: NDArray[np.datetime64]
    smoothed: NDArray[np.float64]
    threshold: float
    on: Mapping[str, NDArray[np.bool_]]
    shown: NDArray[np.bool_]

    def starts(self, kind: str) -> list[str]:
        """When alarms began."""
        return [str(self.time[e.start])[:19] for e in episodes(self.on[kind]) if self.shown[e.start]]

    def hours(self, kind: str) -> float:
        """In alarm, each reading until the next."""
        until_next = np.diff(self.time) / np.timedelta64(1, "h")
        return float(until_next[(self.on[kind] & self.shown)[:-1]].sum())

    @property
    def months(self) -> float:
        times = self.time[self.shown]
        return float((times[-1] - times[0]) / np.timedelta64(1, "h")) / HOURS_PER_MONTH if len(times) else 0.0


def dry_run(
    job_file: Path, *, out: Path, days: float = 30, settings: Mapping[str, float | None] | None = None
) -> Outcome:
    """Replays the logbook of a job.

    Args:
        job_file: of the job; what it says under ``[alarms]`` counts unless
        settings: say otherwise, by the names there.
        days: up to each machine's last reading.

    Raises:
        DataError: the job has not run yet, or the settings make no rule.
    """
    job = read(job_file)
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    wanted = dataclasses.replace(job, alarms=dataclasses.replace(job.alarms, **given))  # type: ignore[arg-type]
    if not job.logbook.exists():
        raise DataError(f"{job.logbook} does not exist: the job has not run yet")
    models, found, left_out = Models(), [], []
    with Logbook(job.logbook, read_only=True) as book:
        for asset in book.thresholds():
            try:
                found.append(_replayed(book, asset, wanted, models, days))
            except UnlabeledError as error:  # one damaged model is no reason to say nothing of the others
                left_out.append(f"{asset} is left out: {error}")
    if not found:
        raise DataError("; ".join(left_out) or f"{job.logbook} holds no reading that was judged")
    counts = {kind: sum(len(one.starts(kind)) for one in found) for kind in (AS_IT_WAS, ANEW)}
    headline = _headline(found, days)
    params = {name: value for name, value in asdict(wanted.alarms).items() if value is not None}
    with tracking.run(EXPERIMENT, f"dry run {job_file.stem}", params={"days": days, **params}) as run:
        run.metrics({f"alarms.{kind.replace(' ', '_')}": float(count) for kind, count in counts.items()})
        table = _table(found)
        page = _page(found, table, headline, wanted.alarms, left_out, run_id=run.run_id)
        files = {"table": out / "dry-run.csv", "report": out / "report.html"}
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(files["table"], index=False)
        page.write(files["report"])
        for path in files.values():
            run.artifact(path)
    return Outcome(
        headline=headline,
        lines=[_line(one) for one in found]
        + left_out
        + ["To save them, put into the job file:", *_section(wanted.alarms, given)],
        files=files,
        run_id=run.run_id,
        details={
            "alarms": counts,
            "machine_months": sum(one.months for one in found),
            "machines": table.to_dict("records"),
        },
    )


def _replayed(book: Logbook, asset: str, job: Job, models: Models, days: float) -> Replayed:
    stream = models.of(asset, job).stream(job, asset)
    last = book.last_times()[asset]
    begin = last - np.timedelta64(round((days + BEFORE) * 86400), "s")
    rows = pd.DataFrame(book.readings(asset, since=begin, late=False))
    time = rows["time"].to_numpy().astype("datetime64[ns]")
    rule = job.alarms.rule(stream.monitor.rule)
    scores = rows["score"].to_numpy(dtype=float, copy=True)
    if stream.new_regime == "alarm":  # as the job counts them
        scores[rows["reason"].str.startswith(NEW_REGIME).to_numpy()] = AS_FAR * stream.threshold
    smoothed, on = alarm_states(scores, stream.threshold, rule)
    return Replayed(
        asset=asset, time=time, smoothed=smoothed, threshold=stream.threshold,
        on={AS_IT_WAS: rows["alarm"].to_numpy(dtype=bool), ANEW: on},
        shown=time > time[-1] - np.timedelta64(round(days * 86400), "s"),
    )  # fmt: skip


def _headline(found: Sequence[Replayed], days: float) -> str:
    was, anew = (
        (sum(len(one.starts(kind)) for one in found), sum(one.hours(kind) for one in found))
        for kind in (AS_IT_WAS, ANEW)
    )
    months = sum(one.months for one in found)
    return (
        f"{anew[0]} alarm(s) in the last {days:g} days instead of {was[0]}, {anew[1]:.1f} h in alarm instead of "
        f"{was[1]:.1f}, in {months:.2g} machine-months. Nothing is changed."
    )


def _line(one: Replayed) -> str:
    said = [f"{len(one.starts(kind))} alarm(s), {one.hours(kind):.1f} h in alarm {kind}" for kind in (AS_IT_WAS, ANEW)]
    return f"{one.asset}: {'; '.join(said)}"


def _section(alarms: Alarms, given: Mapping[str, object]) -> list[str]:
    """What is asked for, also where it is what is usual: the job file may say something else."""
    usual = Alarms()
    said = {name: value for name, value in asdict(alarms).items() if value != getattr(usual, name) or name in given}
    return ["[alarms]", *(f"{name} = {value:g}" for name, value in said.items())]


def _table(found: Sequence[Replayed]) -> pd.DataFrame:
    rows = []
    for one in found:
        row: dict[str, Any] = {"machine": one.asset, "threshold": one.threshold}
        for kind in (AS_IT_WAS, ANEW):
            starts = one.starts(kind)
            row |= {f"alarms {kind}": len(starts), f"hours in alarm {kind}": round(one.hours(kind), 3)}
            row[f"first {kind}"] = starts[0] if starts else "-"
        rows.append(row)
    return pd.DataFrame(rows)


def _page(
    found: Sequence[Replayed],
    table: pd.DataFrame,
    headline: str,
    alarms: Alarms,
    left_out: Sequence[str],
    *,
    run_id: str,
) -> Report:
    page = Report(
        title="Dry run: other alarm settings on what was recorded",
        subtitle=", ".join(f"{name} {value:g}" for name, value in asdict(alarms).items() if value is not None),
        verdict=Verdict(headline, "flat"),
        facts={
            "machines": len(found),
            "thereof with other alarms": sum(one.starts(ANEW) != one.starts(AS_IT_WAS) for one in found),
        },
        run_id=run_id,
    )
    section = page.section("Each machine")
    section.table(list(table.columns), table.to_numpy().tolist(), note=LIMIT)
    for line in left_out:
        section.text(line)
    # Those first where something changes: a plant has hundreds of machines.
    changed = sorted(found, key=lambda one: -abs(len(one.starts(ANEW)) - len(one.starts(AS_IT_WAS))))
    for one in changed[:20]:
        _figure(page.section(one.asset), one)
    return page


def _figure(section: Section, one: Replayed) -> None:
    figure, axis = new_figure(height=2.6)
    time, colours = one.time[one.shown], {AS_IT_WAS: OTHERS[1], ANEW: ALARM}
    axis.plot(time, one.smoothed[one.shown], color=OURS, lw=1.2, label="smoothed score")
    axis.axhline(one.threshold, color=ALARM, ls="--", lw=1, label="threshold")
    for place, kind in enumerate((AS_IT_WAS, ANEW)):
        low, high = (0.0, 0.08) if place == 0 else (0.1, 0.18)
        for episode in episodes((one.on[kind] & one.shown)[one.shown]):
            last = min(episode.stop, len(time) - 1)
            axis.axvspan(time[episode.start], time[last], low, high, color=colours[kind], alpha=0.6, lw=0)
        axis.plot([], [], color=colours[kind], lw=6, alpha=0.6, label=f"in alarm, {kind}")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, frameon=False, ncols=4)
    figure.autofmt_xdate(rotation=0, ha="center")
    words = (
        f"Smoothed score of {one.asset}, the new threshold; below, when the alarm was on and when it would have been."
    )
    section.figure(figure, words)
