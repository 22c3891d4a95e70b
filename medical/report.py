"""The pages that the medical jobs end with."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import Report, Section, Tone, Verdict, losses, plot_curves, watch_figure
from unlabeled.medical import _figures as figures
from unlabeled.medical._decisions import REFER, Decisions
from unlabeled.medical._declared import add_representation
from unlabeled.medical._finetuning import Decision
from unlabeled.medical._operating import decision_of
from unlabeled.medical._planning import PASSES, self_training
from unlabeled.medical._report_decisions import SHADED, add_evaluation_sections, add_prediction_sections
from unlabeled.medical._report_pictures import add_ends, add_examples
from unlabeled.medical._start import Start
from unlabeled.medical._storage import preprocessing
from unlabeled.medical.evaluation import METRICS, Scored, auroc_gain, metrics
from unlabeled.medical.images import ImageSet, Skip, skip_summary
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.shortcuts import PROBED, Shortcut

if TYPE_CHECKING:
    import pandas as pd

LISTED = 200
LIMITS = (
    "Not a medical device. Nothing here was assessed for diagnosis, and no number here holds for another hospital.",
    "Pictures from another site, machine or age group score differently (a shift of the whole scale is common): "
    "ranking often carries over, thresholds and probabilities often do not. Choose them anew on local pictures.",
    "Probabilities hold where the finding is as frequent as it was among the labels.",
    "Heat maps show which patches moved the network, not where disease is; a finding outside them can be real.",
    "Pictures are read at low resolution: what is small at full resolution is not seen.",
)


def verdict(labels: NDArray[np.int64], methods: Mapping[str, Scored], *, patients: NDArray[np.str_]) -> Verdict:
    """Ours (the first method) against the best of the others by AUROC, with a paired interval."""
    from unlabeled.core.evaluation import roc_auc

    (_, mine), *others = methods.items()
    best, theirs = max(others, key=lambda item: roc_auc(labels, item[1].probability))
    gain = auroc_gain(labels, mine.probability, theirs.probability, patients=patients)
    return verdict_of(best, roc_auc(labels, mine.probability), roc_auc(labels, theirs.probability), gain)


def verdict_of(best: str, ours: float, theirs: float, gain: Estimate) -> Verdict:
    """What an AUROC of ours beside the best baseline's, and the paired difference, amount to."""
    figures_ = f"AUROC {ours:.3f} against {theirs:.3f}"
    difference = f"difference {gain.value:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}"
    if gain.low > 0:
        return Verdict(f"Better than the best baseline ({best}): {figures_} ({difference}).", "good")
    if gain.high < 0:
        return Verdict(f"Worse than a baseline ({best}): {figures_} ({difference}). Use the baseline.", "bad")
    return Verdict(f"Not distinguishable from the best baseline ({best}): {figures_} ({difference}).", "flat")


def headline(table: "pd.DataFrame", finding: str, *, skipped: int) -> str:
    """What became of pictures without labels: their calls, and whom not to call but to refer.

    Args:
        table: :attr:`~unlabeled.medical._decisions.Decisions.table`.
        skipped: inputs that could not be read.
    """
    called, referred = int((table.call == finding).sum()), int((table.decision == REFER).sum())
    strange = int(table.ood_flag.sum())
    unlike = f", {strange} of them as unlike what it learnt from" if strange else ""
    return (
        f"{called} of {len(table)} pictures are at or above the threshold of {finding}; {referred} are referred to a "
        f"radiologist{unlike} ({skipped} inputs skipped)."
    )


