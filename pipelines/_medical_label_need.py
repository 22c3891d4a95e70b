"""``unlabeled medical labels-needed``: what more labels would bring, beside the baselines."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled import __version__
from unlabeled.core import evaluation, fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Budget, Rates
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.label_need import LEAST_COUNTS, LEAST_SEEDS, Curve, Learner, fit, measure
from unlabeled.core.progress import say
from unlabeled.core.report import Report, Verdict
from unlabeled.medical import baselines
from unlabeled.medical._finetuning import SCORING, Decision, Labelled
from unlabeled.medical._storage import pretrained_weights
from unlabeled.medical.images import PNEUMONIA, ImageSet, Skip
from unlabeled.medical.label_need import FILE, FIRST_TOLD, LabelNeed, add_label_need, of_hidden
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.report import LIMITS
from unlabeled.medical.splits import check_no_leak, first_labels
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines._medical_exchange import pretrained, settings_of
from unlabeled.pipelines._medical_input import Parts, adjusted, divide, framing_of, read
from unlabeled.pipelines._medical_output import BY_PICTURE, track_model, write_csv, write_skips
from unlabeled.pipelines._medical_output import METHODS as NAMES
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome

FIRST = 25
# Where draws hold nearly all labels they are nearly the same, and their spread says nothing of other draws.
SHARE = 0.8
POINTS = "points.json"


def labels_needed(
    source: Path,
    *,
    model: Path,
    out: Path,
    labels: Path | None = None,
    price: float = 0.0,
    counts: Sequence[int] | None = None,
    seeds: int = 5,
    steps: int | None = None,
    self_training: bool = False,
    ensemble: int | None = None,
    finding: str = PNEUMONIA,
    leave_out_flagged: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Fine-tunes on rising numbers of labels, several draws each, and carries the curve on.

    Args:
        model: folder of a pretrained model; what labels taught it, if any did, is left aside.
        price: of a label, in EUR.
        counts: numbers of labels; default 25, 50, 100... up to 80 % of those at hand.
        seeds: draws of labels for each.
        steps: optimiser steps of each network.
        self_training: let the networks of ours teach others from the pictures without labels.
        ensemble: networks that vote in place of each one.
        finding: what the labels are about, where they are about several.
        leave_out_flagged: a store's flagged pictures neither teach nor judge.
        dry_run: only say what that would cost, at the user's own ``rates``.

    Raises:
        DataError: too few labels for a curve.
    """
    check_out(out, source=source)
    base = adjusted(
        pretrained(model, size=None), finetune_steps=steps, self_training=self_training or None, ensemble=ensemble,
        finding=finding,
    )  # fmt: skip
    images = read(
        source, labels, size=base.image_size, framing=framing_of(base), finding=finding,
        leave_out_flagged=leave_out_flagged,
    )  # fmt: skip
    base.set_params(framing=images.framing)
    parts = divide(images, n_labels=None, seed=seed)
    if dry_run:
        check_seeds(seeds)
        return cost.dry_run(
            costs(base, parts.train, counts=counts_for(len(parts.train), counts), seeds=seeds, seed=seed),
            rates=rates,
            reads=f"{len(parts.train):,} labelled pictures to draw from",
            left_out=cost.LEFT_OUT,
        )
    return labels_needed_on(
        base, parts, folder=model, out=out, price=price, counts=counts, seeds=seeds, seed=seed, skipped=images.skipped
    )


