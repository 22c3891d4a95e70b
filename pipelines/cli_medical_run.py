"""``unlabeled medical run``."""

from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines._cost import (
    PNEUMONIA,
    DryRun,
    Ensemble,
    Findings,
    LeaveOutFlagged,
    Ocr,
    Price,
    SelfTraining,
    Watts,
)
from unlabeled.pipelines.jobs import Outcome


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
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name in MLflow's registry (default: the finding); of several findings, NAME-FINDING for each.",
        ),
    ] = None,
    self_training: SelfTraining = False,
    ensemble: Ensemble = None,
    finding: Findings = [PNEUMONIA],  # noqa: B006 - never changed
    leave_out_flagged: LeaveOutFlagged = False,
    ocr: Ocr = False,
    label_need: Annotated[
        bool,
        typer.Option(
            "--label-need",
            help="Also measure how many labels are needed ('labels-needed', five draws of each number), for the "
            "audit's page: it trains many times over, see --dry-run.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """From a hospital's folder to a registered model and a page for an ethics board, in one command.

    Takes the files in, pretrains without labels, fine-tunes, audits, packages and registers. A third of the labelled
    patients judges (or the test part that the labels name) and teaches nothing. Interrupted, the same command goes on;
    with corrected labels or other settings, stages that depend on them are done again and the others kept.
    Of several findings, one network learns all; each gets a model, an audit and a package of its own.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import _medical_run as job

    named = register or (finding[0] if len(finding) == 1 else "")
    plan = job.Plan(
        size=size, epochs=epochs, steps=steps, n_labels=n_labels, site=site, register=named, seed=seed,
        self_training=self_training, ensemble=ensemble or 1, findings=tuple(finding),
        leave_out_flagged=leave_out_flagged, label_need=label_need, ocr=ocr,
    )  # fmt: skip
    return job.run(
        source, labels=labels, out=out, private=private, plan=plan,
        dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip
