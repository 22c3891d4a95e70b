"""The vibration jobs: files in; model, scores, alarms and a report out; every run tracked."""

from collections.abc import Sequence
from pathlib import Path

from unlabeled.core import fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.errors import DataError
from unlabeled.core.report import Verdict
from unlabeled.pipelines import _ablation as ablation
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines import _sensors_parallel as scores
from unlabeled.pipelines import _sensors_pretraining as pre
from unlabeled.pipelines import _sensors_summary as summary
from unlabeled.pipelines._sensors_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import report as pages
from unlabeled.sensors.baselines import applied
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import Dates
from unlabeled.sensors.recording import NORMAL_SHARE, Recording
from unlabeled.sensors.states import asked_of, read_states
from unlabeled.sensors.stream import UNJUDGED
from unlabeled.sensors.tasks import HIDING


def fit(
    inputs: Sequence[Path],
    *,
    out: Path,
    normal_share: float = NORMAL_SHARE,
    normal_until: str | None = None,
    since: str | None = None,
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    operating: Sequence[str] = (),
    assets: Sequence[str] = (),
    all_of: str | None = None,
    dates: Dates | None = None,
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
        operating: columns or arrays that say how the machine was run: what is normal depends on them.
        since: what came before it does not count, as after a repair.
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
    recordings = pre.fleet_of(
        inputs,
        skipped,
        fs=fs,
        every=every,
        signal=signal,
        operating=operating,
        assets=assets,
        all_of=all_of,
        dates=dates,
    )
    recordings = recordings if since is None else _since(recordings, since, skipped)
    alone = len(recordings) == 1 and not skipped
    fleet = recordings
    if pretrain_on:
        fleet = pre.fleet_of(pretrain_on, skipped, fs=fs, every=every, signal=signal, operating=operating, dates=dates)
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
        raise DataError(f"no machine could be fitted: {summary.whys(skipped)}")
    alarmed = [m.recording.asset for m in machines if m.table["alarm"].any()]
    headline = f"Fitted {len(machines)} machine(s) on their normal periods" + (
        f"; {len(skipped)} left out (see the report)." if skipped else "."
    )
    headline += summary.begun(machines)
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
            run.model(written[f"model {name}"])
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


def _since(recordings: Sequence[Recording], moment: str, skipped: list[tuple[str, str]]) -> list[Recording]:
    """What each has from then on; those that have nothing are left out."""
    found = []
    for recording in recordings:
        try:
            found.append(recording.since(moment))
        except DataError as error:
            skipped.append((recording.asset, str(error)))
    if not found:
        raise DataError(summary.whys(skipped))
    return found


def score(
    inputs: Sequence[Path],
    *,
    model: Path,
    out: Path,
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    assets: Sequence[str] = (),
    all_of: str | None = None,
    dates: Dates | None = None,
) -> Outcome:
    """Scores snapshots with a fitted model; says for each machine whether it is in alarm, and why."""
    skipped: list[tuple[str, str]] = []
    operating = files.operating_of(model)
    recordings = pre.fleet_of(
        inputs,
        skipped,
        fs=fs,
        every=every,
        signal=signal,
        operating=operating,
        assets=assets,
        all_of=all_of,
        dates=dates,
    )
    alone = len(recordings) == 1 and not skipped
    machines: list[pages.Machine] = []
    parent = None
    used: dict[str, Path] = {}
    work: list[tuple[Recording, Path]] = []
    for recording in recordings:
        try:
            work.append((recording, files.model_of(recording.asset, model)))
        except DataError as error:
            if alone:
                raise
            skipped.append((recording.asset, str(error)))
    for (recording, folder), table in zip(work, scores.tables(work), strict=True):
        if isinstance(table, DataError):
            if alone:
                raise table
            skipped.append((recording.asset, str(table)))
            continue
        monitor = MachineMonitor.load(folder)
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
        raise DataError(f"no machine could be scored: {summary.whys(skipped)}")
    on = [m.recording.asset for m in machines if bool(m.table["alarm"].iloc[-1])]
    judged = [m for m in machines if (~m.table["state"].isin(UNJUDGED)).any()]
    headline = (
        f"{len(on)} of {len(machines)} machine(s) in alarm at the end of the data"
        + (f": {', '.join(on)}." if on else ".")
        + ("" if len(judged) == len(machines) else f" {len(machines) - len(judged)} could not be judged at all.")
        + (f" {len(skipped)} left out (see the report)." if skipped else "")
        + summary.borrowed(machines)
        + summary.begun(machines)
    )
    settings = {"model": model.name, "machines": len(machines)}
    with tracking.run(EXPERIMENT, f"score {out.name}", params=settings, parent=parent) as run:
        run.tags(pre.prints([m.recording for m in machines], [m.monitor.period_.stop for m in machines]))
        for m in machines:
            name = files.metric_name(m.recording.asset)
            run.metrics({f"alarms.{name}": len(pages.alarm_episodes(m.table))})
            run.curve(f"score.{name}", m.table["score"].to_list())
            run.model(used[m.recording.asset], f"model/{files.folder_name(m.recording.asset)}")
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
