"""The fraud jobs: from a table of payments to a model, alerts and a report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core import tracking
from unlabeled.core.budget import AS_FOUND, Rates, compare, priced, totals
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.core.report import training_report
from unlabeled.core.training import WORTH_SAYING
from unlabeled.fraud.baselines import baseline_scores
from unlabeled.fraud.cost import finetuning_cost
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.history_model import EVENTS, Size
from unlabeled.fraud.labels import few, known_by
from unlabeled.fraud.readers import DAY, Transactions, joined, parse_time, transactions
from unlabeled.fraud.simulate import simulate
from unlabeled.fraud.tasks import Question
from unlabeled.pipelines import _ablation as ablation
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _fraud_pretraining as pre
from unlabeled.pipelines._fraud_compare import (
    OURS,
    Scored,
    beside_baselines,
    checked,
    plain_scores,
    seen_words,
    short,
    verdict,
    what_judges,
)
from unlabeled.pipelines._fraud_input import before, cut_of, labels_from, read_as, read_payments
from unlabeled.pipelines._fraud_output import skip_words, write, write_skipped
from unlabeled.pipelines._fraud_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Comparison, Outcome, number, percentiles

CURVE = "log_loss_of_the_labels"
_DEMO = Size(dim=48, steps=400, length=48)


def pretrain(
    table: Path,
    *,
    out: Path,
    until: str | None = None,
    roles: Path | None = None,
    steps: int | None = None,
    question: Question = EVENTS,
    learning_rate: float | None = None,
    seed: int = 0,
    labels: Path | None = None,
    beside_random: bool = False,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Learns habits without labels from the payments before ``until`` (all of them by default).

    A few ``labels`` (a CSV with row id and label) are looked at on the way, never learnt from. ``beside_random`` does
    the same with random masks as well. With ``dry_run``, only says what that would cost.
    """
    question.check()
    if beside_random:
        ablation.check(question.masking)
    payments = read_payments(table, roles=roles)
    known = payments if until is None else before(payments, until)
    asked = None if labels is None else labels_from(labels, known)[0]
    size = size_of(steps=steps, lr=learning_rate)
    detector = FraudDetector(roles=known.roles, size=size, **asdict(question), random_state=seed)
    if dry_run:
        return cost.dry_run(
            pre.costs(detector, known, beside_random=beside_random),
            rates=rates,
            reads=f"{len(known):,} payments; {skip_words(payments)}",
            left_out="reading the table, plain features, scales, the report, and learning from labels (fraud finetune)",
        )
    run_id = pre.pretrain(
        detector, known, out=out, source=table.name, rates=rates, asked=asked, beside_random=beside_random
    )
    skipped = write_skipped(payments, out.with_name(out.name + "-skipped.csv"))
    files = {"model": out, "report": out / "report.html", **({"skipped": skipped} if skipped else {})}
    if beside_random:
        files["with random masks"] = ablation.folder_beside(out)
    return Outcome(
        headline=f"Learnt the habits in {len(known):,} payments without labels; {skip_words(payments)}.",
        files=files,
        run_id=run_id,
        details={"payments": len(known), "skipped": len(payments.skipped), "curves": _last(detector)},
    )


