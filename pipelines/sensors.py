"""The vibration jobs: files in; model, scores, alarms and a report out; every run tracked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unlabeled.core import fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.errors import DataError
from unlabeled.core.report import Verdict
from unlabeled.pipelines import _ablation as ablation
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines import _sensors_pretraining as pre
from unlabeled.pipelines import _sensors_summary as summary
from unlabeled.pipelines._sensors_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import report as pages
from unlabeled.sensors import simulate
from unlabeled.sensors.backtest import Replay, backtest, with_failure
from unlabeled.sensors.baselines import applied
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import read
from unlabeled.sensors.recording import NORMAL_SHARE, Recording
from unlabeled.sensors.states import asked_of, read_states
from unlabeled.sensors.tasks import HIDING


def fit(
    inputs: Sequence[Path],
    *,
    out: Path,
    normal_share: float = NORMAL_SHARE,
    normal_until: str | None = None,
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    assets: Sequence[str] = (),
    pretrain_on: Sequence[Path] = (),
    encoder: Path | None = None,
    template: MachineMonitor | None = None,
    labels: Path | None = None,
    beside_random: bool = False,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Pretrains on normal periods, then fits one monitor a machine and calibrates its threshold.

    With ``dry_run``, only says what the pretraining would cost.

    Args:
        encoder: folder of an encoder that was pretrained before; nothing is pretrained then.
        template: a monitor with the settings that all are to have; the defaults without it.
        labels: CSV of known states (:func:`~unlabeled.sensors.states.read_states`) of machines that the encoder learns
            from: looked at on the way, never learnt from.
        beside_random: pretrain once more with random masks, and show both in the encoder's report.
    """
    if encoder is not None and (pretrain_on or labels is not None or dry_run or beside_random):
        raise DataError(
            "an encoder that is given is not pretrained again: leave out --pretrain-on, --labels, --beside-random and "
            "--dry-run"
        )
    known = None if encoder is None else pre.learnt_before(encoder)
    template = template or MachineMonitor()
    if known is not None:
        pre.check_nothing_asked(template)
    if beside_random:
        ablation.check(template.masking, hides=template.task in HIDING)
    known_states = None if labels is None else read_states(labels)
    skipped: list[tuple[str, str]] = []
    recordings = pre.told(read(*inputs, fs=fs, every=every, signal=signal, assets=assets, left_out=skipped), skipped)
    alone = len(recordings) == 1 and not skipped
    fleet = pre.fleet_of(pretrain_on, fs, every, signal, skipped) if pretrain_on else recordings
    taught = [r.normal_rows(share=normal_share, until=summary.hours_of(normal_until, r)) for r in fleet]
    if not pretrain_on:  # a machine's own calibration part is kept from the encoder too
        taught = [template.teaching_rows(r, normal_rows=n) for r, n in zip(fleet, taught, strict=True)]
    asked = None
    if known_states is not None:
        asked = asked_of(fleet, taught, known_states, window=template.window, seed=template.random_state)
    if dry_run:
        return cost.dry_run(
            pre.costs(template, files.first(fleet, taught), beside_random=beside_random),
            rates=rates,
            reads=f"{sum(taught):,} rows of {len(fleet)} recording(s)",
            left_out="reading the files, embedding and scoring each machine's normal period, and the report",
        )
    if known is not None and encoder is not None:
        learnt, source, pretraining = known, encoder, known.pretraining_run_
    else:
        source = out / files.ENCODER
        learnt, pretraining = pre.pretrain(
            fleet, taught, template=template, state=out / ".pretraining", keep=source, rates=rates, asked=asked,
            beside_random=beside_random,
        )  # fmt: skip
    machines: list[pages.Machine] = []
    written = {"encoder with random masks": ablation.folder_beside(source)} if beside_random else {}
    for recording in recordings:
        until = summary.hours_of(normal_until, recording)
        try:
            monitor = pre.copy_of(learnt, source, template)
            monitor.fit(recording, normal_share=normal_share, normal_until=until)
        except DataError as error:
            if alone:
                raise
            skipped.append((recording.asset, str(error)))
            continue
        rows = recording.normal_rows(share=normal_share, until=until)
        normal = recording.rows(slice(0, rows))
        table = monitor.score(normal)
        path = monitor.save(out / files.folder_name(recording.asset), pretraining_run=pretraining)
        written[f"model {recording.asset}"] = path
        machines.append(pages.Machine(normal, monitor, table, normal_rows=rows))
    if not machines:
        raise DataError(f"no machine could be fitted: {_whys(skipped)}")
    alarmed = [m.recording.asset for m in machines if m.table["alarm"].any()]
    headline = f"Fitted {len(machines)} machine(s) on their normal periods" + (
        f"; {len(skipped)} left out (see the report)." if skipped else "."
    )
    if alarmed:
        headline += f" Alarms already within the normal period: {', '.join(alarmed)}. It may not be normal."
    page = pages.build(
        title="What is normal for these machines",
        subtitle=", ".join(m.recording.asset for m in machines),
        verdict=Verdict(headline, "bad" if alarmed or skipped else "good"),
        facts={"machines": len(machines), "left out": len(skipped), "pretrained on": ", ".join(learnt.fleet_)},
        machines=machines,
        skipped=skipped,
        run_id=pretraining,
    )
    written["report"] = page.write(out / "report.html")
    written |= files.unjudged([m.recording for m in machines], [m.table for m in machines], out, skipped)
    of = {r.asset: r for r in recordings}
    for m in machines:  # after the page, which speaks of all of them and belongs to each
        name = m.recording.asset
        with tracking.run(EXPERIMENT, f"fit {name}", params=pre.params(m.monitor), parent=pretraining) as run:
            run.tags(pre.prints([of[name]], [m.normal_rows]))
            run.metrics({"threshold": m.monitor.threshold_, "normal_rows": m.normal_rows})
            run.curve("score", m.table["score"].to_list())
            run.artifact(written[f"model {name}"], "model")
            run.artifact(written["report"])
    return Outcome(
        headline=headline,
        files=written,
        run_id=pretraining,
        details={
            "skipped": [list(s) for s in skipped],
            "thresholds": {m.recording.asset: m.monitor.threshold_ for m in machines},
        },
    )


def score(
    inputs: Sequence[Path],
    *,
    model: Path,
    out: Path,
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    assets: Sequence[str] = (),
) -> Outcome:
    """Scores snapshots with a fitted model; says for each machine whether it is in alarm, and why."""
    skipped: list[tuple[str, str]] = []
    recordings = pre.told(read(*inputs, fs=fs, every=every, signal=signal, assets=assets, left_out=skipped), skipped)
    alone = len(recordings) == 1 and not skipped
    machines: list[pages.Machine] = []
    parent = None
    used: dict[str, Path] = {}
    for recording in recordings:
        try:
            folder = files.model_of(recording.asset, model)
            monitor = MachineMonitor.load(folder)
            table = monitor.score(recording)
        except DataError as error:
            if alone:
                raise
            skipped.append((recording.asset, str(error)))
            continue
        parent = parent or monitor.pretraining_run_
        used[recording.asset] = folder
        rows = monitor.period_.stop
        same = len(recording) >= rows and fingerprint.of_array(recording.values[:rows]) == monitor.data_fingerprint_
        baselines = applied(monitor.plain_rules_, recording)
        machines.append(
            summary.explained(
                pages.Machine(recording, monitor, table, baselines=baselines, normal_rows=rows if same else 0),
                from_row=rows if same else 0,
            )
        )
    if not machines:
        raise DataError(f"no machine could be scored: {_whys(skipped)}")
    on = [m.recording.asset for m in machines if bool(m.table["alarm"].iloc[-1])]
    judged = [m for m in machines if (m.table["state"] != "cannot judge").any()]
    headline = (
        f"{len(on)} of {len(machines)} machine(s) in alarm at the end of the data"
        + (f": {', '.join(on)}." if on else ".")
        + ("" if len(judged) == len(machines) else f" {len(machines) - len(judged)} could not be judged at all.")
        + (f" {len(skipped)} left out (see the report)." if skipped else "")
        + summary.borrowed(machines)
    )
    settings = {"model": model.name, "machines": len(machines)}
    with tracking.run(EXPERIMENT, f"score {out.name}", params=settings, parent=parent) as run:
        run.tags(pre.prints([m.recording for m in machines], [m.monitor.period_.stop for m in machines]))
        for m in machines:
            name = files.metric_name(m.recording.asset)
            run.metrics({f"alarms.{name}": len(pages.alarm_episodes(m.table))})
            run.curve(f"score.{name}", m.table["score"].to_list())
            run.artifact(used[m.recording.asset], f"model/{files.folder_name(m.recording.asset)}")
        written = files.scores([m.table for m in machines], out)
        written |= files.alarms(machines, out)
        written |= files.unjudged([m.recording for m in machines], [m.table for m in machines], out, skipped)
        page = pages.build(
            title="Machines against their normal state",
            subtitle=", ".join(m.recording.asset for m in machines),
            verdict=Verdict(headline, "bad" if on or len(judged) < len(machines) else "good"),
            facts=summary.score_facts(machines),
            machines=machines,
            skipped=skipped,
            run_id=run.run_id,
        )
        written["report"] = page.write(out / "report.html")
        run.artifact(written["report"])
        run.artifact(written["scores"])
    details = {"in_alarm": on, "skipped": [list(s) for s in skipped], "facts": summary.score_facts(machines)}
    return Outcome(headline=headline, files=written, run_id=run.run_id, details=details)


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
    assets: Sequence[str] = (),
    pretrain_on: Sequence[Path] = (),
    template: MachineMonitor | None = None,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Replays runs to failure: normal period first, then snapshot by snapshot, against plain 3-sigma rules.

    With several runs the encoder that judges one of them has learnt from the others' normal periods only; alone, from
    the first two thirds of its own. With ``dry_run``, only says what these pretrainings would cost.
    """
    template = template or MachineMonitor()
    skipped: list[tuple[str, str]] = []
    recordings = pre.told(
        read(
            *inputs, fs=fs, every=every, signal=signal, running_column=running_column, assets=assets, left_out=skipped
        ),
        skipped,
    )
    if failure_at is not None:
        recordings = [with_failure(r, summary.hours_of(failure_at, r) or 0.0) for r in recordings]
    unknown = sorted(set(healthy) - {r.asset for r in recordings})
    if unknown:
        raise DataError(f"no machine {', '.join(unknown)} to be counted as healthy")
    extra = pre.fleet_of(pretrain_on, fs, every, signal, skipped) if pretrain_on else []
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
        raise DataError(f"no run could be replayed: {_whys(skipped)}")
    comparisons = summary.comparisons([r.results for r in replays])
    headline, tone = summary.verdict(replays, comparisons, skipped)
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
            run.artifact(path, f"model/{path.name}")
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
            skipped=skipped,
            synthetic=synthetic,
            run_id=run.run_id,
        )
        written["report"] = page.write(out / "report.html")
        run.artifact(written["report"])
        run.artifact(written["results"])
    return Outcome(
        headline=headline,
        comparisons=comparisons,
        files=written,
        run_id=run.run_id,
        details={
            "results": [files.plain_result(result) for r in replays for result in r.results],
            "skipped": [list(s) for s in skipped],
        },
    )


def _whys(skipped: Sequence[tuple[str, str]]) -> str:
    return "; ".join(why for _, why in skipped)
