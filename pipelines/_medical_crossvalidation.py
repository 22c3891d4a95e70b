"""``unlabeled medical crossvalidate``: each labelled picture judged by a model that never saw its patient or site."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import evaluation as core
from unlabeled.core import fingerprint, tracking
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import Estimate
from unlabeled.core.progress import say
from unlabeled.core.report import OTHERS, OURS, Report, new_figure
from unlabeled.medical import baselines
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.evaluation import SAMPLES, Scored
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.report import LIMITS, verdict_of
from unlabeled.medical.splits import check_no_leak, first_labels, patient_folds, site_folds
from unlabeled.pipelines._medical_exchange import pretrained, settings_of
from unlabeled.pipelines._medical_input import framing_of, read
from unlabeled.pipelines._medical_output import write_csv, write_skips
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Comparison, Outcome

By = Literal["patient", "site"]
NAMES = ("ours", "same network from scratch", "PCA + logistic regression")
# What the folds' predictions are kept in, so that an interrupted job goes on.
KEPT = "folds"


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


def crossvalidate(
    source: Path,
    *,
    model: Path,
    out: Path,
    labels: Path | None = None,
    by: By = "patient",
    folds: int = 5,
    n_labels: int | None = None,
    steps: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Outcome:
    """Fine-tunes once a fold, beside the baselines; each chooses its thresholds within what it learns from.

    ``by`` site, there is a fold for each site, whatever ``folds`` is. ``n_labels`` limits what each fold learns from.

    Raises:
        DataError: too few labelled patients, or sites that are not known.
        GateError: a patient was seen at two sites.
    """
    base = pretrained(model, size=size)
    base.set_params(random_state=seed, **({} if steps is None else {"finetune_steps": steps}))
    images = read(source, labels, size=base.image_size, framing=framing_of(base))
    base.set_params(framing=images.framing)
    images, notes = _without_test(images)
    if images.skipped:
        notes = (*notes, f"{len(images.skipped)} inputs were left out; skipped.csv says which and why.")
    judged = images.labelled()
    assert judged.labels is not None
    if by == "site":
        fold, names = site_folds(judged)
    else:
        fold = patient_folds(judged.patients, judged.labels, folds=folds, seed=seed)
        names = [str(number) for number in range(1, folds + 1)]
    taught = [_taught(judged.take(fold != number), n_labels, seed=seed) for number in range(len(names))]
    for number, part in enumerate(taught):
        check_no_leak({"train": part, names[number]: judged.take(fold == number)})
    settings = {**settings_of(base), "by": by, "folds": len(names), "labelled": len(judged), "n_labels": n_labels or 0}
    with tracking.run(
        EXPERIMENT,
        f"crossvalidate {out.name}",
        params=settings,
        tags={"data.fingerprint": judged.fingerprint(), "split.fingerprint": fingerprint.of_names(fold)},
        parent=base.provenance_.get("pretraining_run"),
    ) as run:
        kept = _Kept(out / KEPT, made_of=_made_of(base, images, judged, fold, settings))
        found = []
        for number, (name, part) in enumerate(zip(names, taught, strict=True)):
            answers = kept.get(number)
            if answers is None:
                say(f"fold {name}: ours, the same network from scratch, PCA + logistic regression")
                answers = _fold(base, part, images, judged.take(fold == number))
                kept.put(number, answers)
            else:
                say(f"fold {name} was done before and is kept")
            found.append(answers)
        whole = {method: _joined([one[method] for one in found], fold) for method in NAMES}
        table = {method: measured(judged, whole[method]) for method in NAMES}
        each = [_of_fold(judged, whole, fold == number) for number in range(len(names))]
        page = _page(judged, whole, table, list(zip(names, each, strict=True)), settings, notes, run_id=run.run_id)
        files = {"predictions": _write(out, judged, fold, names, whole), **write_skips(out, images.skipped)}
        files["report"] = page.write(out / "report.html")
        for number, values in enumerate(each):
            run.metrics({f"fold.{key}": value for key, value in values["ours"].items() if value == value}, number)
        run.metrics({_key(f"pooled {name}"): value.value for name, value in table["ours"].items()})
        for path in files.values():
            run.artifact(path, "crossvalidation")
    return Outcome(
        headline=page.verdict.text,
        comparisons=[
            Comparison(metric=m, ours=table["ours"][m], baselines={n: table[n][m] for n in NAMES[1:]})
            for m in ("AUROC", "balanced accuracy")
        ],
        files=files,
        run_id=run.run_id,
        details={"folds": len(names), "by": by, "judged": len(judged)},
    )


def measured(judged: ImageSet, method: Judged) -> dict[str, Estimate]:
    """Numbers over all folds, with 95 % bootstrap intervals over patients.

    Each picture was called by the thresholds of the model that did not know it. The AUROC compares pictures of
    different folds by their calibrated probabilities; the mean over folds stands beside it in the report.
    """
    assert judged.labels is not None
    calls: dict[str, tuple[Callable[..., float], NDArray[Any]]] = {
        "AUROC": (core.roc_auc, method.probability),
        "accuracy": (core.accuracy, method.called),
        "balanced accuracy": (core.balanced_accuracy, method.called),
        "sensitivity": (lambda y, c: core.sensitivity_specificity(y, c)[0], method.called),
        "specificity": (lambda y, c: core.sensitivity_specificity(y, c)[1], method.called),
        "sensitivity at the 95 % point": (lambda y, c: core.sensitivity_specificity(y, c)[0], method.sensitive),
        "specificity at the 95 % point": (lambda y, c: core.sensitivity_specificity(y, c)[1], method.sensitive),
        "calibration error": (core.expected_calibration_error, method.probability),
    }
    return {
        name: core.bootstrap(measure, judged.labels, values, groups=judged.patients, samples=SAMPLES)
        for name, (measure, values) in calls.items()
    }


def _without_test(images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    """What a table keeps for the last judgement stays out of this one; and what to say about it."""
    if images.splits is None or not (images.splits == "test").any():
        return images, ()
    rest = images.take(images.splits != "test")
    note = f"The {len(images) - len(rest):,} pictures of split 'test' are neither learnt from nor judged here."
    say(note)
    return rest, (note,)


def _taught(rest: ImageSet, n_labels: int | None, *, seed: int) -> ImageSet:
    return rest if n_labels is None else first_labels(rest, n_labels, seed=seed)


def _fold(base: PneumoniaModel, train: ImageSet, images: ImageSet, judged: ImageSet) -> dict[str, Judged]:
    """One fold's models, asked about the pictures that were left out."""
    assert train.labels is not None
    data = Labelled(train.images, train.labels)
    model = copy.deepcopy(base).finetune(train, data.labels, groups=train.patients)
    scratch = baselines.from_scratch(copy.deepcopy(base), data, groups=train.patients)
    pixels = baselines.PixelRegression(folds=base.folds, seed=base.random_state)
    unlabelled = images.take(~np.isin(images.patients, judged.patients))
    pixels.fit(unlabelled.images, data, groups=train.patients)
    assert model.decision_ is not None
    assert scratch.decision_ is not None
    scored = (
        Scored(model.score(judged), model.decision_),
        Scored(scratch.score(judged), scratch.decision_),
        Scored(pixels.score(judged.images), pixels.decision_),
    )
    return {name: Judged.of(one) for name, one in zip(NAMES, scored, strict=True)}


