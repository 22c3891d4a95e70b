"""``unlabeled medical audit`` and ``unlabeled medical labels-needed``."""

from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines._cost import (
    PNEUMONIA,
    DryRun,
    Ensemble,
    Finding,
    LeaveOutFlagged,
    Price,
    SelfTraining,
    Watts,
)
from unlabeled.pipelines.jobs import Outcome


def audit(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="As for finetune.")],
    model: Annotated[Path, typer.Option(help="Model folder that 'finetune' wrote.")] = Path("medical-model"),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV of labels as for 'finetune', with what is known of the people: age (or age_band), sex, view, "
            "device, site, width and height of the originals. Patients that the model learnt from are refused. Without "
            "it, a table's own labels of other patients are used."
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="CSV of boxes that readers drew: image_id, x, y, width, height, in pixels of the original or in "
            "shares of its sides; of padded pictures that no store holds also border_top, border_bottom, border_left "
            "and border_right, as an intake's studies.csv has them."
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            help="The intake's private list of files (study-private/store-files.csv): boxes may then name the "
            "hospital's own files. Nothing of it is written anywhere."
        ),
    ] = None,
    label_need: Annotated[
        Path | None,
        typer.Option(help="Folder that 'labels-needed' wrote with this model: the page then shows its curve."),
    ] = None,
    leave_out_flagged: LeaveOutFlagged = False,
    least: Annotated[
        int, typer.Option(help="Patients with and without pneumonia that a group needs to be judged.", min=2)
    ] = 20,
    out: Annotated[Path, typer.Option(help="Folder for the report, audit.json and tables.")] = Path("medical-audit"),
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
) -> Outcome:
    """Whom the model serves badly, what shortcuts it may take, whether its heat maps hold: a page for an ethics board.

    DICOM files bring age band, sex, view, device and site along. Writes a model card and two checklists (CLAIM,
    TRIPOD+AI) as far as they can be filled in.
    """
    from unlabeled.pipelines import _medical_audit as job

    return job.audit(
        source, model=model, labels=labels, out=out, boxes=boxes, names=names, label_need=label_need,
        leave_out_flagged=leave_out_flagged, least=least, seed=seed,
    )  # fmt: skip


def labels_needed(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="As for finetune.")],
    model: Annotated[Path, typer.Option(help="Model folder that 'pretrain' wrote.")] = Path("medical-pretrained"),
    labels: Annotated[Path | None, typer.Option(help="As for finetune.")] = None,
    price_per_label: Annotated[float, typer.Option(help="In EUR, for the advice.", min=0)] = 0.0,
    counts: Annotated[
        str | None,
        typer.Option(help="Numbers of labels, e.g. 25,50,100 (default: doubling from 25 to 80 % of those at hand)."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Draws of labels for each number.", min=3)] = 5,
    steps: Annotated[int | None, typer.Option(help="As for finetune.", min=1)] = None,
    self_training: SelfTraining = False,
    ensemble: Ensemble = None,
    finding: Finding = PNEUMONIA,
    leave_out_flagged: LeaveOutFlagged = False,
    out: Annotated[Path, typer.Option(help="Folder for the report and the curve.")] = Path("medical-labels-needed"),
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """What more labels would bring: a curve over label counts, where it leads, and what a point would cost.

    Trains ours and the network from scratch once for each number of labels and draw; measured points are kept, and the
    same command goes on where it was.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.core.errors import DataError
    from unlabeled.pipelines import _medical_label_need as job

    try:
        chosen = None if counts is None else [int(part) for part in counts.split(",")]
    except ValueError:
        raise DataError(
            f"--counts takes whole numbers with commas between, such as 25,50,100; got {counts!r}"
        ) from None
    return job.labels_needed(
        source, model=model, labels=labels, out=out, price=price_per_label, counts=chosen, seeds=seeds, steps=steps,
        self_training=self_training, ensemble=ensemble, finding=finding, leave_out_flagged=leave_out_flagged,
        seed=seed, dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip
