"""What the fraud jobs write and say: alerts, scores, the page, and the comparison with the baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core import evaluation, tracking
from unlabeled.core.errors import DataError
from unlabeled.fraud import report as page
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.history_model import Size
from unlabeled.fraud.measures import MEASURES, measure, recall_within_budget
from unlabeled.fraud.readers import Transactions
from unlabeled.pipelines.jobs import Comparison

OURS = "ours"
_REASONS_FOR = 1_000


@dataclass
class Scored:
    """New payments, what was learnt before, and everybody's scores of them."""

    detector: FraudDetector
    past: Transactions
    new: Transactions
    scores: dict[str, NDArray[np.float64]]
    why: Any
    budget: int

    @property
    def alerts(self) -> NDArray[np.int64]:
        """Positions, highest score first."""
        found = self.detector.alerts(self.scores[OURS], self.new, per_day=self.budget)
        return found[np.argsort(-self.scores[OURS][found], kind="stable")]


def verdict(scored: Scored, frauds: int) -> tuple[list[Comparison], str, Literal["good", "bad", "flat"]]:
    """Ours beside each baseline, the sentence about it, and whether it is a gain beyond chance."""
    y, day, new = scored.new.label, scored.new.day, scored.new
    if not (y == 1).any():
        raise DataError("the payments after the cut hold no labelled fraud: nothing to compare; use score instead")
    groups = new.codes("entity") if new.roles.entity else None
    names = [name for name in scored.scores if name != OURS]

    def estimate(name: str) -> evaluation.Estimate:
        return evaluation.bootstrap(
            evaluation.average_precision, y == 1, scored.scores[name], groups=groups, samples=100
        )

    ap = Comparison(metric="average precision", ours=estimate(OURS), baselines={name: estimate(name) for name in names})
    comparisons = [ap]
    for key in ("fp50", "fp80"):
        text, better = MEASURES[key]
        value = {name: measure(y == 1, s)[key] for name, s in scored.scores.items()}
        comparisons.append(_comparison(text, value, higher_is_better=better))
    budget = {name: recall_within_budget(y, s, day, per_day=scored.budget) for name, s in scored.scores.items()}
    comparisons.append(_comparison(f"recall with {scored.budget} alerts a day", budget, higher_is_better=True))
    best, gain = ap.gain()
    paired = evaluation.bootstrap(
        lambda t, a, b: evaluation.average_precision(t, a) - evaluation.average_precision(t, b),
        *(y == 1, scored.scores[OURS], scored.scores[best]),
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


def write(
    scored: Scored,
    out: Path,
    *,
    title: str,
    subtitle: str,
    run: tracking.Run,
    label_note: str,
    synthetic: bool,
    headline: str | None = None,
    tone: str = "plain",
    skips: Transactions | None = None,
) -> tuple[dict[str, Path], dict[str, dict[str, float]]]:
    """alerts.csv, scores.parquet, skipped.csv and report.html; returns them and the measures."""
    out.mkdir(parents=True, exist_ok=True)
    new, alerts = scored.new, scored.alerts
    y = new.label
    reasons = scored.why(alerts[:_REASONS_FOR])
    measures: dict[str, dict[str, float]] = {}
    if (y == 1).any() and (y == 0).any():
        judged = y >= 0
        measures = {name: measure(y[judged] == 1, s[judged]) for name, s in scored.scores.items()}
    found = page.Findings(
        table=new if skips is None else _with_skips(new, skips),
        scores=scored.scores,
        alerts=alerts,
        reasons=reasons,
        per_day=scored.budget,
        measures=measures,
        settings=_settings(scored.detector),
        curves=scored.detector.history_,
        label_note=label_note,
    )
    built = page.build(
        found,
        title=title,
        subtitle=subtitle,
        headline=f"{headline}." if headline else f"{len(alerts):,} alerts among {len(new):,} payments.",
        tone=tone,
        synthetic=synthetic,
        run_id=run.run_id,
    )
    files = {"report": built.write(out / "report.html"), "alerts": out / "alerts.csv", "scores": out / "scores.parquet"}
    _alert_table(scored, alerts, reasons).to_csv(files["alerts"], index=False)
    table = pd.DataFrame({"row_id": new.frame["row_id"], "time": new.time, "score": scored.scores[OURS]})
    table.to_parquet(files["scores"], index=False)
    skipped = write_skipped(skips or new, out / "skipped.csv")
    if skipped:
        files["skipped"] = skipped
    run.artifact(files["report"])
    run.artifact(files["alerts"])
    return files, measures


def _alert_table(scored: Scored, alerts: NDArray[np.int64], reasons: list[str]) -> pd.DataFrame:
    new = scored.new
    columns: dict[str, Any] = {
        "row_id": new.frame["row_id"].to_numpy()[alerts],
        "time": [new.when(t) for t in new.time[alerts]],
        "amount": new.amount[alerts],
        "score": scored.scores[OURS][alerts],
        "why": [*reasons, *[""] * (len(alerts) - len(reasons))],
    }
    for part in ("entity", "counterparty"):
        if part in new.frame:
            columns[part] = new.frame[part].to_numpy()[alerts]
    return pd.DataFrame(columns)


def _with_skips(new: Transactions, source: Transactions) -> Transactions:
    return Transactions(new.roles, new.frame, source.given, source.skipped, source.notes, new.dated)


def _settings(detector: FraudDetector) -> dict[str, Any]:
    size = detector.size or Size()
    return {
        "encoder": f"{size.dim} wide, {size.depth} blocks, {size.heads} heads, {size.length} payments a window",
        "pretraining": f"{size.steps} steps of {size.batch_size} windows, learning rate {size.lr:g}",
        "label delay": f"{detector.label_delay_days:g} days",
        "labelled frauds": detector.manifest_.get("labelled_frauds", 0),
        "labelled genuine payments": detector.manifest_.get("labelled_genuine", 0),
        "known-fraud share of merchants used": detector.plain_.risk,
        "seed": detector.random_state,
    }


def skip_words(payments: Transactions) -> str:
    if not len(payments.skipped):
        return "no row was skipped"
    most = payments.skipped["reason"].value_counts()
    return f"{len(payments.skipped):,} of {payments.given:,} rows were skipped (most: {most.index[0]})"


def write_skipped(payments: Transactions, path: Path) -> Path | None:
    if not len(payments.skipped):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    payments.skipped.to_csv(path, index=False)
    return path


def short(name: str) -> str:
    """A metric name that every store takes."""
    return name.partition(",")[0].replace(" ", "_")
