"""Replays of runs to failure: how early would the alarm have come, and what else would have been said?"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from unlabeled.core import tracking
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.errors import DataError
from unlabeled.core.report import Verdict
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines import _sensors_pretraining as pre
from unlabeled.pipelines import _sensors_summary as summary
from unlabeled.pipelines._sensors_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import report as pages
from unlabeled.sensors import simulate
from unlabeled.sensors.backtest import Replay, backtest, with_failure
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import Dates, read
from unlabeled.sensors.recording import NORMAL_SHARE, Recording
from unlabeled.sensors.savings import Costs


def replay(
    inputs: Sequence[Path],
    *,
    out: Path,
    normal_share: float = NORMAL_SHARE,
    normal_until: str | None = None,
    failure_at: str | None = None,
    healthy: Sequence[str] = (),
    running_column: str = "running",
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    operating: Sequence[str] = (),
    assets: Sequence[str] = (),
    all_of: str | None = None,
    dates: Dates | None = None,
    pretrain_on: Sequence[Path] = (),
    template: MachineMonitor | None = None,
    costs: Costs | None = None,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Replays runs to failure: normal period first, then snapshot by snapshot, against plain 3-sigma rules.

    With several runs the encoder that judges one of them has learnt from the others' normal periods only; alone, from
    the first two thirds of its own. With ``costs``, says what the alarms would have saved; with ``dry_run``, only what
    these pretrainings would cost.
    """
    template = template or MachineMonitor()
    skipped: list[tuple[str, str]] = []
    recordings = pre.fleet_of(
        inputs, skipped, fs=fs, every=every, signal=signal, operating=operating, assets=assets, all_of=all_of,
        dates=dates, running_column=running_column,
    )  # fmt: skip
    if failure_at is not None:
        recordings = [with_failure(r, summary.hours_of(failure_at, r) or 0.0) for r in recordings]
    unknown = sorted(set(healthy) - {r.asset for r in recordings})
    if unknown:
        raise DataError(f"no machine {', '.join(unknown)} to be counted as healthy")
    extra = []
    if pretrain_on:
        extra = pre.fleet_of(pretrain_on, skipped, fs=fs, every=every, signal=signal, operating=operating, dates=dates)
    if dry_run:
        budgets = []
        for recording in recordings:
            fleet, normal = _teachers(recording, recordings, extra, normal_share, normal_until, template)
            (one,) = pre.costs(template, files.first(fleet, normal), beside_random=False)
            budgets.append(replace(one, label=f"pretraining for {recording.asset}"))
        return cost.dry_run(
            budgets,
            rates=rates,
            reads=f"{len(recordings)} run(s)",
            left_out="reading the files, scoring every snapshot, and the report",
        )
    return _replay(
        recordings,
        extra,
        out=out,
        failed={r.asset for r in recordings} - set(healthy),
        share=normal_share,
        until=normal_until,
        template=template,
        costs=costs,
        unread=skipped,
    )


def demo(out: Path, *, seed: int) -> Outcome:
    """Six simulated machines: four well ones teach the encoder, one well and two failing ones are judged."""
    known = {p.stem for p in (out / "data").glob("*.npz")} if (out / "data").is_dir() else set()
    machines = simulate.fleet(healthy=5, failing=2, seed=seed)
    paths = [simulate.write(machine, out / "data") for machine in machines]
    for stale in known - {machine.asset for machine in machines}:
        (out / "data" / f"{stale}.npz").unlink()
    fleet, judged = read(*paths[:4]), read(*paths[4:])
    return _replay(
        judged,
        fleet,
        out=out,
        failed={"failing-1", "failing-2"},
        share=NORMAL_SHARE,
        until=None,
        template=MachineMonitor(steps=150, random_state=seed),
        one_encoder=True,
        synthetic=True,
    )


def _teachers(
    judged: Recording,
    recordings: Sequence[Recording],
    extra: Sequence[Recording],
    share: float,
    until: str | None,
    template: MachineMonitor,
) -> tuple[list[Recording], list[int]]:
    """What the encoder that judges a run learns from: the others' normal periods, or, alone, the first part of its
    own, but for the calibration part; and how many rows of each."""
    fleet = [r for r in (*recordings, *extra) if r is not judged and pre.alike(r, judged)]
    normal = [r.normal_rows(share=share, until=summary.hours_of(until, r)) for r in fleet or [judged]]
    if fleet:
        return fleet, normal
    return [judged], [template.teaching_rows(judged, normal_rows=normal[0])]