def _joined(parts: list[Judged], fold: NDArray[np.int64]) -> Judged:
    """The folds' answers, back in the order of the pictures."""
    back = np.argsort(np.argsort(fold, kind="stable"), kind="stable")
    return Judged(
        *(np.concatenate([getattr(p, name) for p in parts])[back] for name in ("probability", "called", "sensitive"))
    )


def _of_fold(judged: ImageSet, whole: Mapping[str, Judged], rows: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
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


class _Kept:
    """Predictions of folds that were made before, one file a fold."""

    def __init__(self, folder: Path, *, made_of: str) -> None:
        self.folder, self.made_of = folder, made_of

    def get(self, number: int) -> dict[str, Judged] | None:
        """A fold's, or ``None`` where there are none, or they were made of something else."""
        path = self._path(number)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["made_of"] == self.made_of:
                return {name: Judged(*map(np.array, answers)) for name, answers in content["judged"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            say(f"{path} cannot be read and is made anew")
        return None

    def put(self, number: int, judged: Mapping[str, Judged]) -> None:
        told = {m: [j.probability.tolist(), j.called.tolist(), j.sensitive.tolist()] for m, j in judged.items()}
        write_atomically(self._path(number), json.dumps({"made_of": self.made_of, "judged": told}) + "\n")

    def _path(self, number: int) -> Path:
        return self.folder / f"fold-{number + 1}.json"


def _made_of(
    base: PneumoniaModel, images: ImageSet, judged: ImageSet, fold: NDArray[np.int64], settings: Mapping[str, Any]
) -> str:
    """Fingerprint of all that a fold's answers depend on, the pretrained weights among it."""
    assert judged.labels is not None
    weights = (
        [] if not base.has_learnt else [p.detach().cpu().numpy() for p in base.module_.backbone.state_dict().values()]
    )
    return fingerprint.of_names(
        [fingerprint.of_array(images.images, judged.images, judged.labels, fold, *weights), *sorted(settings.items())]
    )


def _write(out: Path, judged: ImageSet, fold: NDArray[np.int64], names: list[str], whole: Mapping[str, Judged]) -> Path:
    """One row a picture: what each method said of it without knowing it."""
    assert judged.labels is not None
    columns: list[Any] = [judged.ids, [names[number] for number in fold], judged.labels]
    header = ["image_id", "fold", "label"]
    for name, method in whole.items():
        header += [f"{_key(name)}_probability", f"{_key(name)}_call"]
        columns += [[f"{p:.6f}" for p in method.probability], method.called.astype(int)]
    return write_csv(out / "predictions.csv", tuple(header), zip(*columns, strict=True))


def _page(
    judged: ImageSet,
    whole: Mapping[str, Judged],
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
    report = Report(
        title="Cross-validation by site" if by == "site" else "Cross-validation by patient",
        subtitle=f"{len(judged):,} labelled pictures of {people:,} patients in {len(each)} folds; each judged by a "
        f"model that saw no label of its {by}",
        verdict=verdict_of(
            judged.labels, {name: method.probability for name, method in whole.items()}, patients=judged.patients
        ),
        facts={
            "AUROC": table["ours"]["AUROC"].value,
            "balanced accuracy": table["ours"]["balanced accuracy"].value,
            "folds": len(each),
            "labelled pictures": len(judged),
        },
        run_id=run_id,
    )
    section = report.section("All folds together")
    section.table(
        ["", *table],
        [[number, *(values[number] for values in table.values())] for number in table["ours"]],
        note="Brackets are 95 % bootstrap intervals over patients. Thresholds and probabilities are each fold's own, "
        "chosen on patients that it learnt from and left out in turn.",
    )
    what = "site" if by == "site" else "fold"
    shown = [(method, number) for method in NAMES for number in ("AUROC", "balanced accuracy")]
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
        "on these pictures, it has seen them all, without labels."
    )
    for limit in LIMITS:
        limits.text(limit)
    return report


def _figure(each: list[tuple[str, dict[str, dict[str, float]]]], what: str) -> Any:
    figure, axis = new_figure(width=8.4, height=3.4)
    at = np.arange(len(each))
    for aside, name, colour in zip((-0.08, 0, 0.08), NAMES, (OURS, *OTHERS), strict=False):
        axis.plot(at + aside, [values[name]["AUROC"] for _, values in each], "o", color=colour, label=name)
    axis.set_xticks(at, [name for name, _ in each])
    axis.set(xlabel=f"{what} left out", ylabel="AUROC")
    axis.legend(frameon=False)
    return figure


def _key(name: str) -> str:
    return name.replace("%", "pc").replace(" ", "_").replace("+", "and")
