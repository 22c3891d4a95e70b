"""``unlabeled medical crossvalidate``: each picture judged by a model that saw no label of its patient or site."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled import __version__
from unlabeled.core import fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import baselines
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical._operating import decision_of
from unlabeled.medical.evaluation import Scored
from unlabeled.medical.images import PNEUMONIA, UNLABELLED, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import alike_across, check_no_leak, first_labels, patient_folds, site_folds
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines._medical_crossvalidation_page import Judged, measured, of_fold, page
from unlabeled.pipelines._medical_exchange import pretrained, settings_of
from unlabeled.pipelines._medical_input import adjusted, framing_of, read
from unlabeled.pipelines._medical_methods import decision_of_pixels
from unlabeled.pipelines._medical_output import (
    METHODS,
    is_nameless,
    key,
    names_in,
    track,
    track_model,
    write_csv,
    write_skips,
)
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Comparison, Outcome

By = Literal["patient", "site"]
# What the folds' predictions are kept in, so that an interrupted job goes on.
KEPT = "folds"


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
    self_training: bool = False,
    ensemble: int | None = None,
    finding: str = PNEUMONIA,
    leave_out_flagged: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Fine-tunes once a fold, beside the baselines; each chooses its thresholds within what it learns from.

    ``by`` site, there is a fold for each site, whatever ``folds`` is. ``n_labels`` limits what each fold learns from.
    With ``leave_out_flagged``, a store's flagged pictures neither teach nor judge; with ``dry_run``, only says what all
    folds would cost.

    Raises:
        DataError: too few labelled patients, or sites that are not known.
        GateError: a patient was seen at two sites.
    """
    check_out(out, source=source)
    base = adjusted(
        pretrained(model, size=size), random_state=seed, finetune_steps=steps, self_training=self_training or None,
        ensemble=ensemble, finding=finding,
    )  # fmt: skip
    images = read(
        source, labels, size=base.image_size, framing=framing_of(base), finding=finding,
        leave_out_flagged=leave_out_flagged,
    )  # fmt: skip
    base.set_params(framing=images.framing)
    images, notes = _without_judges(images)
    judged = images.labelled()
    assert judged.labels is not None
    if by == "site":
        fold, names = site_folds(judged)
        notes = (*notes, *_without_a_site(images, judged))
    else:
        fold = patient_folds(judged.patients, judged.labels, folds=folds, seed=seed)
        names = [f"fold {number}" for number in range(1, folds + 1)]
    taught = [_taught(judged, fold == f, name, n_labels, base) for f, name in enumerate(names)]
    if dry_run:
        return cost.dry_run(
            cost.finetunings(
                base, max(taught, key=len), beside=METHODS[1], times=len(names), what=f", {len(names)} folds"
            ),
            rates=rates,
            reads=f"{len(judged):,} labelled pictures",
            left_out=cost.LEFT_OUT,
        )
    alike = alike_across({name: judged.take(fold == f) for f, name in enumerate(names)})
    for note in alike:
        say(note)
    notes = (*images.notes, *notes, *alike)
    if images.skipped:
        notes = (*notes, f"{len(images.skipped)} inputs were left out; skipped.csv says which and why.")
    settings = {**settings_of(base), "by": by, "folds": len(names), "labelled": len(judged), "model": model.name}
    settings |= {"labels a fold": f"{min(map(len, taught))} to {max(map(len, taught))}"}
    with (
        TemporaryDirectory() as place,
        tracking.run(
            EXPERIMENT,
            f"crossvalidate {out.name}",
            params=settings,
            tags={"data.fingerprint": judged.fingerprint(), "split.fingerprint": fingerprint.of_names(fold)},
            parent=base.provenance_.get("pretraining_run"),
        ) as run,
    ):
        kept = _Kept(out / KEPT, made_of=_made_of(base, images, judged, fold, settings))
        found = []
        for number, (name, part) in enumerate(zip(names, taught, strict=True)):
            answers = kept.get(number)
            if answers is None:
                say(f"{name}: ours, the same network from scratch, PCA + logistic regression")
                answers = _fold(base, part, images, judged.take(fold == number), by=by)
                kept.put(number, answers)
            else:
                say(f"{name} was done before and is kept")
            found.append(answers)
        whole = {method: _joined([one[method] for one in found], fold) for method in METHODS}
        table = {method: measured(judged, whole[method], fold) for method in METHODS}
        each = [of_fold(judged, whole, fold == number) for number in range(len(names))]
        report = page(
            judged, whole, fold, table, list(zip(names, each, strict=True)), settings, notes, run_id=run.run_id
        )
        files = {"predictions": _write(out, judged, fold, names, whole), **write_skips(out, images.skipped)}
        files["report"] = report.write(out / "report.html")
        for number, values in enumerate(each):
            run.metrics({f"fold.{key}": value for key, value in values["ours"].items() if value == value}, number)
        run.metrics({key(name): value.value for name, value in table["ours"].items()})
        nameless = is_nameless(source, labels)
        private = frozenset() if nameless else names_in(images, skipped=images.skipped)
        track(run, files, report, place=Path(place), nameless=nameless, names=private, within="crossvalidation")
        track_model(run, model)
    return Outcome(
        headline=report.verdict.text,
        comparisons=[
            Comparison(metric=m, ours=table["ours"][m], baselines={n: table[n][m] for n in METHODS[1:]})
            for m in ("AUROC", "balanced accuracy")
        ],
        files=files,
        run_id=run.run_id,
        details={"folds": len(names), "by": by, "judged": len(judged)},
    )