def finetune(
    table: Path,
    *,
    model: Path,
    out: Path,
    labels: Path | None = None,
    until: str | None = None,
    n_frauds: int | None = None,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Learns fraud from labels: of the table's label column, or of a CSV with row id and label.

    With ``dry_run``, only says what that would cost.
    """
    detector = FraudDetector.load(model)
    payments = read_as(table, detector.roles_)
    known = payments if until is None else before(payments, until)
    label, left = known.label, None
    if labels is not None:
        label, left = labels_from(labels, known)
    if n_frauds is not None:
        label = few(label, frauds=n_frauds, seed=seed)
    if dry_run:
        return cost.dry_run(
            finetuning_cost(detector, known, label),
            rates=rates,
            reads=f"{int((label >= 0).sum()):,} labels of {len(known):,} payments; {skip_words(payments)}",
            left_out="reading the table, features, the check on later labels (which fits both once more), the report",
        )
    run_id, comparisons, words = _finetuned(detector, known.with_labels(label), out=out, source=table.name, rates=rates)
    written = {"model": out, "report": out / "report.html"}
    if left is not None and len(left):
        written["labels left out"] = out.with_name(out.name + "-labels-left-out.csv")
        left.to_csv(written["labels left out"], index=False)
    frauds, genuine = int((label == 1).sum()), int((label == 0).sum())
    return Outcome(
        headline=f"Learnt from {frauds:,} labelled frauds and {genuine:,} genuine payments. {words} "
        f"{_sentence(skip_words(payments))}",
        comparisons=comparisons,
        files=written,
        run_id=run_id,
        details={"frauds": frauds, "genuine": genuine, "labels_left_out": 0 if left is None else len(left)},
    )


def score(table: Path, *, model: Path, out: Path, budget: int = 100, since: str | None = None) -> Outcome:
    """Scores the payments from ``since`` on (all by default) and lists the highest of each day, with reasons."""
    detector = FraudDetector.load(model)
    payments = read_as(table, detector.roles_)
    start = -np.inf if since is None else parse_time(since, payments)
    past, new = payments.take(payments.time < start), payments.take(payments.time >= start)
    if not len(new):
        raise DataError(f"no payment at or after {since}: the last is at {payments.when(payments.time[-1])}")
    made = detector.manifest_.get("run_id")
    with tracking.run(
        EXPERIMENT,
        f"score {out.name}",
        params={"table": table.name, "payments": len(new), "budget": budget, "model": model.name},
        tags={"data.fingerprint": new.fingerprint()},
        parent=detector.manifest_.get("pretraining_run") or made,
        model=made,
    ) as run:
        ours, why = detector.explained(new, history=past if len(past) else None)
        seen = new.time <= detector.manifest_.get("labelled_until", -np.inf)
        scored = Scored(detector, past, new, {OURS: ours}, why, budget, seen)
        comparisons: list[Comparison] = []
        words, tone = "", "plain"
        if scored.can_judge:
            scored.scores |= plain_scores(detector, past, new)
            comparisons, words, tone = verdict(scored, int(detector.manifest_.get("labelled_frauds", 0)))
        kind = "probability of fraud" if detector.fitted_ is not None else "unsupervised score"
        headline = f"{len(scored.alerts):,} alerts among {len(new):,} payments ({budget} a day, by {kind})"
        headline += f". {words}" if words else ""
        files, measures = write(
            scored,
            out,
            title="Alerts",
            subtitle=f"{len(new):,} payments of {table.name}",
            run=run,
            label_note=what_judges(scored),
            synthetic=False,
            headline=headline,
            tone=tone,
        )
        run.metrics({f"{short(name)}.{key}": v for name, m in measures.items() for key, v in m.items()})
        run.curve("score_percentiles", percentiles(ours))
        run.model(model)
        alerts = len(scored.alerts)
        run.metrics({"alerts": alerts})
        return Outcome(
            headline=f"{headline}; {skip_words(payments)}. {seen_words(scored)}".rstrip(),
            comparisons=comparisons,
            files=files,
            run_id=run.run_id,
            details={"alerts": alerts, "payments": len(new), **measures.get(OURS, {})},
        )


def backtest(
    table: Path,
    *,
    out: Path,
    train_until: str | None = None,
    label_delay: float = 7.0,
    n_frauds: int | None = None,
    budget: int = 100,
    roles: Path | None = None,
    steps: int | None = None,
    question: Question = EVENTS,
    learning_rate: float | None = None,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """How it would have gone: learn before ``train_until``, score what came after, beside the baselines.

    With ``dry_run``, only says what the pretraining would cost.
    """
    question.check()
    payments = read_payments(table, roles=roles)
    cut = cut_of(payments, train_until)
    detector = FraudDetector(
        roles=payments.roles, size=size_of(steps=steps, lr=learning_rate), **asdict(question),
        label_delay_days=label_delay, random_state=seed,
    )  # fmt: skip
    if dry_run:
        past = payments.take(payments.time < cut)
        return cost.dry_run(
            pre.costs(detector, past, beside_random=False),
            rates=rates,
            reads=f"{len(past):,} payments before {payments.when(cut)}; {skip_words(payments)}",
            left_out="reading the table, features, learning from labels (fraud finetune), scoring and the report",
        )
    return _backtest(
        detector, payments, out=out, cut=cut, n_frauds=n_frauds, budget=budget, source=table.name, synthetic=False
    )


def demo(out: Path, *, seed: int = 0) -> Outcome:
    """Simulated card holders and fraudsters, fifty labelled frauds, beside the baselines."""
    payments = transactions(simulate(seed=seed))
    detector = FraudDetector(roles=payments.roles, size=_DEMO, random_state=seed)
    return _backtest(
        detector, payments, out=out, cut=cut_of(payments, None), n_frauds=50, budget=10, source="simulated payments",
        synthetic=True,
    )  # fmt: skip


def _backtest(
    detector: FraudDetector,
    payments: Transactions,
    *,
    out: Path,
    cut: float,
    n_frauds: int | None,
    budget: int,
    source: str,
    synthetic: bool,
) -> Outcome:
    """Teaches ``detector``, which has learnt nothing yet, what was known at ``cut``."""
    label_delay, seed = detector.label_delay_days, detector.random_state
    past, new = payments.take(payments.time < cut), payments.take(payments.time >= cut)
    _check_parts(past, new, payments.when(cut))
    label = known_by(past, cut, delay=label_delay * DAY)
    if n_frauds is not None:
        label = few(label, frauds=n_frauds, seed=seed) if n_frauds else np.full(len(past), -1, dtype=np.int8)
    pretraining = pre.pretrain(
        detector, past, out=out / "pretrained", source=source, synthetic=synthetic, name=f"{out.name}/pretrained"
    )
    frauds, genuine = int((label == 1).sum()), int((label == 0).sum())
    past = past.with_labels(label)
    # With few labels none arrive later either; with all, each counts once its delay has passed.
    unseen = new if n_frauds is None else new.with_labels(np.full(len(new), -1))
    params = {"table": source, "label_delay_days": label_delay, "frauds": frauds, "genuine": genuine, "seed": seed}
    params |= asdict(detector.question)
    with tracking.run(EXPERIMENT, f"backtest {out.name}", params=params, parent=pretraining) as run:
        run.tags({"data.fingerprint": payments.fingerprint(), "split.fingerprint": past.fingerprint()})
        if frauds:
            detector.finetune(past)
            _log_curve(detector, run)
            _log_cost(detector, run, AS_FOUND)
        model = detector.save(out / "model", run_id=run.run_id, pretraining_run=pretraining)
        ours, why = detector.explained(unseen, history=past)
        everything, part = joined([past, unseen])
        others = baseline_scores(
            detector.plain_columns(everything),
            everything.label,
            training=part == 0,
            rows=np.flatnonzero(part == 1),
            seed=seed,
            lightgbm=detector.baseline_,
        )
        note = (
            f"Learnt from {len(past):,} payments before {payments.when(cut)}, of which {frauds:,} were known to be "
            f"fraud and {genuine:,} to be genuine (labels arrive after {label_delay:g} days); "
            f"{len(new):,} later payments were scored."
        )
        scored = Scored(detector, past, new, {OURS: ours, **others}, why, budget)
        comparisons, headline, tone = verdict(scored, frauds)
        files, measures = write(
            scored,
            out,
            title="Fraud: what would have been found",
            subtitle=f"{source}: {len(payments):,} payments",
            run=run,
            label_note=note,
            synthetic=synthetic,
            headline=headline,
            tone=tone,
            skips=payments,
        )
        run.metrics({f"{short(name)}.{key}": v for name, m in measures.items() for key, v in m.items()})
        run.curve("score_percentiles", percentiles(ours))
        run.model(model)
    return Outcome(
        headline=f"{headline}; {skip_words(payments)}." if len(payments.skipped) else f"{headline}.",
        comparisons=comparisons,
        files={**files, "model": model},
        run_id=run.run_id,
        details={"pretraining_run": pretraining, "frauds": frauds, "genuine": genuine},
    )


def _finetuned(
    detector: FraudDetector, known: Transactions, *, out: Path, source: str, rates: Rates
) -> tuple[str, list[Comparison], str]:
    """The run, and how the later labels were ranked by what the earlier ones taught, beside the baselines."""
    pretraining = detector.manifest_.get("pretraining_run") or detector.manifest_.get("run_id")
    frauds, genuine = int((known.label == 1).sum()), int((known.label == 0).sum())
    params = {"table": source, "frauds": frauds, "genuine": genuine}
    with tracking.run(EXPERIMENT, f"finetune {out.name}", params=params, parent=pretraining) as run:
        run.tags({"data.fingerprint": known.fingerprint()})
        detector.finetune(known)
        _log_curve(detector, run)
        _log_cost(detector, run, rates)
        comparisons, words = checked(detector, known)
        run.metrics({"labelled_frauds": frauds, "labelled_genuine": genuine})
        detector.manifest_ |= {"run_id": run.run_id, "pretraining_run": pretraining}
        detector.save(out)
        assert detector.fitted_ is not None
        gain = detector.fitted_.gain()
        report = training_report(
            title="Fraud detector, fine-tuned on labels",
            subtitle=source,
            says=words,
            facts={"labelled frauds": frauds, "labelled genuine": genuine, "payments": len(known)},
            curves={CURVE: detector.fitted_.curve_},
            made_of=params,
            synthetic=False,
            run_id=run.run_id,
        )
        if comparisons:
            beside_baselines(report, comparisons)
        leading = sorted(zip(detector.feature_names_, gain, strict=True), key=lambda pair: -pair[1])[:15]
        report.section("What it leans on").table(
            ["column", "share of the gain, %"], [[name, f"{100 * g / max(sum(gain), 1e-9):.1f}"] for name, g in leading]
        )
        run.artifact(report.write(out / "report.html"))
        run.metrics({f"check.{short(n)}": number(v) for c in comparisons[:1] for n, v in c.everything().items()})
        run.model(out)
    return run.run_id, comparisons, words


def _log_curve(detector: FraudDetector, run: tracking.Run) -> None:
    """How LightGBM came to fit the labels, tree by tree."""
    assert detector.fitted_ is not None
    for trees, value in detector.fitted_.curve_:
        run.metrics({CURVE: value}, trees)


def _log_cost(detector: FraudDetector, run: tracking.Run, rates: Rates) -> None:
    """What the trees were foretold to cost, and did: ours, and those of the comparison."""
    assert detector.fitted_ is not None
    assert detector.baseline_ is not None
    costs = {"": detector.fitted_.cost_, "comparison ": detector.baseline_.cost_}
    log = priced(run.metrics, rates)
    for front, cost_ in costs.items():
        assert cost_ is not None
        predicted, spent = cost_
        compared = compare(predicted, spent)
        numbers = {**predicted.metrics(), **spent.metrics(), "budget.error": compared.error}
        log({f"{front}{name}": value for name, value in numbers.items()}, spent.steps)
        if spent.seconds >= WORTH_SAYING:
            say(compared.line)
    log(totals(*zip(*filter(None, costs.values()), strict=True)), 0)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _check_parts(past: Transactions, new: Transactions, cut: str) -> None:
    if not len(past) or not len(new):
        raise DataError(f"a backtest needs payments before and after {cut}, got {len(past)} and {len(new)}")
    if not (new.label == 1).any():
        raise DataError(f"a backtest needs labelled frauds after {cut}, and there are none: use score instead")


def size_of(**given: Any) -> Size | None:
    """What was asked for, and the usual for what was not."""
    asked = {name: value for name, value in given.items() if value is not None}
    return Size(**asked) if asked else None


def _last(detector: FraudDetector) -> dict[str, float]:
    return {name: history.curves["loss"][-1][1] for name, history in detector.history_.items()}
