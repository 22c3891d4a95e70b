"""What a dry run hands back, and the options of the commands that pretrain."""

import copy
from collections.abc import Sequence
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

# As unlabeled.medical.images has it, which loads NumPy and so cannot be imported for --help.
PNEUMONIA = "pneumonia"
Finding = Annotated[
    str,
    typer.Option(
        help="What the labels are about: the column of that name, or of a column 'finding_labels' those cells that "
        "list it.",
    ),
]
Findings = Annotated[
    list[str],
    typer.Option(
        help="What the labels are about: the column of that name, or of a column 'finding_labels' those cells that "
        "list it. May be given several times: the labels then need a column for each, or one that lists them."
    ),
]
LeaveOutFlagged = Annotated[
    bool,
    typer.Option(
        "--leave-out-flagged",
        help="Leave the films out that the intake flagged (inverted, unlike a chest, near duplicate, another patient, "
        "no patient); they are listed with their flags. Only a store has such.",
    ),
]
Ocr = Annotated[
    bool,
    typer.Option(
        "--ocr",
        help="Also read films for text away from their borders, and paint it over: a second or more a film; needs pip "
        "install 'unlabeled[ocr]' and the program tesseract.",
    ),
]
SelfTraining = Annotated[
    bool,
    typer.Option(
        "--self-training",
        help="Let each network that learnt from the labels teach another from all pictures without labels: for few "
        "labels; three times the cost of fine-tuning.",
    ),
]
Ensemble = Annotated[
    int | None,
    typer.Option(
        help="Networks that vote in place of each one, with other draws of everything random: as many times the cost "
        "(default: as the model was made, usually 1).",
        min=1,
    ),
]
BesideRandom = Annotated[
    bool,
    typer.Option(
        "--beside-random",
        help="Pretrain once more with random masks, everything else alike, and show both side by side: twice the cost.",
    ),
]


LEFT_OUT = "reading the pictures, linear probes, the PCA baseline, intervals and the report"


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
    return dry_run(
        finetunings(model, train, validation=validation is not None, beside=beside),
        rates=rates,
        reads=f"{len(train)} labels",
        left_out=LEFT_OUT,
    )


def finetunings(
    model: "PneumoniaModel", train: "ImageSet", *, validation: bool = False, beside: str, times: int = 1, what: str = ""
) -> list["Budget"]:
    """The cost of learning from labels ``times`` over, with the same network from scratch ``beside``."""
    assert train.labels is not None
    ours = theirs = model.finetuning_cost(train, train.labels, validation=validation)
    if model.self_training or model.tuning != "full":  # which a network without pretraining never is
        scratch = copy.deepcopy(model).set_params(self_training=False, tuning="full")
        theirs = scratch.finetuning_cost(train, train.labels, validation=validation)
    named = ((ours, f"{ours.label}{what}"), (theirs, f"{beside}, for the comparison{what}"))
    return [one.times(times, label) for one, label in named]
