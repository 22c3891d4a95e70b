"""The medical jobs: pretrain, fine-tune, predict, and the demo that does all three on a phantom."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import tracking
from unlabeled.core.budget import AS_FOUND, Rates, priced
from unlabeled.core.checkpoints import check_free
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate
from unlabeled.core.finetuning import Tuning
from unlabeled.core.progress import say
from unlabeled.medical import baselines, report, simulate
from unlabeled.medical._decisions import REFER, Stated, decide
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical._planning import check_finding
from unlabeled.medical.attributes import strangers, who
from unlabeled.medical.evaluation import Scored, metrics
from unlabeled.medical.images import PNEUMONIA, ImageSet, Skip
from unlabeled.medical.labels import attach, read_labels
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.readers import read_images
from unlabeled.medical.splits import alike_across, check_no_leak
from unlabeled.medical.tasks import Masking
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _medical_pretraining as pretraining
from unlabeled.pipelines._medical_dicom import add_dicom, check_dicom
from unlabeled.pipelines._medical_exchange import begin, pretrained, settings_of
from unlabeled.pipelines._medical_input import (
    Parts,
    adjusted,
    divide,
    framing_of,
    looked_at,
    read,
    read_unlabelled,
    say_skips,
)
from unlabeled.pipelines._medical_judges import Judges, by_pixels, judges_found, judges_given
from unlabeled.pipelines._medical_methods import BESIDE, everybody, kept_beside
from unlabeled.pipelines._medical_output import (
    OURS,
    PIXELS,
    SCRATCH,
    is_nameless,
    key,
    names_in,
    track,
    track_model,
    write_heat_maps,
    write_predictions,
    write_skips,
    write_studies,
)
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Comparison, Outcome, percentiles

COMPARED = ("AUROC", "balanced accuracy")


def pretrain(
    source: Path,
    *,
    out: Path,
    size: int | None = None,
    epochs: int = 50,
    seed: int = 0,
    start_from: Path | None = None,
    task: str = "masked",
    masking: Masking = "random",
    mask_ratio: float = 0.75,
    temperature: float = 0.2,
    augmentation: float = 1.0,
    learning_rate: float = 1e-3,
    class_token: bool = False,
    split_column: str | None = None,
    split: str | None = None,
    labels: Path | None = None,
    finding: str = PNEUMONIA,
    leave_out_flagged: bool = False,
    beside_random: bool = False,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Learns from pictures without labels; interrupted and called again, it goes on where it was.

    ``start_from`` is a Hugging Face folder whose encoder it starts from. ``size`` is 64 where it is not given, or that
    folder's. The ``labels`` of a few pictures are looked at while it learns, never learnt from. ``beside_random``
    does the same with random masks as well; with ``leave_out_flagged`` a store's flagged pictures teach nothing. With
    ``dry_run``, only says what that would cost.
    """
    check_out(out, source=source, replaces="model")
    model = begin(
        start_from, size=size, pretrain_epochs=epochs, task=task, masking=masking, mask_ratio=mask_ratio,
        temperature=temperature, augmentation=augmentation, lr=learning_rate, class_token=class_token,
        random_state=seed,
    )  # fmt: skip
    check_finding(finding)
    if beside_random:
        pretraining.check_beside_random(model)
    given = None if labels is None else read_labels(labels, finding=finding)
    images = read_unlabelled(
        source, size=model.image_size, split_column=split_column, split=split, leave_out_flagged=leave_out_flagged,
        labels=given,
    )  # fmt: skip
    model.set_params(framing=images.framing)
    asked = None if given is None else looked_at(images, given, seed=seed)
    if dry_run:
        return cost.dry_run(
            pretraining.costs(model, images, beside_random=beside_random),
            rates=rates,
            reads=f"{len(images):,} pictures ({len(images.skipped)} inputs skipped)",
            left_out="reading the pictures, the report, and fine-tuning (medical finetune --dry-run)",
        )
    return pretraining.pretrain(
        model, images, out=out, synthetic=False, rates=rates, asked=asked, beside_random=beside_random
    )


