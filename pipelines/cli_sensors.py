"""``unlabeled sensors <verb>``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from unlabeled.pipelines import cli_sensors_learn
from unlabeled.pipelines._cost import BesideRandom, DryRun, Price, Watts
from unlabeled.pipelines._sensors_options import SMALLEST, AllOf, Dates, Every, Inputs, Rate, Signal
from unlabeled.pipelines.jobs import Outcome

if TYPE_CHECKING:
    from unlabeled.sensors import MachineMonitor
    from unlabeled.sensors.savings import Costs

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What is normal for this machine, and an alarm when it no longer is: vibration snapshots or indicator trends.",
)

Operating = Annotated[
    list[str] | None,
    typer.Option(
        "--operating",
        metavar="NAME",
        help="Column (or array with a value a snapshot) that says how the machine is run, such as its speed, load or "
        "temperature: what is normal depends on it, and it is no indicator (may be repeated).",
    ),
]
Share = Annotated[
    float, typer.Option(help="Share of each record, from its start, that is declared normal.", min=0.01, max=1.0)
]
Until = Annotated[str | None, typer.Option(help="Normal up to this date, or so many hours, instead of a share.")]
Assets = Annotated[list[str] | None, typer.Option("--asset", help="Only this machine (may be repeated).")]
Fleet = Annotated[
    list[Path] | None, typer.Option("--pretrain-on", help="Learn the encoder from these machines' normal periods.")
]
Steps = Annotated[int, typer.Option(help="Pretraining steps.", min=1)]
Seed = Annotated[int, typer.Option(help="Fixes initial weights, batches and masks.")]
FalseAlarms = Annotated[
    float | None,
    typer.Option(
        help="So many false alarms a machine-month are acceptable: sets the threshold (default: mean + 5 standard "
        "deviations).",
        min=SMALLEST,
    ),
]
# As in unlabeled.sensors.tasks, which loads PyTorch and so cannot be imported for --help; a test holds them together.
TaskName = Literal["masked", "next", "contrastive", "vicreg", "order", "joint"]
PretextTask = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="|".join(get_args(TaskName)),
        help="The question that teaches the encoder: fill in, foretell, tell views apart (two ways), order, or two; or "
        "one of your own (docs/new-task.md).",
    ),
]
MaskingName = Annotated[
    Literal["random", "bearing", "time", "time-random", "band", "adaptive", "sparse", "sparse-random"],
    typer.Option(
        "--masking",
        help="What a task that fills in hides; 'random' is the ablation of all others, 'time-random' and "
        "'sparse-random' those of 'time' and 'sparse'.",
    ),
]
Ratio = Annotated[float, typer.Option(help="Share of the patches that is hidden.", min=0.05, max=0.95)]
Temperature = Annotated[float, typer.Option(help="Of the contrastive task, above 0.", min=SMALLEST)]
Augmentation = Annotated[
    float, typer.Option(help="Strength of gain, noise and masked bands where views are compared.", min=0.0, max=2.0)
]
Drift = Annotated[
    float,
    typer.Option(
        help="Let every indicator change slowly (ageing, the seasons) by so many spreads of its normal, and no more, "
        "without an alarm.",
        min=0.0,
    ),
]
DriftOver = Annotated[int, typer.Option(help="Slowly: over so many snapshots.", min=1)]
FindRegimes = Annotated[
    bool,
    typer.Option(
        "--find-regimes",
        help="No column says how the machine is run, but it is run in a few ways (idle and loaded): find them in the "
        "normal period, and judge each snapshot within the nearest.",
    ),
]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", help="One of PyOD's by name (IForest, ECOD, LOF...), as a further part of the score."),
]
LearningRate = Annotated[
    float, typer.Option("--learning-rate", help="Highest learning rate of the pretraining.", min=SMALLEST)
]
Shaft = Annotated[
    float | None,
    typer.Option(
        help="Shaft speed of waveforms in revolutions a second, the same at all times (default: unknown): explanations "
        "say which of its harmonics rose since the normal period; --masking bearing and --bearing use it too.",
        min=SMALLEST,
    ),
]


BearingName = Annotated[
    str | None,
    typer.Option(
        "--bearing",
        help="Bearing whose rates alarms are explained by: 6203, 6205, ZA-2115, or a .toml file with elements, "
        "element_diameter, pitch_diameter and contact_angle; needs --shaft-hz.",
    ),
]


@app.command()
def fit(
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="Folder for the model(s) and the report.")] = Path("machine-model"),
    normal_share: Share = 0.25,
    normal_until: Until = None,
    since: Annotated[
        str | None,
        typer.Option(help="Leave out what came before this date (or so many hours), as after a repair."),
    ] = None,
    fs: Rate = None,
    every: Every = None,
    signal: Signal = None,
    operating: Operating = None,
    asset: Assets = None,
    all_of: AllOf = None,
    dates: Dates = None,
    pretrain_on: Fleet = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Take the encoder that this folder holds instead of pretraining one.")
    ] = None,
    steps: Steps = 200,
    task: PretextTask = "masked",
    masking: MaskingName = "random",
    mask_ratio: Ratio = 0.6,
    temperature: Temperature = 0.2,
    augmentation: Augmentation = 1.0,
    shaft_hz: Shaft = None,
    bearing: BearingName = None,
    false_alarms: FalseAlarms = None,
    drift: Drift = 0.0,
    drift_over: DriftOver = 1000,
    find_regimes: FindRegimes = False,
    detector: DetectorName = None,
    learning_rate: LearningRate = 1e-3,
    seed: Seed = 0,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV of known states (asset,from,until,label) to look at while the encoder learns: how good are the "
            "features? They teach nothing."
        ),
    ] = None,
    beside_random: BesideRandom = False,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Learn what is normal and calibrate the threshold, from the start of each record alone."""
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import sensors as jobs

    return jobs.fit(
        inputs, out=out, normal_share=normal_share, normal_until=normal_until, since=since, fs=fs, every=every,
        signal=signal or (), operating=operating or (), assets=asset or (), all_of=all_of, dates=dates,
        pretrain_on=pretrain_on or (), encoder=encoder,
        template=_template(
            steps=steps, task=task, masking=masking, mask_ratio=mask_ratio, temperature=temperature,
            augmentation=augmentation, shaft_hz=shaft_hz, bearing=bearing, lr=learning_rate, random_state=seed,
            false_alarms=false_alarms, drift=drift, drift_over=drift_over, detector=detector,
            find_regimes=find_regimes,
        ),
        labels=labels, beside_random=beside_random, dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


app.command()(cli_sensors_learn.learn)


@app.command()
def search(
    inputs: Inputs,
    labels: Annotated[Path, typer.Option(help="CSV of known states (asset,from,until,label), which judge.")],
    out: Annotated[Path, typer.Option(help="Folder for trials.csv, the report and the best encoder.")] = Path(
        "machine-search"
    ),
    trials: Annotated[int, typer.Option(help="Settings to try; the defaults are the first.", min=1)] = 20,
    normal_share: Share = 0.25,
    normal_until: Until = None,
    fs: Rate = None,
    every: Every = None,
    signal: Signal = None,
    operating: Operating = None,
    asset: Assets = None,
    steps: Steps = 200,
    task: PretextTask = "masked",
    masking: MaskingName = "random",
    shaft_hz: Shaft = None,
    learning_rate: LearningRate = 1e-3,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Try settings of the pretraining (mask ratio, temperature, augmentation), judged by a linear probe.

    Weak trials end early. Needs pip install 'unlabeled[search]'.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import _sensors_search as jobs

    return jobs.search(
        inputs, out=out, labels=labels, trials=trials, normal_share=normal_share, normal_until=normal_until, fs=fs,
        every=every, signal=signal or (), operating=operating or (), assets=asset or (),
        template=_template(
            steps=steps, task=task, masking=masking, shaft_hz=shaft_hz, lr=learning_rate, random_state=seed
        ),
        dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def score(
    inputs: Inputs,
    model: Annotated[Path, typer.Option(help="Folder that 'fit' wrote.")] = Path("machine-model"),
    out: Annotated[Path, typer.Option(help="Folder for scores, alarms and the report.")] = Path("machine-scores"),
    fs: Rate = None,
    every: Every = None,
    signal: Signal = None,
    asset: Assets = None,
    all_of: AllOf = None,
    dates: Dates = None,
) -> Outcome:
    """Score snapshots: state, score and its parts for each, alarms, and why."""
    from unlabeled.pipelines import sensors as jobs

    return jobs.score(
        inputs, model=model, out=out, fs=fs, every=every, signal=signal or (), assets=asset or (), all_of=all_of,
        dates=dates,
    )  # fmt: skip


@app.command()
def backtest(
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="Folder for the report and the tables.")] = Path("machine-backtest"),
    normal_share: Share = 0.25,
    normal_until: Until = None,
    failure_at: Annotated[
        str | None, typer.Option(help="Date of the failure, or hours from the start (default: the end of the record).")
    ] = None,
    healthy: Annotated[list[str] | None, typer.Option(help="A machine that did not fail (may be repeated).")] = None,
    running_column: Annotated[str, typer.Option(help="Column that is false while the machine stands.")] = "running",
    fs: Rate = None,
    every: Every = None,
    signal: Signal = None,
    operating: Operating = None,
    asset: Assets = None,
    all_of: AllOf = None,
    dates: Dates = None,
    pretrain_on: Fleet = None,
    steps: Steps = 200,
    task: PretextTask = "masked",
    masking: MaskingName = "random",
    mask_ratio: Ratio = 0.6,
    temperature: Temperature = 0.2,
    augmentation: Augmentation = 1.0,
    shaft_hz: Shaft = None,
    bearing: BearingName = None,
    false_alarms: FalseAlarms = None,
    drift: Drift = 0.0,
    drift_over: DriftOver = 1000,
    find_regimes: FindRegimes = False,
    detector: DetectorName = None,
    learning_rate: LearningRate = 1e-3,
    outage_hours: Annotated[
        float | None,
        typer.Option(
            help="What would the alarms have saved? Hours that an unannounced failure stops a machine; with "
            "--planned-hours and --cost-per-hour.",
            min=0,
        ),
    ] = None,
    planned_hours: Annotated[float | None, typer.Option(help="Hours that a planned repair takes.", min=0)] = None,
    cost_per_hour: Annotated[float | None, typer.Option(help="Of a machine that stands.", min=0)] = None,
    notice_hours: Annotated[float, typer.Option(help="Hours ahead that a repair is planned.", min=0)] = 24,
    inspection_cost: Annotated[float, typer.Option(help="Of a false alarm.", min=0)] = 0,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Replay runs to failure and count lead time and false alarms, ours beside plain 3-sigma rules."""
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import sensors_replay as jobs

    return jobs.replay(
        inputs, out=out, normal_share=normal_share, normal_until=normal_until, failure_at=failure_at,
        healthy=healthy or (), running_column=running_column, fs=fs, every=every, signal=signal or (),
        operating=operating or (), assets=asset or (), all_of=all_of, dates=dates, pretrain_on=pretrain_on or (),
        template=_template(
            steps=steps, task=task, masking=masking, mask_ratio=mask_ratio, temperature=temperature,
            augmentation=augmentation, shaft_hz=shaft_hz, bearing=bearing, lr=learning_rate, random_state=seed,
            false_alarms=false_alarms, drift=drift, drift_over=drift_over, detector=detector,
            find_regimes=find_regimes,
        ),
        costs=_costs(outage_hours, planned_hours, cost_per_hour, notice_hours, inspection_cost),
        dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def explain(
    inputs: Inputs,
    model: Annotated[Path, typer.Option(help="Folder that 'fit' wrote.")] = Path("machine-model"),
    out: Annotated[Path, typer.Option(help="Folder for the page and the numbers.")] = Path("explained"),
    at: Annotated[
        str | None, typer.Option(help="A date, or hours after the first snapshot (default: the last snapshot).")
    ] = None,
    last: Annotated[int, typer.Option(help="Explain the median over so many snapshots up to then.", min=1)] = 9,
    bearing: BearingName = None,
    shaft_hz: Shaft = None,
    machine_class: Annotated[
        Literal["1-rigid", "1-flexible", "2-rigid", "2-flexible"] | None,
        typer.Option(
            "--class",
            help="Of the machine in ISO 20816-3, whose zone is then said: group 1 (above 300 kW) or 2 (from 15 kW) on "
            "rigid or flexible supports; needs the signal's unit.",
        ),
    ] = None,
    unit: Annotated[
        Literal["g", "m/s2", "mm/s"] | None,
        typer.Option(help="Of the signal, where the file does not say it; never guessed."),
    ] = None,
    fs: Rate = None,
    every: Every = None,
    signal: Signal = None,
    asset: Assets = None,
    all_of: AllOf = None,
    dates: Dates = None,
) -> Outcome:
    """Say what is away from normal at one moment, alarm or not: score, bands, indicators, shaft and bearing."""
    from unlabeled.pipelines import _sensors_explain as job
    from unlabeled.sensors.bearings import find

    moment = job.Moment(
        at=at, last=last, bearing=None if bearing is None else find(bearing), shaft_hz=shaft_hz,
        machine_class=machine_class, unit=unit,
    )  # fmt: skip
    return job.explain(
        inputs, model=model, out=out, moment=moment, fs=fs, every=every, signal=signal or (), assets=asset or (),
        all_of=all_of, dates=dates,
    )  # fmt: skip


@app.command()
def monitor(
    job: Annotated[Path, typer.Argument(help="Job file (TOML): what is watched, who judges, where it is told.")],
    once: Annotated[bool, typer.Option("--once", help="Deal with what is there now, and end.")] = False,
) -> Outcome:
    """Judge new readings as they come, for months: alarms, cases, and a logbook that survives whatever stops it."""
    from unlabeled.pipelines import _sensors_monitor as work

    return work.monitor(job, once=once)


@app.command()
def cases(
    job: Annotated[Path, typer.Argument(help="Job file of 'monitor'.")],
    acknowledge: Annotated[
        int | None, typer.Option(help="Say that somebody looks after this case (its number).")
    ] = None,
) -> Outcome:
    """List the cases of a monitoring job, or acknowledge one."""
    from unlabeled.pipelines import _sensors_cases as work

    return work.cases(job, acknowledge=acknowledge)


@app.command("dry-run")
def dry_run(
    job: Annotated[Path, typer.Argument(help="Job file of 'monitor'; what it says under [alarms] counts.")],
    out: Annotated[Path, typer.Option(help="Folder for the page and the table.")] = Path("dry-run"),
    days: Annotated[float, typer.Option(help="So many days up to each machine's last reading.", min=SMALLEST)] = 30,
    threshold_factor: Annotated[
        float | None, typer.Option(help="Times each model's own threshold.", min=SMALLEST)
    ] = None,
    smooth: Annotated[int | None, typer.Option(help="The score is the median of the last so many.", min=1)] = None,
    needed: Annotated[
        int | None, typer.Option(help="So many scores above the threshold start an alarm...", min=1)
    ] = None,
    of: Annotated[int | None, typer.Option(help="...out of the last so many.", min=1)] = None,
    clear_below: Annotated[
        float | None, typer.Option(help="Share of the threshold under which a score is calm.", min=SMALLEST, max=1.0)
    ] = None,
    clear_after: Annotated[int | None, typer.Option(help="An alarm ends after so many calm scores.", min=1)] = None,
) -> Outcome:
    """Replay a job's last weeks under other alarm settings, before they are saved in its job file."""
    from unlabeled.pipelines import _sensors_dry_run as work

    settings = {
        "threshold_factor": threshold_factor, "smooth": smooth, "needed": needed, "of": of, "clear_below": clear_below,
        "clear_after": clear_after,
    }  # fmt: skip
    return work.dry_run(job, out=out, days=days, settings=settings)


@app.command()
def history(
    job: Annotated[Path, typer.Argument(help="Job file of 'monitor'.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")] = Path("history.parquet"),
) -> Outcome:
    """Write every reading that a job has judged to one Parquet file."""
    from unlabeled.pipelines import _sensors_history as work

    return work.history(job, out=out)


def _costs(
    outage: float | None, planned: float | None, per_hour: float | None, notice: float, inspection: float
) -> "Costs | None":
    """What a backtest reckons with, where it is asked to."""
    from unlabeled.core.errors import DataError
    from unlabeled.sensors.savings import Costs

    if outage is None and planned is None and per_hour is None:
        return None
    if outage is None or planned is None or per_hour is None:
        raise DataError("what alarms would have saved needs --outage-hours, --planned-hours and --cost-per-hour")
    return Costs(outage_h=outage, planned_h=planned, per_hour=per_hour, notice_h=notice, inspection=inspection)


def _template(*, bearing: str | None = None, **settings: Any) -> "MachineMonitor":
    """The settings that all monitors of a job have."""
    from unlabeled.sensors import MachineMonitor
    from unlabeled.sensors.bearings import find

    return MachineMonitor(**settings, bearing=None if bearing is None else find(bearing))
