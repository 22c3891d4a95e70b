"""``unlabeled medical crossvalidate``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unlabeled.pipelines._cost import PNEUMONIA, DryRun, Ensemble, Finding, LeaveOutFlagged, Price, SelfTraining, Watts
from unlabeled.pipelines.jobs import Outcome


def crossvalidate(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="As for finetune.")],
    model: Annotated[
        Path, typer.Option(help="Model folder that 'pretrain' wrote, or a Hugging Face folder, as for finetune.")
    ] = Path("medical-pretrained"),
    labels: Annotated[
        Path | None, typer.Option(help="As for finetune; --by site needs a column site, or DICOM files that name one.")
    ] = None,
    by: Annotated[
        Literal["patient", "site"],
        typer.Option(help="What is left out in turn: a share of the patients, or one site (hospital) after the other."),
    ] = "patient",
    folds: Annotated[int, typer.Option(help="Parts by patient; by site there is one a site.", min=2)] = 5,
    n_labels: Annotated[
        int | None, typer.Option(help="Learn from so many labels in each fold (default: all but the fold's).", min=4)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="As for finetune.", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="As for finetune.", min=16)] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and the report.")] = Path(
        "medical-crossvalidation"
    ),
    self_training: SelfTraining = False,
    ensemble: Ensemble = None,
    finding: Finding = PNEUMONIA,
    leave_out_flagged: LeaveOutFlagged = False,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Judge every labelled picture by a model that saw no label of its patient, or of its site.

    Trains ours and the same network from scratch once a fold, which takes as many times as long as finetune. Finished
    folds are kept: interrupted, the same command goes on.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import _medical_crossvalidation as job

    return job.crossvalidate(
        source, model=model, out=out, labels=labels, by=by, folds=folds, n_labels=n_labels, steps=steps, size=size,
        self_training=self_training, ensemble=ensemble, finding=finding, leave_out_flagged=leave_out_flagged,
        seed=seed, dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip
