"""Whose scores stand beside ours, on which payments, and what is said about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import evaluation
from unlabeled.core.errors import DataError
from unlabeled.core.report import Report, Section
from unlabeled.fraud.baselines import baseline_scores
from unlabeled.fraud.check import forward_check
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.features import stacked
from unlabeled.fraud.measures import MEASURES, measure, recall_within_budget
from unlabeled.fraud.readers import Transactions, joined
from unlabeled.pipelines.jobs import Comparison, number

OURS = "ours"


@dataclass
class Scored:
    """New payments, what was learnt before, and everybody's scores of them.

    Attributes:
        why: gives the reasons of payments at some positions.
        budget: alerts a day.
        seen: payments that lie in the time of the labels that the model learnt from, so that their own labels
            judge nothing; empty for none.
    """

    detector: FraudDetector
    past: Transactions
    new: Transactions
    scores: dict[str, NDArray[np.float64]]
    why: Any
    budget: int
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Payments whose labels may judge: those after the last label that the model learnt from."""
        return ~self.seen if len(self.seen) else np.ones(len(self.new), dtype=bool)

    @property
    def can_judge(self) -> bool:
        label = self.new.label[self.unseen]
        return bool((label == 1).any() and (label == 0).any())

    @property
    def alerts(self) -> NDArray[np.int64]:
        """Positions, highest score first."""
        found = self.detector.alerts(self.scores[OURS], self.new, per_day=self.budget)
        return found[np.argsort(-self.scores[OURS][found], kind="stable")]


def verdict(scored: Scored, frauds: int) -> tuple[list[Comparison], str, Literal["good", "bad", "flat"]]:
    """Ours beside each baseline, the sentence about it, and whether it is a gain beyond chance."""
    known = scored.unseen & (scored.new.label >= 0)
    judged = scored.new.take(known)
    y = judged.label
    scores = {name: score[known] for name, score in scored.scores.items()}
    if not (y == 1).any():
        raise DataError("the payments after the cut hold no labelled fraud: nothing to compare; use score instead")
    groups = judged.codes("entity") if judged.roles.entity else None
    names = [name for name in scores if name != OURS]

    def estimate(name: str) -> evaluation.Estimate:
        return evaluation.bootstrap(evaluation.average_precision, y == 1, scores[name], groups=groups, samples=100)

    ap = Comparison(metric="average precision", ours=estimate(OURS), baselines={name: estimate(name) for name in names})
    comparisons = [ap]
    for key in ("fp50", "fp80"):
        text, better = MEASURES[key]
        value = {name: measure(y == 1, s)[key] for name, s in scores.items()}
        comparisons.append(_comparison(text, value, higher_is_better=better))
    unseen = scored.unseen  # a day's list holds payments of unknown label too
    label, day = scored.new.label[unseen], scored.new.day[unseen]
    budget = {
        name: recall_within_budget(label, score[unseen], day, per_day=scored.budget)
        for name, score in scored.scores.items()
    }
    comparisons.append(_comparison(f"recall with {scored.budget} alerts a day", budget, higher_is_better=True))
    best, gain = ap.gain()
    paired = evaluation.bootstrap(
        lambda t, a, b: evaluation.average_precision(t, a) - evaluation.average_precision(t, b),
        *(y == 1, scores[OURS], scores[best]),
        groups=groups,
        samples=100,
    )
    with_labels = f"With {frauds:,} labelled frauds" if frauds else "Without any label"
    ours_ap = ap.ours.value if isinstance(ap.ours, evaluation.Estimate) else ap.ours
    words = f"average precision {ours_ap:.3f} against {ours_ap - gain:.3f} of the best baseline ({best})"
    if paired.low > 0:
        return comparisons, f"{with_labels}, a gain: {words}", "good"
    if paired.high < 0:
        return comparisons, f"{with_labels}, worse than the baseline: {words}", "bad"
    return comparisons, f"{with_labels}, no clear difference: {words}", "flat"


def _comparison(metric: str, value: Mapping[str, float], *, higher_is_better: bool) -> Comparison:
    others = {name: float(v) for name, v in value.items() if name != OURS}
    return Comparison(metric=metric, ours=float(value[OURS]), baselines=others, higher_is_better=higher_is_better)


def checked(detector: FraudDetector, known: Transactions) -> tuple[list[Comparison], str]:
    """Earlier labels teach a copy, later ones judge it."""
    check = forward_check(detector, known)
    if check is None:
        return [], "Too few labels to hold any back for a check: unlabeled fraud backtest compares with the baselines."
    nobody = np.zeros(0, dtype=np.int64)
    scored = Scored(detector, known.take(nobody), check.late, check.scores, None, budget=1)
    comparisons, words, _ = verdict(scored, check.early_frauds)
    late = check.late.label
    return (
        [c for c in comparisons if "alerts a day" not in c.metric],
        f"Check on the later labels ({int((late == 1).sum())} frauds, {int((late == 0).sum())} genuine), "
        f"learnt from the earlier ones: {words[0].lower()}{words[1:]}.",
    )


def plain_scores(detector: FraudDetector, past: Transactions, new: Transactions) -> dict[str, NDArray[np.float64]]:
    """The baselines' scores of new payments: LightGBM as it was fitted beside the model, and those without labels."""
    unlabelled = [part.with_labels(np.full(len(part), -1)) for part in (past, new) if len(part)]
    everything, part = joined(unlabelled)
    rows = np.flatnonzero(part == len(unlabelled) - 1)
    columns = detector.plain_columns(everything)
    before = part < len(unlabelled) - 1
    others = baseline_scores(
        columns, everything.label, training=before if before.any() else ~before, rows=rows, seed=detector.random_state
    )
    if detector.baseline_ is None:
        return others
    return {"LightGBM, same labels": detector.baseline_.score(stacked(columns, rows)), **others}


def what_judges(scored: Scored) -> str:
    if not (scored.new.label >= 0).any():
        return ""
    seen = seen_words(scored)
    if not scored.can_judge:
        return f"{seen} No fraud and genuine payment that the model has not learnt from is labelled here.".strip()
    isolation = "the payments before" if len(scored.past) else "the scored payments themselves"
    return (
        f"{seen} LightGBM was fitted beside the model, on the same labels; the isolation forest has learnt from "
        f"{isolation}, without labels."
    ).strip()


def seen_words(scored: Scored) -> str:
    """Says when scored payments lie in the time that taught."""
    count = int(scored.seen.sum())
    if not count:
        return ""
    last = scored.new.when(scored.detector.manifest_["labelled_until"])
    return (
        f"{count:,} of them are not later than the last label that the model learnt from ({last}): they are scored, "
        "but their labels judge nothing."
    )


def beside_baselines(report: Report, comparisons: list[Comparison]) -> None:
    """On top of the page: one row a score, one column a measure."""
    names = list(comparisons[0].everything())

    def cell(value: float, better_when_higher: bool) -> float | int:
        return value if better_when_higher else int(value)  # the others are counts of false alarms

    rows = [[name, *(cell(number(c.everything()[name]), c.higher_is_better) for c in comparisons)] for name in names]
    section = Section("Beside the baselines, on later labelled payments")
    report.sections.insert(0, section)
    section.table(
        ["", *(c.metric for c in comparisons)],
        rows,
        ours=(0,),
        note="The earlier labels taught, the later ones judge. The labelled payments only, so that precision is not "
        "that of all payments; the encoder may have read the later payments, without labels.",
    )


def short(name: str) -> str:
    """A metric name that every store takes."""
    return name.partition(",")[0].replace(" ", "_")
