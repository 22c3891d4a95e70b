"""``unlabeled medical <verb>``."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from unlabeled.pipelines import cli_medical_audit, cli_medical_crossvalidation, cli_medical_intake, cli_medical_run
from unlabeled.pipelines._cost import (
    PNEUMONIA,
    BesideRandom,
    DryRun,
    Ensemble,
    Finding,
    Findings,
    LeaveOutFlagged,
    Price,
    SelfTraining,
    Watts,
)
from unlabeled.pipelines.jobs import Outcome

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Chest X-rays: pretrain without labels, fine-tune on few, predict. For research; not a medical device.",
)

Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="A folder of DICOM, PNG or JPEG files (searched to its depths), a store that 'intake' wrote, a .parquet "
        "table with a column of encoded pictures, or an .npz archive with an array 'images'.",
    ),
]
Seed = Annotated[int, typer.Option(help="Fixes everything random.")]
# As in unlabeled.medical.tasks, which loads PyTorch and so cannot be imported for --help; a test holds them together.
TaskName = Literal["masked", "contrastive", "vicreg", "rotation", "order", "joint"]
MaskingName = Literal["random", "lungs", "blocks", "adaptive", "sparse", "sparse-random"]
TuningName = Literal["full", "adapters", "head"]
FormatName = Literal["huggingface", "onnx"]

app.command()(cli_medical_run.run)
app.command()(cli_medical_intake.intake)


@app.command()
def pretrain(
    source: Input,
    out: Annotated[Path, typer.Option(help="Folder for the model and its report.")] = Path("medical-pretrained"),
    size: Annotated[
        int | None,
        typer.Option(
            help="Rows and columns that pictures are averaged down to; a multiple of the patch (default: 64 with "
            "patches of 8; with --start-from, as that folder says).",
            min=16,
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            help="Start from the encoder of a downloaded Hugging Face ViT, ViTMAE or I-JEPA folder (config.json and "
            "safetensors); it decides on the width, depth and patch, and is adapted to one channel and --size."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the pictures.", min=1)] = 50,
    task: Annotated[
        str,
        typer.Option(
            metavar="|".join(get_args(TaskName)),
            help="The question that teaches: fill in, tell two views apart, turns, order, or two; or one of your own "
            "(docs/new-task.md).",
        ),
    ] = "masked",
    masking: Annotated[
        MaskingName, typer.Option(help="What a task that fills in hides; 'random' is the ablation of all others.")
    ] = "random",
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches that is hidden, 0 to 1.")] = 0.75,
    temperature: Annotated[float, typer.Option(help="Of the contrastive task, above 0.")] = 0.2,
    augmentation: Annotated[float, typer.Option(help="Strength of crops and contrasts, 0 to 2.")] = 1.0,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    class_token: Annotated[
        bool, typer.Option("--class-token", help="Add the token of no patch that a ViTMAE has (see 'export').")
    ] = False,
    seed: Seed = 0,
    split_column: Annotated[str | None, typer.Option(help="The table's column of splits (default: split).")] = None,
    split: Annotated[
        str | None, typer.Option(help="Use only pictures of this split (default: train, where the table has it).")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV of a few labels (as for 'finetune') to look at on the way: how good are the features?"),
    ] = None,
    finding: Finding = PNEUMONIA,
    leave_out_flagged: LeaveOutFlagged = False,
    beside_random: BesideRandom = False,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Learn what radiographs look like; labels teach nothing here. Interrupted, the same command goes on."""
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import medical as job

    return job.pretrain(
        source, out=out, size=size, start_from=start_from, epochs=epochs, task=task, masking=masking,
        mask_ratio=mask_ratio, temperature=temperature, augmentation=augmentation, learning_rate=learning_rate,
        class_token=class_token, seed=seed, split_column=split_column, split=split, labels=labels,
        finding=finding, leave_out_flagged=leave_out_flagged, beside_random=beside_random,
        dry_run=dry_run, rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def finetune(
    source: Input,
    model: Annotated[
        Path,
        typer.Option(help="Model folder that 'pretrain' wrote, or a Hugging Face folder as for its --start-from."),
    ] = Path("medical-pretrained"),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns id (or image_id, file), label (1 pneumonia, 0 not) and, where known, patient_id "
            "and split. Not needed when the input is a table with a label column."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the model and its report.")] = Path("medical-model"),
    n_labels: Annotated[
        int | None, typer.Option(help="Learn from so many labels only (default: all but the unseen part).", min=4)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Optimiser steps of each network, 32 pictures a step (default: as the model was made, usually 300; "
            "never less than four passes over the labels). Fewer are faster.",
            min=1,
        ),
    ] = None,
    tuning: Annotated[
        TuningName | None,
        typer.Option(
            help="What the labels may change: the whole network (full, the default), a low-rank part of each of its "
            "maps (adapters), or nothing of it (head). The baseline from scratch is always trained as a whole."
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(help="Factor on the learning rate for every layer that lies above (default 1).", min=0.1, max=1.0),
    ] = None,
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop",
            help="Keep the moment of each fine-tuning that tells the validation pictures (or the left-out fold) best.",
        ),
    ] = False,
    self_training: SelfTraining = False,
    ensemble: Ensemble = None,
    finding: Findings = [PNEUMONIA],  # noqa: B006 - never changed
    size: Annotated[
        int | None,
        typer.Option(help="Rows and columns of the pictures, with a Hugging Face folder (default: its own).", min=16),
    ] = None,
    leave_out_flagged: LeaveOutFlagged = False,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Learn pneumonia from few labels, and compare with the baselines on patients not seen before.

    The same network is trained once more from scratch for the comparison, which doubles the time. Of several findings,
    one network learns all, and each gets a model in OUT.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import medical as job

    rates = Rates(watts=watts, price_per_hour=price_per_hour)
    if len(finding) > 1:
        from unlabeled.core.errors import DataError
        from unlabeled.pipelines import _medical_several as together

        if early_stop:
            raise DataError("--early-stop knows one finding at a time: leave it out, or name one")
        if self_training:
            raise DataError("--self-training knows one finding at a time: leave it out, or name one")
        return together.finetune(
            source, model=model, labels=labels, out=out, findings=finding, n_labels=n_labels, steps=steps,
            tuning=tuning, layer_decay=layer_decay, ensemble=ensemble, size=size, leave_out_flagged=leave_out_flagged,
            seed=seed, dry_run=dry_run, rates=rates,
        )  # fmt: skip
    return job.finetune(
        source, model=model, labels=labels, out=out, n_labels=n_labels, steps=steps, tuning=tuning,
        layer_decay=layer_decay, early_stop=early_stop, self_training=self_training, ensemble=ensemble,
        finding=finding[0], size=size, leave_out_flagged=leave_out_flagged, seed=seed, dry_run=dry_run, rates=rates,
    )  # fmt: skip


app.command()(cli_medical_crossvalidation.crossvalidate)


@app.command()
def search(
    source: Input,
    labels: Annotated[Path | None, typer.Option(help="As for finetune.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for trials.csv and the report.")] = Path("medical-search"),
    size: Annotated[int, typer.Option(help="As for pretrain.", min=16)] = 64,
    epochs: Annotated[int, typer.Option(help="Passes over the pictures in each trial.", min=1)] = 10,
    trials: Annotated[int, typer.Option(help="Settings to try; the defaults are the first.", min=1)] = 20,
    task: Annotated[str, typer.Option(metavar="NAME", help="As for pretrain.")] = "masked",
    masking: Annotated[MaskingName, typer.Option(help="As for pretrain.")] = "random",
    finding: Finding = PNEUMONIA,
    leave_out_flagged: LeaveOutFlagged = False,
    seed: Seed = 0,
    dry_run: DryRun = False,
    price_per_hour: Price = None,
    watts: Watts = None,
) -> Outcome:
    """Try settings of the pretraining (mask ratio, temperature, augmentation), judged by a linear probe.

    Weak trials end early. Test patients are neither learnt from nor judged on. Needs pip install 'unlabeled[search]'.
    """
    from unlabeled.core.budget import Rates
    from unlabeled.pipelines import _medical_search as job

    return job.search(
        source, labels=labels, out=out, size=size, epochs=epochs, trials=trials, task=task, masking=masking,
        finding=finding, leave_out_flagged=leave_out_flagged, seed=seed, dry_run=dry_run,
        rates=Rates(watts=watts, price_per_hour=price_per_hour),
    )  # fmt: skip


@app.command()
def predict(
    source: Input,
    model: Annotated[
        Path, typer.Option(help="Model folder that 'finetune' wrote; of several findings, the folder of all.")
    ] = Path("medical-model"),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV of labels, to say how good the predictions are; patients that the model learnt from are refused. "
            "Without it, a table's own labels of other patients are used."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, the same as Parquet, and the report.")] = Path(
        "medical-predictions"
    ),
    sensitivity: Annotated[
        float, typer.Option(help="Share of pneumonia that the column sensitive_call is to find, 0 to 1.")
    ] = 0.95,
    assured: Annotated[
        bool,
        typer.Option(
            "--assured", help="Lower that threshold until even the lower bound of its sensitivity is at --sensitivity."
        ),
    ] = False,
    error_rate: Annotated[
        float,
        typer.Option(help="Share of wrong calls of either class that the column decision keeps to; the rest: refer."),
    ] = 0.05,
    prevalence: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|estimate",
            help="Share of pneumonia where the pictures come from, or 'estimate' to find it from their scores "
            "(default: as among the labels).",
        ),
    ] = None,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="Adapt the scores to pictures of another hospital or device, by all of them together and without "
            "labels (50 or more, of both kinds): thresholds then carry over better, and stated rates are not assured.",
        ),
    ] = False,
    heat_maps: Annotated[
        int, typer.Option(help="Draw what moved so many of the highest scores (column heat_map).", min=0)
    ] = 10,
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom",
            help="Also write OUT/dicom: for each DICOM file a Secondary Capture of its heat map and a structured "
            "report (TID 1500), in the study it came from. They carry the patient's name and identifiers, because "
            "they go back to the archive: only you can read the folder, and the tracked run never holds it.",
        ),
    ] = False,
) -> Outcome:
    """Score pictures and report on them; with labels, on how good the scores are as well."""
    from unlabeled.medical._decisions import Stated
    from unlabeled.pipelines import _medical_several as together
    from unlabeled.pipelines import medical as job

    stated = Stated.of_text(
        sensitivity=sensitivity, assured=assured, error_rate=error_rate, prevalence=prevalence, adapt=adapt
    )
    several = together.models_in(model)
    if several:
        return together.predict(
            source, models=several, out=out, labels=labels, stated=stated, heat_maps=heat_maps, dicom=dicom
        )
    return job.predict(source, model=model, labels=labels, out=out, stated=stated, heat_maps=heat_maps, dicom=dicom)


