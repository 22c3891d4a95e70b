"""``unlabeled medical labels-needed``: what more labels would bring, beside the baselines."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled import __version__
from unlabeled.core import evaluation, fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate
from unlabeled.core.label_need import (
    LEAST_COUNTS,
    LEAST_SEEDS,
    Advice,
    Curve,
    Hidden,
    Learner,
    advise,
    check_by_hiding,
    extrapolate,
    fit,
    measure,
)
from unlabeled.core.progress import say
from unlabeled.core.report import OTHERS, OURS, Report, Verdict, new_figure
from unlabeled.medical import baselines
from unlabeled.medical._finetuning import SCORING, Decision, Labelled
from unlabeled.medical.images import PNEUMONIA, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.report import LIMITS
from unlabeled.medical.splits import check_no_leak, first_labels
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines._medical_exchange import pretrained, settings_of
from unlabeled.pipelines._medical_input import Parts, adjusted, divide, framing_of, read
from unlabeled.pipelines._medical_output import METHODS as NAMES
from unlabeled.pipelines._medical_output import write_csv, write_skips
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome

FIRST = 25
# Where draws hold nearly all labels they are nearly the same, and their spread says nothing of other draws.
SHARE = 0.8
MORE = (50, 100, 200, 500, 1000)
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
        dry_run: only say what that would cost, at the user's own ``rates``.

    Raises:
        DataError: too few labels for a curve.
    """
    base = adjusted(
        pretrained(model, size=None), finetune_steps=steps, self_training=self_training or None, ensemble=ensemble,
        finding=finding,
    )  # fmt: skip
    images = read(source, labels, size=base.image_size, framing=framing_of(base), finding=finding)
    base.set_params(framing=images.framing)
    parts = divide(images, n_labels=None, seed=seed)
    check_no_leak({"train": parts.train, "test": parts.test})
    chosen = counts_for(len(parts.train), counts)
    if seeds < LEAST_SEEDS:
        raise DataError(f"the doubt of a curve needs at least {LEAST_SEEDS} draws, got {seeds}: 5 or more are better")
    if dry_run:
        found = [
            cost.finetunings(
                base, first_labels(parts.train, count, seed=seed), beside=NAMES[1], times=seeds,
                what=f", {count} labels, {seeds} draws",
            )
            for count in chosen
        ]  # fmt: skip
        return cost.dry_run(
            [one for both in found for one in both],
            rates=rates,
            reads=f"{len(parts.train):,} labelled pictures to draw from",
            left_out=cost.LEFT_OUT,
        )
    numbers = list(range(seed, seed + seeds))
    with tracking.run(
        EXPERIMENT,
        f"labels-needed {out.name}",
        params={**settings_of(base), "counts": chosen, "seeds": seeds, "price": price, "model": model.name},
        tags={"data.fingerprint": images.fingerprint()},
        parent=base.provenance_.get("pretraining_run"),
    ) as run:
        kept = _Points(out / POINTS, made_of=[*_made_of(base, parts), str(settings_of(base)), SCORING, __version__])

        def log(name: str, count: int, number: int, error: float) -> None:
            kept.add(name, count, number, error)
            run.metrics({f"error.{name.replace(' ', '_').replace('+', 'and')}.seed{number}": error}, step=count)

        curves = measure(learners(base, parts), chosen, numbers, known=kept.known, log=log)
        ours = curves[NAMES[0]]
        told = [advise(ours, more, price=price) for more in MORE]
        hidden = check_by_hiding(ours)
        page = need_report(curves, told, hidden, parts=parts, steps=base.finetune_steps, run_id=run.run_id)
        files = {"curve": _write_curve(out, curves), **write_skips(out, images.skipped)}
        said = _json(curves, told, hidden)
        files["json"] = write_atomically(out / "labels-needed.json", json.dumps(said, indent=1) + "\n")
        files["report"] = page.write(out / "report.html")
        run.metrics({"gain.100_labels": told[1].gain.value})
        run.artifact(out, "labels-needed")
        run.artifact(files["report"])
        run.artifact(model, "model")
    return Outcome(
        headline=str(told[1]),
        lines=[str(advice) for advice in told if advice.more != MORE[1]] + ([_of_hidden(hidden)] if hidden else []),
        files=files,
        run_id=run.run_id,
        details=said,
    )


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
    weights = [value.detach().cpu().numpy() for value in base.module_.backbone.state_dict().values()]
    return [*found, fingerprint.of_array(*weights)]


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