def evaluation_report(
    *,
    title: str,
    subtitle: str,
    verdict: Verdict,
    model: PneumoniaModel,
    unseen: ImageSet,
    methods: Mapping[str, Scored],
    table: Mapping[str, Mapping[str, Estimate]],
    skipped: Sequence[Skip],
    notes: Sequence[str] = (),
    decisions: Decisions | None = None,
    patients: NDArray[np.str_] | None = None,
    synthetic: bool = False,
    run_id: str | None = None,
) -> Report:
    """What a fine-tuned model is worth on pictures it has not seen.

    Args:
        decisions: on all pictures of the input, where predictions were asked for.
        patients: (N,) of those pictures; without them their shares have intervals over pictures.
        unseen: labelled pictures of patients whose labels were not used.
        methods: ours first, then the baselines, on ``unseen``.
        table: :func:`~unlabeled.medical.evaluation.metrics` of each method; ours at the 95 % point is measured again
            where ``methods`` have another threshold for it than predictions are made at.
    """
    assert unseen.labels is not None
    ours = next(iter(methods))
    methods, table = _at_one_point(model, unseen, methods, table)
    decision, facts = methods[ours].decision, model.finetuning_ or {}
    report = Report(
        title=title,
        subtitle=subtitle,
        verdict=verdict,
        facts={
            "AUROC": str(table[ours]["AUROC"]),
            "sensitivity": str(table[ours]["sensitivity"]),
            "specificity": str(table[ours]["specificity"]),
            "labels learnt from": facts.get("images", 0),
            "unseen pictures": len(unseen),
            "inputs skipped": len(skipped),
        },
        synthetic=synthetic,
        run_id=run_id,
    )
    compared = report.section("Beside the baselines" if len(methods) > 1 else "On unseen pictures")
    compared.text(
        f"{len(unseen)} pictures of {len(np.unique(unseen.patients))} patients, {int(unseen.labels.sum())} with "
        f"{model.finding}; none of these patients' labels was used for training or for a choice. Brackets are 95 % "
        "bootstrap intervals over patients."
    )
    compared.table(
        ["", *METRICS],
        [[name, *(values[m] for m in METRICS)] for name, values in table.items()],
        ours=[0],
        note="Every method had the same labels, and chose temperature and thresholds the same way on "
        f"{facts.get('decided_on', 'held-out pictures')} ({decision.chosen_on} pictures, "
        f"{100 * decision.prevalence:.0f} % {model.finding}). {steps_said(model)}",
    )
    _everybody_ill(compared, table, decision)
    compared.figure(
        figures.roc(unseen.labels, methods, model.finding, patients=unseen.patients),
        f"ROC curves; dots mark the thresholds chosen beforehand; {SHADED}",
    )
    honest = report.section("Do the probabilities mean what they say?")
    honest.figure(
        figures.calibration(unseen.labels, methods, model.finding, patients=unseen.patients),
        "Stated probability against frequency, in fifths; bars are 95 % intervals over patients",
    )
    honest.figure(
        figures.histogram(unseen.labels, methods[ours], model.finding), "Our probabilities by true label; thresholds"
    )
    add_evaluation_sections(report, model, unseen, methods)
    if decisions is not None:
        add_prediction_sections(report, model, decisions, patients=patients)
    add_examples(report, model, unseen, methods[ours])
    _curves(report, model)
    _intake(report, skipped, notes)
    _limits(report)
    return report


def steps_said(model: PneumoniaModel) -> str:
    """How long the model and the network from scratch were trained on labels, and the model beyond that."""
    steps, more = steps_taken(model)
    said = (
        f"Networks take at least {model.finetune_steps:,} steps and at least {PASSES} passes over their labels: ours "
        f"took {steps:,} each, the one from scratch went by the same rule."
    )
    if more:
        said += (
            f" Each of ours then took {more:,} more ({steps + more:,} in all), learning from what it had said of "
            "pictures without labels; the one from scratch did not."
        )
    return f"{said} Without pretraining, more steps would bring it closer."


def steps_taken(model: PneumoniaModel) -> tuple[int, int]:
    """Optimiser steps of each network on labels, and after those as a student of what it had said itself."""
    facts = model.finetuning_ or {}
    return facts.get("steps", 0), self_training(model).steps if "students" in facts else 0


def _at_one_point(
    model: PneumoniaModel,
    unseen: ImageSet,
    methods: Mapping[str, Scored],
    table: Mapping[str, Mapping[str, Estimate]],
) -> tuple[dict[str, Scored], dict[str, Mapping[str, Estimate]]]:
    """Methods and their numbers, ours with the threshold for 95 % that predictions are made at."""
    assert unseen.labels is not None
    ours, scored = next(iter(methods.items()))
    decision = decision_of(model)
    if decision.sensitive_threshold == scored.decision.sensitive_threshold:
        return dict(methods), dict(table)
    moved = scored._replace(decision=decision)
    again = metrics(unseen.labels, moved, patients=unseen.patients)
    at_point = {name: again[name] for name in METRICS if "95 % point" in name}
    return {**methods, ours: moved}, {**table, ours: {**table[ours], **at_point}}


