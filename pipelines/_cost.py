"""What a dry run hands back, and the options of the commands that pretrain."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlabeled.pipelines.jobs import Outcome

if TYPE_CHECKING:
    from unlabeled.core.budget import Budget, Rates
    from unlabeled.medical.images import ImageSet
    from unlabeled.medical.model import PneumoniaModel

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what the training would cost, and end: nothing is written.")
]
Price = Annotated[
    float | None, typer.Option("--price-per-hour", help="Of this machine, in any currency: the cost in money.", min=0)
]
Watts = Annotated[
    float | None, typer.Option(help="Power drawn while training (default: measured on NVIDIA, else assumed).", min=0)
]

SelfTraining = Annotated[
    bool,
    typer.Option(
        "--self-training",
        help="Let each network that learnt from the labels teach another from all pictures without labels: for few "
        "labels; three times the cost of fine-tuning.",
    ),
]
BesideRandom = Annotated[
    bool,
    typer.Option(
        "--beside-random",
        help="Pretrain once more with random masks, everything else alike, and show both side by side: twice the cost.",
    ),
]


def dry_run(budgets: Sequence["Budget"], *, rates: "Rates", reads: str, left_out: str) -> Outcome:
    """The end of a dry run.

    Args:
        budgets: of each training, in order.
        rates: the user's own watts and price.
        reads: the data in a few words, e.g. ``1,200 pictures``.
        left_out: what the command does besides that is not in the prediction.
    """
    from unlabeled.core.budget import total

    parts = [budget.at(rates) for budget in budgets]
    whole = total(parts, "all trainings")
    shown = [*parts, whole] if len(parts) > 1 else parts
    details: dict[str, Any] = {"dry_run": True, "budgets": [b.to_json() for b in parts], "budget": whole.to_json()}
    return Outcome(
        headline=f"Dry run on {reads}: nothing was kept. Training would cost, on this machine as busy as it is now:",
        lines=[*(line for budget in shown for line in budget.lines()), f"not in it: {left_out}"],
        details={**details, "not_in_it": left_out},
    )


def medical_finetuning(
    model: "PneumoniaModel", train: "ImageSet", validation: "ImageSet | None", *, beside: str, rates: "Rates"
) -> Outcome:
    """The dry run of a fine-tuning, and of the same network from scratch that is trained to be compared with."""
    assert train.labels is not None
    one = model.finetuning_cost(train, train.labels, validation=validation is not None)
    return dry_run(
        [one, replace(one, label=f"{beside}, for the comparison")],
        rates=rates,
        reads=f"{len(train)} labels",
        left_out="reading the pictures, linear probes, the PCA baseline, intervals and the report",
    )