def _replay(
    recordings: list[Recording],
    extra: list[Recording],
    *,
    out: Path,
    failed: set[str],
    share: float,
    until: str | None,
    template: MachineMonitor,
    costs: Costs | None = None,
    one_encoder: bool = False,
    synthetic: bool = False,
    unread: Sequence[tuple[str, str]] = (),
) -> Outcome:
    replays: list[Replay] = []
    skipped = list(unread)
    alone = len(recordings) == 1 and not skipped
    runs: dict[str, str] = {}
    for recording in recordings:
        name = files.ENCODER if one_encoder else f"{files.ENCODER}-{files.folder_name(recording.asset)}"
        try:
            if one_encoder and runs:
                runs[recording.asset] = next(iter(runs.values()))
            else:
                others = [] if one_encoder else recordings
                fleet, normal = _teachers(recording, others, extra, share, until, template)
                encoder, runs[recording.asset] = pre.pretrain(
                    fleet, normal, template=template,
                    state=out / f".pretraining-{files.folder_name(recording.asset)}", keep=out / name,
                    synthetic=synthetic,
                )  # fmt: skip
            monitor = pre.copy_of(encoder, out / name, template)
            replays.append(
                backtest(
                    monitor,
                    recording,
                    normal_share=share,
                    normal_until=summary.hours_of(until, recording),
                    failed=recording.asset in failed,
                )
            )
        except DataError as error:
            if alone:
                raise
            skipped.append((recording.asset, str(error)))
    if not replays:
        raise DataError(f"no run could be replayed: {summary.whys(skipped)}")
    comparisons = summary.comparisons([r.results for r in replays])
    headline, tone = summary.verdict(replays, comparisons, skipped)
    saved = [] if costs is None else summary.saved([r.results for r in replays], costs)
    first = next(iter(runs.values()), None)
    with tracking.run(EXPERIMENT, f"backtest {out.name}", params=pre.params(replays[0].monitor), parent=first) as run:
        run.tags(pre.prints([r.recording for r in replays], [r.monitor.period_.stop for r in replays]))
        run.tags({"synthetic": synthetic, "pretraining_runs": ", ".join(f"{k}: {v}" for k, v in runs.items())})
        machines = [summary.machine(r) for r in replays]
        for r in replays:
            for result in r.results:
                name = files.metric_name(f"{r.recording.asset}.{result.method}")
                run.metrics({f"lead_h.{name}": result.lead_h, f"false_alarms.{name}": result.false_alarms})
        written: dict[str, Path] = {}
        for r in replays:
            path = r.monitor.save(
                out / files.folder_name(r.recording.asset), pretraining_run=runs.get(r.recording.asset)
            )
            run.curve(f"score.{files.metric_name(r.recording.asset)}", r.table["score"].to_list())
            run.model(path, f"model/{path.name}")
        written |= files.scores([r.table for r in replays], out)
        written |= files.alarms(machines, out)
        written |= files.results([result for r in replays for result in r.results], out)
        written |= files.unjudged([r.recording for r in replays], [r.table for r in replays], out, skipped)
        page = pages.build(
            title="Replay: how early would the alarm have come?",
            subtitle=", ".join(r.recording.asset for r in replays),
            verdict=Verdict(headline, tone),
            facts=summary.facts(replays),
            machines=machines,
            costs=costs,
            savings=saved,
            skipped=skipped,
            synthetic=synthetic,
            run_id=run.run_id,
        )
        written["report"] = page.write(out / "report.html")
        run.artifact(written["report"])
        run.artifact(written["results"])
    return Outcome(
        headline=headline,
        lines=summary.saved_in_words(saved),
        comparisons=comparisons,
        files=written,
        run_id=run.run_id,
        details={
            "results": [files.plain_result(result) for r in replays for result in r.results],
            "savings": [asdict(one) for one in saved],
            "skipped": [list(s) for s in skipped],
        },
    )