def _everybody_ill(section: Section, table: Mapping[str, Mapping[str, Estimate]], decision: Decision) -> None:
    """Explains a specificity of 0 at the 95 % point where there is one; unexplained it reads like a fault."""
    names = [name for name, values in table.items() if values["specificity at the 95 % point"].value == 0]
    if names:
        section.note(
            f"A specificity of 0 at the 95 % point ({', '.join(names)}): with the few pictures that thresholds were "
            f"chosen on ({decision.chosen_on}), only calling everybody ill reached 95 %. Where the pictures come from "
            "elsewhere, the whole scale may have moved as well."
        )


def prediction_report(
    *,
    model: PneumoniaModel,
    images: ImageSet,
    scored: Scored,
    decisions: Decisions,
    notes: Sequence[str] = (),
    run_id: str | None = None,
) -> Report:
    """What a fine-tuned model says about pictures that nobody judged it on.

    Args:
        scored: our probabilities of ``images``.
        decisions: ours on ``images``.
        notes: what else a reader should know about the intake.
    """
    scored = scored._replace(decision=decision_of(model))
    p, decision = scored
    called, sensitive = int((p >= decision.threshold).sum()), int((p >= decisions.point.threshold).sum())
    report = Report(
        title=f"{model.finding.capitalize()}: predictions without labels",
        subtitle=f"{model.image_size} pixels, {preprocessing(model)}",
        verdict=Verdict(
            f"{headline(decisions.table, model.finding, skipped=len(images.skipped))} "
            "How much of this is right is not known here: no labels judged it."
        ),
        facts={
            "pictures": len(images),
            f"called {model.finding}": called,
            f"called at the {decisions.point.target:.0%} point": sensitive,
            "threshold": decision.threshold,
            "labels learnt from": (model.finetuning_ or {}).get("images", 0),
            "inputs skipped": len(images.skipped),
        },
        run_id=run_id,
    )
    report.section("Where the pictures fall").figure(
        figures.scores(scored, model.finding),
        "Probabilities of all pictures, and the thresholds chosen at fine-tuning: the plain one makes the calls, the "
        f"dotted one was chosen to find 95 % of {model.finding}",
    )
    add_prediction_sections(report, model, decisions, patients=images.patients)
    add_ends(report, model, images, scored)
    _intake(report, images.skipped, (*images.notes, *notes))
    _limits(report, first=_of_thresholds(model, decision))
    return report


def pretraining_report(
    *,
    model: PneumoniaModel,
    images: ImageSet,
    quality: Mapping[str, tuple[float, float]] | None,
    encoded: Sequence[Shortcut],
    synthetic: bool = False,
    run_id: str | None = None,
) -> Report:
    """What the pretraining learnt.

    Args:
        quality: PSNR (dB) and SSIM by what was put into the hidden patches (:func:`reconstruction_quality`);
            ``None`` for a task that fills nothing in.
        encoded: what of people and pictures can be told from the features
            (:func:`~unlabeled.medical.shortcuts.encoded`).
    """
    facts = model.pretraining_ or {}
    curves = losses(facts["curves"])
    started = "" if model.start_ is None else f", starting from the encoder of {model.start_.name}"
    text = f"Pretrained on {facts['images']:,} pictures without labels{started}."
    tone: Tone = "plain"
    if quality is not None:
        ours, plain = quality["predicted"], quality["each patch's mean"]
        tone = "good" if ours[1] > plain[1] else "bad"
        text += (
            f" Hidden patches are filled in with a structural similarity of {ours[1]:.3f}, where each patch's mean "
            f"alone gives {plain[1]:.3f}."
        )
    report = Report(
        title="Pretraining on radiographs without labels",
        subtitle=f"Task '{model.task}', masking '{model.masking}', {model.image_size} pixels, {preprocessing(model)}",
        verdict=Verdict(text, tone),
        facts={
            "pictures": facts["images"],
            "steps": facts["steps"],
            "minutes": facts["seconds"] / 60,
            "inputs skipped": len(images.skipped),
        },
        synthetic=synthetic,
        run_id=run_id,
    )
    if quality is not None:
        _filled_in(report, model, images, quality)
    if model.start_ is not None:
        _started(report, model.start_)
    training = report.section("Training")
    training.figure(plot_curves(curves), f"What the task measures, by step: {', '.join(curves)}")
    watch_figure(training, facts["curves"])
    add_representation(
        report,
        encoded,
        asked="A linear probe on the network as it is now, judged on patients it did not see, on up to "
        f"{PROBED:,} of these pictures: can it tell who is on the picture, and how it was taken?",
    )
    _intake(report, images.skipped, images.notes)
    _limits(report)
    return report


