"""``unlabeled medical run``."""

from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines._cost import PNEUMONIA, DryRun, Ensemble, Finding, Price, SelfTraining, Watts
from unlabeled.pipelines.jobs import Outcome

LeaveOutFlagged = Annotated[
    bool,
    typer.Option(
        "--leave-out-flagged",
        help="Leave the films out that the intake flagged (inverted, unlike a chest, near duplicate, another patient, "
        "no patient); they are listed with their flags. Only a store has such.",
    ),
]


def run(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files, as for 'intake'.")],
    labels: Annotated[Path, typer.Option(help="CSV of labels, as for 'intake'.")],
    out: Annotated[Path, typer.Option(help="Folder for the store, the models, the audit and the report.")] = Path(
        "medical-run"
    ),
    private: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what leads back to patients: the site key, the ledger and the names of files (default: "
            "OUT-private beside OUT). Only you can read it."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Rows and columns of the pictures; a multiple of 8.", min=16)] = 64,
    epochs: Annotated[int, typer.Option(help="Passes over the pictures in pretraining.", min=1)] = 50,
    steps: Annotated[int | None, typer.Option(help="Fine-tuning steps of each network (default 300).", min=1)] = None,
    n_labels: Annotated[int | None, typer.Option(help="Learn from so many labels only.", min=4)] = None,
    site: Annotated[
        str,
        typer.Option(
            help="What the column 'site' is to say of these pictures (default: a stand-in for each InstitutionName)."
        ),
    ] = "",
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in MLflow's registry (default: the finding).")
    ] = None,
    self_training: SelfTraining = False,
    ensemble: Ensemble = None,
    finding: Finding = PNEUMONIA,
    leave_out_flagged: LeaveOutFlagged = False,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """From a hospital's folder to a registered model and a page for an ethics board, in one command.

    Takes the files in, pretrains without labels, fine-tunes, audits, packages and registers. A third of the labelled
    patients judges (or the test part that the labels name) and teaches nothing. Interrupted, the same command goes on.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import _medical_run as job

    plan = job.Plan(
        size=size, epochs=epochs, steps=steps, n_labels=n_labels, site=site, register=register or finding, seed=seed,
        self_training=self_training, ensemble=ensemble or 1, finding=finding,
        leave_out_flagged=leave_out_flagged,
    )  # fmt: skip
    return job.run(
        source, labels=labels, out=out, private=private, plan=plan,
        dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip
