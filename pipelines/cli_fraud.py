"""``unlabeled fraud <verb>``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from unlabeled.pipelines._cost import BesideRandom, DryRun, Price, Watts
from unlabeled.pipelines.jobs import Outcome

if TYPE_CHECKING:
    from unlabeled.fraud.tasks import Question

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Card payments: habits without labels, then alerts with reasons."
)

Table = Annotated[Path, typer.Argument(help="Payments, one a row: .parquet or .csv.", metavar="TABLE")]
Model = Annotated[Path, typer.Option(help="Model folder.")]
RolesFile = Annotated[Path | None, typer.Option(help="JSON: which column is what. Inferred and printed without it.")]
Seed = Annotated[int, typer.Option(help="Fixes everything that is drawn.")]
Steps = Annotated[int | None, typer.Option(help="Training steps of each encoder (default 1500).", min=1)]
LearningRate = Annotated[
    float | None, typer.Option(help="Highest learning rate of the pretraining (default 0.003).", min=1e-6)
]
# As in unlabeled.fraud.tasks, which loads PyTorch and so cannot be imported for --help; a test holds them together.
TaskName = Literal["events", "events+contrastive", "events+vicreg", "events+order", "events+tokens"]
MaskingName = Literal["random", "fields", "run"]
PretextTask = Annotated[
    str,
    typer.Option(
        metavar="|".join(get_args(TaskName)),
        help="What teaches without labels: foretell payments, and beside it tell cards apart (two ways), find payments "
        "out of order, fill hidden fields in from both sides, or one of your own (docs/new-task.md).",
    ),
]
FieldMasking = Annotated[
    MaskingName,
    typer.Option(
        help="What is hidden: any field of a payment alike, those that matter more first, or a run of whole payments "
        "(events+tokens alone)."
    ),
]
Ratio = Annotated[float, typer.Option(help="Share of a history that events+tokens hides.", min=0.05, max=0.9)]
Temperature = Annotated[float, typer.Option(help="Of events+contrastive, above 0.", min=1e-6)]
Augmentation = Annotated[
    float, typer.Option(help="How little two runs of a history have in common where they are compared.", min=0, max=2)
]
Budget = Annotated[int, typer.Option(help="Alerts a day.", min=1)]
Until = Annotated[str | None, typer.Option(help="Use payments before this time: a date, or seconds as in the table.")]


@app.command()
def pretrain(
    table: Table,
    out: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("fraud-pretrained"),
    until: Until = None,
    roles: RolesFile = None,
    steps: Steps = None,
    task: PretextTask = "events",
    masking: FieldMasking = "random",
    mask_ratio: Ratio = 0.25,
    temperature: Temperature = 0.2,
    augmentation: Augmentation = 1.0,
    learning_rate: LearningRate = None,
    seed: Seed = 0,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV of a few labels (as for 'finetune') to look at on the way: how good are the features?"),
    ] = None,
    beside_random: BesideRandom = False,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Learn the habits of cards and merchants; labels teach nothing here. Interrupted, the same command goes on."""
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import fraud as job

    return job.pretrain(
        table, out=out, until=until, roles=roles, steps=steps,
        question=_question(task, masking, mask_ratio, temperature, augmentation), learning_rate=learning_rate,
        seed=seed, labels=labels, beside_random=beside_random, dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def search(
    table: Table,
    labels: Annotated[
        Path | None, typer.Option(help="CSV: row id, label, which judge. Default: the table's label column.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for trials.csv, the report and the best model.")] = Path(
        "fraud-search"
    ),
    trials: Annotated[int, typer.Option(help="Settings to try; the defaults are the first.", min=1)] = 20,
    until: Until = None,
    roles: RolesFile = None,
    steps: Steps = None,
    task: PretextTask = "events+contrastive",
    masking: FieldMasking = "random",
    learning_rate: LearningRate = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Try settings of the pretraining (mask ratio, temperature, augmentation), judged by a linear probe.

    Weak trials end early. Needs pip install 'unlabeled[search]'.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.fraud import FraudDetector
    from unlabeled.pipelines import _fraud_search as jobs
    from unlabeled.pipelines.fraud import size_of

    size = size_of(steps=steps, lr=learning_rate)
    return jobs.search(
        table, out=out, labels=labels, until=until, roles=roles, trials=trials,
        template=FraudDetector(size=size, task=task, masking=masking, random_state=seed), dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def finetune(
    table: Table,
    model: Model = Path("fraud-pretrained"),
    out: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("fraud-model"),
    labels: Annotated[Path | None, typer.Option(help="CSV: row id, label. Default: the table's label column.")] = None,
    until: Until = None,
    n_frauds: Annotated[int | None, typer.Option(help="Use so many labelled frauds only.", min=1)] = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Learn fraud from labels, many or few, on top of a pretrained model."""
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import fraud as job

    return job.finetune(
        table, model=model, out=out, labels=labels, until=until, n_frauds=n_frauds, seed=seed, dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def score(
    table: Table,
    model: Model = Path("fraud-model"),
    out: Annotated[Path, typer.Option(help="Folder for alerts, scores and report.")] = Path("fraud-alerts"),
    budget: Budget = 100,
    since: Annotated[str | None, typer.Option(help="Score from this time on; what is before is history.")] = None,
) -> Outcome:
    """Score payments and list each day's alerts, with reasons."""
    from unlabeled.pipelines import fraud as job

    return job.score(table, model=model, out=out, budget=budget, since=since)


@app.command()
def backtest(
    table: Table,
    out: Annotated[Path, typer.Option(help="Folder for models, alerts and report.")] = Path("fraud-backtest"),
    train_until: Annotated[str | None, typer.Option(help="End of training (default: 70 % of the time).")] = None,
    label_delay: Annotated[str, typer.Option(help="Until a label is known, e.g. 7d.")] = "7d",
    n_frauds: Annotated[
        int | None, typer.Option(help="Use so many labelled frauds only (0: none; default: all known in time).", min=0)
    ] = None,
    budget: Budget = 100,
    roles: RolesFile = None,
    steps: Steps = None,
    task: PretextTask = "events",
    masking: FieldMasking = "random",
    mask_ratio: Ratio = 0.25,
    temperature: Temperature = 0.2,
    augmentation: Augmentation = 1.0,
    learning_rate: LearningRate = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """How it would have gone: learn on the past, score what came after, compare with the baselines."""
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import fraud as job

    return job.backtest(
        table,
        out=out,
        train_until=train_until,
        label_delay=_days(label_delay),
        n_frauds=n_frauds,
        budget=budget,
        roles=roles,
        steps=steps,
        question=_question(task, masking, mask_ratio, temperature, augmentation),
        learning_rate=learning_rate,
        seed=seed,
        dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )


def _question(
    task: str, masking: MaskingName, mask_ratio: float, temperature: float, augmentation: float
) -> "Question":
    from unlabeled.fraud.tasks import Question

    return Question(
        task=task, masking=masking, mask_ratio=mask_ratio, temperature=temperature, augmentation=augmentation
    )


def _days(text: str) -> float:
    """``7d``, ``12h`` or a number of days."""
    units = {"d": 1.0, "h": 1 / 24}
    unit = units.get(text[-1:])
    try:
        days = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        days = -1.0
    if not days >= 0:
        raise typer.BadParameter(f"'{text}' is no time span: give days or hours, such as 7d or 12h")
    return days