def _started(report: Report, start: Start) -> None:
    section = report.section("What it started from")
    section.text(
        f"The encoder of {start.name}, fingerprint {start.fingerprint}, licence: {start.licence or 'not stated there'}."
    )
    for line in start.lines:
        section.text(line)


def _filled_in(
    report: Report, model: PneumoniaModel, images: ImageSet, quality: Mapping[str, tuple[float, float]]
) -> None:
    shown = report.section("What it fills in")
    some = images.images[np.linspace(0, len(images) - 1, min(6, len(images))).astype(int)]
    result = model.reconstruct(some)
    rows = {"original": result.original, "hidden": result.shown, "filled in": result.filled}
    shown.figure(figures.reconstructions(rows), "Original; hidden patches replaced by their mean; as predicted")
    shown.table(
        ["hidden patches hold", "PSNR (dB)", "SSIM"],
        [[name, round(psnr, 2), ssim] for name, (psnr, ssim) in quality.items()],
        ours=[0],
        note="Over up to 256 of the pictures; each patch's own mean and contrast are given. Measured with MONAI. A "
        "good reconstruction is no promise of a good classifier.",
    )


def reconstruction_quality(model: PneumoniaModel, images: NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    """PSNR (dB) and SSIM against the original, over the range that the originals span (MONAI's metrics)."""
    import torch
    from monai.metrics import PSNRMetric, SSIMMetric

    result = model.reconstruct(images)
    span = float(result.original.max() - result.original.min())
    original = torch.from_numpy(result.original)[:, None]
    quality = {}
    for name, filled in (("predicted", result.filled), ("each patch's mean", result.shown)):
        picture = torch.from_numpy(filled)[:, None]
        psnr = PSNRMetric(max_val=span)(picture, original).mean().item()
        ssim = SSIMMetric(spatial_dims=2, data_range=span, win_size=7)(picture, original).mean().item()
        quality[name] = (float(psnr), float(ssim))
    return quality


def _curves(report: Report, model: PneumoniaModel) -> None:
    section = report.section("Training")
    curves: Mapping[str, Any] = (model.finetuning_ or {}).get("curves", {})
    section.figure(plot_curves({"fine-tuning loss": curves["loss"]}), "Loss of the fine-tuning, augmented batches")


def _intake(report: Report, skipped: Sequence[Skip], notes: Sequence[str]) -> None:
    section = report.section("What was left out, and why")
    for note in notes:
        section.text(f"{note[:1].upper()}{note[1:]}.")
    if not skipped:
        section.text("Nothing: every input could be read.")
        return
    section.table(["reason", "count", "for example"], skip_summary(skipped))
    section.table(
        ["input", "reason"],
        [tuple(skip) for skip in skipped[:LISTED]],
        note="" if len(skipped) <= LISTED else f"The first {LISTED} of {len(skipped)}; all are in skipped.csv.",
    )


def _of_thresholds(model: PneumoniaModel, decision: Decision) -> str:
    where = (model.finetuning_ or {}).get("decided_on", "held-out pictures")
    return (
        f"The thresholds come from {where} at fine-tuning ({decision.chosen_on} pictures, "
        f"{100 * decision.prevalence:.0f} % {model.finding}). They do not carry over to another hospital."
    )


def _limits(report: Report, *, first: str = "") -> None:
    section = report.section("Limits")
    for limit in (first, *LIMITS):
        if limit:
            section.text(limit)
