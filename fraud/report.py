"""The page about one scoring of payments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.report import ALARM, OTHERS, OURS, Report, Verdict, new_figure, plot_curves
from unlabeled.core.training import History
from unlabeled.fraud.measures import MEASURES, recall_within_budget, within_budget
from unlabeled.fraud.readers import Transactions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = Mapping[str, NDArray[np.float64]]
_LIMITS = (
    "A score ranks payments for a person to look at; it proves nothing about anybody.",
    "Labels are used only once their delay has passed. Labels that came from an older system's alarms carry its blind "
    "spots into any model that is trained on them.",
    "A payment is judged by its own past only: cards and merchants with a short history are judged mostly by their "
    "amount.",
    "A probability follows the share of frauds among the labels that taught it: where few genuine payments were "
    "labelled it is too high for everybody, while the order stays right.",
    "Frauds that nobody reported but that are labelled genuine count as false alarms; payments without a label judge "
    "nothing.",
)

_PARTS = {
    "next_event": "next event",
    "masked_field": "masked field",
    "nt_xent": "which runs are one card's or merchant's",
    "order": "out of order or not",
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What there is to tell.

    Attributes:
        table: the scored payments, with labels where known.
        scores: ours first, then the baselines', by name.
        alerts: positions of our alerts, in the order of their scores.
        reasons: in words, one an alert.
        per_day: the alert budget.
        measures: by name of the score, then of the measure; empty without labels.
        settings: what was done, for the table of settings.
        curves: of pretraining, by name.
        label_note: what is compared: how many labels there were, which payments are judged.
        unseen: payments whose labels judge, (N,); those of the time that taught do not.
    """

    table: Transactions
    scores: Scores
    alerts: NDArray[np.int64]
    reasons: Sequence[str]
    per_day: int
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, History] = field(default_factory=dict)
    label_note: str = ""
    unseen: NDArray[np.bool_]


def build(
    findings: Findings,
    *,
    title: str,
    subtitle: str,
    headline: str,
    tone: Any = "plain",
    synthetic: bool,
    run_id: str | None,
) -> Report:
    """The report; sections about labels only where there are any."""
    table, judged = findings.table, bool(findings.measures)
    days = len(np.unique(table.day))
    facts: dict[str, Any] = {"payments scored": len(table), "days": days, "alerts": len(findings.alerts)}
    if judged:
        ours, unseen = next(iter(findings.scores.values())), findings.unseen
        found = recall_within_budget(table.label[unseen], ours[unseen], table.day[unseen], per_day=findings.per_day)
        facts |= {
            "frauds among the unseen": int((table.label[unseen] == 1).sum()),
            f"found with {findings.per_day} alerts a day": f"{found:.0%}",
        }
    report = Report(title, subtitle, Verdict(headline, tone), facts, synthetic=synthetic, run_id=run_id)
    if judged:
        _comparison(report, findings)
    elif findings.label_note:
        report.section("No comparison").text(findings.label_note)
    _alerts(report, findings)
    roles = report.section("What was read")
    roles.table(("part", "columns"), table.roles.rows())
    _skipped(report, table)
    if findings.curves:
        section = report.section("How it learnt")
        # Beside a second task a part's curve is called after both, task.part.
        curves = {
            f"{name}: {_PARTS[part.rpartition('.')[2]]}": points
            for name, history in findings.curves.items()
            for part, points in history.curves.items()
            if part.rpartition(".")[2] in _PARTS
        }
        section.figure(
            plot_curves(curves, ylabel="nats"),
            "Surprise at each field while learning, without labels; of a second task, at each history.",
        )
    section = report.section("Settings and limits")
    section.table(("setting", "value"), list(findings.settings.items()))
    for line in _LIMITS:
        section.note(line)
    return report


def _comparison(report: Report, findings: Findings) -> None:
    section = report.section("Beside the baselines, on the same unseen payments")
    if findings.label_note:
        section.text(findings.label_note)
    y, day = findings.table.label[findings.unseen], findings.table.day[findings.unseen]
    scores = {name: score[findings.unseen] for name, score in findings.scores.items()}
    names = [*(text for text, _ in MEASURES.values()), f"recall with {findings.per_day} alerts a day"]
    rows = []
    for name, measured in findings.measures.items():
        budget = recall_within_budget(y, scores[name], day, per_day=findings.per_day)
        cells = [int(measured[key]) if key.startswith("fp") else measured[key] for key in MEASURES]
        rows.append([name, *cells, budget])
    section.table(("", *names), rows, ours=(0,), note="False alarms: fewer is better; everything else: more is better.")
    known = y >= 0
    ranked = {name: score[known] for name, score in scores.items()}
    section.figure(precision_recall(y[known], ranked), "Precision at each recall: the higher a line, the better.")
    section.figure(
        budget_curve(y, scores, day),
        "Share of alerts that are frauds, and share of frauds that are found, for a daily budget of alerts.",
    )