def labels_needed_on(
    base: PneumoniaModel,
    parts: Parts,
    *,
    folder: Path,
    out: Path,
    price: float = 0.0,
    counts: Sequence[int] | None = None,
    seeds: int = 5,
    seed: int = 0,
    skipped: tuple[Skip, ...] = (),
) -> Outcome:
    """The same on parts at hand; ``folder`` is where ``base`` came from."""
    check_seeds(seeds)
    check_no_leak({"train": parts.train, "test": parts.test})
    chosen = counts_for(len(parts.train), counts)
    with tracking.run(
        EXPERIMENT,
        f"labels-needed {out.name}",
        params={**settings_of(base), "counts": chosen, "seeds": seeds, "price": price, "model": folder.name},
        tags={"data.fingerprint": parts.train.fingerprint()},
        parent=base.provenance_.get("pretraining_run"),
    ) as run:
        kept = _Points(out / POINTS, made_of=[*_made_of(base, parts), str(settings_of(base)), SCORING, __version__])

        def log(name: str, count: int, number: int, error: float) -> None:
            kept.add(name, count, number, error)
            run.metrics({f"error.{name.replace(' ', '_').replace('+', 'and')}.seed{number}": error}, step=count)

        numbers = list(range(seed, seed + seeds))
        need = LabelNeed(
            curves=measure(learners(base, parts), chosen, numbers, known=kept.known, log=log), finding=base.finding,
            weights=pretrained_weights(base), judged=len(parts.test), steps=base.finetune_steps, price=price,
        )  # fmt: skip
        said, told, hidden = need.to_json(), need.advice(), need.hidden()
        page = need_report(need, learnt_from=len(parts.train), run_id=run.run_id)
        files = {"curve": _write_curve(out, need.curves), **write_skips(out, skipped)}
        files["json"] = write_atomically(out / FILE, json.dumps(said, indent=1) + "\n")
        files["report"] = page.write(out / "report.html")
        run.metrics({f"gain.{told[FIRST_TOLD].more}_labels": told[FIRST_TOLD].gain.value})
        for name, path in files.items():
            if name not in BY_PICTURE:
                run.artifact(path, None if name == "report" else "labels-needed")
        track_model(run, folder)
    return Outcome(
        headline=str(told[FIRST_TOLD]),
        lines=[str(advice) for advice in told if advice is not told[FIRST_TOLD]]
        + ([of_hidden(hidden)] if hidden else []),
        files=files,
        run_id=run.run_id,
        details=said,
    )


def costs(base: PneumoniaModel, train: ImageSet, *, counts: Sequence[int], seeds: int, seed: int) -> list[Budget]:
    """Of every training that a curve takes."""
    found = [
        cost.finetunings(
            base, first_labels(train, count, seed=seed), beside=NAMES[1], times=seeds,
            what=f", {count} labels, {seeds} draws",
        )
        for count in counts
    ]  # fmt: skip
    return [one for both in found for one in both]


def check_seeds(seeds: int) -> None:
    """Raises a DataError where the doubt of a curve could not be told."""
    if seeds < LEAST_SEEDS:
        raise DataError(f"the doubt of a curve needs at least {LEAST_SEEDS} draws, got {seeds}: 5 or more are better")


def counts_for(labelled: int, wanted: Sequence[int] | None) -> list[int]:
    """Numbers of labels: as wanted, or doubling from :data:`FIRST` up to most of those at hand.

    Raises:
        DataError: fewer than three fit.
    """
    if wanted is not None:
        chosen = sorted({int(count) for count in wanted})
        if chosen and (chosen[0] < 4 or chosen[-1] > labelled):
            raise DataError(f"label counts must lie between 4 and {labelled} (those to learn from), got {chosen}")
    else:
        most, chosen = int(SHARE * labelled), []
        count = FIRST
        while count <= most:
            chosen.append(count)
            count *= 2
        if chosen and most >= 1.4 * chosen[-1]:
            chosen.append(most)
    if len(chosen) < LEAST_COUNTS:
        raise DataError(
            f"a curve needs at least {LEAST_COUNTS} numbers of labels, and {labelled} labels to learn from allow "
            f"{chosen or 'none'}: label more, or give --counts"
        )
    return chosen


def _made_of(base: PneumoniaModel, parts: Parts) -> list[str]:
    """Fingerprints of what a point of the curve depends on: pictures, people, labels, and pretrained weights."""
    found = [parts.unlabelled.fingerprint()]
    for part in (parts.train, parts.test):
        assert part.labels is not None
        found += [part.fingerprint(), fingerprint.of_array(part.labels), fingerprint.of_names(part.patients)]
    return [*found, pretrained_weights(base)]