def _without_judges(images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    """What a table keeps for the last judgement (:func:`~unlabeled.pipelines._medical_input.divide`) stays out of
    this one, with all other films of the same patients; and what to say about it.

    Raises:
        DataError: nothing else is labelled.
    """
    known = set() if images.splits is None else set(images.splits)
    last = "test" if "test" in known else "val" if {"train", "val"} <= known else None
    if last is None or images.splits is None:
        return images, ()
    reserved = images.splits == last
    theirs = np.isin(images.patients, images.patients[reserved])
    rest = images.select(~theirs)
    if rest.labels is None or not (rest.labels != UNLABELLED).any():
        raise DataError(
            f"all labels are of patients with pictures in split '{last}', who stay out of a cross-validation: label "
            "others too"
        )
    more = int((theirs & ~reserved).sum())
    note = f"The {int(reserved.sum()):,} pictures of split '{last}'" + (
        f", and {more:,} more of their patients, are neither learnt from nor judged here."
        if more
        else " are neither learnt from nor judged here."
    )
    say(note)
    return rest, (note,)


def _without_a_site(images: ImageSet, judged: ImageSet) -> tuple[str, ...]:
    """What to say about films without labels of which nobody knows whether they are from the hospital that judges."""
    unknown = int((_others(images, judged) & (images.attributes["site"] == "")).sum())
    if not unknown:
        return ()
    note = f"{unknown:,} pictures without a label or a site may be from the site that judges: no fine-tuning has them."
    say(note)
    return (note,)


def _others(images: ImageSet, judged: ImageSet) -> NDArray[np.bool_]:
    """(N,) which pictures are of patients who do not judge."""
    return ~np.isin(images.patients, judged.patients)


def _taught(
    judged: ImageSet, out: NDArray[np.bool_], name: str, n_labels: int | None, base: PneumoniaModel
) -> ImageSet:
    """What a fold's models learn from.

    Raises:
        DataError: it is too little for them; said before anything is trained.
        GateError: it shares patients with the pictures that they are to judge.
    """
    rest = judged.take(~out)
    try:
        train = rest if n_labels is None else first_labels(rest, n_labels, seed=base.random_state)
        assert train.labels is not None
        finetuning.binary(train.labels, what="labels")
        patient_folds(train.patients, train.labels, folds=base.folds, seed=base.random_state)
    except DataError as error:
        raise DataError(f"without {name}, nothing can be learnt from the rest: {error}") from None
    check_no_leak({"what is learnt from": train, f"what is judged ({name})": judged.take(out)})
    return train


def _fold(base: PneumoniaModel, train: ImageSet, images: ImageSet, judged: ImageSet, *, by: By) -> dict[str, Judged]:
    """One fold's models, asked about the pictures that were left out. By site, no film of the site that judges
    teaches the fine-tuning, not even without a label; nor one of an unknown site."""
    assert train.labels is not None
    data = Labelled(train.pixels, train.labels)
    kept = _others(images, judged)
    if by == "site":
        kept &= ~np.isin(images.attributes["site"], [*np.unique(judged.attributes["site"]), ""])
    others = images.select(kept)
    model = copy.deepcopy(base).finetune(train, data.labels, groups=train.patients, unlabelled=others)
    scratch = baselines.from_scratch(copy.deepcopy(base), data, groups=train.patients)
    pixels = baselines.PixelRegression(folds=base.folds, seed=base.random_state)
    # Its components come from every picture at hand without labels, as the encoder's pretraining may have.
    pixels.fit(images.images, data, groups=train.patients)
    scored = (
        Scored(model.score(judged), decision_of(model)),
        Scored(scratch.score(judged), decision_of(scratch)),
        Scored(pixels.score(judged.pixels), decision_of_pixels(pixels)),
    )
    return {name: Judged.of(one) for name, one in zip(METHODS, scored, strict=True)}


def _joined(parts: list[Judged], fold: NDArray[np.int64]) -> Judged:
    """The folds' answers, back in the order of the pictures."""
    back = np.argsort(np.argsort(fold, kind="stable"), kind="stable")
    return Judged(
        *(np.concatenate([getattr(p, name) for p in parts])[back] for name in ("probability", "called", "sensitive"))
    )


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
    """Fingerprint of what a fold's answers depend on: pictures, people, labels, weights, settings and version."""
    assert judged.labels is not None
    order = np.zeros(0) if judged.order is None else judged.order
    weights = [value.detach().cpu().numpy() for value in base.module_.backbone.state_dict().values()]
    arrays = fingerprint.of_array(images.images, judged.images, judged.labels, order, fold, *weights)
    sites = images.attributes["site"] if settings.get("by") == "site" else ()
    used = (__version__, finetuning.LABELLED, finetuning.SCORING, *sites)
    return fingerprint.of_names([arrays, *images.patients, *judged.patients, *sorted(settings.items()), *used])


def _write(out: Path, judged: ImageSet, fold: NDArray[np.int64], names: list[str], whole: Mapping[str, Judged]) -> Path:
    """One row a picture: what each method said of it without knowing it."""
    assert judged.labels is not None
    columns: list[Any] = [judged.ids, [names[number] for number in fold], judged.labels]
    header = ["image_id", "fold", "label"]
    for name, method in whole.items():
        header += [f"{key(name)}_{what}" for what in ("probability", "call", "sensitive_call")]
        columns += [[f"{p:.6f}" for p in method.probability], method.called.astype(int), method.sensitive.astype(int)]
    return write_csv(out / "predictions.csv", tuple(header), zip(*columns, strict=True))
