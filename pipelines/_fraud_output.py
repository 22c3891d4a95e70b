"""What the fraud jobs write: alerts, scores, skipped rows and the page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core import tracking
from unlabeled.fraud import report as page
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.history_model import Size
from unlabeled.fraud.measures import measure
from unlabeled.fraud.readers import DAY, Transactions
from unlabeled.pipelines._fraud_compare import OURS, Scored

_REASONS_FOR = 1_000


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
    reasons = scored.why(alerts[:_REASONS_FOR])
    measures: dict[str, dict[str, float]] = {}
    if scored.can_judge:
        y, judged = new.label, scored.unseen & (new.label >= 0)
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
        unseen=scored.unseen,
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
    """Day by day, the highest score of each day first; ``alerts`` and their reasons come by score."""
    new = scored.new
    day = new.day[alerts]
    columns: dict[str, Any] = {
        "day": [new.when(d * DAY).removesuffix(" 00:00:00") for d in day],
        "rank": pd.Series(day).groupby(day).cumcount().to_numpy() + 1,
        "row_id": new.frame["row_id"].to_numpy()[alerts],
        "time": [new.when(t) for t in new.time[alerts]],
        "amount": new.amount[alerts],
        "score": scored.scores[OURS][alerts].round(6),
        "why": [*reasons, *[""] * (len(alerts) - len(reasons))],
    }
    for part in ("entity", "counterparty"):
        if part in new.frame:
            columns[part] = new.frame[part].to_numpy()[alerts]
    return pd.DataFrame(columns).iloc[np.argsort(day, kind="stable")]


def _with_skips(new: Transactions, source: Transactions) -> Transactions:
    return Transactions(new.roles, new.frame, source.given, source.skipped, source.notes, new.dated)


def _settings(detector: FraudDetector) -> dict[str, Any]:
    size = detector.size or Size()
    return {
        "encoder": f"{size.dim} wide, {size.depth} blocks, {size.heads} heads, {size.length} payments a window",
        "pretraining": f"{size.steps} steps of {size.batch_size} windows, learning rate {size.lr:g}",
        "pretraining task": detector.models_[0].question.task,
        "masking": detector.models_[0].question.masking,
        "label delay": f"{detector.label_delay_days:g} days",
        "labelled frauds": detector.manifest_.get("labelled_frauds", 0),
        "labelled genuine payments": detector.manifest_.get("labelled_genuine", 0),
        "known-fraud share of merchants used": detector.plain_.risk,
        "seed": detector.random_state,
    }


def skip_words(payments: Transactions) -> str:
    if not len(payments.skipped):
        return "no row was skipped"
    counts = payments.skipped["reason"].value_counts()
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in counts.items())
    return f"{len(payments.skipped):,} of {payments.given:,} rows were skipped: {reasons}"


def write_skipped(payments: Transactions, path: Path) -> Path | None:
    if not len(payments.skipped):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    payments.skipped.to_csv(path, index=False)
    return path
