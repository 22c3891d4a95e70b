"""Sections on decisions: what a sensitivity costs, whom to refer, what is out of distribution, another prevalence."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.conformal import venn_abers
from unlabeled.core.evaluation import (
    Estimate,
    bootstrap,
    expected_calibration_error,
    sensitivity,
    specificity,
)
from unlabeled.core.novelty import Novelty
from unlabeled.core.operating import clopper_pearson
from unlabeled.core.report import Report, Section
from unlabeled.medical import _decision_figures as figures
from unlabeled.medical._decision_figures import Referring
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
from unlabeled.medical.evaluation import SAMPLES, Scored, average_precision, over_patients
from unlabeled.medical.images import PNEUMONIA, ImageSet
from unlabeled.medical.model import PneumoniaModel

SENSITIVITIES = (0.80, 0.90, 0.95, 0.99)
ERROR_RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
# Probabilities further apart than what else was scored at once can move them.
SAME = 1e-4
SHADED = "shaded: 95 % intervals over patients, point by point"


def add_prediction_sections(
    report: Report, model: PneumoniaModel, decisions: Decisions, *, patients: NDArray[np.str_] | None = None
) -> None:
    """What the columns of the predictions mean here, and how many pictures each concerns.

    Args:
        patients: (N,) of the pictures that were decided on; without them each picture counts as somebody.
    """
    table = decisions.table
    who = np.arange(len(table)) if patients is None else patients
    section = report.section("Decisions, and whom to refer")
    called = table.sensitive_call == model.finding
    section.text(
        f"{decisions.point.says()} At this point {int(called.sum())} of {len(table)} pictures are called "
        f"{model.finding} ({percent(over_patients(called.to_numpy(), who))})."
    )
    referred = table[table.decision == REFER]
    section.text(
        f"At a stated error rate of {100 * decisions.stated.error_rate:g}% (of either class, at most so many are "
        f"called wrongly), {len(referred)} of {len(table)} pictures are referred to a radiologist: "
        f"{int((referred.reason == UNCERTAIN).sum())} because neither answer can be excluded, "
        f"{int((referred.reason == STRANGE).sum())} because they are unlike what the model learnt from."
    )
    section.table(
        ["decision", "pictures", "share"],
        [
            (name, int(count), percent(over_patients((table.decision == name).to_numpy(), who)))
            for name, count in table.decision.value_counts(sort=False).items()
        ],
        note=f"{_exactness(model)} {_whose(patients)}",
    )
    width = float((table.calibrated_high - table.calibrated_low).median())
    section.text(
        "The columns calibrated_low and calibrated_high are Venn-Abers probabilities, one of which is calibrated where "
        f"pictures are like the held-out ones. They lie {width:.3f} apart (median): how far one more held-out picture "
        "would move the answer. They are no confidence interval for one patient."
    )
    for note in decisions.notes:
        section.note(f"{note[:1].upper()}{note[1:]}.")
    _distribution(report, model, decisions, who)
    _prevalence(report, model, decisions)


def percent(found: Estimate) -> str:
    """A share and its interval in per cent."""
    if not np.isfinite(found.value):
        return "-"
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _whose(patients: NDArray[np.str_] | None) -> str:
    if patients is None:
        return "Brackets are 95 % intervals over pictures: too narrow where patients have several."
    return "Brackets are 95 % intervals over patients."


def _exactness(model: PneumoniaModel) -> str:
    assert model.finetuning_ is not None
    seen = (
        " The same pictures chose the moment of training that was kept: errors may be more." if model.early_stop else ""
    )
    if model.finetuning_["decided_on"] == "validation pictures":
        holds = "may not hold" if model.early_stop else "holds"
        return f"Chosen on the validation pictures; the rate {holds} for pictures like these.{seen}"
    return (
        "Chosen on left-out folds of the patients, while new pictures are judged by all networks together: the rate "
        f"holds approximately, and for pictures like these.{seen}"
    )


def _distribution(report: Report, model: PneumoniaModel, decisions: Decisions, who: NDArray[np.generic]) -> None:
    kept, outlying = model.novelty_, decisions.outlying
    if kept is None or outlying is None:
        return
    p = decisions.table.ood_p_value
    flagged = int(decisions.table.ood_flag.sum())
    facts = kept.facts
    section = report.section("Like the pictures it learnt from?")
    section.text(
        f"{flagged} of {len(p)} pictures ({percent(over_patients(outlying.flagged, who))}) are flagged as out of "
        f"distribution; of pictures like those learnt from it would be {kept.rate:.0%}. Each is compared with "
        f"{facts['fitted_on']} pictures by the distance of its embedding, and flagged where that is as rare among "
        f"{facts['held_out']} pictures of {facts['held_out_patients']} other patients ({facts['where']})."
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
        figures.precision_recall(unseen.labels, methods, model.finding, patients=unseen.patients),
        f"Precision against recall, on pictures of unseen patients; {SHADED}",
    )
    section.table(
        ["", "average precision"],
        [
            *((name, average_precision(unseen.labels, one, patients=unseen.patients)) for name, one in methods.items()),
            (f"by chance: the share with {model.finding}", over_patients(unseen.labels, unseen.patients)),
        ],
        ours=[0],
        note="Area under precision by recall. By chance it is as high as the finding is frequent: it does not compare "
        "between places where that differs.",
    )
    _calibration(report.section("Calibration, before and after"), model, unseen, ours)
    report.section("Is acting on it worth it?").figure(
        figures.decision_curve(unseen.labels, methods, patients=unseen.patients),
        "Decision curve (Vickers and Elkin, 2006): net benefit, in rightly treated a picture, of treating whoever is "
        "at or above a threshold probability. Above both lines of treating all and none, acting on the model is of "
        f"use. {SHADED.capitalize()}",
    )
    _abstaining(report.section("Referring what is uncertain"), model, unseen, ours)


def _thresholds(section: Section, model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> None:
    assert unseen.labels is not None
    rows = []
    for target in SENSITIVITIES:
        point = operating_point_of(model, Stated(sensitivity=target))
        called = ours.probability >= point.threshold
        there = [
            bootstrap(rate, unseen.labels, called, groups=unseen.patients, samples=SAMPLES)
            for rate in (sensitivity, specificity)
        ]
        rows.append((f"{target:.0%}", point.threshold, *point.over_patients, *there))
    section.table(
        ["stated", "threshold", "held-out sensitivity", "held-out specificity", "unseen sensitivity", "specificity"],
        rows,
        note=f"Each threshold was chosen on {point.positives} held-out positives of {point.patients} patients and "
        f"{point.negatives} negatives; unseen patients judged it. Intervals are over patients, the threshold kept; "
        "where all patients are right or wrong, by their number (Wilson). The threshold for 95% is what this page "
        "calls the 95 % point.",
    )


def _calibration(section: Section, model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> None:
    held = held_out(model)
    p = np.clip(ours.probability, 1e-12, 1 - 1e-12)
    logits = np.log(p / (1 - p)) * ours.decision.temperature
    # Asked again: where ours were adapted, they do not tell what the network itself says.
    raw = model._logits(unseen)
    adapted = not np.allclose(ours.decision.probability(raw), ours.probability, atol=SAME)
    also = "adapted, " if adapted else ""
    stages = {
        "as trained": 1 / (1 + np.exp(-np.clip(raw, -700, 700))),
        f"{also}temperature": ours.probability,
        f"{also}Venn-Abers": venn_abers(held.labels, held.logits, logits).value,
    }
    assert unseen.labels is not None
    section.figure(
        figures.calibration_stages(unseen.labels, stages, model.finding, patients=unseen.patients),
        "Stated probability against frequency, in fifths; bars are 95 % intervals over patients",
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
        note="On pictures of unseen patients; temperature and Venn-Abers probabilities came from held-out ones. The "
        "calibration error counts what chance adds to it; its interval takes that off again, and may reach 0."
        + (" As trained, scores are not adapted." if adapted else ""),
    )


def _brier(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return float(np.mean((y - p) ** 2))


def _abstaining(section: Section, model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> None:
    rows = abstention_rows(model, unseen, ours)
    section.text(
        "Of either class, at most the stated share should be called wrongly; what can be called neither is referred."
    )
    section.figure(
        figures.abstention(rows, model.finding),
        "Share called wrongly and share referred, by stated error rate; bars are 95 % intervals over patients",
    )
    section.table(
        ["stated", f"{model.finding} called free of it", f"free of it called {model.finding}", "referred"],
        [(f"{row.stated:.1%}", *(percent(found) for found in row[1:])) for row in rows],
        note=f"On pictures of unseen patients, none referred for being out of distribution. {_exactness(model)}",
    )
    assert unseen.labels is not None
    sick, healthy = (len(np.unique(unseen.patients[unseen.labels == label])) for label in (1, 0))
    broken = exceeded(rows, sick=sick, healthy=healthy, finding=model.finding)
    if broken:
        section.note(
            f"More were called wrongly than stated ({', '.join(broken)}), and more than the number of patients leaves "
            f"to chance, of {2 * len(rows)} shares looked at: the unseen pictures seem to differ from those the "
            "decisions were chosen on. Choose anew on pictures like these before you rely on it."
        )


def exceeded(rows: Sequence[Referring], *, sick: int, healthy: int, finding: str = PNEUMONIA) -> list[str]:
    """Stated rates that the share of wrong calls is above, in words: by its 95 % interval over patients, and by the
    exact one of as many patients (``sick`` with the finding, ``healthy`` without), because draws of a few patients
    are too sure."""
    return [
        f"{percent(found)} of {name} at a stated {row.stated:.0%}"
        for row in rows
        for found, count, name in ((row.missed, sick, finding), (row.alarmed, healthy, absent(finding)))
        if min(found.low, clopper_pearson(int(found.value * count + 1e-9), count).low) > row.stated
    ]


def abstention_rows(model: PneumoniaModel, unseen: ImageSet, ours: Scored) -> list[Referring]:
    """What each of :data:`ERROR_RATES` gives on labelled pictures of unseen patients."""
    assert unseen.labels is not None
    held = held_out(model)
    p = np.clip(ours.probability, 1e-12, 1 - 1e-12)
    logits, sick = np.log(p / (1 - p)) * ours.decision.temperature, unseen.labels == 1
    rows = []
    for rate in ERROR_RATES:
        called = abstention_of(held, rate).decide(logits).called
        missed, alarmed = (
            over_patients(called == wrong, unseen.patients, among=among) for wrong, among in ((0, sick), (1, ~sick))
        )
        rows.append(Referring(rate, missed, alarmed, over_patients(called == -1, unseen.patients)))
    return rows