def learners(base: PneumoniaModel, parts: Parts) -> dict[str, Learner]:
    """Balanced error on the test patients of ours and of both baselines, from ``count`` labels drawn by ``seed``."""
    # A table's own order would give every seed the same labels.
    source = ImageSet(
        images=parts.train.images, ids=parts.train.ids, patients=parts.train.patients, labels=parts.train.labels
    )

    def data(count: int, seed: int) -> tuple[Labelled, Any]:
        some = first_labels(source, count, seed=seed)
        assert some.labels is not None
        return Labelled(some.pixels, some.labels), some.patients

    def ours(count: int, seed: int) -> float:
        taught, patients = data(count, seed)
        model = copy.deepcopy(base).set_params(random_state=seed)
        model.finetune(taught.images, taught.labels, groups=patients, unlabelled=parts.unlabelled)
        return balanced_error(model.score(parts.test.images), model.decision_, parts.test)

    def scratch(count: int, seed: int) -> float:
        taught, patients = data(count, seed)
        fresh = baselines.from_scratch(copy.deepcopy(base).set_params(random_state=seed), taught, groups=patients)
        return balanced_error(fresh.score(parts.test.pixels), fresh.decision_, parts.test)

    def pixels(count: int, seed: int) -> float:
        taught, patients = data(count, seed)
        regression = baselines.PixelRegression(folds=base.folds, seed=seed)
        regression.fit(parts.unlabelled.images, taught, groups=patients)
        return balanced_error(regression.score(parts.test.pixels), regression.decision_, parts.test)

    return dict(zip(NAMES, (ours, scratch, pixels), strict=True))


def balanced_error(probability: np.ndarray, decision: Decision | None, judged: ImageSet) -> float:
    """1 minus balanced accuracy at the threshold that was chosen without these pictures."""
    assert decision is not None
    assert judged.labels is not None
    return 1 - evaluation.balanced_accuracy(judged.labels, probability >= decision.threshold)


def need_report(need: LabelNeed, *, learnt_from: int, run_id: str | None = None) -> Report:
    """The page: the curve, where it leads, what labels would cost, and whether it could be trusted so far."""
    told = need.advice()
    report = Report(
        title="How many labels are needed?",
        subtitle=f"Balanced error on {need.judged:,} pictures of patients kept apart, "
        f"{need.ours.errors.shape[1]} draws of labels each",
        verdict=Verdict(str(told[FIRST_TOLD]), "good" if told[FIRST_TOLD].gain.low > 0.05 else "flat"),
        facts={
            "labels at hand": learnt_from,
            "error at the most labels": need.ours.means()[-1].value,
            "error that stays (fitted)": fit(need.ours).a,
        },
        run_id=run_id,
    )
    add_label_need(report, need)
    limits = report.section("Limits")
    for limit in LIMITS:
        limits.text(limit)
    return report


class _Points:
    """Points that were measured before, kept on disk so that an interrupted job goes on."""

    def __init__(self, path: Path, *, made_of: list[str]) -> None:
        self.path, self.made_of = path, made_of
        self.known: dict[tuple[str, int, int], float] = {}
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if content["made_of"] == made_of:
                    self.known = {(str(n), int(c), int(s)): float(e) for n, c, s, e in content["points"]}
            except (ValueError, KeyError, TypeError):
                say(f"{path} cannot be read and is written anew")
        if self.known:
            say(f"{len(self.known)} points were measured before and are kept")

    def add(self, name: str, count: int, seed: int, error: float) -> None:
        self.known[name, count, seed] = error
        say(f"{name}, {count} labels, draw {seed}: balanced error {error:.3f}")
        content = {"made_of": self.made_of, "points": [[*key, value] for key, value in self.known.items()]}
        write_atomically(self.path, json.dumps(content) + "\n")


def _write_curve(out: Path, curves: Mapping[str, Curve]) -> Path:
    rows = [
        (name, int(count), draw, f"{error:.6f}")
        for name, curve in curves.items()
        for count, errors in zip(curve.counts, curve.errors, strict=True)
        for draw, error in enumerate(errors)
    ]
    return write_csv(out / "curve.csv", ("method", "labels", "draw", "balanced_error"), rows)