app.command()(cli_medical_audit.audit)
app.command("labels-needed")(cli_medical_audit.labels_needed)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that 'pretrain' or 'finetune' wrote.")],
    to: Annotated[
        FormatName,
        typer.Option(
            help="huggingface: the pretrained encoder as a folder for transformers, a ViTMAE with its decoder where "
            "the model has a class token and fills randomly hidden patches in. onnx: the encoder, and of a fine-tuned "
            "model also the classifier, which gives probabilities (needs pip install 'unlabeled[onnx]')."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files; an earlier export in it is replaced.")] = Path(
        "medical-export"
    ),
) -> Outcome:
    """Write a model for other programs, with the preprocessing that it needs, and check that the numbers agree.

    There is no MONAI bundle: its specification requires the weights as a pickle, and nothing here writes pickles.
    """
    from unlabeled.pipelines import _medical_exchange as job

    return job.export(model, out=out, to=to)


@app.command()
def package(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that 'finetune' wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the package; an earlier one in it is replaced.")] = Path(
        "medical-package"
    ),
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register it with MLflow as a new version of this name.")
    ] = None,
) -> Outcome:
    """Package a fine-tuned model for MLflow (load_model, models serve), with signature and example.

    Rows have one column, image: a PNG, JPEG or DICOM file in base64, or a nested array of 8-bit numbers of the model's
    size. The answer holds the columns that 'predict' writes, but those of a stated prevalence. No pickle is written.
    """
    from unlabeled.pipelines import _medical_package as job

    return job.package(model, out=out, register=register)