def _alerts(report: Report, findings: Findings) -> None:
    table = findings.table
    ours = next(iter(findings.scores.values()))
    section = report.section(f"Alerts: the {findings.per_day} highest scores of each day")
    section.figure(
        alerts_over_time(table, findings.alerts, judged=bool(findings.measures)),
        "Alerts a day" + (", frauds among them in orange." if findings.measures else "."),
    )
    rows = []
    for position, reason in list(zip(findings.alerts, findings.reasons, strict=False))[:15]:
        row = [str(table.frame["row_id"].iloc[position]), table.when(table.time[position])]
        if "entity" in table.frame:
            row.append(str(table.frame["entity"].iloc[position]))
        row += [f"{table.amount[position]:,.2f}", f"{ours[position]:.3f}", reason]
        if findings.measures:
            row.append({1: "fraud", 0: "genuine"}.get(int(table.label[position]), "unknown"))
        rows.append(row)
    columns = ["payment", "time", *(["card"] if "entity" in table.frame else []), "amount", "score", "why"]
    section.table(
        [*columns, *(["truth"] if findings.measures else [])],
        rows,
        note="The fifteen highest scores of the whole period; alerts.csv lists every alert, day by day.",
    )


def _skipped(report: Report, table: Transactions) -> None:
    section = report.section("What was left out or put right")
    if not len(table.skipped) and not table.notes:
        section.text("Nothing: every row could be used as it was.")
        return
    for note in table.notes:
        section.text(note)
    if len(table.skipped):
        counts = table.skipped["reason"].value_counts()
        first = table.skipped.groupby("reason")["row"].first().to_dict()
        rows = [(str(reason), int(count), int(first[reason])) for reason, count in counts.items()]
        section.table(("reason", "rows", "first such row"), rows, note="Every skipped row is listed in skipped.csv.")


def precision_recall(y: NDArray, scores: Scores) -> "Figure":
    """One line a score."""
    from sklearn.metrics import precision_recall_curve

    figure, axis = new_figure(width=7.0)
    for (name, score), colour in zip(scores.items(), (OURS, *OTHERS), strict=False):
        precision, recall, _ = precision_recall_curve(y == 1, score)
        axis.plot(recall, precision, color=colour, label=name, lw=2 if colour == OURS else 1.2)
    axis.set(xlabel="share of frauds found", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(frameon=False)
    return figure


def budget_curve(y: NDArray, scores: Scores, day: NDArray) -> "Figure":
    """Precision and recall over alerts a day."""
    budgets = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100]
    figure, axes = new_figure(columns=2)
    for (name, score), colour in zip(scores.items(), (OURS, *OTHERS), strict=False):
        listed = [within_budget(score, day, per_day=budget) for budget in budgets]
        axes[0].plot(budgets, [_share(y[rows & (y >= 0)] == 1) for rows in listed], color=colour, label=name)
        axes[1].plot(budgets, [rows[y == 1].mean() for rows in listed], color=colour)
    axes[0].set(xlabel="alerts a day", ylabel="precision", ylim=(0, 1.02), xscale="log")
    axes[1].set(xlabel="alerts a day", ylabel="share of frauds found", ylim=(0, 1.02), xscale="log")
    axes[0].legend(frameon=False)
    return figure


def _share(found: NDArray[np.bool_]) -> float:
    return float(found.mean()) if len(found) else float("nan")


def alerts_over_time(table: Transactions, alerts: NDArray[np.int64], *, judged: bool) -> "Figure":
    """Bars a day; frauds set off where they are known."""
    day = table.day
    start = int(day.min()) if len(day) else 0
    count = np.bincount(day[alerts] - start, minlength=int(day.max()) - start + 1) if len(alerts) else np.zeros(1)
    figure, axis = new_figure(height=2.4)
    axis.bar(np.arange(len(count)), count, color="#c3ccd4", label="alerts")
    if judged:
        frauds = alerts[table.label[alerts] == 1]
        caught = np.bincount(day[frauds] - start, minlength=len(count))
        axis.bar(np.arange(len(count)), caught, color=ALARM, label="frauds among them")
        axis.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    axis.set(xlabel="day of the scored period", ylabel="alerts")
    return figure