def finetune(
    source: Path,
    *,
    model: Path,
    out: Path,
    labels: Path | None = None,
    n_labels: int | None = None,
    steps: int | None = None,
    tuning: Tuning | None = None,
    layer_decay: float | None = None,
    early_stop: bool = False,
    self_training: bool = False,
    ensemble: int | None = None,
    finding: str = PNEUMONIA,
    size: int | None = None,
    leave_out_flagged: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Learns from few labels and compares with the baselines on patients it has not seen.

    ``model`` is a folder that :func:`pretrain` wrote, or a Hugging Face folder, for which ``size`` may be given.
    ``steps`` are the optimiser steps of each network (:class:`PneumoniaModel`'s ``finetune_steps``), ``tuning`` and
    ``layer_decay`` what the labels may change and how fast; default: what the model was saved with. With
    ``early_stop`` the best of ten moments of each network is kept instead of the last; with ``self_training`` the
    networks learn from the pictures without labels too, by what they said of them; ``ensemble`` networks vote in place
    of each; with ``leave_out_flagged`` a store's flagged pictures neither teach nor judge; with ``dry_run``, only says
    what that would cost.
    """
    check_out(out, source=source, replaces="model")
    check_free(out)
    base = adjusted(
        pretrained(model, size=size), random_state=seed, finetune_steps=steps, tuning=tuning, layer_decay=layer_decay,
        early_stop=early_stop or None, self_training=self_training or None, ensemble=ensemble, finding=finding,
    )  # fmt: skip
    base.check()
    images = read(
        source, labels, size=base.image_size, framing=framing_of(base), finding=finding,
        leave_out_flagged=leave_out_flagged,
    )  # fmt: skip
    base.set_params(framing=images.framing)
    parts = divide(images, n_labels=n_labels, seed=seed)
    if dry_run:
        return cost.medical_finetuning(base, parts.train, parts.validation, beside=SCRATCH, rates=rates)
    return finetune_on(
        base, parts, out=out, skipped=images.skipped, notes=images.notes, synthetic=False, rates=rates,
        nameless=is_nameless(source, labels),
    )  # fmt: skip


def predict(
    source: Path,
    *,
    model: Path,
    out: Path,
    labels: Path | None = None,
    stated: Stated | None = None,
    heat_maps: int = 0,
    dicom: bool = False,
    inside: str | None = None,
) -> Outcome:
    """Scores pictures; with labels, given or the input's own, says how good the scores are.

    ``stated`` says which sensitivity, error rate and prevalence the decisions are for; ``heat_maps`` how many of the
    highest scores are drawn; ``dicom`` also writes objects for the archive (:mod:`unlabeled.pipelines._medical_dicom`);
    ``inside`` the run of several models that this is one of.
    """
    stated = stated or Stated()
    stated.check()
    check_out(out, source=source)
    if dicom and stated.adapt:
        raise DataError("scores that are adapted to all pictures at once do not go into studies: leave --adapt out")
    if dicom:
        check_dicom(source, out)
    trained = PneumoniaModel.load(model)
    trained.check_fine_tuned()
    images = read(
        source, labels, size=trained.image_size, framing=framing_of(trained), finding=trained.finding, needed=False
    )
    judges = judges_found(trained, images) if labels is None else judges_given(trained, images)
    odd = strangers((trained.finetuning_ or {}).get("who", {}), images)
    if judges.unseen is not None and not trained.digests_:
        odd = (*odd, "the model does not know whom it learnt from: that nobody is judged twice is for you to say")
    judges = judges._replace(notes=(*judges.notes, *odd))
    for note in judges.notes:
        say(note)
    studies = None if images.studies is None else np.where(images.studies == "", images.ids, images.studies)
    scored = _predict(
        trained, images, out=out, judges=judges, folder=model, stated=stated, heat_maps=heat_maps, studies=studies,
        nameless=is_nameless(source, labels), inside=inside,
    )  # fmt: skip
    return add_dicom(scored, source, images, trained, stated=stated, folder=model, out=out) if dicom else scored


def demo(out: Path, *, seed: int = 0) -> Outcome:
    """Phantom radiographs as DICOM files, read back, pretrained on, fine-tuned with 40 labels, compared."""
    out = Path(out)
    shutil.rmtree(out / "data", ignore_errors=True)
    archive = simulate.write_archive(out / "data", patients=480, seed=seed)
    images = attach(read_images(archive.images, size=64), read_labels(archive.labels))
    say_skips(images.skipped)
    parts = divide(images, n_labels=40, seed=seed)
    model = PneumoniaModel(dim=64, depth=3, pretrain_epochs=90, finetune_steps=100, folds=2, random_state=seed)
    pretraining.pretrain(model, parts.unlabelled, out=out / "pretrained", synthetic=True)
    return finetune_on(model, parts, out=out / "model", skipped=images.skipped, notes=images.notes, synthetic=True)


def finetune_on(
    model: PneumoniaModel,
    parts: Parts,
    *,
    out: Path,
    skipped: tuple[Skip, ...],
    notes: tuple[str, ...],
    synthetic: bool,
    rates: Rates = AS_FOUND,
    inside: str | None = None,
    nameless: bool = False,
) -> Outcome:
    """:func:`finetune` on parts at hand, beside the baselines; ``inside`` the run of several findings that the model
    was fine-tuned on together before, it is only judged; ``nameless``: no id of a picture can name anybody."""
    train, test = parts.train, parts.test
    assert train.labels is not None
    assert test.labels is not None
    named = {"train": train, **({"validation": parts.validation} if parts.validation else {}), "test": test}
    split = check_no_leak(named)
    teaching = parts.unlabelled.select(~np.isin(parts.unlabelled.ids, train.ids))
    without = "those without labels"
    alike = alike_across({**named, without: teaching}, teaching=("train", without))
    for note in alike:
        say(note)
    data = Labelled(train.pixels, train.labels)
    validation, chosen_on = None, None
    if parts.validation is not None:
        assert parts.validation.labels is not None
        validation = (parts.validation.pixels, parts.validation.labels)
        chosen_on = (parts.validation, parts.validation.labels)  # the model counts patients, the baselines do not
    with (
        TemporaryDirectory() as place,
        tracking.run(
            EXPERIMENT,
            f"finetune {out.name}",
            params={**settings_of(model), "labels": len(train)},
            tags={"data.fingerprint": train.fingerprint(), "split.fingerprint": split},
            parent=model.provenance_.get("pretraining_run"),
            inside=inside,
        ) as run,
    ):
        if inside is None:
            log = priced(run.metrics, rates)
            model.finetune(
                train, train.labels, groups=train.patients, validation=chosen_on, unlabelled=parts.unlabelled, log=log
            )
        else:
            run.curve("loss", [value for _, value in (model.finetuning_ or {})["curves"]["loss"]])
        model.provenance_["finetuning_run"] = run.run_id
        assert model.finetuning_ is not None
        model.finetuning_["who"] = who(train)
        for part in (train, parts.validation):
            if part is not None:
                model.remember([*part.patients, *by_pixels(part)], named_by=part.named_by)
        say("baselines: the same network from scratch, PCA + logistic regression")
        scratch = baselines.from_scratch(model, data, groups=train.patients, validation=validation)
        pixels = baselines.PixelRegression(folds=model.folds, seed=model.random_state).fit(
            parts.unlabelled.images, data, groups=train.patients, validation=validation
        )
        methods = everybody(model, scratch, pixels, test)
        table = {name: metrics(test.labels, scored, patients=test.patients) for name, scored in methods.items()}
        verdict = report.verdict(test.labels, methods, patients=test.patients)
        page = report.evaluation_report(
            title=f"{model.finding.capitalize()} from {len(train)} labels",
            subtitle=f"Fine-tuned {_after(model)}, {model.image_size} pixels",
            verdict=verdict,
            model=model,
            unseen=test,
            methods=methods,
            table=table,
            skipped=skipped,
            notes=(*notes, *alike),
            synthetic=synthetic,
            run_id=run.run_id,
        )
        model.save(out)
        scratch.save(out / BESIDE / "scratch")
        pixels.save(out / BESIDE / "pixels")
        files = {"model": out, "report": page.write(out / "report.html"), **write_skips(out, skipped)}
        _log(run, table)
        run.model(out)
        for beside in ("scratch", "pixels"):
            run.model(out / BESIDE / beside, f"model/{BESIDE}/{beside}")
        names = frozenset() if nameless else names_in(*named.values(), parts.unlabelled, skipped=skipped)
        track(run, files, page, place=Path(place), nameless=nameless, names=names)
    return Outcome(
        headline=f"{len(train)} labels, {len(test)} unseen pictures. {verdict.text}",
        comparisons=_comparisons(table),
        files=files,
        run_id=run.run_id,
        details={"labels": len(train), "unseen": len(test), "skipped": len(skipped), "verdict": verdict.tone},
    )


def _predict(
    model: PneumoniaModel,
    images: ImageSet,
    *,
    out: Path,
    judges: Judges,
    folder: Path,
    stated: Stated,
    heat_maps: int,
    studies: NDArray[np.str_] | None,
    nameless: bool,
    inside: str | None = None,
) -> Outcome:
    """Scores every picture with the model of ``folder``; says how good that is beside the baselines where it can."""
    decisions, decision = decide(model, images, stated), model.decision_
    assert decision is not None
    probability = decisions.table.probability.to_numpy()
    for note in decisions.notes:
        say(note)
    with (
        TemporaryDirectory() as place,
        tracking.run(
            EXPERIMENT,
            f"predict {out.name}",
            params={
                **settings_of(model),
                **{f"stated.{name}": value for name, value in asdict(stated).items()},
                "model": folder.name,
                "threshold": decision.threshold,
                "images": len(images),
            },
            tags={"data.fingerprint": images.fingerprint()},
            parent=model.provenance_.get("pretraining_run"),
            model=model.provenance_.get("finetuning_run"),
            inside=inside,
        ) as run,
    ):
        called = int((probability >= decision.threshold).sum())
        referred, flagged = int((decisions.table.decision == REFER).sum()), int(decisions.table.ood_flag.sum())
        drawn = write_heat_maps(out, model, images, decisions.table, heat_maps)
        files = {**write_predictions(out, decisions.table), **({"heat_maps": drawn} if heat_maps else {})}
        files |= write_studies(out, decisions.table, studies, finding=model.finding)
        files |= write_skips(out, images.skipped)
        headline = report.headline(decisions.table, model.finding, skipped=len(images.skipped))
        counts = {
            "pictures": len(images), "called": called, "skipped": len(images.skipped),
            "referred": referred, "flagged": flagged,
        }  # fmt: skip
        details: dict[str, object] = {**counts}
        run.metrics(counts)
        comparisons: list[Comparison] = []
        if judges.unseen is None:
            scored, notes = Scored(probability, decision), judges.notes
            page = report.prediction_report(
                model=model, images=images, scored=scored, decisions=decisions, notes=notes, run_id=run.run_id
            )
        else:
            unseen = judges.unseen
            assert unseen.labels is not None
            moved = None if decisions.moved is None else images
            methods = kept_beside(model, folder / BESIDE, unseen, adapt_to=moved)
            table = {method: metrics(unseen.labels, s, patients=unseen.patients) for method, s in methods.items()}
            verdict = (
                report.verdict(unseen.labels, methods, patients=unseen.patients)
                if len(methods) > 1
                else report.Verdict(f"AUROC {table[OURS]['AUROC']}; no baseline stands beside this model.")
            )
            page = report.evaluation_report(
                title=f"{model.finding.capitalize()}: predictions beside labels",
                subtitle=f"{len(unseen)} labelled pictures"
                + (", none of a patient that the model learnt from" if model.knows_whom(unseen.named_by) else ""),
                verdict=verdict,
                model=model,
                unseen=unseen,
                methods=methods,
                table=table,
                skipped=images.skipped,
                notes=(*images.notes, *judges.notes),
                decisions=decisions,
                patients=images.patients,
                run_id=run.run_id,
            )
            headline += f" On {len(unseen)} labelled pictures: {verdict.text}"
            comparisons = _comparisons(table) if len(methods) > 1 else []
            details |= {"judged": len(unseen), "metrics": {name: value.value for name, value in table[OURS].items()}}
            _log(run, table)
        files["report"] = page.write(out / "report.html")
        run.curve("probability_percentiles", percentiles(probability))
        names = frozenset() if nameless else names_in(images, skipped=images.skipped)
        track(run, files, page, place=Path(place), nameless=nameless, names=names, within="predictions")
        track_model(run, folder)
    return Outcome(headline=headline, comparisons=comparisons, files=files, run_id=run.run_id, details=details)


def _after(model: PneumoniaModel) -> str:
    after = "after pretraining without labels"
    if model.pretraining_ is None and model.start_ is not None:
        after = f"from the encoder of {model.start_.name} as it was"
    students = (model.finetuning_ or {}).get("students")
    return after if students is None else f"{after}, self-trained on {students['images']:,} pictures without labels"


def _log(run: tracking.Run, table: Mapping[str, Mapping[str, Estimate]]) -> None:
    for whose, values in table.items():
        before = "test" if whose == OURS else f"baseline.{key(whose)}"
        for name, estimate in values.items():
            ends = {"": estimate.value, ".low": estimate.low, ".high": estimate.high}
            run.metrics({f"{before}.{key(name)}{end}": value for end, value in ends.items()})


def _comparisons(table: Mapping[str, Mapping[str, Estimate]]) -> list[Comparison]:
    return [
        Comparison(metric=m, ours=table[OURS][m], baselines={n: table[n][m] for n in (SCRATCH, PIXELS)})
        for m in COMPARED
    ]
