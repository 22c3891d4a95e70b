"""The tracked pretraining on payments, alone or beside the same one with random masks."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from unlabeled.core import fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Budget, Rates, priced
from unlabeled.core.progress import say
from unlabeled.core.report import training_report
from unlabeled.core.training import History, forget
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.history_model import Size
from unlabeled.fraud.readers import Transactions
from unlabeled.fraud.tasks import SETTINGS
from unlabeled.pipelines import _ablation as ablation
from unlabeled.pipelines._collapse import last_healthy

EXPERIMENT = "unlabeled/fraud"


def pretrain(
    detector: FraudDetector,
    known: Transactions,
    *,
    out: Path,
    source: str,
    synthetic: bool = False,
    rates: Rates = AS_FOUND,
    asked: NDArray[np.int8] | None = None,
    name: str | None = None,
    beside_random: bool = False,
    inside: str | None = None,
) -> str:
    """Pretrains and saves the detector in a run of its own, and returns the run's id.

    Args:
        asked: (N,) 1, 0 or -1: labels that are looked at on the way, and never learnt from.
        beside_random: do the same with random masks first, and show both.
        inside: id of the run that this one is shown under.
    """
    ablation.check_folders(out, beside_random=beside_random)
    for part, columns in known.roles.rows():
        say(f"  {part}: {columns}")
    params = {
        "table": source,
        "payments": len(known),
        "seed": detector.random_state,
        **vars(detector.size or Size()),
        **asdict(detector.question),
    }
    with tracking.run(EXPERIMENT, f"pretrain {name or out.name}", params=params, inside=inside) as run:
        run.tags({"data.fingerprint": known.fingerprint()})
        beside = _beside(detector, known, params, out, source, synthetic, rates, asked, run) if beside_random else None
        state = out.with_name(f".{out.name}.training")
        with last_healthy(run, out, detector.save):
            detector.pretrain(known, asked=asked, state=state, log=priced(run.metrics, rates))
        detector.manifest_["run_id"] = run.run_id
        detector.save(out)
        forget(state)
        report = training_report(
            title="Habits of spending, learnt without labels",
            subtitle=source,
            says="The encoder has learnt to foretell payments from the past of their cards and merchants.",
            facts={"payments": len(known), "steps": sum(h.steps for h in detector.history_.values())},
            curves={
                name if curve == "loss" else f"{name}: {curve}": points
                for name, history in detector.history_.items()
                for curve, points in history.curves.items()
                if curve == "loss" or curve.startswith("watch.")
            },
            # As it was learnt: payments that stand alone keep to events whatever was asked for.
            made_of={
                **params,
                **asdict(detector.models_[0].question),
                **dict(known.roles.rows()),
            },
            synthetic=synthetic,
            run_id=run.run_id,
        )
        if beside is not None:
            verdict = "Where frauds are known, 'fraud backtest' with either masking tells which finds more."
            ablation.show(report, run, detector.history_, beside, masking=detector.masking, verdict=verdict)
        run.artifact(report.write(out / "report.html"))
        run.model(out)
    return run.run_id


def costs(detector: FraudDetector, known: Transactions, *, beside_random: bool) -> list[Budget]:
    """What a pretraining would cost, network by network."""
    budgets = list(detector.pretraining_cost(known).values())
    if beside_random:
        others = _with_random_masks(detector).pretraining_cost(known).values()
        budgets += [replace(budget, label=f"{budget.label}, random masks") for budget in others]
    return budgets


def _beside(
    detector: FraudDetector,
    known: Transactions,
    params: Mapping[str, Any],
    out: Path,
    source: str,
    synthetic: bool,
    rates: Rates,
    asked: NDArray[np.int8] | None,
    run: tracking.Run,
) -> ablation.Twin:
    other, folder = _with_random_masks(detector), ablation.folder_beside(out)

    def train() -> tuple[str, Mapping[str, History]]:
        run_id = pretrain(
            other, known, out=folder, source=source, synthetic=synthetic, rates=rates, asked=asked, inside=run.run_id
        )
        return run_id, other.history_

    other_than = {name: value for name, value in params.items() if name not in SETTINGS}
    made_of = {**other_than, **other.question.told(), **dict(known.roles.rows()), "data": known.fingerprint()}
    if asked is not None:
        made_of["looked at"] = fingerprint.of_array(asked)
    return ablation.twin(folder, made_of=made_of, train=train)


def _with_random_masks(detector: FraudDetector) -> FraudDetector:
    other: FraudDetector = clone(detector).set_params(masking="random")
    return other
