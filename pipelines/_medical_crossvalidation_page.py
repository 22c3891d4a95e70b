"""Numbers and page of a cross-validation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import evaluation as core
from unlabeled.core.evaluation import Estimate
from unlabeled.core.intervals import newcombe_area, square_and_add
from unlabeled.core.report import OTHERS, OURS, Report, new_figure
from unlabeled.medical.evaluation import SAMPLES, Scored
from unlabeled.medical.images import ImageSet
from unlabeled.medical.report import LIMITS, verdict_of
from unlabeled.pipelines._medical_output import METHODS


@dataclass(frozen=True)
class Judged:
    """What one method says of pictures (N,): the probability, the call, and the call at the 95 % point."""

    probability: NDArray[np.float64]
    called: NDArray[np.bool_]
    sensitive: NDArray[np.bool_]

    @classmethod
    def of(cls, scored: Scored) -> "Judged":
        p, decision = scored.probability, scored.decision
        return cls(p, p >= decision.threshold, p >= decision.sensitive_threshold)


def auroc_within(labels: NDArray[Any], probability: NDArray[Any], fold: NDArray[Any]) -> float:
    """AUROC over pairs of pictures of the same fold: the share of those in which the ill one scores higher.

    Each fold has its own model, whose scale depends on how frequent pneumonia was among its labels; by site that runs
    against the frequency among the pictures it judges, and pairs across folds would say that the models are worse
    than any of them is.

    Raises:
        ValueError: no fold holds both classes.
    """
    pairs, right = 0, 0.0
    for number in np.unique(fold):
        y, p = labels[fold == number], probability[fold == number]
        here = int((y == 1).sum()) * int((y == 0).sum())
        if here:
            pairs, right = pairs + here, right + here * core.roc_auc(y, p)
    if not pairs:
        raise ValueError("no fold holds both classes")
    return right / pairs


def estimated_within(judged: ImageSet, method: Judged, fold: NDArray[np.int64]) -> Estimate:
    """:func:`auroc_within`, its interval over patients; where no draw moves it, by the number of patients of either
    class in each fold (Newcombe)."""
    assert judged.labels is not None
    found = core.bootstrap(
        auroc_within, judged.labels, method.probability, fold, groups=judged.patients, samples=SAMPLES
    )
    if found.high > found.low:
        return found
    people = [
        [len(np.unique(judged.patients[(fold == number) & (judged.labels == label)])) for number in np.unique(fold)]
        for label in (1, 0)
    ]
    ill, well = zip(*[both for both in zip(*people, strict=True) if all(both)], strict=True)
    return Estimate(found.value, *newcombe_area(found.value, ill, well, 0.95))


def gain_within(judged: ImageSet, ours: Judged, theirs: Judged, fold: NDArray[np.int64]) -> Estimate:
    """Our AUROC minus theirs, paired over the same patients.

    Where no draw moves it, its interval comes from those of the two AUROCs, taken for independent: wider than need be.
    """
    assert judged.labels is not None
    gain = core.bootstrap(
        lambda y, a, b, f: auroc_within(y, a, f) - auroc_within(y, b, f),
        judged.labels, ours.probability, theirs.probability, fold, groups=judged.patients, samples=SAMPLES,
    )  # fmt: skip
    if gain.high > gain.low:
        return gain
    a, b = (estimated_within(judged, method, fold) for method in (ours, theirs))
    parts = (a.value, (a.low, a.high)), (-b.value, (-b.high, -b.low))
    return Estimate(gain.value, *square_and_add(gain.value, *parts))


def measured(judged: ImageSet, method: Judged, fold: NDArray[np.int64]) -> dict[str, Estimate]:
    """Numbers over all folds, with 95 % bootstrap intervals over patients.

    Each picture was called by the thresholds of the model that saw no label of its patient; the AUROC is
    :func:`auroc_within` folds.
    """
    assert judged.labels is not None
    calls: dict[str, tuple[Callable[..., float], NDArray[Any]]] = {
        "accuracy": (core.accuracy, method.called),
        "balanced accuracy": (core.balanced_accuracy, method.called),
        "sensitivity": (core.sensitivity, method.called),
        "specificity": (core.specificity, method.called),
        "sensitivity at the 95 % point": (core.sensitivity, method.sensitive),
        "specificity at the 95 % point": (core.specificity, method.sensitive),
        "calibration error": (core.expected_calibration_error, method.probability),
    }
    return {
        "AUROC": estimated_within(judged, method, fold),
        **{
            name: core.bootstrap(measure, judged.labels, values, groups=judged.patients, samples=SAMPLES)
            for name, (measure, values) in calls.items()
        },
    }


def of_fold(judged: ImageSet, whole: Mapping[str, Judged], rows: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """AUROC and balanced accuracy of every method in one fold; nan where it holds one class only."""
    assert judged.labels is not None
    y = judged.labels[rows]
    if len(np.unique(y)) < 2:
        return {name: {"AUROC": np.nan, "balanced accuracy": np.nan} for name in whole}
    return {
        name: {
            "AUROC": core.roc_auc(y, method.probability[rows]),
            "balanced accuracy": core.balanced_accuracy(y, method.called[rows]),
        }
        for name, method in whole.items()
    }


def page(
    judged: ImageSet,
    whole: Mapping[str, Judged],
    fold: NDArray[np.int64],
    table: Mapping[str, Mapping[str, Estimate]],
    each: list[tuple[str, dict[str, dict[str, float]]]],
    settings: Mapping[str, Any],
    notes: tuple[str, ...],
    *,
    run_id: str,
) -> Report:
    assert judged.labels is not None
    by = settings["by"]
    people = len(np.unique(judged.patients))
    best = max(METHODS[1:], key=lambda name: table[name]["AUROC"].value)
    gain = gain_within(judged, whole["ours"], whole[best], fold)
    report = Report(
        title="Cross-validation by site" if by == "site" else "Cross-validation by patient",
        subtitle=f"{len(judged):,} labelled pictures of {people:,} patients in {len(each)} folds; each judged by a "
        f"model that saw no label of its {by}",
        verdict=verdict_of(best, table["ours"]["AUROC"].value, table[best]["AUROC"].value, gain),
        facts={
            "AUROC": table["ours"]["AUROC"].value,
            "balanced accuracy": table["ours"]["balanced accuracy"].value,
            "folds": len(each),
            "labelled pictures": len(judged),
            "labels learnt from in a fold": settings["labels a fold"],
        },
        run_id=run_id,
    )
    section = report.section("All folds together")
    section.table(
        ["", *table],
        [[number, *(values[number] for values in table.values())] for number in table["ours"]],
        note="Brackets are 95 % bootstrap intervals over patients (where no draw moves a number, by how many they are)"
        + (
            ": how another hospital would fare they do not say, the spread of the sites does. "
            if by == "site"
            else ". "
        )
        + "The AUROC compares pictures of one fold only. The calibration error counts what chance adds to it, its "
        "interval takes that off. Thresholds and probabilities are each fold's own, chosen on "
        f"patients that it learnt from and left out in turn. Ours goes on from {settings['model']}; networks took "
        f"{settings['finetune_steps']} steps or four passes, whichever is more.",
    )
    what = "site" if by == "site" else "fold"
    shown = [(method, number) for method in METHODS for number in ("AUROC", "balanced accuracy")]
    values = np.array([[of[method][number] for method, number in shown] for _, of in each])
    rows = [
        [name, *("one class only" if np.isnan(value) else f"{value:.3f}" for value in row)]
        for (name, _), row in zip(each, values, strict=True)
    ]
    judgeable = values[~np.isnan(values).any(axis=1)]
    if len(judgeable):
        rows.append(["mean", *(f"{value:.3f}" for value in judgeable.mean(axis=0))])
    section = report.section(f"{what.capitalize()} by {what}")
    section.figure(_figure(each, what), f"AUROC of each {what} that was left out")
    section.table([what, *(f"{method}: {number}" for method, number in shown)], rows)
    limits = report.section("Limits")
    for note in notes:
        limits.text(note)
    limits.text(
        "This judges the way of making a model, not one model: each fold has its own. Where the encoder was pretrained "
        "on these pictures, it has seen them all, without labels. If its settings were chosen by 'medical search', "
        "that looked at labels of these patients."
    )
    for limit in LIMITS:
        limits.text(limit)
    return report


def _figure(each: list[tuple[str, dict[str, dict[str, float]]]], what: str) -> Any:
    figure, axis = new_figure(width=8.4, height=3.4)
    many = len(each) > 6
    at = np.arange(len(each))
    for aside, name, colour in zip((-0.08, 0, 0.08), METHODS, (OURS, *OTHERS), strict=False):
        axis.plot(at + aside, [values[name]["AUROC"] for _, values in each], "o", color=colour, label=name)
    axis.set_xticks(at, [name for name, _ in each], rotation=40 if many else 0, ha="right" if many else "center")
    axis.set(xlabel=f"{what} left out", ylabel="AUROC")
    axis.legend(frameon=False)
    return figure
