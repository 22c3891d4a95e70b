"""Sections on decisions: what a sensitivity costs, whom to refer, what is out of distribution, another prevalence."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.conformal import venn_abers
from unlabeled.core.evaluation import bootstrap, expected_calibration_error, sensitivity_specificity
from unlabeled.core.novelty import Novelty
from unlabeled.core.operating import clopper_pearson
from unlabeled.core.report import Report, Section
from unlabeled.medical import _decision_figures as figures
from unlabeled.medical._decisions import (
    REFER,
    STRANGE,
    UNCERTAIN,
    Decisions,
    Stated,
    absent,
    abstention_of,
    held_out,
    operating_point_of,
)
from unlabeled.medical.evaluation import SAMPLES, Scored
from unlabeled.medical.images import PNEUMONIA, ImageSet
from unlabeled.medical.model import PneumoniaModel

SENSITIVITIES = (0.80, 0.90, 0.95, 0.99)
ERROR_RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


def add_prediction_sections(report: Report, model: PneumoniaModel, decisions: Decisions) -> None:
    """What the columns of the predictions mean here, and how many pictures each concerns."""
    table = decisions.table
    section = report.section("Decisions, and whom to refer")
    section.text(decisions.point.says())
    found, spared = decisions.point.over_patients
    section.text(
        f"Resampling patients instead of pictures: sensitivity {found}, specificity {spared}. At this point "
        f"{int((table.sensitive_call == model.finding).sum())} of {len(table)} pictures are called {model.finding}."
    )
    referred = table[table.decision == REFER]
    section.text(
        f"At a stated error rate of {decisions.stated.error_rate:.1%} (of either class, at most so many are called "
        f"wrongly), {len(referred)} of {len(table)} pictures are referred to a radiologist: "
        f"{int((referred.reason == UNCERTAIN).sum())} because neither answer can be excluded, "
        f"{int((referred.reason == STRANGE).sum())} because they are unlike what the model learnt from."
    )
    section.table(
        ["decision", "pictures", "share"],
        [
            (name, int(count), f"{count / len(table):.0%}")
            for name, count in table.decision.value_counts(sort=False).items()
        ],
        note=_exactness(model),
    )
    width = float((table.calibrated_high - table.calibrated_low).median())
    section.text(
        "The columns calibrated_low and calibrated_high are Venn-Abers probabilities, one of which is calibrated where "
        f"pictures are like the held-out ones. They lie {width:.3f} apart (median): how far one more held-out picture "
        "would move the answer. They are no confidence interval for one patient."
    )
    for note in decisions.notes:
        section.note(f"{note[:1].upper()}{note[1:]}.")
    _distribution(report, model, decisions)
    _prevalence(report, model, decisions)


def _exactness(model: PneumoniaModel) -> str:
    assert model.finetuning_ is not None
    if model.finetuning_["decided_on"] == "validation pictures":
        return "Chosen on the validation pictures; the rate holds for pictures like these."
    return (
        "Chosen on left-out folds of the patients, while new pictures are judged by all networks together: the rate "
        "holds approximately, and for pictures like these."
    )


def _distribution(report: Report, model: PneumoniaModel, decisions: Decisions) -> None:
    kept, outlying = model.novelty_, decisions.outlying
    if kept is None or outlying is None:
        return
    p = decisions.table.ood_p_value
    flagged = int(decisions.table.ood_flag.sum())
    facts = kept.facts
    section = report.section("Like the pictures it learnt from?")
    section.text(
        f"{flagged} of {len(p)} pictures ({flagged / len(p):.0%}) are flagged as out of distribution; of pictures like "
        f"those learnt from it would be {kept.rate:.0%}. Each is compared with {facts['fitted_on']} pictures by the "
        f"distance of its embedding, and flagged where that is as rare among {facts['held_out']} pictures of "
        f"{facts['held_out_patients']} other patients ({facts['where']})."
    )
    section.figure(
        figures.distances(kept.held_out, outlying.score, _flagged_from(kept)),
        "Distance of the embeddings to those of the pictures learnt from",
    )
    if flagged > 3 * kept.rate * len(p) and flagged > 5:
        section.note(
            "Far more are flagged than expected: these pictures come from another kind of patient, machine or "
            "processing. No probability, threshold or stated rate on this page holds for them."
        )


def _flagged_from(kept: Novelty) -> float:
    """The lowest held-out distance that would be flagged; infinite where none would."""
    candidates = np.sort(kept.held_out)
    out = kept.flagged(kept.p_values(candidates))
    return float(candidates[out][0]) if out.any() else float("inf")


def _prevalence(report: Report, model: PneumoniaModel, decisions: Decisions) -> None:
    if decisions.stated.prevalence is None:
        return
    assert model.decision_ is not None
    section = report.section("Another prevalence")
    if decisions.estimated is not None:
        section.text(decisions.estimated.says())
    if decisions.now is None:
        section.note("The column probability_at_prevalence is therefore left empty.")
        return
    section.text(
        f"probability_at_prevalence holds where {decisions.now:.1%} have {model.finding}, instead of "
        f"{model.decision_.prevalence:.1%} as among the labels, and pictures with and without it look as they did "
        "(Bayes' rule). Ranks, thresholds and referrals do not change."
    )


def add_evaluation_sections(
    report: Report, model: PneumoniaModel, unseen: ImageSet, methods: Mapping[str, Scored]
) -> None:
    """What decisions made on held-out pictures are worth on unseen patients. Ours is the first method."""
    assert unseen.labels is not None
    ours = next(iter(methods.values()))
    section = report.section("What a stated sensitivity costs")
    _thresholds(section, model, unseen, ours)
    section.figure(
        figures.precision_recall(unseen.labels, methods, model.finding),
        "Precision against recall, on pictures of unseen patients",
    )
    _calibration(report.section("Calibration, before and after"), model, unseen, ours)
    report.section("Is acting on it worth it?").figure(
        figures.decision_curve(unseen.labels, methods),
        "Decision curve (Vickers and Elkin, 2006): net benefit, in rightly treated a picture, of treating whoever is "
        "at or above a threshold probability. Above both lines of treating all and none, acting on the model is of use",
    )
    _abstaining(report.section("Referring what is uncertain"), model, unseen, ours)


def _thresholds(section: Section, model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> None:
    assert unseen.labels is not None
    rows = []
    for target in SENSITIVITIES:
        point = operating_point_of(model, Stated(sensitivity=target))
        called = ours.probability >= point.threshold
        there = [
            bootstrap(
                lambda y, c, which=which: sensitivity_specificity(y, c)[which],
                unseen.labels, called, groups=unseen.patients, samples=SAMPLES,
            )
            for which in (0, 1)
        ]  # fmt: skip
        rows.append((f"{target:.0%}", point.threshold, point.sensitivity, point.specificity, *there))
    section.table(
        ["stated", "threshold", "held-out sensitivity", "held-out specificity", "unseen sensitivity", "specificity"],
        rows,
        note=f"Each threshold was chosen on {point.positives} held-out positives of {point.patients} patients and "
        f"{point.negatives} negatives (exact binomial intervals); unseen patients judged it (bootstrap over patients).",
    )


def _calibration(section: Section, model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> None:
    held = held_out(model)
    p = np.clip(ours.probability, 1e-12, 1 - 1e-12)
    logits = np.log(p / (1 - p)) * ours.decision.temperature
    stages = {
        "as trained": 1 / (1 + np.exp(-np.clip(logits, -700, 700))),
        "temperature": ours.probability,
        "Venn-Abers": venn_abers(held.labels, held.logits, logits).value,
    }
    assert unseen.labels is not None
    section.figure(
        figures.calibration_stages(unseen.labels, stages, model.finding),
        "Stated probability against frequency, in fifths",
    )
    section.table(
        ["probability", "calibration error", "Brier score"],
        [
            (
                name,
                bootstrap(expected_calibration_error, unseen.labels, q, groups=unseen.patients, samples=SAMPLES),
                bootstrap(_brier, unseen.labels, q, groups=unseen.patients, samples=SAMPLES),
            )
            for name, q in stages.items()
        ],
        note="On pictures of unseen patients; temperature and Venn-Abers probabilities came from held-out ones.",
    )


def _brier(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return float(np.mean((y - p) ** 2))


def _abstaining(section: Section, model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> None:
    rows = abstention_rows(model, unseen, ours)
    section.text(
        "Of either class, at most the stated share should be called wrongly; what can be called neither is referred."
    )
    section.figure(
        figures.abstention(rows, model.finding), "Share called wrongly and share referred, by stated error rate"
    )
    section.table(
        ["stated", f"{model.finding} called free of it", f"free of it called {model.finding}", "referred"],
        [tuple(f"{value:.1%}" for value in row) for row in rows],
        note=f"On pictures of unseen patients, none referred for being out of distribution. {_exactness(model)}",
    )
    assert unseen.labels is not None
    sick, healthy = (int((unseen.labels == label).sum()) for label in (1, 0))
    broken = exceeded(rows, sick=sick, healthy=healthy, finding=model.finding)
    if broken:
        section.note(
            f"More were called wrongly than stated ({', '.join(broken)}), and not by chance: the unseen pictures "
            "differ from those the decisions were chosen on. Choose anew on pictures like these before you rely on it."
        )


def exceeded(
    rows: list[tuple[float, float, float, float]], *, sick: int, healthy: int, finding: str = PNEUMONIA
) -> list[str]:
    """Stated rates whose share of wrong calls has an exact 95 % interval above them, in words."""
    return [
        f"{share:.1%} of {name} at a stated {rate:.0%}"
        for rate, missed, alarmed, _ in rows
        for share, count, name in ((missed, sick, finding), (alarmed, healthy, absent(finding)))
        if clopper_pearson(round(share * count), count).low > rate
    ]


def abstention_rows(model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> list[tuple[float, float, float, float]]:
    """(stated rate, share of the ill called free of it, of the others called ill, share referred)."""
    assert unseen.labels is not None
    held = held_out(model)
    p = np.clip(ours.probability, 1e-12, 1 - 1e-12)
    logits, sick = np.log(p / (1 - p)) * ours.decision.temperature, unseen.labels == 1
    rows = []
    for rate in ERROR_RATES:
        called = abstention_of(held, rate).decide(logits).called
        wrong = (float((called[sick] == 0).mean()), float((called[~sick] == 1).mean()))
        rows.append((rate, *wrong, float((called == -1).mean())))
    return rows