def need_report(
    curves: Mapping[str, Curve],
    told: Sequence[Advice],
    hidden: Sequence[Hidden],
    *,
    parts: Parts,
    steps: int,
    run_id: str | None = None,
) -> Report:
    """The page: the curve, where it leads, what labels would cost, and whether it could be trusted so far."""
    ours = curves[NAMES[0]]
    law, seeds = fit(ours), ours.errors.shape[1]
    report = Report(
        title="How many labels are needed?",
        subtitle=f"Balanced error on {len(parts.test):,} pictures of patients kept apart, {seeds} draws of labels each",
        verdict=Verdict(str(told[1]), "good" if told[1].gain.low > 0.05 else "flat"),
        facts={
            "labels at hand": len(parts.train),
            "error at the most labels": ours.means()[-1].value,
            "error that stays (fitted)": law.a,
        },
        run_id=run_id,
    )
    section = report.section("The curve")
    section.figure(
        _figure(curves),
        "Balanced error by number of labels, mean over draws with 95 % interval; the band is where our curve leads",
    )
    section.table(
        ["labels", *curves],
        [
            [int(count), *(curve.means()[row] for curve in curves.values())]
            for row, count in enumerate(ours.counts)
        ],
        note=f"Networks took {steps} steps or four passes, whichever is more; each draw has its own labels and its own "
        "training, all are judged on the same pictures.",
    )  # fmt: skip
    report.section("What more labels would bring").table(
        ["more labels", "gain (points of balanced error)", "EUR a point, expected", "EUR a point, at worst"],
        [[a.more, f"{a.gain.value:.2f} [{a.gain.low:.2f}, {a.gain.high:.2f}]", _euro(a.price_a_point), _euro(a.dearest)]
         for a in told],
        note=f"Fitted to ours: error = {law.a:.3f} + {law.b:.2f} k^-{law.c:.2f}. Intervals resample draws of labels; "
        "they do not hold what changes when labels come from another hospital or reader.",
    )  # fmt: skip
    check = report.section("Could it be trusted so far?")
    if hidden:
        check.text(_of_hidden(hidden))
        check.table(
            ["labels", "measured", "foretold from the lower half", "inside"],
            [[h.labels, h.seen, h.foretold, "yes" if h.inside else "no"] for h in hidden],
        )
    else:
        check.text(
            "The lower half of the curve has too few points to foretell the upper half: nothing could be checked."
        )
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


def _figure(curves: Mapping[str, Curve]) -> Any:
    figure, axis = new_figure(width=8.4, height=4.0)
    for (name, curve), colour in zip(curves.items(), (OURS, *OTHERS), strict=False):
        means = curve.means()
        value, low, high = (np.array(part, dtype=float) for part in zip(*means, strict=True))
        axis.errorbar(
            curve.counts, value, yerr=np.abs(np.stack([value - low, high - value])), fmt="o-", color=colour, label=name,
            markersize=4, linewidth=1.3, capsize=2,
        )  # fmt: skip
    ours = curves[NAMES[0]]
    at = np.geomspace(ours.counts[0], 4 * ours.counts[-1], 40)
    led = extrapolate(ours, at.tolist())
    axis.plot(at, [e.value for e in led], "--", color=OURS, linewidth=1)
    axis.fill_between(at, [e.low for e in led], [e.high for e in led], color=OURS, alpha=0.13, linewidth=0)
    axis.set_xscale("log")
    ticks = [int(c) for c in (*ours.counts, 2 * ours.counts[-1], 4 * ours.counts[-1])]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="labels", ylabel="balanced error", ylim=(0, None))
    axis.legend(frameon=False)
    return figure


def _write_curve(out: Path, curves: Mapping[str, Curve]) -> Path:
    rows = [
        (name, int(count), draw, f"{error:.6f}")
        for name, curve in curves.items()
        for count, errors in zip(curve.counts, curve.errors, strict=True)
        for draw, error in enumerate(errors)
    ]
    return write_csv(out / "curve.csv", ("method", "labels", "draw", "balanced_error"), rows)


def _json(curves: Mapping[str, Curve], told: Sequence[Advice], hidden: Sequence[Hidden]) -> dict[str, Any]:
    law = fit(curves[NAMES[0]])
    return {
        "counts": [int(c) for c in curves[NAMES[0]].counts],
        "errors": {name: curve.errors.tolist() for name, curve in curves.items()},
        "fitted": law._asdict(),
        "advice": [
            {"more": a.more, "gain_points": a.gain._asdict(), "eur_a_point": _finite(a.price_a_point),
             "eur_a_point_at_worst": _finite(a.dearest)}
            for a in told
        ],
        "hidden": [{"labels": h.labels, "seen": h.seen, "foretold": _bounds(h.foretold), "inside": h.inside}
                   for h in hidden],
    }  # fmt: skip


def _bounds(estimate: Estimate) -> dict[str, float]:
    return estimate._asdict()


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _euro(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "no gain is sure"


def _of_hidden(hidden: Sequence[Hidden]) -> str:
    inside = sum(h.inside for h in hidden)
    return (
        f"With the upper half of the curve hidden, {inside} of {len(hidden)} hidden points fell into the interval that "
        "the lower half foretold."
    )
